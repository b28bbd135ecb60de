"""The steps of a turn, each done once: what a step writes takes its name when it is whole, then the ledger records it.

OUT/turns.json           the ledger (results/loop.py)
OUT/turn-001/collection/ the frames that were selected, with the model's class maps
OUT/turn-001/export/     the same for the labeling tool
OUT/turn-001/labels*     where the corrected labels are put: a folder, or labels.zip, labels.json ...
OUT/turn-001/labeled/    what was imported of them; label-import.json, check.json
OUT/turn-001/dataset/    the dataset so far (links) and the new frames; new/: the held-out ones alone
OUT/turn-001/train/      student.pt and its resume state
OUT/turn-001/bundle/NAME the new bundle; gate-old.json, gate-new.json
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bundle import MANIFEST, Bundle
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import PARITY_FRAMES, AccuracyLoss, compile_model, golden_frames, held_out, spec_of
from edgeseg.data.checking import check_dataset
from edgeseg.data.dataset import Classes, Dataset, open_files, read_classes
from edgeseg.data.exporting import export_dataset
from edgeseg.data.labelmap import IGNORE
from edgeseg.errors import FileError, OptionError
from edgeseg.evaluation import gate
from edgeseg.files import replacing, require_file, sha256, write_bytes
from edgeseg.images import read_mask, write_image
from edgeseg.labeling.choosing import Candidate, candidates, choose
from edgeseg.labeling.importing import import_labels
from edgeseg.loop.settings import LoopSettings
from edgeseg.recipe import PTQ, Recipe
from edgeseg.results.loop import LoopTurn
from edgeseg.results.stage import StageResult
from edgeseg.target import Target

SOURCES = "sources.json"  # of a collection: where each of its frames came from
Log = Callable[[str], None]


class Waiting(Exception):
    """The turn cannot go on yet; why, and what to do."""


class Refused(Exception):
    """The new model may not be deployed; why."""


@dataclass(frozen=True)
class Done:
    """What a step says of itself for the ledger."""

    digests: dict[str, str] = field(default_factory=dict)
    figures: dict[str, int | float | str | None] = field(default_factory=dict)


def folder_of(settings: LoopSettings, number: int) -> Path:
    return settings.path(settings.out) / f"turn-{number:03d}"


class Turn:
    """A turn with what it starts from. `earlier`: the turns before it, all finished."""

    def __init__(self, settings: LoopSettings, number: int, earlier: tuple[LoopTurn, ...], log: Log):
        self.settings, self.number, self.log = settings, number, log
        self.folder = folder_of(settings, number)
        self.earlier = earlier
        self.deployed = settings.path(settings.deployed)
        self.kept = self.deployed.with_name(f"{self.deployed.name}.before-turn-{number:03d}")
        self.bundle = self.folder / "bundle" / self.deployed.name
        labeled = [turn.number for turn in earlier if turn.step("dataset")]
        promoted = [turn.number for turn in earlier if turn.state == "promoted"]
        self.data = folder_of(settings, labeled[-1]) / "dataset" if labeled else settings.path(settings.data)
        self.checkpoint = (
            folder_of(settings, promoted[-1]) / "train" / "student.pt"
            if promoted
            else settings.path(settings.checkpoint)
        )
        self.steps: dict[str, Callable[[], Done]] = {
            "select": self._select,
            "export": self._export,
            "import": self._import,
            "dataset": self._dataset,
            "train": self._train,
            "compile": self._compile,
            "gate": self._gate,
            "promote": self._promote,
        }

    def check(self) -> None:
        """Report what is missing or does not fit before hours of work: FileError, BundleError or OptionError."""
        deployed, recipe = Bundle.load(self.deployed), self._recipe()
        require_file(self.checkpoint, "Checkpoint")
        size = (deployed.spec.height, deployed.spec.width)
        if recipe.data.size != size:
            raise OptionError(
                f"The recipe's data.size is {list(recipe.data.size)}, {self.deployed} has {list(size)}.",
                "Name the recipe that the deployed bundle comes from.",
            )
        for split in ("train", "val", "test"):
            _same_classes(Dataset.open(self.data, split).classes, deployed, self.data)

    def clean(self) -> None:
        """Remove what a run that was killed left half-written."""
        for folder in (self.folder, self.bundle.parent):
            for path in folder.glob(".*.tmp"):
                shutil.rmtree(path, ignore_errors=True)

    def promoting(self) -> bool:
        """Whether the promotion of this turn has begun: the deployed bundle was moved."""
        return os.path.lexists(self.kept)

    def _recipe(self) -> Recipe:
        recipe = Recipe.load(self.settings.path(self.settings.recipe))
        return dataclasses.replace(recipe, folder=recipe.folder.absolute())

    def _select(self) -> Done:
        """Copy the frames to label, so that nothing that is collected or removed later changes the turn."""
        settings, deployed = self.settings, Bundle.load(self.deployed)
        collections = [settings.path(name) for name in settings.collected]
        for root in collections:
            if (root / "classes.txt").is_file():
                _same_classes(read_classes(root / "classes.txt"), deployed, root)
        found = candidates(collections, self._taken())
        if len(found) < settings.frames:
            raise Waiting(f"{len(found)} of {settings.frames} new frames are collected; wait, or lower frames.")
        seed = settings.seed + self.number
        chosen = choose(found, settings.frames, len(deployed.spec.classes), settings.select, seed)
        target = self.folder / "collection"
        with replacing(target, "classes.txt") as work:
            sources = self._copy(chosen, work)
            if len(sources) < 2:
                raise FileError("The selected frames were removed meanwhile.", "Run it again.")
            classes = Classes(deployed.spec.classes, deployed.spec.palette, IGNORE)
            write_bytes(work / "classes.txt", classes.text().encode())
            write_bytes(work / SOURCES, (json.dumps(sources, indent=1) + "\n").encode())
        digest = Dataset.open(target, "train").digest()
        worth = float(np.mean([candidate.worth for candidate in chosen]))
        return Done(
            {"collection": digest, "deployed": deployed.digest},
            {"frames": len(sources), "candidates": len(found), "select": settings.select, "worth": round(worth, 4)},
        )

    def _taken(self) -> set[Path]:
        """The frames that earlier turns took."""
        taken: set[Path] = set()
        for turn in self.earlier:
            with suppress(OSError, ValueError):  # a turn that was cleared away
                path = folder_of(self.settings, turn.number) / "collection" / SOURCES
                taken |= {Path(source) for source in json.loads(path.read_text()).values()}
        return taken

    def _copy(self, chosen: list[Candidate], work: Path) -> dict[str, str]:
        """Frame name -> where it came from, without those that were removed meanwhile."""
        images, masks = work / "train" / "images", work / "train" / "masks"
        images.mkdir(parents=True)
        masks.mkdir()
        sources: dict[str, str] = {}
        for candidate in chosen:
            name, number = candidate.image.stem, 1
            while name in sources:  # of another collection
                number += 1
                name = f"{candidate.image.stem}-{number}"
            try:
                mask = read_mask(candidate.mask)
                if candidate.ignore is not None:
                    mask = np.where(mask == candidate.ignore, np.uint8(IGNORE), mask)
                write_image(masks / f"{name}.png", mask)
                shutil.copyfile(candidate.image, images / f"{name}{candidate.image.suffix.lower()}")
            except (FileNotFoundError, FileError):
                if candidate.image.is_file() and candidate.mask.is_file():
                    raise
                self.log(f"{candidate.image.name} was removed meanwhile")
                with suppress(FileNotFoundError):
                    (masks / f"{name}.png").unlink()
                continue
            sources[name] = str(candidate.image.resolve())
        return sources

    def _export(self) -> Done:
        target = self.folder / "export"
        shutil.rmtree(target, ignore_errors=True)  # of a run that ended before this was recorded
        result = export_dataset(self.folder / "collection", self.settings.format, target)
        return Done({}, {"frames": result.frames, "format": result.format})

    def _import(self) -> Done:
        source, selected = self._labels(), len(Dataset.open(self.folder / "collection", "train"))
        result = import_labels(source, self.folder / "collection", self.folder / "labeled")
        result.save(self.folder / "label-import.json")
        share = self.settings.least_labeled
        if result.frames < share * selected:
            state = f"Labels of {result.frames} of {selected} frames are in {source}"
            rest = f"at least {share:.0%} are expected (least_labeled). Put the others there, and run it again."
            if result.problems:
                first = result.problems[0]
                raise FileError(f"{state}, {len(result.problems)} do not fit: {first.frame}: {first.what}", rest)
            raise Waiting(f"{state}; {rest}")
        for problem in result.problems:
            self.log(f"left out {problem.frame}: {problem.what}")
        checked = check_dataset(self.folder / "labeled")
        checked.save(self.folder / "check.json")
        if checked.errors:
            worst = checked.errors[0]
            raise FileError(
                f"The labels in {source} have {len(checked.errors)} errors: {worst.file}: {worst.what}",
                f"All of them are in {self.folder / 'check.json'}. Correct the labels, and run it again.",
            )
        agreement = result.disagreement.agreement
        figures = {"frames": result.frames, "left_out": len(result.problems), "missing": len(result.missing)}
        digest = Dataset.open(self.folder / "labeled", "train").digest()
        return Done({"labeled": digest}, {**figures, "agreement": agreement, "warnings": len(checked.warnings)})

    def _labels(self) -> Path:
        folder = self.folder / "labels"
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            return folder
        files = sorted(path for path in self.folder.glob("labels.*") if path.is_file())
        if files:
            return files[0]
        raise Waiting(
            f"Correct the labels in {self.folder / 'export'} ({self.settings.format}), put them at {folder} (a folder) "
            f"or {folder}.zip, and run it again."
        )

    def _dataset(self) -> Done:
        """The dataset so far as links, and copies of the new frames, some of them held out for the test split."""
        labeled = Dataset.open(self.folder / "labeled", "train")
        if len(labeled) < 2:
            raise FileError("One labeled frame is too few: some are trained, some are tested.", "Label more.")
        count = min(len(labeled) - 1, max(1, round(self.settings.held_out * len(labeled))))
        # Neighbors in time look alike: a run of them is held out, not single ones, which their neighbors would tell.
        start = int(np.random.default_rng(self.settings.seed + self.number).integers(len(labeled) - count + 1))
        parts = open_files(self.data, "loop")
        old = parts[0].classes
        classes = dataclasses.replace(old, ignore_index=IGNORE if old.ignore_index is None else old.ignore_index)
        for name in ("dataset", "new"):
            with replacing(self.folder / name, "classes.txt") as work:
                write_bytes(work / "classes.txt", classes.text().encode())
                for part in parts if name == "dataset" else ():
                    _link(part, work)
                for index, image in enumerate(labeled.images):
                    split = "test" if start <= index < start + count else "train"
                    if name == "dataset" or split == "test":
                        mask = labeled.mask(index)
                        mask = np.where(mask == IGNORE, np.uint8(classes.ignore_index or 0), mask)
                        _add(image, mask, work / split, f"turn-{self.number:03d}-{image.stem}")
        made = {split: Dataset.open(self.folder / "dataset", split) for split in ("train", "val", "test")}
        digests = {split: part.digest() for split, part in made.items()}
        digests["new"] = Dataset.open(self.folder / "new", "test").digest()
        return Done(digests, {**{split: len(part) for split, part in made.items()}, "new_test": count})

    def _train(self) -> Done:
        from edgeseg.training import stages  # torch

        recipe = self._recipe()
        student = dataclasses.replace(recipe.student, init=str(self.checkpoint.absolute()))
        recipe = dataclasses.replace(recipe, student=student)
        path = stages.train_student(recipe, self.folder / "dataset", self.folder / "train")
        result = StageResult.load(path.with_suffix(".json"))
        digests = {"checkpoint": sha256(path), "start": sha256(self.checkpoint)}
        return Done(digests, {"val_miou": result.val_miou, "seconds": result.seconds})

    def _compile(self) -> Done:
        from edgeseg.training import stages  # torch

        recipe, deployed = self._recipe(), Bundle.load(self.deployed)
        model, dataset = self.folder / "model.onnx", self.folder / "dataset"
        stages.export_onnx(self.folder / "train" / "student.pt", model)
        spec, _ = spec_of(model, {})
        int8 = deployed.precision.is_int8
        chosen = CalibrationSet.choose(dataset, recipe.quantize.frames, recipe.seed) if int8 else None
        old = Dataset.open(self.data, "test")
        self.bundle.parent.mkdir(parents=True, exist_ok=True)
        try:
            new = compile_model(
                model,
                self.bundle,
                Target.load(deployed.target),
                deployed.precision,
                spec=spec,
                # Of the old test split: the first are stored as golden frames, and collected ones may show people.
                frames=[old[i][0] for i in range(min(PARITY_FRAMES, len(old)))],
                calibration=chosen,
                ptq=recipe.quantize if chosen else PTQ(),
                choosing=held_out(chosen, spec) if chosen else (),
                dataset=Dataset.open(dataset, "test"),
                golden=golden_frames(recipe.targets.golden, spec, recipe.folder),
                recipe=recipe.to_dict(),
                trained_on=dataset,
                log=self.log,
            )
        except AccuracyLoss as error:
            raise Refused(error.what) from error
        metrics = new.manifest.metrics
        figures = {"target": new.target, "precision": new.precision.value, "miou": metrics.miou if metrics else None}
        return Done({"bundle": new.digest}, figures)

    def _gate(self) -> Done:
        """The new bundle against the deployed one, on the old test split and on the new frames that nobody trained."""
        settings = self.settings
        digests: dict[str, str] = {}
        figures: dict[str, int | float | str | None] = {}
        sides = (("old", self.data, settings.max_drop), ("new", self.folder / "new", -settings.min_gain))
        for name, root, limit in sides:
            dataset = Dataset.open(root, "test")
            before, after = gate.measure(self.deployed, dataset), gate.measure(self.bundle, dataset)
            checks = gate.check_accuracy(after, before, gate.Limits(max_drop=limit, max_gain=None))
            result = gate.result_of(after, before, checks)
            result.save(self.folder / f"gate-{name}.json")
            digests |= {"deployed": before.digest, "bundle": after.digest}
            drop = checks[0]
            figures |= {name: result.verdict, f"{name}_frames": len(dataset), f"{name}_drop": drop.value}
            figures |= {f"{name}_low": drop.low, f"{name}_high": drop.high, f"{name}_text": drop.text}
        return Done(digests, figures)

    def verdict(self, figures: dict[str, Any]) -> None:
        """Refused, by what the gate found."""
        allowed = ("pass", "undecided") if self.settings.undecided == "promote" else ("pass",)
        bad = [f"{name} frames: {figures[name]}: {figures[f'{name}_text']}" for name in ("old", "new")
               if figures[name] not in allowed]  # fmt: skip
        if bad:
            raise Refused("; ".join(bad))

    def _promote(self) -> Done:
        """Put the new bundle in the deployed one's place, which stays beside it. Two renames; a run that ends between
        them is completed by the next."""
        staged = self.deployed.with_name(f".{self.deployed.name}.turn-{self.number:03d}")
        if not self.promoting():
            if Bundle.load(self.deployed).signature is not None:
                self.log("the deployed bundle was signed; sign the new one: edgeseg sign")
            with replacing(staged, MANIFEST) as work:
                shutil.copytree(self.bundle, work, dirs_exist_ok=True)
            self.deployed.rename(self.kept)
        if not self.deployed.exists():
            staged.rename(self.deployed)
        shutil.rmtree(staged, ignore_errors=True)
        new, expected = Bundle.load(self.deployed), Bundle.load(self.bundle)
        if new.digest != expected.digest:
            raise FileError(f"{self.deployed} is not the bundle of this turn.", f"It is in {self.bundle}.")
        return Done({"deployed": new.digest}, {"deployed": str(self.deployed), "before": str(self.kept)})


def _same_classes(found: Classes, deployed: Bundle, root: Path) -> None:
    if found.names != deployed.spec.classes:
        raise OptionError(
            f"{root} has the classes {', '.join(found.names)}; the bundle {deployed.name} has "
            f"{', '.join(deployed.spec.classes)}.",
            "A turn keeps the classes: name data and a bundle of the same.",
        )


def _link(part: Dataset, work: Path) -> None:
    """Links to every file of a split; to the files themselves, not to the links of an earlier turn."""
    for kind, names in (("images", None), ("masks", ".png"), ("instances", ".png")):
        for image in part.images:
            source = image if names is None else part.root / part.split / kind / f"{image.stem}{names}"
            place = work / part.split / kind / source.name
            if source.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(source.resolve())
            elif kind != "instances":
                raise FileError(f"{source} was removed meanwhile.", "Restore it, and run it again.")


def _add(image: Path, mask: Any, folder: Path, name: str) -> None:
    place = folder / "images" / f"{name}{image.suffix}"
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, place)
    write_image(folder / "masks" / f"{name}.png", mask)

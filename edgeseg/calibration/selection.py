"""Choosing calibration frames with care: none that is judged on, and those that cover all the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.calibration import coverage
from edgeseg.calibration.coverage import Views
from edgeseg.calibration.frames import CalibrationSet, enough
from edgeseg.calibration.leaks import SAME, SIGNS, Judged, Leak
from edgeseg.data.dataset import Dataset
from edgeseg.errors import OptionError
from edgeseg.images import list_images
from edgeseg.spec import Spec

SHOWN = 3  # leaks named in an error
MIXED, STRETCHED = 1.05, 1.1  # ratios of width to height may differ by this factor unremarked
Log = Callable[[str], None]


@dataclass(frozen=True)
class Selection:
    """`views` of all frames that may be used, the indices `taken` in order, what the manifest says about them, and
    `notes` for whoever chose the source."""

    views: Views
    taken: tuple[int, ...]
    about: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def calibration(self) -> CalibrationSet:
        return calibration_of(self.views, self.taken)


def calibration_of(views: Views, taken: Sequence[int]) -> CalibrationSet:
    return CalibrationSet(tuple(views.files[i] for i in taken), tuple(views.hashes[i] for i in taken))


def select(
    source: Path,
    count: int,
    seed: int = 0,
    *,
    against: Sequence[Path] = (),
    judged: Dataset | None = None,
    skip_leaks: bool = False,
    model: tuple[Path, Spec, str] | None = None,
    log: Log = lambda text: None,
) -> Selection:
    """`count` frames of a folder of images, or of the train split of a dataset, that cover all of its frames.

    They are compared by light and picture, by classes where there are masks, and with a `model` (ONNX file, Spec, which
    output) by its answers. Refused with OptionError: fewer than 8 different frames, and frames that show the same as
    one of `judged` or of `against` (folders of images; of datasets val and test, and so for `source` itself), unless
    `skip_leaks` leaves them out.
    """
    if source.is_file():
        raise OptionError(f"{source} is a file.", "Give a folder of images or a dataset to choose from.")
    dataset = Dataset.open(source, "train") if _is_dataset(source) else None
    names = dataset.classes.names if dataset else model[1].classes if model else ()
    shares = (lambda i: coverage.class_shares(dataset.mask(i), len(names))) if dataset else None
    files = dataset.images if dataset else tuple(list_images(source))
    views = coverage.look(files, shares, _progress(log, source))
    enough(source, len(views))
    sets = [*([source] if dataset else []), *against]
    views, checked = _checked(source, views, _judged(sets, judged, log), skip_leaks)
    enough(source, len(views))
    if model:
        views.groups.update(coverage.seen_by(*model, views.files, _progress(log, model[0])))
    taken = coverage.spread(coverage.points(views.groups), count, seed)
    about = {
        "chosen": {"method": "greedy k-center", "seed": seed, "of_frames": len(views)},
        "coverage": coverage.summary(views, taken, names),
        "checked_against": checked,
        "sizes": _sizes(views.take(taken)),
    }
    return Selection(views, tuple(taken), about, tuple(_notes(views, count, checked, model[1] if model else None)))


def _is_dataset(folder: Path) -> bool:
    return (folder / "classes.txt").is_file()


def _judged(folders: Sequence[Path], dataset: Dataset | None, log: Log) -> list[Judged]:
    """The sets that no calibration frame may be part of; each is read once."""
    wanted: dict[Path, tuple[str, Sequence[Path]]] = {}
    for folder in folders:
        splits = [folder / split for split in ("val", "test") if _is_dataset(folder) and (folder / split).is_dir()]
        for split in splits:
            wanted[(split / "images").resolve()] = (
                f"{folder.resolve().name} {split.name}",
                list_images(split / "images"),
            )
        if not _is_dataset(folder):
            wanted[folder.resolve()] = folder.resolve().name, list_images(folder)
    if dataset is not None:
        name = f"{dataset.root.name} {dataset.split}"
        wanted[(dataset.root / dataset.split / "images").resolve()] = name, dataset.images
    made = []
    for folder, (name, files) in wanted.items():
        seen = coverage.look(files, progress=_progress(log, folder))
        made.append(Judged(name, seen.files, seen.hashes, seen.prints))
    return made


def _checked(source: Path, views: Views, sets: list[Judged], skip: bool) -> tuple[Views, list[dict[str, Any]]]:
    """The frames that are in none of the sets, and a row for each set; OptionError for any other, unless `skip`."""
    rows: list[dict[str, Any]] = []
    leaking: dict[int, tuple[str, Leak]] = {}
    for one in sets:
        nearest = [one.find(*frame) for frame in zip(views.files, views.hashes, views.prints)]
        found = {i: leak for i, leak in enumerate(nearest) if leak.signs <= SAME}
        rest = [leak.signs for i, leak in enumerate(nearest) if i not in found]
        row: dict[str, Any] = {"name": one.name, "frames": len(one.files), "left_out": len(found)}
        rows.append({**row, "nearest": min(rest, default=None)})  # of SIGNS: how far the most similar frame is
        leaking |= {i: (one.name, leak) for i, leak in found.items()}
    if leaking and not skip:
        told = "; ".join(_told(name, leak) for name, leak in list(leaking.values())[:SHOWN])
        raise OptionError(
            f"{len(leaking)} of the {len(views)} frames of {source} are among the frames to judge on: {told}"
            f"{' ...' if len(leaking) > SHOWN else '.'}",
            "INT8 would be judged on what it was calibrated with. Leave them out: --skip-leaks, or mend the split.",
        )
    return views.take([i for i in range(len(views)) if i not in leaking]), rows


def _told(name: str, leak: Leak) -> str:
    how = f"looks like (print differs in {leak.signs} of {SIGNS})" if leak.signs else "equals"
    return f"{leak.frame.name} {how} {leak.other.name} of {name}"


def _notes(views: Views, count: int, checked: list[dict[str, Any]], spec: Spec | None) -> list[str]:
    """What the source's owner should know, one line each."""
    notes = []
    if len(views) < count:
        notes.append(f"there are {len(views)} different frames, {count} were asked for: all are taken")
    if not checked:
        notes.append("not checked against frames to judge on: name them with --against")
    for row in checked:
        if row["left_out"]:
            notes.append(f"{row['left_out']} frames that are also in {row['name']} were left out")
    ratios = [width / height for width, height in views.sizes]
    if max(ratios) > MIXED * min(ratios):
        told = ", ".join(f"{n} of {size}" for size, n in _sizes(views).items())
        notes.append(f"the frames are of different shapes ({told}): each is stretched to the model's input")
    usual = sorted(ratios)[len(ratios) // 2]
    if spec and max(usual * spec.height / spec.width, spec.width / spec.height / usual) > STRETCHED:
        size = Counter(views.sizes).most_common(1)[0][0]
        notes.append(
            f"frames of {size[0]}x{size[1]} are stretched to the model's {spec.width}x{spec.height}: "
            "right only if the camera's frames have that shape, too"
        )
    return notes


def _sizes(views: Views) -> dict[str, int]:
    return {f"{width}x{height}": n for (width, height), n in Counter(views.sizes).most_common()}


def _progress(log: Log, what: Path) -> coverage.Progress:
    return lambda done, total: log(f"{what.name}: frame {done} of {total}")

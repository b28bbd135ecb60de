"""Check a dataset: every check of edgeseg.data.checks over every frame."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeseg.cpus import usable_cpus
from edgeseg.data import checks
from edgeseg.data.checks import CannotCheck, Check, Context, load_sample
from edgeseg.data.dataset import SPLITS, read_classes, require_files
from edgeseg.data.datasheet import read_datasheet
from edgeseg.data.frame_map import each_frame
from edgeseg.data.shards import is_sharded, open_shards
from edgeseg.errors import EdgesegError, FileError, unknown
from edgeseg.images import IMAGE_SUFFIXES
from edgeseg.results.check import CheckResult, Finding

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


def check_dataset(
    root: Path,
    bundle: Path | None = None,
    skip: Sequence[str] = (),
    progress: Progress = lambda done, total: None,
    face_model: Path | None = None,
    ray: str = "",
) -> CheckResult:
    """Everything that is found in the dataset `root`; nothing of it is changed.

    `bundle`: a model of the dataset's classes, whose confident disagreement is a sign of wrong labels. `skip`: names of
    checks. `face_model`: YuNet as ONNX, to look for faces. `ray`: where frames are looked at, see frame_map.
    Raises FileError for a folder that is no dataset, OptionError for an unknown check, a model of other classes or a
    datasheet that says something else.
    """
    started = time.perf_counter()
    context = replace(open_context(root), bundle=bundle, face_model=face_model, ray=ray)
    datasheet = read_datasheet(root)
    for name in skip:
        if name not in checks.names():
            raise unknown("check", name, checks.names())
    running, skipped = _open([name for name in checks.names() if name not in skip], context)
    try:
        findings = _findings(context, running, progress)
    finally:
        for check in running.values():
            check.close()
    inside = f"{root}/"
    findings = [(name, replace(f, what=f.what.replace(inside, ""))) for name, f in findings]
    return replace(
        _result(context, findings),
        seconds=round(time.perf_counter() - started, 3),
        groups=tuple(group for check in running.values() for group in check.groups),
        skipped=tuple(skipped),
        datasheet=datasheet,
    )


def open_context(root: Path) -> Context:
    """The files of a dataset; FileError if `root` is none."""
    if not root.is_dir():
        raise FileError(f"Dataset {root} does not exist.", "Check the path, or make one: edgeseg synth DIR.")
    splits = [split for split in SPLITS if (root / split).is_dir()]
    if not splits:
        raise FileError(
            f"{root} is no dataset: it has no {', '.join(SPLITS)}.",
            "Expected ROOT/train/images, ROOT/train/masks and ROOT/classes.txt; labels of other tools become one with "
            "edgeseg data import.",
        )
    classes = read_classes(root / "classes.txt")
    shards = {split: open_shards(root / split, classes.names) for split in splits if is_sharded(root / split)}
    images = {
        split: shards[split].files if split in shards else _files(root / split / "images", IMAGE_SUFFIXES)
        for split in splits
    }
    masks = {split: () if split in shards else _files(root / split / "masks", (".png",)) for split in splits}
    return Context(root, classes, images, masks, shards=shards)


def _files(folder: Path, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".")))


def _open(names: Sequence[str], context: Context) -> tuple[dict[str, Check], list[str]]:
    running: dict[str, Check] = {}
    skipped = []
    for name in names:
        try:
            running[name] = checks.get(name).open(context)
        except CannotCheck as reason:
            skipped.append(f"{name}: {reason}")
        except BaseException:
            for check in running.values():
                check.close()
            raise
    return running, skipped


def _findings(context: Context, running: dict[str, Check], progress: Progress) -> list[tuple[str, Finding]]:
    """What every check finds, with the check's name."""
    places = [(split, number) for split, images in context.images.items() for number in range(len(images))]
    findings: list[tuple[str, Finding]] = []
    for done, seen in enumerate(each_frame(_Look(context, running), places, context.ray, usable_cpus()), 1):
        if isinstance(seen, EdgesegError):
            raise seen
        for name, check in running.items():
            findings += ((name, finding) for finding in check.frame(seen[name]))
        progress(done, len(places))
    for name, check in running.items():
        findings += ((name, finding) for finding in check.end())
    return findings


class _Look:
    """What every check sees of a frame, by its name."""

    def __init__(self, context: Context, running: dict[str, Check]) -> None:
        self.context, self.running = context, running

    def __reduce__(self) -> tuple[Callable[..., _Look], tuple[Context, list[str]]]:
        """In another process the checks are opened again."""
        return _look_elsewhere, (self.context, list(self.running))

    def __call__(self, place: tuple[str, int]) -> dict[str, Any] | EdgesegError:
        sample = load_sample(self.context, *place)
        try:
            return {name: check.look(sample) for name, check in self.running.items()}
        except EdgesegError as error:
            return error


def _look_elsewhere(context: Context, names: list[str]) -> _Look:
    return _Look(context, _open(names, context)[0])


def _result(context: Context, found: Sequence[tuple[str, Finding]]) -> CheckResult:
    severe = {name: set(checks.get(name).ERRORS) for name in {name for name, _ in found}}
    in_order = sorted(found, key=lambda f: (f[0], f[1].kind, -f[1].score, f[1].file))
    files = {path for _, finding in found for path in (finding.file, *finding.others[:1]) if path}
    frames = [(split, image) for split, images in context.images.items() for image in images]
    touched = sum(
        context.name(image) in files or context.name(context.mask_of(split, image)) in files for split, image in frames
    )
    return CheckResult(
        root=context.root.name,
        frames=len(frames),
        splits={split: len(images) for split, images in context.images.items()},
        score=round(100 * (1 - touched / max(1, len(frames))), 2),
        seconds=0.0,
        errors=tuple(finding for name, finding in in_order if finding.kind in severe[name]),
        warnings=tuple(finding for name, finding in in_order if finding.kind not in severe[name]),
    )


def fix_dataset(root: Path, result: CheckResult) -> tuple[str, ...]:
    """Fix what can be fixed without loss; what was done, file by file.

    Every file is replaced atomically; the original, or a file that belongs to no other, goes to ROOT/.removed.
    """
    require_files(root, "data check --fix")
    context = open_context(root)
    fixes = [module.fix for module in map(checks.get, checks.names()) if hasattr(module, "fix")]
    done = []
    for finding in (*result.warnings, *result.errors):
        for fix in fixes:
            try:
                what = fix(finding, context)
            except EdgesegError as error:
                log.warning("%s is left as it is: %s", finding.file, error.what)
                continue
            if what:
                done.append(what)
                log.info("fixed %s", what)
    return tuple(done)

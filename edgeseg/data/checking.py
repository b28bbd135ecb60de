"""Check a dataset: every check of edgeseg.data.checks over every frame, one after another."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from edgeseg.cpus import usable_cpus
from edgeseg.data import checks
from edgeseg.data.checks import CannotCheck, Check, Context, Sample, load_sample
from edgeseg.data.dataset import SPLITS, read_classes, require_files
from edgeseg.data.datasheet import read_datasheet
from edgeseg.errors import EdgesegError, FileError, unknown
from edgeseg.images import IMAGE_SUFFIXES
from edgeseg.results.check import CheckResult, Finding
from edgeseg.segmenter import Segmenter

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
READ_AHEAD = 2  # frames for each thread


def check_dataset(
    root: Path,
    segmenter: Segmenter | None = None,
    skip: Sequence[str] = (),
    progress: Progress = lambda done, total: None,
    face_model: Path | None = None,
) -> CheckResult:
    """Everything that is found in the dataset `root`; nothing of it is changed.

    `segmenter`: a model of the dataset's classes, whose confident disagreement is a sign of wrong labels. `skip`: names
    of checks. `face_model`: YuNet as ONNX, to look for faces. Raises FileError for a folder that is no dataset,
    OptionError for an unknown check, a model of other classes or a datasheet that says something else.
    """
    started = time.perf_counter()
    context, datasheet = open_context(root, segmenter, face_model), read_datasheet(root)
    for name in skip:
        if name not in checks.names():
            raise unknown("check", name, checks.names())
    running, skipped = _open([name for name in checks.names() if name not in skip], context)
    findings: list[tuple[str, Finding]] = []
    total = sum(map(len, context.images.values()))
    for done, sample in enumerate(_samples(context), 1):
        for name, check in running.items():
            findings += ((name, finding) for finding in check.frame(sample))
        progress(done, total)
    for name, check in running.items():
        findings += ((name, finding) for finding in check.end())
    inside = f"{root}/"
    findings = [(name, replace(f, what=f.what.replace(inside, ""))) for name, f in findings]
    return replace(
        _result(context, findings),
        seconds=round(time.perf_counter() - started, 3),
        groups=tuple(group for check in running.values() for group in check.groups),
        skipped=tuple(skipped),
        datasheet=datasheet,
    )


def open_context(root: Path, segmenter: Segmenter | None = None, face_model: Path | None = None) -> Context:
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
    require_files(root, "data check")
    classes = read_classes(root / "classes.txt")
    images = {split: _files(root / split / "images", IMAGE_SUFFIXES) for split in splits}
    masks = {split: _files(root / split / "masks", (".png",)) for split in splits}
    return Context(root, classes, images, masks, segmenter, face_model)


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
    return running, skipped


def _samples(context: Context) -> Iterator[Sample]:
    """Every frame in order, read ahead by a few threads."""
    threads = usable_cpus()
    waiting: deque[Future[Sample]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for split, images in context.images.items():
                for image in images:
                    waiting.append(pool.submit(load_sample, context, split, image))
                    if len(waiting) > READ_AHEAD * threads:
                        yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _result(context: Context, found: Sequence[tuple[str, Finding]]) -> CheckResult:
    severe = {name: set(checks.get(name).ERRORS) for name in {name for name, _ in found}}
    in_order = sorted(found, key=lambda f: (f[0], f[1].kind, -f[1].score, f[1].file))
    files = {path for _, finding in found for path in (finding.file, *finding.others[:1]) if path}
    frames = [(split, image) for split, images in context.images.items() for image in images]
    touched = sum(context.name(image) in files or f"{split}/masks/{image.stem}.png" in files for split, image in frames)
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

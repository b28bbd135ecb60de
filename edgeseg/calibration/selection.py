"""Choosing calibration frames that cover all others, none of which is evaluated on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.calibration import coverage
from edgeseg.calibration.features import FrameFeatures, Progress, class_shares, prediction_features, read_features
from edgeseg.calibration.frames import CalibrationSet, require_frames
from edgeseg.calibration.leaks import EvaluationSet, Match
from edgeseg.data.dataset import Dataset, require_files
from edgeseg.data.perceptual_hash import BITS
from edgeseg.errors import OptionError
from edgeseg.images import list_images
from edgeseg.results.calibration import CheckedSet, Choice, SelectionReport
from edgeseg.spec import Spec

LEAKS_SHOWN = 3  # in an error
MIXED, STRETCHED = 1.05, 1.1  # factors by which ratios of width to height may differ without a note
Log = Callable[[str], None]


@dataclass(frozen=True)
class Selection:
    """`features` of all frames that may be used, the indices `chosen` in order, a `report` for the manifest, and
    `notes` about the source, one line each."""

    features: FrameFeatures
    chosen: tuple[int, ...]
    report: SelectionReport
    notes: tuple[str, ...]

    @property
    def calibration(self) -> CalibrationSet:
        return calibration_set(self.features, self.chosen)


def calibration_set(features: FrameFeatures, chosen: Sequence[int]) -> CalibrationSet:
    return CalibrationSet(tuple(features.files[i] for i in chosen), tuple(features.digests[i] for i in chosen))


def select(
    source: Path,
    count: int,
    seed: int = 0,
    *,
    against: Sequence[Path] = (),
    evaluation_data: Dataset | None = None,
    skip_leaks: bool = False,
    model: tuple[Path, Spec, str] | None = None,
    log: Log = lambda text: None,
) -> Selection:
    """`count` frames of a folder of images, or of the train split of a dataset, that cover all of its frames.

    They are compared by brightness and thumbnails, by classes if there are masks, and by the predictions of a `model`
    (ONNX file, Spec, name of the output) if given. Refused with OptionError: fewer than 8 different frames, and frames
    that show the same as one of `evaluation_data` or `against` (folders of images; of datasets, val and test; those of
    `source` itself always), unless `skip_leaks` leaves them out.
    """
    if source.is_file():
        raise OptionError(f"{source} is a file.", "Give a folder of images or a dataset to choose from.")
    for folder in filter(_is_dataset, (source, *against)):
        require_files(folder, "calibrate")
    dataset = Dataset.open(source, "train") if _is_dataset(source) else None
    classes = dataset.classes.names if dataset else model[1].classes if model else ()
    shares_of = (lambda i: class_shares(dataset.mask(i), len(classes))) if dataset else None
    files = dataset.images if dataset else tuple(list_images(source))
    features = read_features(files, shares_of, _progress(log, source))
    require_frames(source, len(features))
    folders = [*([source] if dataset else []), *against]
    features, checked = _without_leaks(source, features, _evaluation_sets(folders, evaluation_data, log), skip_leaks)
    require_frames(source, len(features))
    if model:
        features.groups.update(prediction_features(*model, features.files, _progress(log, model[0])))
    chosen = coverage.k_center(coverage.standardize(features.groups), count, seed)
    report = SelectionReport(
        chosen=Choice("greedy k-center", seed, len(features)),
        coverage=coverage.measure_coverage(features, chosen, classes),
        checked_against=tuple(checked),
        sizes=_count_sizes(features.subset(chosen)),
    )
    notes = [
        *_count_notes(features, count, checked),
        *_shape_notes(features, model[1] if model else None),
    ]
    return Selection(features, tuple(chosen), report, tuple(notes))


def _is_dataset(folder: Path) -> bool:
    return (folder / "classes.txt").is_file()


def _evaluation_sets(folders: Sequence[Path], dataset: Dataset | None, log: Log) -> list[EvaluationSet]:
    """The sets that no calibration frame may be part of; each folder of images is read once."""
    image_lists: dict[Path, tuple[str, Sequence[Path]]] = {}
    for folder in folders:
        name = folder.resolve().name
        if not _is_dataset(folder):
            image_lists[folder.resolve()] = name, list_images(folder)
            continue
        for split in ("val", "test"):
            if (folder / split).is_dir():
                images = folder / split / "images"
                image_lists[images.resolve()] = f"{name} {split}", list_images(images)
    if dataset is not None:
        images = dataset.root / dataset.split / "images"
        image_lists[images.resolve()] = f"{dataset.root.name} {dataset.split}", dataset.images
    sets = []
    for folder, (name, files) in image_lists.items():
        features = read_features(files, progress=_progress(log, folder))
        sets.append(EvaluationSet(name, features.files, features.digests, features.perceptual_hashes))
    return sets


def _without_leaks(
    source: Path, features: FrameFeatures, sets: list[EvaluationSet], skip: bool
) -> tuple[FrameFeatures, list[CheckedSet]]:
    """The frames that are in none of the sets, and a row for each set; OptionError for any leak, unless `skip`."""
    rows: list[CheckedSet] = []
    leaks: dict[int, tuple[str, Match]] = {}
    for evaluation_set in sets:
        matches = [
            evaluation_set.closest(*frame)
            for frame in zip(features.files, features.digests, features.perceptual_hashes)
        ]
        found = {i: (evaluation_set.name, match) for i, match in enumerate(matches) if match.is_leak}
        nearest = min((match.different_bits for match in matches if not match.is_leak), default=None)
        rows.append(CheckedSet(evaluation_set.name, len(evaluation_set.files), len(found), nearest))
        leaks |= found
    if leaks and not skip:
        shown = "; ".join(_describe(name, match) for name, match in list(leaks.values())[:LEAKS_SHOWN])
        raise OptionError(
            f"{len(leaks)} of the {len(features)} frames of {source} are also evaluation frames: {shown}"
            f"{' ...' if len(leaks) > LEAKS_SHOWN else '.'}",
            "INT8 would be evaluated on its own calibration frames. Leave them out: --skip-leaks, or fix the split.",
        )
    return features.subset([i for i in range(len(features)) if i not in leaks]), rows


def _describe(name: str, match: Match) -> str:
    bits = match.different_bits
    relation = f"looks like (perceptual hash differs in {bits} of {BITS} bits)" if bits else "equals"
    return f"{match.frame.name} {relation} {match.other.name} of {name}"


def _count_notes(features: FrameFeatures, count: int, checked: list[CheckedSet]) -> list[str]:
    """Too few frames, no evaluation set to check against, frames left out."""
    notes = []
    if len(features) < count:
        notes.append(f"there are only {len(features)} different frames, not {count}: all are used")
    if not checked:
        notes.append("not checked against evaluation frames: name them with --against")
    for row in checked:
        if row.left_out:
            notes.append(f"{row.left_out} frames that are also in {row.name} were left out")
    return notes


def _shape_notes(features: FrameFeatures, spec: Spec | None) -> list[str]:
    """Frames that are stretched on their way to the model."""
    notes = []
    ratios = [width / height for width, height in features.sizes]
    if max(ratios) > MIXED * min(ratios):
        shapes = ", ".join(f"{n} of {size}" for size, n in _count_sizes(features).items())
        notes.append(f"the frames have different shapes ({shapes}): each is stretched to the model's input")
    median = sorted(ratios)[len(ratios) // 2]
    if spec and max(median * spec.height / spec.width, spec.width / spec.height / median) > STRETCHED:
        (width, height), _ = Counter(features.sizes).most_common(1)[0]
        notes.append(
            f"frames of {width}x{height} are stretched to the model's {spec.width}x{spec.height}: "
            "right only if the camera's frames have the same shape"
        )
    return notes


def _count_sizes(features: FrameFeatures) -> dict[str, int]:
    return {f"{width}x{height}": n for (width, height), n in Counter(features.sizes).most_common()}


def _progress(log: Log, path: Path) -> Progress:
    return lambda done, total: log(f"{path.name}: frame {done} of {total}")

"""CalibrationResult: which calibration frames were chosen, how well they cover the source, and whether they suffice."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.records import Record


@dataclass(frozen=True)
class Choice:
    """How the frames were chosen. `of_frames`: the number of different frames there were to choose from."""

    method: str
    seed: int
    of_frames: int


@dataclass(frozen=True)
class ClassCoverage:
    """`share`: of the pixels, 0..1. `frames`: those that show the class. Of the chosen frames, and of all."""

    share: float
    share_of_all: float
    frames: int
    frames_of_all: int


@dataclass(frozen=True)
class Coverage:
    """How well the chosen frames cover all. `compared_by`: names of the feature groups.

    `radius`: the largest distance of a frame to the nearest chosen one, in units of the usual distance from the mean;
    `radius_random`: the mean of that for random sets of the same size. `brightness`: lowest and highest mean of a
    frame, 0..255. `classes`: None where there are neither masks nor a model.
    """

    compared_by: tuple[str, ...]
    radius: float
    radius_random: float
    brightness: tuple[float, float]
    brightness_of_all: tuple[float, float]
    classes: dict[str, ClassCoverage] | None = None


@dataclass(frozen=True)
class CheckedSet:
    """An evaluation set that the frames were checked against. `left_out`: frames that belong to it, too. `nearest`: in
    how many bits the perceptual hash of the most similar remaining frame differs; None if there is none."""

    name: str
    frames: int
    left_out: int
    nearest: int | None


@dataclass(frozen=True)
class ReferenceScore:
    """The float model; as in ResampleRow, one of `miou` and `agreement` is None."""

    precision: str
    miou: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class ResampleRow:
    """INT8 calibrated with one resample: `frames` of `digest`. Shares of 1."""

    frames: int
    digest: str
    miou: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Resamples:
    """INT8 accuracy over resamples of the source. `measure`: miou or agreement (with the float model); `on`: the frames
    it was measured on. `model`: sha256. `deviation`: standard deviation, None for one resample."""

    target: str
    model: str
    measure: str
    on: str
    reference: ReferenceScore
    mean: float
    deviation: float | None
    lowest: float
    highest: float
    rows: tuple[ResampleRow, ...]


@dataclass(frozen=True, kw_only=True)
class SelectionReport:
    """How calibration frames were chosen. `sizes`: WIDTHxHEIGHT -> number of chosen frames."""

    chosen: Choice
    coverage: Coverage
    checked_against: tuple[CheckedSet, ...]
    sizes: dict[str, int]
    resamples: Resamples | None = None


@dataclass(frozen=True, kw_only=True)
class CalibrationResult(SelectionReport, Record):
    """`manifest`: the file with the list of frames. `frames`, `digest`: their number and the digest of the set."""

    KIND = "calibration"
    HINT = "Make it again: edgeseg calibrate"

    manifest: str
    frames: int
    digest: str

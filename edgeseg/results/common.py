"""Parts of several results: the bundle, the data, the machine."""

from __future__ import annotations

from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True)
class BundleIdentity:
    """The bundle that was measured. `parent`: the model it was compiled from. `bytes`: of its model files."""

    name: str
    target: str
    precision: str
    digest: str
    bytes: int
    parent: Parent | None = None
    parity: Parity | None = None


@dataclass(frozen=True)
class Parent:
    file: str
    sha256: str


@dataclass(frozen=True)
class Parity:
    """Agreement of class maps with the parent's over `frames` frames: mean and worst, as shares of 1."""

    frames: int
    agreement: float
    worst: float
    reference: str = ""


@dataclass(frozen=True)
class DataIdentity:
    """A split of a dataset. `digest`: over every image and mask; "" where it was not needed."""

    root: str
    split: str
    frames: int = 0
    digest: str = ""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReuseCalibration:
    """How --reuse auto estimates what it loses, from a labeled clip: `points` of mIoU for each percent of the pixels
    that differ at the end of an interval. `size`: width and height of the clip's frames. `drops`: points lost at
    fixed intervals."""

    points: float
    clip: str
    frames: int
    size: tuple[int, int]
    drops: dict[str, float]


@dataclass(frozen=True)
class Drop:
    """Points of mIoU lost, with the 95 % interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value + 0.0:.2f}"
        return value if self.low is None or self.high is None else f"{value} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Picture:
    """`file`: relative to the result's own file, or absolute."""

    title: str
    file: str


@dataclass(frozen=True)
class Machine:
    """What a figure depends on besides the bundle; "" or None for what this machine does not tell.

    `id`: 12 digits of sha256 over all the rest. `versions`: of the packages that matter.
    """

    id: str
    cpu: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    memory_gb: float | None = None
    board: str = ""
    jetpack: str = ""
    power_mode: str = ""
    governor: str = ""

"""The result of `edgeseg data check`: what is wrong with a dataset, file by file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeseg.records import Record
from edgeseg.results.common import Picture
from edgeseg.results.datasheet import Datasheet

Box = tuple[int, int, int, int]  # x, y, width, height in pixels of the upright image


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault. `kind`: its name, for programs. `file`: relative to the dataset; of a class or split, "". `what`: for
    people. `score`: how bad among its kind, 0 to 1. `others`: files that belong to it. `box`: where in the frame."""

    kind: str
    file: str
    what: str
    split: str = ""
    score: float = 1.0
    others: tuple[str, ...] = ()
    box: Box | None = None


@dataclass(frozen=True)
class Group:
    """Neighboring frames of one video that look alike: of the files from `first` to `last` in name order."""

    first: str
    last: str
    frames: int
    splits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CheckResult(Record):
    """`errors`: what training or evaluation would refuse or what makes a figure wrong. `warnings`: what to look at;
    both with the worst of each kind first. `score`: the share of frames that nothing was found in, in percent.
    `skipped`: checks that were not made, and why. `fixed`: what `--fix` did, file by file, before this check.
    `datasheet`: what the dataset's owner states about it."""

    KIND: ClassVar[str] = "check"
    HINT: ClassVar[str] = "Check it again."

    root: str
    frames: int
    splits: dict[str, int]
    score: float
    seconds: float
    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    groups: tuple[Group, ...] = ()
    skipped: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    datasheet: Datasheet | None = None

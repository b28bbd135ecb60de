"""loop.toml: what a turn takes, and when its result may be deployed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg import toml
from edgeseg.data import formats
from edgeseg.toml import choice, number


@dataclass(frozen=True)
class LoopSettings:
    """Relative paths start at the folder of loop.toml.

    `deployed`: the bundle in use, which a better one replaces. `checkpoint`: that it was compiled from. `recipe`: whose
    [student] is trained from there. `data`: the dataset so far, with train, val and test. `collected`: folders that
    `edgeseg collect` writes. `out`: folder of the turns. `frames`: labeled in a turn. `select`: by uncertainty and
    diversity, or at random. `format`: that frames are exported in. `held_out`: share of the labeled frames that is
    tested with, not trained. `least_labeled`: share of the frames that must come back. `max_drop`: points of mIoU that
    may be lost on the old test split. `min_gain`: points that must be gained on the new frames. `undecided`: what
    happens where the frames are too few for the gate to decide.
    """

    deployed: str
    checkpoint: str
    recipe: str
    data: str
    collected: tuple[str, ...]
    out: str = "loop"
    frames: int = number(100, 4, 100_000)
    select: str = choice("uncertain", "random")
    format: str = "cvat"
    held_out: float = number(0.3, 0.01, 0.9)
    least_labeled: float = number(0.8, 0.01, 1)
    max_drop: float = number(0.5, 0, 100)
    min_gain: float = number(0.0, -100, 100)
    undecided: str = choice("refuse", "promote")
    seed: int = number(1, 0, 2**31)
    folder: Path = field(default=Path(), compare=False)

    @classmethod
    def load(cls, path: Path) -> LoopSettings:
        """FileError for a file that cannot be read as TOML, OptionError that names the key for anything else."""
        settings = toml.to_dataclass(cls, toml.read(path, "Loop"), "", path)
        if not settings.collected:
            raise toml.wrong_value(path, "collected", [], "at least one folder of edgeseg collect")
        formats.get_writer(settings.format)
        return dataclasses.replace(settings, folder=path.absolute().parent)

    def path(self, name: str) -> Path:
        """A path of the file, as it counts from the working folder."""
        return self.folder / name

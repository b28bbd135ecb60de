"""Formats of labels that can be imported: one module each, found by its file name, imported on first use.

A format module has
    TITLE: str                        for messages
    probe(source: Path) -> bool       whether `source` looks like this format; reads names and little else, never raises
    read(source: Path) -> Labels      FileError where nothing of it can be read
and imports nothing of another format.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from edgeseg.data.dataset import Classes
from edgeseg.errors import FileError, unknown
from edgeseg.images import Image

IGNORE = 255


@dataclass(frozen=True)
class LabeledFrame:
    """`name`: without a suffix, unique in its format. `mask`: makes the class map [H, W] uint8; FileError where that
    cannot be done. `split`: train, val, test, or "" where the format does not say."""

    name: str
    image: Path
    mask: Callable[[], Image]
    split: str = ""


@dataclass(frozen=True)
class Labels:
    """`losses`: what the format holds and a class map cannot, in words."""

    classes: Classes
    frames: Iterable[LabeledFrame]
    losses: tuple[str, ...] = ()


def names() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]


def get(name: str) -> ModuleType:
    """The format called `name`; OptionError if there is none."""
    if name not in names():
        raise unknown("format", name, names())
    return importlib.import_module(f"{__name__}.{name}")


def detect(source: Path) -> str:
    """The name of the only format that `source` looks like; FileError if it is none, or more than one."""
    if not source.exists():
        raise FileError(f"Labels {source} do not exist.", "Check the path.")
    found = [name for name in names() if get(name).probe(source)]
    if len(found) != 1:
        what = f"looks like {' and '.join(found)}" if found else "is in no format that edgeseg knows"
        raise FileError(f"{source} {what}.", f"Say which: --format {' or '.join(found or names())}.")
    return found[0]

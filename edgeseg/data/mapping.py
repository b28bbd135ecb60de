"""A class map file (TOML): which classes of the source become which classes of the dataset, or of an evaluation.

ignore = ["unlabeled"]     # pixels of these never count
other = "error"            # classes that are not named here: error, ignore or background
[classes]                  # in this order, ids from 0
road = ["road", "lane marking"]
car = "car"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg import toml
from edgeseg.data.dataset import Classes
from edgeseg.data.labelmap import BACKGROUND, IGNORE, IGNORED_LABELS, MOST_CLASSES, LabelMap
from edgeseg.errors import FileError, OptionError, did_you_mean
from edgeseg.spec import default_palette

OTHERS = ("error", "ignore", "background")


@dataclass(frozen=True)
class Mapping:
    """`table`: [256] uint8, the new id of each old one."""

    classes: Classes
    table: NDArray[np.uint8]

    def apply(self, labels: LabelMap) -> LabelMap:
        """Objects of what is ignored or background are none any more."""
        classes = self.table[labels.classes]
        instances = labels.instances
        if instances is not None:
            background = self.classes.names.index(BACKGROUND) if BACKGROUND in self.classes.names else IGNORE
            instances = np.where((classes == IGNORE) | (classes == background), np.uint16(0), instances)
        return LabelMap(classes, instances, labels.losses)


@dataclass(frozen=True)
class ClassMatch:
    """How labels and a network with other classes are compared: both become `classes`. `labels`, `predictions`: [256]
    uint8, the new id of each old one. Labels of a class that is ignored do not count; predictions of one are wrong."""

    classes: Classes
    labels: NDArray[np.uint8]
    predictions: NDArray[np.uint8]


def read_match(path: Path, labels: Classes, predicted: Sequence[str]) -> ClassMatch:
    """From a class map file that names classes of the labels and of the network; a name that both have is one class.

    OptionError as in read_mapping.
    """
    new = tuple(name for name in predicted if name not in labels.names)
    names = (*labels.names, *new)
    if len(names) > MOST_CLASSES:
        raise OptionError(
            f"The labels and the network have {len(names)} classes in all.", f"Expected at most {MOST_CLASSES}."
        )
    both = Classes(names, (*labels.palette, *default_palette(len(new))), labels.ignore_index)
    mapping = read_mapping(path, both, "neither the labels nor the network have the")
    tables = []
    for source in (labels.names, predicted):
        table = np.full(256, IGNORE, np.uint8)
        table[: len(source)] = [mapping.table[names.index(name)] for name in source]
        tables.append(table)
    return ClassMatch(mapping.classes, *tables)


def read_mapping(path: Path, source: Classes, without: str = "the labels have no") -> Mapping:
    """OptionError for a name that `source` does not have (`without` says who), a name in two places, and classes left
    over with `other = "error"`."""
    document = toml.read(path, "Class map")
    if unexpected := set(document) - {"classes", "ignore", "other"}:
        raise OptionError(f"{path}: unknown key {min(unexpected)!r}.", "Known: [classes], ignore, other.")
    table, other = document.get("classes"), document.get("other", "error")
    if not isinstance(table, dict) or not table:
        raise OptionError(f"{path} has no section [classes].", 'Expected: [classes] and lines like road = ["road"].')
    if other not in OTHERS:
        raise toml.wrong_value(path, "other", other, " or ".join(map(repr, OTHERS)))
    for key in ("ignore", "other"):
        if key in table:
            raise OptionError(f"{path}: {key} is a class.", f"Write {key} = ... above the line [classes].")
    groups = {name: _names(path, f"classes.{name}", value) for name, value in table.items()}
    ignored = _names(path, "ignore", document.get("ignore", []))
    new = _place(path, source, groups, ignored, without)
    names = list(groups)
    rest = [name for name in source.names if name not in new]
    if BACKGROUND in rest or (rest and other == "background"):
        if BACKGROUND not in names:
            names.insert(0, BACKGROUND)
        new |= {BACKGROUND: BACKGROUND} if BACKGROUND in rest else {}
        rest = [name for name in rest if name != BACKGROUND]
    if rest and other == "error":
        raise OptionError(
            f"{path} has no place for: {', '.join(rest)}.", 'Name them, or set other = "ignore" or "background".'
        )
    new |= dict.fromkeys(rest, BACKGROUND if other == "background" else None)
    return _mapping(path, source, names, new)


def _names(path: Path, key: str, value: object) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise OptionError(f"{path}: {key} is {value!r}.", "Expected a name or a list of names.")
    return names


def _place(
    path: Path, source: Classes, groups: dict[str, list[str]], ignored: list[str], without: str
) -> dict[str, str | None]:
    """The new class of each named class; None: ignored."""
    new: dict[str, str | None] = {}
    for target, names in [*groups.items(), (None, ignored)]:
        for name in names:
            if name not in source.names:
                if target is None and name in IGNORED_LABELS:
                    continue
                raise OptionError(f"{path}: {without} class {name!r}.", did_you_mean(name, source.names))
            if name in new:
                raise OptionError(f"{path}: {name!r} is named twice.", "A class becomes one class.")
            new[name] = target
    return new


def _mapping(path: Path, source: Classes, names: list[str], new: dict[str, str | None]) -> Mapping:
    if not 2 <= len(names) <= IGNORE:
        raise FileError(f"{path} leads to {len(names)} classes.", f"Expected 2 to {IGNORE}.")
    table = np.full(256, IGNORE, np.uint8)
    palette = list(default_palette(len(names)))
    for old, name in enumerate(source.names):
        target = new[name]
        if target is not None:
            table[old] = names.index(target)
            if target == name:
                palette[names.index(target)] = source.palette[old]
    return Mapping(Classes(tuple(names), tuple(palette), IGNORE), table)

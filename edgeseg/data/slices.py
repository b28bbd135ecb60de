"""Slices: parts of a split that are measured by themselves, like night, one site, one camera. A TOML file names them.

table = "frames.csv"             # a table with a header, its first column the files, relative to this file
columns = ["site", "camera"]     # whose values are slices
[patterns.time]                  # slices by name: the first regular expression that a file's name matches
night = "night|dusk"
day = "."
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg import toml
from edgeseg.data.groups import by_table
from edgeseg.errors import OptionError

KEYS = ("table", "columns", "patterns")
OTHER = "other"  # frames that no pattern matches
MOST = 200  # slices: a column with more says something of frames, not of kinds of frames


@dataclass(frozen=True)
class FrameSlice:
    """`name`: KIND: VALUE. `frames`: indices of the dataset's."""

    name: str
    frames: tuple[int, ...]


def read_slices(path: Path, names: Sequence[str]) -> tuple[FrameSlice, ...]:
    """The slices of frames with these names (without endings); those that no frame is in are left out.

    OptionError for a file that says something else, FileError for a table that lacks a frame.
    """
    document = toml.read(path, "Slices")
    if unexpected := set(document) - set(KEYS):
        raise OptionError(f"{path}: unknown key {min(unexpected)!r}.", f"Known: {', '.join(KEYS)}.")
    kinds = {**_by_columns(path, document, names), **_by_patterns(path, document, names)}
    if not kinds:
        raise OptionError(f"{path} names no slices.", "Expected table and columns, or a section [patterns.NAME].")
    found = []
    for kind, values in kinds.items():
        if len(set(values)) > MOST:
            raise OptionError(f"{path}: {kind} has {len(set(values))} values.", f"Expected at most {MOST}.")
        found += [
            FrameSlice(f"{kind}: {value}", tuple(i for i, own in enumerate(values) if own == value))
            for value in sorted(set(values))
        ]
    return tuple(found)


def _by_columns(path: Path, document: dict[str, Any], names: Sequence[str]) -> dict[str, list[str]]:
    table, columns = document.get("table"), document.get("columns", [])
    if table is None and not columns:
        return {}
    if not isinstance(table, str) or not table:
        raise toml.wrong_value(path, "table", table, "the name of a CSV file")
    if not isinstance(columns, list) or not columns or not all(isinstance(c, str) and c for c in columns):
        raise toml.wrong_value(path, "columns", columns, "a list of the table's columns")
    return {column: by_table(names, path.parent / table, column) for column in columns}


def _by_patterns(path: Path, document: dict[str, Any], names: Sequence[str]) -> dict[str, list[str]]:
    sections = document.get("patterns", {})
    if not isinstance(sections, dict) or not all(isinstance(s, dict) and s for s in sections.values()):
        raise OptionError(f"{path}: patterns is {sections!r:.80}.", 'Expected [patterns.time] and night = "night".')
    return {kind: _matched(path, kind, patterns, names) for kind, patterns in sections.items()}


def _matched(path: Path, kind: str, patterns: dict[str, Any], names: Sequence[str]) -> list[str]:
    """The first pattern's name that matches each frame's."""
    compiled = {}
    for value, pattern in patterns.items():
        try:
            compiled[value] = re.compile(pattern)
        except (re.error, TypeError, RecursionError, OverflowError) as error:
            key = f"patterns.{kind}.{value}"
            raise OptionError(f"{path}: {key} is {pattern!r}: {error}.", "Expected a regular expression.") from None
    return [next((v for v, pattern in compiled.items() if pattern.search(name)), OTHER) for name in names]

"""Groups: frames that show the same scene and so belong into the same split.

By a pattern over names, by a column of a table, or by blocks of consecutive frames where names look like a video's.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgeseg.data.dataset import decode_text
from edgeseg.errors import FileError, OptionError, did_you_mean
from edgeseg.files import require_file
from edgeseg.images import IMAGE_SUFFIXES

MAX_TABLE = 64 << 20  # bytes
NUMBERED = re.compile(r"(.*?)(\d+)\D*")  # the last number of a name is the frame's
LIKE_A_VIDEO = 3  # consecutive frames under one prefix, in the median
SEQUENCES, LARGEST = 10, 0.2  # so many, none with a larger share of the frames, can be divided as they are
BLOCKS = 30  # that fewer sequences become, at least, so that each split gets several
SHOWN = 3  # names in an error


def by_pattern(names: Sequence[str], pattern: str) -> list[str]:
    """The group of each name: what the pattern's parentheses match, or the whole match where it has none.

    OptionError for a pattern that is none, and for names that it does not match.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise OptionError(
            f"The pattern {pattern!r} cannot be read: {error}.", r"Expected a regular expression, like '(.*)_\d+'."
        ) from None
    found = [compiled.search(name) for name in names]
    if missed := [name for name, match in zip(names, found) if match is None]:
        raise OptionError(
            f"The pattern {pattern!r} does not match {_some(missed)}.",
            "Every frame needs a group. Names are those of the files, without their endings.",
        )
    return ["|".join(m.groups(default="")) if m.groups() else m[0] for m in found if m is not None]


def by_table(names: Sequence[str], path: Path, column: str = "") -> list[str]:
    """The group of each name from a CSV file with a header: files in its first column, groups in `column`, which is the
    second one unless it is named.

    FileError for a table that cannot be read or lacks a frame, OptionError for a column that it does not have.
    """
    rows = _rows(path)
    header, body = [cell.strip() for cell in rows[0]], rows[1:]
    column = column or header[1]
    if column not in header[1:]:
        raise OptionError(f"{path} has no column {column!r}.", did_you_mean(column, header[1:]))
    at = header.index(column, 1)
    groups: dict[str, str] = {}
    for number, row in enumerate(body, 2):
        if len(row) <= at or not row[at].strip():
            raise FileError(f"{path}:{number}: no value for {column!r}.", "Every frame needs a group.")
        name, group = _stem(row[0].strip()), row[at].strip()
        if groups.setdefault(name, group) != group:
            raise FileError(f"{path}:{number}: {name} is in {groups[name]!r} and in {group!r}.", "One group a frame.")
    if missed := [name for name in names if name not in groups]:
        raise FileError(f"{path} does not list {_some(missed)}.", "Every frame needs a line: its file, its group.")
    return [groups[name] for name in names]


def _stem(file: str) -> str:
    """The name of a frame in a table, which may be a path, and end as images do or not."""
    path = Path(file.replace("\\", "/"))
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def _rows(path: Path) -> list[list[str]]:
    if require_file(path, "Table of groups").stat().st_size > MAX_TABLE:
        raise FileError(f"Table of groups {path} is larger than {MAX_TABLE} bytes.", "Expected a line for each frame.")
    try:
        text = decode_text(path.read_bytes())
        delimiter = ";" if text.splitlines()[0].count(";") > text.splitlines()[0].count(",") else ","
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cell.strip() for cell in row)]
    except (csv.Error, IndexError) as error:
        raise FileError(f"Table of groups {path} cannot be read: {error}.", "Expected CSV with a header.") from None
    if not rows or len(rows[0]) < 2:
        raise FileError(
            f"Table of groups {path} has fewer than two columns.", "Expected CSV with a header, like: file,scene"
        )
    return rows


def by_blocks(names: Sequence[str], length: int) -> list[str]:
    """Consecutive frames: names that differ in their last number only, in its order, cut into blocks of `length`."""
    places: dict[str, list[tuple[int, str, int]]] = {}
    for index, name in enumerate(names):
        prefix, number = _numbered(name)
        places.setdefault(prefix, []).append((number, name, index))
    groups = [""] * len(names)
    for prefix, frames in places.items():
        for place, (_, _, index) in enumerate(sorted(frames)):
            groups[index] = f"{prefix}{place // length}"
    return groups


def by_names(names: Sequence[str]) -> tuple[list[str], str]:
    """The group of each frame where nobody says, and what made it: whole sequences where there are many, blocks where
    there are few, single frames where names do not look like a video's."""
    prefixes = [_numbered(name)[0] for name in names]
    sizes = sorted(Counter(prefixes).values())
    if not sizes or sizes[len(sizes) // 2] < LIKE_A_VIDEO:
        return list(names), "single frames"
    if len(sizes) >= SEQUENCES and sizes[-1] <= LARGEST * len(names):
        return prefixes, "sequences, by their names"
    length = max(1, len(names) // BLOCKS)
    return by_blocks(names, length), f"blocks of {length} consecutive frames"


def join(groups: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[str]:
    """The groups with those joined that hold a frame of the same pair each."""
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = group = parent[parent[group]]
        return group

    for a, b in pairs:
        first, second = sorted((root(groups[a]), root(groups[b])))
        parent[second] = first
    return [root(group) for group in groups]


def _numbered(name: str) -> tuple[str, int]:
    """The prefix and the number of a frame; a name without a number is a prefix of its own."""
    match = NUMBERED.fullmatch(name)
    return (match[1], int(match[2])) if match and len(match[2]) < 19 else (f"{name}/", 0)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"

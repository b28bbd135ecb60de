"""Records: what `edgeseg collect` wrote of each frame, and how it stays with a frame that comes back labeled."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgeseg.files import write_bytes

FILE = "collected.jsonl"


@dataclass(frozen=True)
class CollectedFrame:
    """`time`: Unix seconds when it was kept, None where that is no number. `why`: reason -> 0 to 1."""

    name: str
    camera: str
    time: float | None
    why: dict[str, float]


def read(root: Path) -> dict[str, CollectedFrame]:
    """By the name of the frame, in the order in which they were collected; empty for a dataset that was not."""
    found: dict[str, CollectedFrame] = {}
    with suppress(FileNotFoundError):
        for line in (root / FILE).read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # a line that was left unfinished
                row = json.loads(line)
                why = {str(reason): float(value) for reason, value in row["why"].items()}
                found[str(row["name"])] = CollectedFrame(
                    str(row["name"]), str(row.get("stream", "")), _number(row.get("time")), why
                )
    return found


def carry(collection: Path, out: Path) -> None:
    """Have the records of a collection in a dataset that is made from it, too."""
    with suppress(FileNotFoundError):
        write_bytes(out / FILE, (collection / FILE).read_bytes(), durable=False)


def backward(frames: dict[str, CollectedFrame]) -> Counter[str]:
    """How often the clock went backward from one frame to the next, by camera."""
    jumps: Counter[str] = Counter()
    latest: dict[str, float] = {}
    for frame in frames.values():
        if frame.time is not None:
            jumps[frame.camera] += frame.time < latest.get(frame.camera, -math.inf)
            latest[frame.camera] = frame.time
    return +jumps


def _number(value: object) -> float | None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fits else None  # type: ignore[arg-type]

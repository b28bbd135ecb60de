"""Architecture search: a student for a recipe under a limit of latency, with random search beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edgeseg.errors import OptionError
from edgeseg.files import write_bytes
from edgeseg.machine import fingerprint
from edgeseg.recipe import Recipe
from edgeseg.records import parse_json
from edgeseg.results.search import ArchitectureResult, DesignRow, pareto_front
from edgeseg.search.designs import SAMPLERS, Design, Measured, Space, explore, shared


class Meter(Protocol):
    """What measures designs: training's CandidateMeter."""

    def measure(self, design: Design) -> Measured: ...
    def speedup(self, of: Design, over: Design) -> float: ...


def search(
    recipe: Recipe,
    target: str,
    space: Space,
    folder: Path,
    meter: Meter,
    trials: int,
    epochs: int,
    max_ms: float | None,
    log: Callable[[str], None],
) -> tuple[ArchitectureResult, Design]:
    """The recipe's own student, `trials` guided designs and as many random ones; the most accurate within `max_ms`.

    Run again, it goes on where it was; run twice at once with the same `folder`, the processes share the trials.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def measure(design: Design) -> Measured:
        return shared(folder, design, lambda: meter.measure(design))

    found = {"own": [(space.own, measure(space.own))]}
    for sampler in SAMPLERS:
        found[sampler] = explore(space, folder, sampler, trials, max_ms, recipe.seed, measure, log)
    everything = {design: measured for rows in found.values() for design, measured in rows}
    chosen = choose(everything.items(), max_ms)
    slowest = max_ms or max(measured.ms for measured in everything.values())
    result = ArchitectureResult(
        recipe=recipe.name,
        target=target,
        chosen=chosen.name,
        own=space.own.name,
        held=max_ms is None or everything[chosen].ms <= max_ms,
        max_ms=max_ms,
        epochs=epochs,
        trials=trials,
        speedup=meter.speedup(chosen, space.own),
        front=tuple(name for name, _, _ in pareto_front(_trained(everything.items()))),
        hypervolume={name: hypervolume(_trained(found[name]), slowest) for name in SAMPLERS},
        seconds={name: sum(m.seconds for m in {d.name: m for d, m in found[name]}.values()) for name in SAMPLERS},
        rows=tuple(
            _row(design, measured, [name for name, rows in found.items() if design in dict(rows)])
            for design, measured in sorted(everything.items(), key=lambda item: item[1].ms)
        ),
        machine=fingerprint(),
    )
    return result, chosen


def require_same(path: Path, settings: Mapping[str, object]) -> None:
    """OptionError where the search in this folder was begun with other settings, by the file `path`; writes it where
    there is none."""
    text = json.dumps(settings, sort_keys=True)
    if not path.is_file():
        return write_bytes(path, text.encode())
    before, now = parse_json(path.read_bytes()), json.loads(text)
    if before != now:
        other = [key for key in now if not isinstance(before, dict) or before.get(key) != now[key]]
        raise OptionError(
            f"The search in {path.parent} was begun with another {', '.join(other)}.",
            "Its measurements do not fit; choose another --out, or the settings of before.",
        )


def choose(rows: Iterable[tuple[Design, Measured]], max_ms: float | None) -> Design:
    """The most accurate design within the limit, of equal ones the fastest; the fastest of all where none is."""

    def worth(row: tuple[Design, Measured]) -> tuple[float, float]:
        return -(row[1].miou or 0.0), row[1].ms

    listed = list(rows)
    fit = [row for row in listed if row[1].miou is not None and (max_ms is None or row[1].ms <= max_ms)]
    return min(fit, key=worth)[0] if fit else min(listed, key=lambda row: row[1].ms)[0]


def hypervolume(points: Sequence[tuple[str, float, float]], slowest: float) -> float:
    """The share of the rectangle 0..`slowest` ms x 0..1 mIoU that (name, ms, mIoU) dominate (Zitzler 1999)."""
    area, last, best = 0.0, 0.0, 0.0
    for _, ms, miou in pareto_front([p for p in points if p[1] <= slowest]):
        area += best * (ms - last)
        last, best = ms, miou
    return (area + best * (slowest - last)) / slowest


def _trained(rows: Iterable[tuple[Design, Measured]]) -> list[tuple[str, float, float]]:
    return [(design.name, measured.ms, measured.miou) for design, measured in rows if measured.miou is not None]


def _row(design: Design, measured: Measured, found_by: Sequence[str]) -> DesignRow:
    return DesignRow(
        name=design.name,
        arch=design.arch,
        width=design.width,
        size=(design.input_width, design.height),
        precision=str(design.precision),
        ms=measured.ms,
        miou=measured.miou,
        seconds=measured.seconds,
        found_by=tuple(found_by),
    )

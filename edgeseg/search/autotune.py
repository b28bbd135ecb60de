"""Autotune: every candidate measured on the target, the Pareto front drawn, one of them chosen, and why.

Accuracies first, one after another; then the speeds of all, interleaved.

A candidate is a model (one for each pruning level that is given) at an input size in a precision. Where plain INT8
loses too much, other variants of it are tried (equalized channels, biases as they are, ranges), and from the best of
them the noisiest layers are excluded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgeseg.bench.interleaved import slowdown
from edgeseg.bench.measure import STABLE
from edgeseg.errors import OptionError
from edgeseg.machine import fingerprint
from edgeseg.precision import Precision
from edgeseg.recipe import PTQ
from edgeseg.results.bench import Speed
from edgeseg.results.search import AutotuneCandidate, AutotuneResult, pareto_front
from edgeseg.search.control import counted, data_of, variant_name, variants
from edgeseg.search.trials import Outcome, Trial, Trials, came_quantized, points_lost, reference_precision
from edgeseg.spec import Spec

EXCLUDED = (1, 4, 16)  # noisiest layers
EXPLAINED = 5  # faster candidates that the result explains
Row = AutotuneCandidate
Model = tuple[Path, Spec]


def autotune(
    trials: Trials, models: Sequence[Model], max_drop: float, p99: float | None, out: Path, sure: bool = False
) -> AutotuneResult:
    """Measure every candidate of `models` (each with its Spec; the first in float is what drops are counted from).

    Chooses the fastest (p50; see choose) that loses at most `max_drop` points of mIoU (`sure`: with its whole 95 %
    interval) and whose p99 is at most `p99` ms, and writes it to `out`.
    """
    _require(models)
    reference = trials.measure(trial(*models[0], reference_precision(trials.target)))
    outcomes, stopped = _measured(trials, models, reference, max_drop, sure)
    speeds = trials.speeds(list(outcomes.values()))
    rows = [_row(outcome, reference, sure, speeds[name]) for name, outcome in outcomes.items()]
    chosen, held = choose(rows, max_drop, p99)
    trials.publish(outcomes[chosen.name], out, autotune={"held": held, "max_drop": max_drop, "sure": sure, "p99": p99})
    return AutotuneResult(
        target=trials.target.name,
        bundle=str(out),
        chosen=chosen.name,
        held=held,
        max_drop=max_drop,
        sure=sure,
        p99=p99,
        why=tuple(explain(rows, chosen, held, max_drop, p99)),
        stopped=stopped,
        front=tuple(name for name, _, _ in pareto_front((row.name, row.latency_ms.p50, row.miou) for row in rows)),
        rows=tuple(rows),
        measured_by=reference.measured_by,
        data=data_of(trials.dataset),
        machine=fingerprint(),
    )


def _require(models: Sequence[Model]) -> None:
    """OptionError for models of one name, and where there is no float model to count drops from."""
    known: dict[str, Path] = {}
    for model, spec in models:
        if known.setdefault(f"{model.stem} {spec.width}x{spec.height}", model) != model:
            raise OptionError(f"Two models are called {model.stem}.", "Give the files names that differ.")
    if came_quantized(models[0][0]):
        raise OptionError(
            f"{models[0][0].name} came quantized, and drops are counted from the first model in float.",
            "Name the float model first.",
        )


def _measured(
    trials: Trials, models: Sequence[Model], reference: Outcome, max_drop: float, sure: bool
) -> tuple[dict[str, Outcome], str]:
    """Every candidate by name, or `reference` alone; and which budget ran out, or ""."""
    outcomes: dict[str, Outcome] = {}

    def measure(candidate: Trial) -> float:
        """The points it lost, as they count."""
        outcomes[candidate.name] = trials.measure(candidate)
        drop = points_lost(reference, outcomes[candidate.name])
        trials.log(f"{candidate.name}: {drop.value:.2f} points lost")
        return counted(drop, sure)

    lost: dict[str, float] = {}
    for model, spec in models:
        for candidate in candidates(trials, model, spec, max_drop, lost):
            if stopped := trials.budget.spent():
                return outcomes or {reference.trial.name: reference}, stopped
            lost[candidate.name] = measure(candidate)
    return outcomes, ""


def trial(model: Path, spec: Spec, precision: Precision, excluded: Sequence[str] = (), ptq: PTQ = PTQ()) -> Trial:  # noqa: B008
    parts = [
        model.stem,
        f"{spec.width}x{spec.height}",
        precision,
        variant_name(ptq),
        f"excluding-{len(excluded)}" if excluded else "",
    ]
    return Trial("-".join(filter(None, parts)), model, spec, precision, tuple(excluded), ptq)


def candidates(trials: Trials, model: Path, spec: Spec, max_drop: float, lost: Mapping[str, float]) -> Iterator[Trial]:
    """The model in every precision. Where plain INT8 loses too much, also its other variants and the best of those with
    its noisiest layers excluded. `lost`: the points of each by name, once it was measured."""
    precisions = trials.target.precisions
    if came_quantized(model):
        yield from (trial(model, spec, precision) for precision in (p for p in precisions if p.is_int8))
        return
    yield from (trial(model, spec, precision) for precision in precisions)
    plain = trial(model, spec, Precision.INT8)
    if lost[plain.name] <= max_drop:
        return
    others = list(variants(plain, trials.target.quantizer))
    yield from others
    best = min((plain, *others), key=lambda each: lost[each.name])
    noise, _ = trials.noise(model, spec)
    for k in EXCLUDED:
        for precision in (p for p in precisions if p.is_int8 and k < len(noise)):
            yield trial(model, spec, precision, [row.layer for row in noise[:k]], best.ptq)


def sized(model: Path, spec: Spec, sizes: Sequence[tuple[int, int]]) -> list[Model]:
    """The model at each (height, width); OptionError where its input is fixed at another size."""
    from edgeseg import onnx_graph

    image = onnx_graph.image_input(onnx_graph.load(model))
    fixed = (image.height, image.width)
    for height, width in sizes:
        if any(own not in (None, requested) for own, requested in zip(fixed, (height, width))):
            raise OptionError(
                f"{model} cannot run at {width}x{height}: its input is fixed at {fixed[1]}x{fixed[0]}.",
                "Leave --size out, name a checkpoint (.pt) or a model with a dynamic height and width.",
            )
    return [(model, replace(spec, height=height, width=width)) for height, width in sizes] or [(model, spec)]


def choose(rows: Sequence[Row], max_drop: float, p99: float | None) -> tuple[Row, bool]:
    """(row, whether it holds both limits): the fastest that holds both; else the most accurate of those in time; else,
    where none is in time, the fastest that keeps the accuracy; else the most accurate of all. Speeds within
    5 % count as equal: of those the most accurate is taken.
    """

    def fastest(candidates: list[Row]) -> Row:
        first = min(candidates, key=lambda row: (row.latency_ms.p50, -row.miou))
        # By p50 up to the last that is as fast: nothing that is faster and as accurate is passed over.
        last = max(row.latency_ms.p50 for row in candidates if slowdown(row, first) <= 1 + STABLE)
        return min((row for row in candidates if row.latency_ms.p50 <= last), key=most_accurate)

    def most_accurate(row: Row) -> tuple[float, float]:
        return -row.miou, row.latency_ms.p50

    accurate = [row for row in rows if row.counted <= max_drop]
    in_time = [row for row in rows if p99 is None or row.latency_ms.p99 <= p99]
    both = [row for row in accurate if row in in_time]
    if both:
        return fastest(both), True
    if p99 is not None and in_time:
        return min(in_time, key=most_accurate), False
    if accurate:
        return fastest(accurate), False
    return min(rows, key=most_accurate), False


def explain(rows: Sequence[Row], chosen: Row, held: bool, max_drop: float, p99: float | None) -> list[str]:
    """Why this one, a sentence each."""
    limit = f"{max_drop:g} points" + (f" and a p99 of {p99:g} ms" if p99 is not None else "")
    summary = f"{chosen.name}: {_figures(chosen)}"
    if held:
        lines = [
            f"{summary}. Of {len(rows)} candidates none within {limit} is more than {100 * STABLE:g} % faster, and of "
            "those as fast it is the most accurate."
        ]
    else:
        lines = [f"No candidate holds {limit}. The best of {len(rows)} is {summary}."]
    low, high = chosen.drop.low, chosen.drop.high
    if held and low is not None and high is not None and high > max_drop:
        lines.append(f"Its drop may lie between {low:.2f} and {high:.2f} points: more frames would decide it.")
    faster = [row for row in rows if row.latency_ms.p50 < chosen.latency_ms.p50]
    faster.sort(key=lambda row: (row.counted, row.latency_ms.p50))
    lines += [_passed_over(row, max_drop, p99) for row in faster[:EXPLAINED]]
    if len(faster) > EXPLAINED:
        lines.append(f"{len(faster) - EXPLAINED} more are faster, but none of them loses less.")
    return lines


def _passed_over(row: Row, max_drop: float, p99: float | None) -> str:
    """Why a faster one was not taken."""
    drop = row.drop.value or 0.0
    lost = f"{drop:.2f}"
    if row.counted > drop:
        lost += f" and may lose {row.counted:.2f}"
    reasons = [f"it loses {lost} points"] if row.counted > max_drop else []
    if p99 is not None and row.latency_ms.p99 > p99:
        reasons.append(f"its p99 is {row.latency_ms.p99:.2f} ms")
    reasons = reasons or [f"by no more than rounds differ, and its mIoU is {100 * row.miou:.2f}"]
    return f"{row.name} is faster ({row.latency_ms.p50:.2f} ms), but {' and '.join(reasons)}."


def _row(outcome: Outcome, reference: Outcome, sure: bool, speed: Speed) -> AutotuneCandidate:
    drop = points_lost(reference, outcome)
    return AutotuneCandidate(
        name=outcome.trial.name,
        model=outcome.trial.model.name,
        size=(outcome.trial.spec.width, outcome.trial.spec.height),
        precision=outcome.trial.precision.value,
        kept=outcome.trial.excluded,
        miou=outcome.miou,
        drop=drop.rounded(),
        counted=round(counted(drop, sure), 6),  # like the drop's own figures
        bytes=outcome.bytes,
        **vars(speed),
    )


def _figures(row: Row) -> str:
    return (
        f"mIoU {100 * row.miou:.2f}, {(row.drop.value or 0.0) + 0.0:.2f} points lost, "
        f"p50 {row.latency_ms.p50:.2f} ms, p99 {row.latency_ms.p99:.2f} ms"
    )

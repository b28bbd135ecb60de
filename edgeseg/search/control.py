"""Accuracy control: exclude as few layers from INT8 as it takes to stay within a drop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.statistics import Estimate
from edgeseg.precision import Precision
from edgeseg.quantization import schemes
from edgeseg.recipe import PTQ
from edgeseg.results.bench import Speed
from edgeseg.results.common import DataIdentity
from edgeseg.results.search import ControlCandidate, ControlResult, FloatReference, LayerNoise
from edgeseg.search.trials import Outcome, Trial, Trials, points_lost, reference_precision
from edgeseg.spec import Spec

Loss = Callable[[Trial], float]  # measures a trial: the points it lost, as they count


def control(
    trials: Trials,
    model: Path,
    spec: Spec,
    max_drop: float,
    out: Path,
    sure: bool = False,
    precision: Precision = Precision.INT8,
) -> ControlResult:
    """Write to `out` the INT8 bundle with the fewest excluded layers that loses at most `max_drop` points of mIoU;
    `sure`: with its whole 95 % interval, so that other frames agree.

    Plain INT8 is tried first, then the other variants (variants), until one holds. If none does, the layers are ranked
    by noise once, and from the best variant the k noisiest are excluded: k doubles until the drop holds, then the gap
    is halved. Where the budget ends that, or no k holds, the best bundle so far is written.
    """
    floating = reference_precision(trials.target)
    reference = trials.measure(Trial(floating, model, spec, floating))
    tried: list[tuple[Outcome, Estimate]] = []

    def loss(candidate: Trial) -> float:
        outcome = trials.measure(candidate)
        lost = points_lost(reference, outcome)
        tried.append((outcome, lost))
        what = f"{len(candidate.excluded)} layers excluded" + (
            f", {name}" if (name := variant_name(candidate.ptq)) else ""
        )
        trials.log(f"{what}: {lost.value:.2f} points lost, {max_drop:g} allowed")
        return counted(lost, sure)

    variant, lost, stopped = best_variant(trials, Trial("excluding-000", model, spec, precision), max_drop, loss)
    noise: list[LayerNoise] = []
    if lost > max_drop and not stopped:
        noise, stopped = trials.noise(model, spec)

        def holds(k: int) -> bool:
            excluded = tuple(n.layer for n in noise[:k])
            return loss(replace(variant, name=variant.name.replace("000", f"{k:03d}"), excluded=excluded)) <= max_drop

        stopped = _search(trials, holds, len(noise)) or stopped
    number = best([(len(outcome.trial.excluded), counted(drop, sure)) for outcome, drop in tried], max_drop)
    outcome, drop = tried[number]
    held = counted(drop, sure) <= max_drop
    speeds = trials.speeds([reference, *(each for each, _ in tried)])
    rows = [_row(*each, speeds) for each in sorted(tried, key=lambda each: len(each[0].trial.excluded))]
    result = ControlResult(
        bundle=str(out),
        chosen=outcome.trial.name,
        kept=outcome.trial.excluded,
        stopped=stopped,
        reference=FloatReference(precision=floating.value, miou=reference.miou, **vars(speeds[reference.trial.name])),
        rows=tuple(rows),
        measured_by=outcome.measured_by,
        held=held,
        max_drop=max_drop,
        sure=sure,
        drop=drop.rounded(),
        data=data_of(trials.dataset),
        noise=tuple(noise),
    )
    plain = result.to_dict()
    summary = {key: plain[key] for key in ("held", "max_drop", "sure", "drop", "data", "noise")}
    trials.publish(outcome, out, control=summary)
    return result


def best_variant(trials: Trials, plain: Trial, max_drop: float, loss: Loss) -> tuple[Trial, float, str]:
    """(trial, points it lost, which budget ran out or ""): plain INT8 if it holds, else the variant that loses least:
    all are tried, since none takes long and the first that holds is seldom the best."""
    measured = [(loss(plain), plain)]
    stopped = ""
    for other in variants(plain, trials.target.quantizer) if measured[0][0] > max_drop else ():
        if stopped := trials.budget.spent():
            break
        measured.append((loss(other), other))
    lost, variant = min(measured, key=lambda pair: pair[0])
    return variant, lost, stopped


def variants(plain: Trial, scheme: str) -> Iterator[Trial]:
    """INT8 with channels equalized, with biases left as they are, and by the other ranges that the scheme has."""
    _, *others = schemes.get(scheme).ranges
    if others:  # TensorRT's own calibrator has no choice
        tried = [PTQ(equalize=True), PTQ(bias=False), *(PTQ(ranges=ranges) for ranges in others)]
        yield from (replace(plain, name=f"{plain.name}-{variant_name(ptq)}", ptq=ptq) for ptq in tried)


def variant_name(ptq: PTQ) -> str:
    """What differs from plain INT8, for people: mse, equalized, uncorrected, or "" for nothing."""
    parts = [ptq.ranges if ptq.ranges != PTQ.ranges else "", "equalized" if ptq.equalize else ""]
    return "-".join(word for word in (*parts, "" if ptq.bias else "uncorrected") if word)


def counted(drop: Estimate, sure: bool) -> float:
    """The points that a limit is held against: the estimate, or to be sure the upper end of its interval."""
    return drop.high if sure else drop.value


def best(tried: Sequence[tuple[int, float]], max_drop: float) -> int:
    """Which of these (excluded layers, points lost): the fewest layers that hold, of those the one that loses least;
    where none holds, the one that loses least (of equals, with the fewest layers)."""
    holding = [i for i, (_, lost) in enumerate(tried) if lost <= max_drop]
    if holding:
        return min(holding, key=lambda i: tried[i])
    return min(range(len(tried)), key=lambda i: (round(tried[i][1], 3), tried[i][0]))


def _search(trials: Trials, holds: Any, count: int) -> str:
    """Try values of k up to `count`; returns which budget ran out, or ""."""
    low, high, k = 0, count + 1, min(1, count)  # `low` does not hold, `high` does or is out of reach
    while high - low > 1:
        if reason := trials.budget.spent():
            return reason
        left = max(1, (high - low).bit_length())
        trials.log(f"excluding {k} of {count} layers next, at most {left} more, {trials.budget.eta(left)}")
        if holds(k):
            high = k
        else:
            low = k
        k = min(2 * k, count) if high > count else (low + high) // 2
    return ""


def _row(outcome: Outcome, drop: Estimate, speeds: dict[str, Speed]) -> ControlCandidate:
    return ControlCandidate(
        name=outcome.trial.name,
        k=len(outcome.trial.excluded),
        variant=variant_name(outcome.trial.ptq),
        kept=outcome.trial.excluded,
        miou=outcome.miou,
        drop=drop.rounded(),
        bytes=outcome.bytes,
        seconds=outcome.seconds,
        **vars(speeds[outcome.trial.name]),
    )


def data_of(dataset: Dataset) -> DataIdentity:
    return DataIdentity(dataset.root.name, dataset.split, len(dataset), dataset.digest())

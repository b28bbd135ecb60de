"""The soak's judge: what was measured, and which objectives it breached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeseg.errors import EdgesegError


class Breach(EdgesegError):
    """A service level objective that was not kept."""

    exit_code = 1


RECOVER_SECONDS = 15.0


@dataclass(frozen=True)
class Objective:
    """What a soak must keep to. `uptime`: share of the time with a result younger than a second."""

    uptime_untouched: float = 0.99
    reconnect_p95_s: float = 6.0
    age_p99_ms: float = 500.0
    growth_mib_per_min: float = 8.0
    growth_mib: float = 24.0  # growth below this is no leak, however short the run was
    threads: int = 8


@dataclass
class Record:
    """What is written down during a soak; bounded, however long it runs.

    `faults`: kind -> seconds to recover (None: it did not). `fresh`: of `looks`, how often the newest result of the
    front and the back camera was younger than a second. `memory`: (time, MiB, threads).
    """

    faults: dict[str, list[float | None]] = field(default_factory=dict)
    looks: int = 0
    fresh: list[int] = field(default_factory=lambda: [0, 0])
    memory: list[tuple[float, float, int]] = field(default_factory=list)


def report_of(summary: dict[str, Any], record: Record, ages: Iterable[float]) -> dict[str, Any]:
    """The measurements of a soak; `ages` in seconds from the camera to the sink."""
    recovered = [r for kind in record.faults.values() for r in kind if r is not None]
    return {
        "minutes": round(summary["seconds"] / 60, 2),
        "frames": summary["frames"],
        "fps": summary["fps"],
        "uptime": {n: round(up / max(record.looks, 1), 4) for n, up in zip(("front", "back"), record.fresh)},
        "faults": {kind: _recoveries(found) for kind, found in record.faults.items()},
        "reconnect_s": _percentiles(recovered, 1.0, (50, 95)),
        "age_ms": _percentiles(list(ages), 1e3, (50, 99)),
        "drops": summary["drops"],
        "reconnects": {s["name"]: s["reconnects"] for s in summary["streams"]},
        "damaged": {s["name"]: s["damaged"] for s in summary["streams"]},
        "memory_mib": _growth(record.memory),
        "threads": _threads(record.memory),
        "result": summary["result"],
        "error": summary["error"],
    }


def breaches(report: dict[str, Any], objective: Objective | None = None) -> Iterator[str]:
    """One line for every objective that was not kept."""
    objective = objective or Objective()
    if report["error"]:
        yield f"the run ended: {report['error']}"
    if report["uptime"]["back"] < objective.uptime_untouched:
        yield f"the untouched camera was up {report['uptime']['back']:.2%}; at least {objective.uptime_untouched:.0%}"
    for kind, found in report["faults"].items():
        if found["not_recovered"]:
            yield f"{found['not_recovered']} times no recovery from {kind} within {RECOVER_SECONDS:g} s"
    p95 = report["reconnect_s"]["p95"]
    if p95 is not None and p95 > objective.reconnect_p95_s:
        yield f"recovery p95 {p95:.1f} s; at most {objective.reconnect_p95_s:g} s"
    p99 = report["age_ms"]["p99"]
    if p99 is not None and p99 > objective.age_p99_ms:
        yield f"frame age p99 {p99:.0f} ms; at most {objective.age_p99_ms:g} ms"
    memory = report["memory_mib"]
    if memory["growth"] > objective.growth_mib and memory["per_minute"] > objective.growth_mib_per_min:
        yield f"memory grew by {memory['growth']:.0f} MiB, {memory['per_minute']:.1f} MiB a minute: a leak"
    if report["threads"]["growth"] > objective.threads:
        yield f"{report['threads']['growth']} more threads than after warm-up"


def _recoveries(found: list[float | None]) -> dict[str, Any]:
    times = [seconds for seconds in found if seconds is not None]
    return {"times": len(found), "not_recovered": len(found) - len(times), **_percentiles(times, 1.0, (50, 95))}


def _percentiles(values: list[float], scale: float, which: tuple[int, ...]) -> dict[str, float | None]:
    found = np.percentile(np.array(values) * scale, which) if values else [None] * len(which)
    return {f"p{p}": None if value is None else round(float(value), 3) for p, value in zip(which, found)}


def _growth(memory: list[tuple[float, float, int]]) -> dict[str, float]:
    """MiB after the first third (warm-up): the least-squares slope, which a single peak does not fool."""
    calm = memory[len(memory) // 3 :]
    if len(calm) < 10:
        return {"after_warm_up": 0.0, "end": 0.0, "growth": 0.0, "per_minute": 0.0}
    t, mib = np.array([m[0] for m in calm]), np.array([m[1] for m in calm])
    slope = float(np.polyfit(t - t[0], mib, 1)[0])
    values = {"after_warm_up": mib[0], "end": mib[-1], "growth": slope * (t[-1] - t[0]), "per_minute": slope * 60}
    return {key: round(float(value), 1) for key, value in values.items()}


def _threads(memory: list[tuple[float, float, int]]) -> dict[str, int]:
    calm = [m[2] for m in memory[len(memory) // 3 :]] or [0]
    return {"most": max(calm), "growth": int(np.median(calm[-10:]) - np.median(calm[:10]))}

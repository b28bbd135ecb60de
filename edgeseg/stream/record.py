"""ResultRecord: one result as plain values, for JSON lines and webhooks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from edgeseg.fit import seen_part
from edgeseg.result import Decision, Result, class_shares
from edgeseg.stream.sinks import Info

DECIDED = Decision(None)


@dataclass(frozen=True)
class ResultRecord:
    """`time`: Unix seconds of the capture; `pts`: seconds on the source's own time axis, None where it has none;
    `age_from`: what `time` and `age_ms` go by, the frame's `capture`, its `arrival` here or when it was `read`;
    `size`: width, height; `shares`: of the frame, per class that is present; `ms`: milliseconds per stage;
    `reused`: how many frames before this one went through the network, 0 where this one did; `undecided`: a person has
    to look at it, for these `reasons`; `confidence`: of the frame, None where it is not asked for.
    """

    stream: str
    frame: int
    time: float
    pts: float | None
    age_ms: float
    age_from: str
    size: tuple[int, int]
    shares: dict[str, float]
    ms: dict[str, float]
    reused: int
    undecided: bool
    reasons: tuple[str, ...]
    confidence: float | None

    @classmethod
    def of(cls, result: Result, info: Info) -> ResultRecord:
        age = time.monotonic() - result.frame.captured
        height, width = result.frame.image.shape[:2]
        decision = result.decision or DECIDED
        shares = class_shares(seen_part(result.classmap, info.spec, height, width), info.spec)
        return cls(
            stream=info.name,
            frame=result.frame.index,
            time=round(time.time() - age, 3),
            pts=None if result.frame.pts is None else round(result.frame.pts, 6),
            age_ms=round(age * 1e3, 1),
            age_from=result.frame.age_from,
            size=(width, height),
            shares={name: round(share, 4) for name, share in shares.items()},
            ms={stage: round(seconds * 1e3, 2) for stage, seconds in result.times.items()},
            reused=result.reused,
            undecided=decision.undecided,
            reasons=decision.reasons,
            confidence=decision.confidence,
        )

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

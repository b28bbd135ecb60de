"""RunSummary: what a run did, or how it stands, as frozen values that go to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from edgeseg.errors import EdgesegError, StreamError
from edgeseg.records import check_schema, convert
from edgeseg.reuse.segmenter import ReuseSummary
from edgeseg.timing import Percentiles

SCHEMA = 1
SINK = "sink "


@dataclass(frozen=True)
class Drops:
    """Frames that were lost, by the stage that lost them.

    `source`: replaced by a newer frame before inference; `fallback`: skipped by the fallback policy; `sinks`: results
    that a sink did not get or could not keep, by the sink's name.
    """

    source: int = 0
    fallback: int = 0
    sinks: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, int]:
        """{"source": n, "fallback": n, "sink NAME": n}, without those that lost nothing."""
        rows = {"source": self.source, "fallback": self.fallback, **{SINK + k: n for k, n in self.sinks.items()}}
        return {stage: number for stage, number in rows.items() if number}

    @classmethod
    def from_dict(cls, rows: Mapping[str, int]) -> Drops:
        sinks = {stage.removeprefix(SINK): n for stage, n in rows.items() if stage.startswith(SINK)}
        return cls(rows.get("source", 0), rows.get("fallback", 0), sinks)


@dataclass(frozen=True)
class StreamSummary:
    """One stream. `silent_s`: seconds since its latest result, None before the first; `damaged` counts packets;
    `age_from`: where the age of its latest result starts, see Frame. `undecided`: results that a person has to look at.
    """

    name: str
    source: str
    state: str
    frames: int
    fps: float
    silent_s: float | None
    reconnects: int
    damaged: int
    drops: Drops
    age_from: str = ""
    undecided: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "drops": self.drops.to_dict()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> StreamSummary:
        return cls(**{**document, "drops": Drops.from_dict(document["drops"])})


@dataclass(frozen=True)
class FallbackSummary:
    """A fallback policy: its level now (0: full quality), how often it changed, results per level and late results."""

    level: int
    name: str
    steps: int
    late: int
    results: dict[str, int]
    deadline_ms: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class RunSummary:
    """A run. `stages` and `latency` in milliseconds, `seconds` since it started, `count` None where nobody knows it.

    `latency` is the model's own path (resize + infer + mask); `stages["age"]` is from the capture, or what a stream's
    `age_from` says instead, to the end of the sink.
    `result` says how the run ended ("running" while it goes on), `error` what broke it; `fallback` is None where no
    deadline was given, `reuse` where every frame went through the network.
    """

    KIND: ClassVar[str] = "run"

    frames: int
    seconds: float
    count: int | None = None
    latency: Percentiles | None = None
    stages: Mapping[str, Percentiles] = field(default_factory=dict)
    streams: tuple[StreamSummary, ...] = ()
    warnings: tuple[str, ...] = ()
    fallback: FallbackSummary | None = None
    reuse: ReuseSummary | None = None
    result: str = "running"
    error: EdgesegError | None = field(default=None, compare=False)

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def drops(self) -> dict[str, int]:
        """Frames lost per stage; with several streams the stream's name comes first: {"front source": 3}."""
        return {
            f"{stream.name} {stage}".strip(): number
            for stream in self.streams
            for stage, number in stream.drops.to_dict().items()
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.KIND,
            "schema": SCHEMA,
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "count": self.count,
            "fps": round(self.fps, 3),
            "latency_ms": self.latency and self.latency.to_dict(),
            "stages": {stage: row.to_dict() for stage, row in self.stages.items()},
            "drops": self.drops,
            "streams": [stream.to_dict() for stream in self.streams],
            "warnings": list(self.warnings),
            "fallback": self.fallback and self.fallback.to_dict(),
            "reuse": self.reuse and self.reuse.to_dict(),
            "result": self.result,
            "error": self.error.what if self.error else None,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], name: object = "This") -> RunSummary:
        """The summary that to_dict() wrote (keys it does not know are left aside); FileError for anything else."""
        check_schema(document, SCHEMA, name)
        stored = convert(document, _Document, f"{name} is not a run summary", "Write it again: edgeseg run --json.")
        return cls(
            frames=stored.frames,
            seconds=stored.seconds,
            count=stored.count,
            latency=stored.latency_ms,
            stages=stored.stages,
            streams=tuple(StreamSummary.from_dict(vars(row)) for row in stored.streams),
            warnings=stored.warnings,
            fallback=stored.fallback,
            reuse=stored.reuse,
            result=stored.result,
            error=StreamError(stored.error) if stored.error else None,
        )


@dataclass(frozen=True)
class _StreamDocument:
    name: str
    source: str
    state: str
    frames: int
    fps: float
    silent_s: float | None
    reconnects: int
    damaged: int
    drops: dict[str, int]
    age_from: str = ""
    undecided: int = 0


@dataclass(frozen=True)
class _Document:
    """A run summary as its JSON has it."""

    frames: int
    seconds: float
    count: int | None
    latency_ms: Percentiles | None
    stages: dict[str, Percentiles]
    streams: tuple[_StreamDocument, ...]
    warnings: tuple[str, ...]
    fallback: FallbackSummary | None
    result: str
    error: str | None
    reuse: ReuseSummary | None = None

"""MetricsServer: a run over HTTP: /metrics for Prometheus (see telemetry/metrics.py), /healthz and /readyz.

/healthz is 200 while the run's watchdog does its work; /readyz is 200 while every stream has had a result in the last
FRESH_SECONDS.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

from edgeseg.stream.http import ACCESS, Address, Handler, Server
from edgeseg.stream.loop import Run
from edgeseg.stream.redact import redact
from edgeseg.stream.summary import StreamSummary
from edgeseg.stream.supervise import STATES
from edgeseg.stream.uri import Uri
from edgeseg.telemetry.families import BuildInfo
from edgeseg.telemetry.metrics import RunMetrics, RunSample, StreamSample

FRESH_SECONDS = 10.0
DEFAULT_STREAM = "main"


class MetricsServer:
    """Serves a run's metrics at `host:port` (http.py has its options) until closed; create it before run.go().

    OptionError if that address is not free, MissingPackage without prometheus-client.
    """

    def __init__(self, address: str, run: Run, build: BuildInfo):
        text, access = Uri.parse(address).split(ACCESS)
        where = Address.parse(text, f"--metrics {address}", "HOST:PORT, such as 127.0.0.1:9108.", **access)
        self.run = run
        self.metrics = RunMetrics(lambda: sample(run), build)
        shown = functools.lru_cache(lambda stream: redact(stream) or DEFAULT_STREAM)
        run.observe_stages(lambda stream, stage, seconds: self.metrics.observe(shown(stream), stage, seconds))
        self._server = Server(where, _Handler, self, "metrics")
        self.port = self._server.port

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop()


class _Handler(Handler):
    def get(self, path: str, query: dict[str, list[str]]) -> None:
        owner: MetricsServer = self.server.owner
        if path == "/metrics":
            self.reply(200, *owner.metrics.exposition())
        elif path == "/healthz":
            alive = owner.run.alive()
            self.reply(200 if alive else 503, "text/plain", b"alive\n" if alive else b"hangs\n")
        elif path == "/readyz":
            waiting = not_ready(owner.run.streams())
            body = json.dumps({"waiting_for": waiting}).encode() + b"\n"
            self.reply(503 if waiting else 200, "application/json", body)
        else:
            self.reply(404, "text/plain", b"expected: /metrics /healthz /readyz\n")


def not_ready(streams: Sequence[StreamSummary]) -> list[str]:
    """The names of the streams without a result in the latest FRESH_SECONDS."""
    return [redact(s.name or s.source) for s in streams if s.silent_s is None or s.silent_s > FRESH_SECONDS]


def sample(run: Run) -> RunSample:
    """The run's counters and gauges at this moment."""
    fallback = run.fallback
    return RunSample(
        uptime=run.seconds,
        resident_bytes=resident_bytes(),
        streams=[
            StreamSample(
                name=redact(stream.name) or DEFAULT_STREAM,
                frames=stream.frames,
                fps=stream.fps,
                silent=stream.silent_s,
                state=stream.state,
                states=STATES,
                reconnects=stream.reconnects,
                damaged=stream.damaged,
                age_from=stream.age_from,
                # A counter that appears with its first drop would hide that drop from rate().
                dropped={"source": 0, **{redact(stage): n for stage, n in stream.drops.to_dict().items()}},
                areas=latest.areas() if (latest := pipeline.latest) and latest.spec else {},
                margin=pipeline.margin,
                drift=pipeline.drift(),
                undecided=pipeline.undecided_by_reason(),
                queued=pipeline.queued(),
            )
            for stream, pipeline in zip(run.streams(), run.pipelines())
        ],
        fallback_level=fallback.level if fallback else None,
        late=fallback.late if fallback else None,
        key_frames=run.reuse.key_frames if run.reuse else None,
        estimated_drop=run.reuse.estimated_drop if run.reuse else None,
    )


def resident_bytes() -> int:
    """Memory this process holds now; 0 where the system does not say (it is Linux's /proc)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0

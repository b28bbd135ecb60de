"""Metrics of a run over HTTP, in Prometheus's text format: /metrics, and for orchestrators /healthz and /readyz.

/healthz is 200 while the run is watched over; /readyz is 200 while every stream has had a result in the last 10 s.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgeseg.errors import OptionError
from edgeseg.stream.http import Handler, Server
from edgeseg.stream.loop import Run
from edgeseg.stream.summary import Summary
from edgeseg.stream.supervise import STATES

FRESH_SECONDS = 10.0
QUANTILES = {"p50": "0.5", "p90": "0.9", "p99": "0.99"}
HELP = {
    "edgeseg_frames_total": ("counter", "Results delivered to the sinks."),
    "edgeseg_fps": ("gauge", "Results per second over the latest 30."),
    "edgeseg_dropped_total": ("counter", "Frames lost, by place."),
    "edgeseg_damaged_total": ("counter", "Packets that did not decode."),
    "edgeseg_reconnects_total": ("counter", "Connections after the first."),
    "edgeseg_silent_seconds": ("gauge", "Seconds since the latest result."),
    "edgeseg_state": ("gauge", "1 for the state the camera is in."),
    "edgeseg_stage_seconds": ("gauge", "Time per stage over the latest 10000 frames; age: capture to sink."),
    "edgeseg_ladder_level": ("gauge", "0 at full quality, else how many steps down the deadline forced."),
    "edgeseg_late_total": ("counter", "Results older than the deadline."),
    "edgeseg_uptime_seconds": ("gauge", "Seconds since the run started."),
    "edgeseg_resident_bytes": ("gauge", "Memory of the process."),
}


class Metrics:
    """Serves a run's metrics at `host:port` until closed; OptionError if that address cannot be had."""

    def __init__(self, address: str, run: Run):
        host, _, port = address.rpartition(":")
        if not port.isdigit():
            raise OptionError(f"--metrics {address} names no port.", "Expected HOST:PORT, such as 127.0.0.1:9108.")
        self._server = Server(host or "127.0.0.1", int(port), _Handler, run, "metrics")
        self.port = self._server.port

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop()


class _Handler(Handler):
    def do_GET(self) -> None:
        run: Run = self.server.owner
        if self.path == "/metrics":
            self.reply(200, "text/plain; version=0.0.4", exposition(run.summary()).encode())
        elif self.path == "/healthz":
            self.reply(*((200, "text/plain", b"alive\n") if run.alive() else (503, "text/plain", b"hangs\n")))
        elif self.path == "/readyz":
            waiting = not_ready(run.summary())
            self.reply(
                503 if waiting else 200, "application/json", json.dumps({"waiting_for": waiting}).encode() + b"\n"
            )
        else:
            self.reply(404, "text/plain", b"here are: /metrics /healthz /readyz\n")


def not_ready(summary: Summary) -> list[str]:
    """The streams without a result in the latest 10 s."""
    return [s["name"] or s["source"] for s in summary.streams if s["silent_s"] is None or s["silent_s"] > FRESH_SECONDS]


def exposition(summary: Summary) -> str:
    """Prometheus text format 0.0.4."""
    samples: list[tuple[str, dict[str, str], float]] = [("edgeseg_uptime_seconds", {}, summary.seconds)]
    for stream in summary.streams:
        name = {"stream": stream["name"] or "main"}
        samples += [
            ("edgeseg_frames_total", name, stream["frames"]),
            ("edgeseg_fps", name, stream["fps"]),
            ("edgeseg_damaged_total", name, stream["damaged"]),
            ("edgeseg_reconnects_total", name, stream["reconnects"]),
            *(("edgeseg_state", {**name, "state": s}, int(s == stream["state"])) for s in STATES),
            *(("edgeseg_dropped_total", {**name, "place": p}, n) for p, n in stream["drops"].items()),
        ]
        if stream["silent_s"] is not None:
            samples.append(("edgeseg_silent_seconds", name, stream["silent_s"]))
    for stage, values in summary.stages.items():
        samples += [
            ("edgeseg_stage_seconds", {"stage": stage, "quantile": QUANTILES[p]}, v / 1e3) for p, v in values.items()
        ]
    if summary.ladder:
        samples.append(("edgeseg_ladder_level", {}, summary.ladder["level"]))
        samples.append(("edgeseg_late_total", {}, summary.ladder["late"]))
    samples.append(("edgeseg_resident_bytes", {}, resident_bytes()))
    lines: list[str] = []
    for metric, (kind, text) in HELP.items():
        lines += [f"# HELP {metric} {text}", f"# TYPE {metric} {kind}"]
        lines += [f"{m}{_labels(labels)} {value:.10g}" for m, labels, value in samples if m == metric]
    return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """Memory this process holds now; 0 where the system does not tell (it is Linux's /proc)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError, ValueError):
        return 0


def _labels(labels: dict[str, str]) -> str:
    def escape(text: str) -> str:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{k}="{escape(v)}"' for k, v in labels.items()) + "}" if labels else ""

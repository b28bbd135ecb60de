"""run: a bundle on cameras, videos or folders. soak: the same through scripted faults."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg import __version__
from edgeseg.cli import options, signals
from edgeseg.cli.common import console, emit, results, table
from edgeseg.errors import EdgesegError, OptionError

if TYPE_CHECKING:
    from edgeseg.results.common import BundleIdentity
    from edgeseg.reuse.segmenter import ReuseSummary
    from edgeseg.stream.config import Settings
    from edgeseg.stream.progress import OnProgress
    from edgeseg.stream.progress import Progress as RunProgress
    from edgeseg.stream.soak.objectives import SoakReport
    from edgeseg.stream.summary import RunSummary
    from edgeseg.telemetry.families import BuildInfo

SOURCE_HELP = (
    "Where frames come from: a video file, a folder, 'glob*.png', 0 or webcam, /dev/video1, rtsp://, http://, udp://, "
    "csi://0 or synthetic://street; NAME=URI names the stream; repeatable."
)
SINK_HELP = (
    "Where results go: FILE.mp4, FOLDER/, FILE.jsonl, mjpeg://127.0.0.1:8090, rtsp://SERVER/PATH, webhook+http://, "
    "mqtt://BROKER/TOPIC, events://FILE.jsonl, drift://FOLDER/, collect://FOLDER, review://FOLDER, "
    "window:// or null:// (the default, for timing); {name} stands for the stream's name; repeatable."
)
RUN_EXAMPLE = "Example: edgeseg run models/street/street-int8 --source clip.mp4 --sink out.mp4"
SOAK_EXAMPLE = "Example: edgeseg soak models/street/street-int8 --hours 24 --json soak.json"
NOTIFY_SECONDS = 1.0

log = logging.getLogger(__name__)
app = typer.Typer()


@app.command(rich_help_panel=options.RUN, epilog=RUN_EXAMPLE)
def run(
    bundle: Annotated[
        Path | None, typer.Argument(help="The bundle to run; it may be named in --config instead.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help=SOURCE_HELP)] = None,
    sink: Annotated[list[str] | None, typer.Option(help=SINK_HELP)] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="Read settings from this TOML file; options given here win.")
    ] = None,
    max_frames: Annotated[int | None, typer.Option(help="Stop after this many frames.")] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="latency (one frame at a time) or throughput; by default latency if a source is live."),
    ] = None,
    no_overlay: Annotated[
        bool, typer.Option("--no-overlay", help="Write the frames unchanged, without classes and legend.")
    ] = False,
    queue: Annotated[
        int | None,
        typer.Option(
            help="How many frames may wait for inference; by default 1 of a camera (the newest), 4 of a file."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads for inference; by default as many as this process may use."),
    ] = None,
    no_reconnect: Annotated[
        bool, typer.Option("--no-reconnect", help="End at the first failure of a camera or of its sinks.")
    ] = False,
    deadline: Annotated[
        float | None,
        typer.Option(help="Reduce quality when a camera's results are older than this many milliseconds."),
    ] = None,
    fallback: Annotated[
        list[Path] | None, typer.Option(help="A cheaper bundle to use when --deadline is missed; repeatable.")
    ] = None,
    reuse: options.Reuse = None,
    max_drop: options.MaxDrop = None,
    stabilize: options.Stabilize = False,
    metrics: Annotated[
        str | None, typer.Option(help="Serve /metrics (Prometheus), /healthz and /readyz at HOST:PORT.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="Zones and rules (TOML), for sinks that take events.", metavar="FILE")
    ] = None,
    blur: Annotated[
        list[str] | None,
        typer.Option(help="Classes that every sink gets blurred, such as person,car.", metavar="CLASS"),
    ] = None,
    fill: Annotated[
        list[str] | None, typer.Option(help="Classes that every sink gets filled with gray.", metavar="CLASS")
    ] = None,
    min_confidence: options.MinConfidence = None,
    review_class: options.ReviewClass = None,
    review_queue: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep undecided frames in this folder, for edgeseg label review.")
    ] = None,
    require_signature: Annotated[
        Path | None, typer.Option(help="A public key; refuse bundles that its owner did not sign.")
    ] = None,
    bundle_name: options.BundleName = None,
    min_version: options.MinVersion = None,
    json_to: options.Json = None,
) -> None:
    """Segment the frames of cameras, videos or folders and write the results to sinks: for operators.

    Cameras are reconnected whenever they fail; files end the run. Ctrl-C and SIGTERM stop it cleanly.

    See docs/streaming.md.
    """
    from edgeseg.stream import config

    values: dict[str, object] = {
        "bundle": bundle,
        "streams": config.from_options(source or (), sink or ()),
        "mode": mode,
        "overlay": False if no_overlay else None,
        "max_frames": max_frames,
        "queue": queue,
        "threads": threads,
        "reconnect": False if no_reconnect else None,
        "deadline_ms": deadline,
        "fallback": tuple(fallback or ()),
        "reuse": reuse,
        "max_drop": max_drop,
        "stabilize": stabilize or None,
        "metrics": metrics,
        "rules": rules,
        "blur": _names(blur),
        "fill": _names(fill),
        "min_confidence": min_confidence,
        "review_class": tuple(review_class or ()),
        "review_queue": review_queue,
        "require_signature": require_signature,
        "bundle_name": bundle_name,
        "min_version": min_version,
    }
    run_streams(_settings(config_file, values, sinks_given=bool(sink)), json_to)


@app.command(rich_help_panel=options.RUN, epilog=SOAK_EXAMPLE)
def soak(
    bundle: Annotated[Path, typer.Argument(help="The bundle to test.")],
    minutes: Annotated[
        float, typer.Option(min=0.2, help="How long to run; one round of all faults takes about two minutes.")
    ] = 5.0,
    hours: Annotated[float | None, typer.Option(min=0.01, help="How long to run, in hours, instead.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random durations of the faults.")] = 0,
    speed: Annotated[
        float, typer.Option(min=1, max=10, help="Faults and pauses this many times as fast, for more of them in a day.")
    ] = 1.0,
    sabotage: Annotated[
        str | None, typer.Option(help="leak or hang: break the run on purpose, to verify that the soak notices.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="Only this fault; repeatable. By default all, one after another.")
    ] = None,
    json_to: options.Json = None,
) -> None:
    """Test how a bundle survives faults: two simulated cameras through disconnects, freezes and full disks.

    For whoever deploys to the field. Exits 1 if uptime, recovery, frame age or memory misses its objective. With
    --json FILE what was measured so far is written there after every round of faults ("finished": false), so that
    an end of power does not take a day's figures along.
    """
    from edgeseg.stream.soak.objectives import ObjectivesMissed
    from edgeseg.stream.soak.rig import Timing
    from edgeseg.stream.soak.run import soak as run_soak

    def keep(report: SoakReport) -> None:
        if json_to not in (None, "-"):
            try:
                emit({**report.to_dict(), "finished": False}, json_to)
            except EdgesegError as error:  # a full disk does not end the soak
                log.warning("%s", error.what)

    duration = 60 * hours if hours else minutes
    with signals.interruptible(), progress_reporter("soak") as on_progress:
        report = run_soak(
            bundle, duration, seed=seed, sabotage=sabotage, faults=tuple(fault or ()), timing=Timing(speed=speed),
            on_progress=on_progress, on_interim=keep,
        )  # fmt: skip
    show_soak(report, json_to)
    emit({**report.to_dict(), "finished": True}, json_to)
    if not report.ok:
        raise ObjectivesMissed("Objectives missed: " + "; ".join(report.breaches))


def run_streams(settings: Settings, json_to: str | None) -> None:
    from dataclasses import asdict

    from edgeseg.machine import fingerprint
    from edgeseg.stream import assemble
    from edgeseg.stream.metrics_server import MetricsServer
    from edgeseg.stream.redact import redact_all
    from edgeseg.telemetry.families import require_client

    # FFmpeg's own lines are switched off; what matters comes as our errors.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if settings.metrics:
        require_client()  # before a camera or a model is opened
    with signals.stop_event() as stop, assemble.opened(settings, stop) as running:
        stop.last_act = running.rescue
        bundle = running.bundle
        assert bundle is not None  # it was opened from one
        serving = MetricsServer(settings.metrics, running, build_info(bundle)) if settings.metrics else nullcontext()
        with serving, progress_reporter("run") as on_progress:
            summary = running.go(on_progress)
    show(summary, json_to)
    about = {"bundle": asdict(bundle), "machine": asdict(fingerprint())}
    emit({key: redact_all(value) for key, value in {**summary.to_dict(), **about}.items()}, json_to)
    for path in running.files():
        log.info("wrote %s", path)
    if summary.error:
        raise summary.error


def _names(texts: list[str] | None) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for text in texts or () for name in text.split(","))))


def _settings(path: Path | None, options: dict[str, object], sinks_given: bool) -> Settings:
    from edgeseg.stream import config

    if path:
        if sinks_given and not options["streams"]:
            raise OptionError("--sink is given without --source.", f"Name the sinks of the streams in {path} there.")
        return config.load(path, **options)
    if options["bundle"] is None:
        raise OptionError("No bundle is given.", "edgeseg run BUNDLE --source URI, or edgeseg run --config FILE")
    values = {key: value for key, value in options.items() if value is not None}
    return config.Settings(**values)  # type: ignore[arg-type]


def build_info(bundle: BundleIdentity) -> BuildInfo:
    from edgeseg.telemetry.families import BuildInfo

    return BuildInfo(__version__, bundle.name, bundle.digest, bundle.target, bundle.precision)


@contextmanager
def progress_reporter(what: str) -> Iterator[OnProgress]:
    """Frames and FPS: a line that changes on a terminal, else a log line every 30 s; and systemd's watchdog."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )  # fmt: skip

    from edgeseg.stream.progress import ProgressLog

    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    terminal = console.is_terminal
    progress_log = ProgressLog(what)
    with Progress(*columns, console=console, transient=True, disable=not terminal) as line:
        task = line.add_task("", total=None)
        notified_at = 0.0

        def update(progress: RunProgress) -> None:
            nonlocal notified_at
            if terminal:
                line.update(
                    task, completed=progress.frames, total=progress.count, description=f"{progress.fps:.1f} FPS"
                )
            else:
                progress_log(progress)
            if time.monotonic() - notified_at > NOTIFY_SECONDS:
                notify_systemd("WATCHDOG=1" if notified_at else "READY=1")
                notified_at = time.monotonic()

        yield update
    progress_log.close()


def notify_systemd(text: str) -> None:
    """Send `text` to systemd, where it started us as Type=notify (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


def show(summary: RunSummary, json_to: str | None = None) -> None:
    title = f"{summary.frames} frames in {summary.seconds:.1f} s: {summary.fps:.1f} FPS ({summary.result})"
    shown = table(title, "stage (ms)", "p50", "p90", "p99")
    rows = {**summary.stages, **({"latency": summary.latency} if summary.latency else {})}
    for stage, row in rows.items():
        shown.add_row(stage, *(f"{value:.1f}" for value in (row.p50, row.p90, row.p99)))
    out = results(json_to)
    out.print(shown)
    undecided = sum(stream.undecided for stream in summary.streams)
    if undecided:
        out.print(f"undecided: {undecided} of {summary.frames}, a person has to look at them")
    for stage, number in summary.drops.items():
        out.print(f"dropped at {stage}: {number}")
    if fallback := summary.fallback:
        shares = ", ".join(f"{name} {number}" for name, number in fallback.results.items())
        out.print(f"deadline {fallback.deadline_ms:.0f} ms: {fallback.late} results late; per level: {shares}")
    if reuse := summary.reuse:
        out.print(f"key frames: {reuse.key_frames} of {reuse.frames} ({reuse.share:.0%})" + _estimate(reuse))
    for warning in summary.warnings:
        log.warning("%s", warning)


def _estimate(reuse: ReuseSummary) -> str:
    drop = reuse.estimated_drop
    return "" if drop is None else f", estimated loss {drop:.1f} points of mIoU"


def show_soak(report: SoakReport, json_to: str | None = None) -> None:
    title = f"{report.frames} frames in {report.minutes:g} minutes"
    shown = table(title, "fault", "count", "recovered", "p50 s", "p95 s")
    for kind, row in report.faults.items():
        shown.add_row(kind, *map(str, (row.count, row.recovered, row.p50, row.p95)))
    out = results(json_to)
    out.print(shown)
    rows = {"uptime": report.uptime, "age_ms": report.age_ms, "memory_mib": vars(report.memory_mib),
            "threads": vars(report.threads), "drops": report.drops}  # fmt: skip
    for key, values in rows.items():
        out.print(f"{key}: " + ", ".join(f"{k} {v}" for k, v in values.items()))

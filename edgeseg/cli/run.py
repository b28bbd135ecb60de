"""run: a bundle on cameras, videos or folders. soak: the same through scripted faults."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from edgeseg.cli.common import JSON_OPTION, console, emit, table
from edgeseg.errors import OptionError
from edgeseg.stream import assemble, config
from edgeseg.stream.loop import OnProgress
from edgeseg.stream.metrics import Metrics
from edgeseg.stream.summary import Summary
from edgeseg.stream.supervise import Transition

SOURCE_HELP = (
    "Video file, folder, 'glob*.png', /dev/video0, rtsp://, http://, udp://, csi://0, synthetic://street; repeatable."
)
SINK_HELP = (
    "FILE.mp4, FOLDER/, FILE.jsonl, mjpeg://127.0.0.1:8090, rtsp://SERVER/PATH, webhook+http://, window://, null://; "
    "repeatable."
)

app = typer.Typer()


@app.command()
def run(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle to run; may stand in --config.")] = None,
    source: Annotated[list[str] | None, typer.Option(help=SOURCE_HELP)] = None,
    sink: Annotated[list[str] | None, typer.Option(help=f"{SINK_HELP} [default: null://]")] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="Settings as TOML; options here win.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Stop after this many frames.")] = None,
    mode: Annotated[str | None, typer.Option(help="latency or throughput; by default as the source needs.")] = None,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Write the frames as they came.")] = False,
    queue: Annotated[
        int | None, typer.Option(help="Let this many frames wait. [camera: 1, the newest; file: 4]")
    ] = None,
    no_heal: Annotated[
        bool, typer.Option("--no-heal", help="End at the first failure of a camera or its sinks.")
    ] = False,
    deadline: Annotated[float | None, typer.Option(help="Keep a camera's results younger than this many ms.")] = None,
    fallback: Annotated[
        list[Path] | None, typer.Option(help="A cheaper bundle to fall back to when late; repeatable.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="Serve /metrics, /healthz, /readyz at HOST:PORT.")] = None,
    require_signature: Annotated[
        Path | None, typer.Option(help="A public key: refuse a bundle that its owner did not sign.")
    ] = None,
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Segment every frame of the sources and write the results to the sinks. Ctrl-C ends it cleanly.

    Cameras are reconnected until they are back; files end the run. See docs/streaming.md.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's own lines; what matters comes as our errors
    given: dict[str, object] = {
        "bundle": bundle,
        "streams": config.from_options(source or (), sink or ()),
        "mode": mode,
        "overlay": False if no_overlay else None,
        "max_frames": max_frames,
        "queue": queue,
        "heal": False if no_heal else None,
        "deadline_ms": deadline,
        "fallback": tuple(fallback or ()),
        "metrics": metrics,
        "require_signature": require_signature,
    }
    settings = _settings(config_file, given, bool(sink))
    with stopping() as stop, assemble.opened(settings, stop, tell) as running:
        served = Metrics(settings.metrics, running) if settings.metrics else nullcontext()
        with served, progress_line() as progress:
            summary = running.go(progress)
    show(summary)
    emit({"kind": "run", **summary.to_dict()}, json_to)
    if summary.error:
        raise summary.error


@app.command()
def soak(
    bundle: Annotated[Path, typer.Argument(help="The bundle to run.")],
    minutes: Annotated[
        float, typer.Option(min=0.2, help="How long; a round of all faults takes about one minute.")
    ] = 5.0,
    seed: Annotated[int, typer.Option(help="Of the faults' lengths.")] = 0,
    sabotage: Annotated[str | None, typer.Option(help="leak or hang: prove that the soak finds it.")] = None,
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Run two loopback cameras through scripted faults; exit 1 if uptime, recovery, age or memory miss their goal."""
    from edgeseg.stream.soak import objectives
    from edgeseg.stream.soak.run import soak as run_soak

    with progress_line() as progress:
        report = run_soak(bundle, minutes, seed=seed, sabotage=sabotage, on_progress=progress)
    drawn = table(
        f"{report['frames']} frames in {report['minutes']:g} minutes", "fault", "times", "recovered p50 s", "p95 s"
    )
    for kind, found in report["faults"].items():
        drawn.add_row(kind, str(found["times"]), str(found["p50"]), str(found["p95"]))
    console.print(drawn)
    for key in ("uptime", "age_ms", "memory_mib", "threads", "drops"):
        console.print(f"{key}: " + ", ".join(f"{k} {v}" for k, v in report[key].items()), highlight=False)
    emit(report, json_to)
    if report["breaches"]:
        raise objectives.Breach("Objectives missed: " + "; ".join(report["breaches"]))


def _settings(path: Path | None, given: dict[str, object], sinks_given: bool) -> config.Settings:
    if path:
        if sinks_given and not given["streams"]:
            raise OptionError("--sink without --source.", f"The sinks of the streams in {path} stand there.")
        return config.load(path, **given)
    if given["bundle"] is None:
        raise OptionError("No bundle is named.", "edgeseg run BUNDLE --source URI, or edgeseg run --config FILE")
    return config.Settings(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal acts as always."""
    stop = threading.Event()

    def handle(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_line() -> Iterator[OnProgress]:
    """Frames and FPS on one line (nothing where the error stream is no terminal); tells systemd that we live."""
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as line:
        task = line.add_task("", total=None)
        told = 0.0

        def update(summary: Summary) -> None:
            nonlocal told
            line.update(task, completed=summary.frames, total=summary.count, description=f"{summary.fps:.1f} FPS")
            if time.monotonic() - told > 1:
                notify("WATCHDOG=1" if told else "READY=1")
                told = time.monotonic()

        yield update


def notify(text: str) -> None:
    """Tell systemd, where it started us as Type=notify (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


def tell(name: str, change: Transition) -> None:
    """One line for every change of a camera's state."""
    why = f" ({change.why})" if change.why else ""
    console.print(f"{time.strftime('%H:%M:%S')} {name}: {change.state}{why}", markup=False, highlight=False)


def show(summary: Summary) -> None:
    title = f"{summary.frames} frames in {summary.seconds:.1f} s: {summary.fps:.1f} FPS ({summary.result})"
    drawn = table(title, "stage (ms)", "p50", "p90", "p99")
    rows = {**summary.stages, **({"latency": summary.latency_ms} if summary.latency_ms else {})}
    for stage, values in rows.items():
        drawn.add_row(stage, *(f"{values[p]:.1f}" for p in ("p50", "p90", "p99")))
    console.print(drawn)
    for place, number in summary.drops.items():
        console.print(f"dropped at {place}: {number}", markup=False, highlight=False)
    if ladder := summary.ladder:
        shares = ", ".join(f"{name} {number}" for name, number in ladder["results"].items())
        console.print(f"deadline {ladder['deadline_ms']:.0f} ms: {ladder['late']} results late; per step: {shares}")
    for warning in summary.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, style="yellow")

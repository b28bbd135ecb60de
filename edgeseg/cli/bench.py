"""bench, doctor: how fast is it here, and is this machine set up well?"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, progress, results, size, status, styled, table
from edgeseg.errors import EdgesegError, OptionError

if TYPE_CHECKING:
    from edgeseg.results.bench import BenchResult
    from edgeseg.timing import Percentiles

app = typer.Typer()
log = logging.getLogger(__name__)


@app.command(
    rich_help_panel=options.MEASURE,
    epilog="Example: edgeseg bench street-int8 --seconds 20 --json bench.json",
)
def bench(
    bundle: options.Bundle,
    seconds: Annotated[float, typer.Option(help="About how long to measure.", min=1)] = 10.0,
    samples: Annotated[int, typer.Option(help="Minimum number of single-stream frames (MLPerf: 1024).", min=0)] = 0,
    frame_size: Annotated[str, typer.Option("--size", metavar="WxH", help="Size of the camera frames.")] = "1280x720",
    seed: Annotated[int, typer.Option(help="Seed of the order of the frames.")] = 0,
    cold: Annotated[
        bool, typer.Option("--cold", help="Also start new processes: time to the first mask, and memory.")
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="Also run this source: where a frame's time goes from camera to sink.")
    ] = None,
    sustained: Annotated[int, typer.Option(help="Also run at full load for this many minutes.", min=0)] = 0,
    host: Annotated[
        list[str] | None, typer.Option(help="Measure on another machine instead: ssh://user@device; repeatable.")
    ] = None,
    python: Annotated[str, typer.Option(help="Python interpreter on --host.")] = "python3",
    json_to: options.Json = None,
) -> None:
    """Measure latency, throughput and where the time goes, beside the network alone.

    For everyone who compares devices, precisions or models. Exits 1 if the device throttled.
    """
    if host:
        arguments = ["--seconds", f"{seconds:g}", "--samples", str(samples), "--size", frame_size]
        arguments += [*(["--cold"] if cold else []), "--sustained", str(sustained)]
        _remote(bundle, host, python, arguments, json_to)
        return
    from dataclasses import replace

    from edgeseg.bench import measure
    from edgeseg.bench.startup import cold_start
    from edgeseg.bundle import Bundle
    from edgeseg.machine import fingerprint
    from edgeseg.runtime import require_own_backend
    from edgeseg.synth.street import Street

    loaded = Bundle.load(bundle)
    require_own_backend(
        loaded, "Its accuracy can be measured here: edgeseg eval. For its speed: --host ssh://user@device."
    )
    height, width = size(frame_size)
    frames = [Street(3, height=height, width=width).frame(t)[0] for t in range(0, 40, 5)]
    with progress(f"benchmarking {loaded.name}") as update:
        result = measure.bench(bundle, frames, seconds, update, samples, seed)
    if cold:
        with status("starting new processes"):
            result = replace(result, cold_start=cold_start(bundle))
    if source:
        result = replace(result, waterfall=_waterfall(bundle, source, seconds))
    if sustained:
        with progress(f"full load for {sustained} min") as update:
            result = replace(result, sustained=measure.sustained(bundle, frames, sustained, update))
    stored = loaded.manifest.metrics
    result = replace(
        result,
        advice=measure.advice(result.waterfall or result.stages_ms),
        miou=stored.miou if stored else None,
        pixel_accuracy=stored.pixel_accuracy if stored else None,
        bundle=loaded.identity,
        machine=fingerprint(),
    )
    _show(f"{loaded.name}: {loaded.target} {loaded.precision}, {frame_size} frames", result, json_to)
    emit(result, json_to)
    if reason := result.device.throttled:
        raise EdgesegError(
            f"The device throttled during the run: {reason}.",
            "These figures are not its best: cool it, lower the power mode, or measure --sustained on purpose.",
        )


@app.command(rich_help_panel=options.MEASURE, epilog="Example: edgeseg doctor --json doctor.json")
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the self-test.")] = False,
    licenses: Annotated[
        bool, typer.Option("--licenses", help="Only list the licenses of what edgeseg and its extras installed.")
    ] = False,
    json_to: options.Json = None,
) -> None:
    """Check what this machine can run, what is missing and what is misconfigured.

    For operators, before anything else on a new device. Exits 1 if something must be fixed.
    """
    if licenses:
        _licenses(json_to)
        return
    from dataclasses import asdict

    from edgeseg.bench import doctor as examination
    from edgeseg.machine import fingerprint

    begin = time.monotonic()
    findings = examination.examine()
    if not quick:
        with status("self-test"):
            findings += examination.self_test()
    marks = {"ok": "green", "note": "yellow", "problem": "bold red"}
    shown = table("", "check", "", "state", "to do")
    for row in findings:
        shown.add_row(row.about, styled(row.level, marks[row.level]), row.found, row.do)
    for column in shown.columns:
        column.justify = "left"
    problems = sum(row.level == "problem" for row in findings)
    shown_on = results(json_to)
    shown_on.print(shown)
    shown_on.print(f"{problems} problems, {time.monotonic() - begin:.1f} s")
    rows = [vars(row) for row in findings]
    emit({"kind": "doctor", "schema": 1, "machine": asdict(fingerprint()), "findings": rows}, json_to)
    raise typer.Exit(1 if problems else 0)


def _licenses(json_to: str | None) -> None:
    from edgeseg.licenses import of_install

    install = of_install()
    shown = table("Licenses, as the packages state them", "package", "version", "license", "brought by", "note")
    for row in install.packages:
        package, note = row.package, "; ".join(filter(None, (row.kind, *(f"holds {name}" for name in row.libraries))))
        brought = "edgeseg" if "" in row.extras else ", ".join(row.extras)
        color = {"copyleft": "bold red", "weak copyleft": "yellow"}.get(row.kind, "")
        license = package.license or "not stated"
        shown.add_row(package.name, package.version, license, brought, styled(note, color) if color else note)
    for column in shown.columns:
        column.justify = "left"
    results(json_to).print(shown)
    if install.missing:
        log.warning("not installed here, at least in part, and so not in the list: %s", ", ".join(install.missing))
    rows = [
        {**vars(row), "package": row.package.name, "version": row.package.version, "license": row.package.license}
        for row in install.packages
    ]
    emit({"kind": "licenses", "schema": 1, "packages": rows, "missing": install.missing}, json_to)


def _waterfall(bundle: Path, source: str, seconds: float) -> dict[str, Percentiles]:
    """Percentiles of every stage of a frame's way from the source to a sink that discards it."""
    import threading

    from edgeseg.stream import assemble, config

    stop = threading.Event()
    settings = config.Settings(bundle, config.from_options([source], ["null://"]))
    timer = threading.Timer(seconds, stop.set)
    with status(f"running {seconds:g} s of the source"), assemble.opened(settings, stop) as run:
        timer.start()
        summary = run.go(None)
        timer.cancel()
    if summary.error:
        raise summary.error
    return dict(summary.stages)


def _show(title: str, result: BenchResult, json_to: str | None) -> None:
    from edgeseg.timing import POINTS

    shown = table(title, "ms", *POINTS)
    rows = {"single stream": result.latency_ms, f"{result.streams} streams at once": result.multi_stream_ms}
    rows |= {**result.stages_ms, "network alone": result.pure_latency_ms}
    for name, row in rows.items():
        shown.add_row(name, *(f"{ms:.2f}" for ms in row.values()))
    out = results(json_to)
    out.print(shown)
    out.print(
        styled(
            f"{result.fps:.1f} FPS",
            "bold",
            f" with full class maps; the network alone {result.pure_fps:.1f} FPS "
            f"(ratio {result.fps / result.pure_fps:.2f}); {result.samples} single-stream frames",
        )
    )
    if start := result.cold_start:
        out.print(f"first mask {start.first_mask_s:.2f} s after process start, {start.peak_memory_mb:.0f} MB")
    if result.waterfall:
        out.print("waterfall p50: " + ", ".join(f"{k} {row.p50:.2f} ms" for k, row in result.waterfall.items()))
    if load := result.sustained:
        rates = ", ".join(f"{fps:g}" for fps in load.minutes_fps)
        out.print(f"full load: last minute {load.last_over_first:.3f} of the first (FPS by minute: {rates})")
    if (joules := result.device.joules_per_frame) is not None:
        out.print(f"{1000 * joules:.1f} mJ a frame, idle draw included")
    if result.unstable:
        spread = ", ".join(f"{name} {100 * result.spread[name]:.0f} %" for name in result.unstable)
        log.warning("unstable: rounds differ by more than 5 %%: %s", spread)
    if result.advice:
        out.print(styled("advice", "yellow", f" {result.advice}"))


def _remote(bundle: Path, uris: list[str], python: str, arguments: list[str], json_to: str | None) -> None:
    """The result of one host, or those of several under `hosts`."""
    from edgeseg.bench.remote import Host, bench_on
    from edgeseg.results.bench import BenchResult, HostsResult

    hosts = [Host.parse(uri) for uri in uris]
    if len(set(hosts)) != len(hosts):
        raise OptionError(
            "--host names one device twice.", "Name each once: two benchmarks on one device would disturb each other."
        )
    with status(f"benchmarking on {', '.join(host.name for host in hosts)}"):
        outcomes = bench_on(hosts, bundle, arguments, python)
    measured = [outcome for outcome in outcomes if isinstance(outcome, BenchResult)]
    for result in measured:
        _show(f"{result.host}: {result.bundle.name if result.bundle else ''}", result, json_to)
    if measured:
        emit(measured[0] if len(hosts) == 1 else HostsResult(hosts=tuple(measured)), json_to)
    failed = [outcome for outcome in outcomes if isinstance(outcome, EdgesegError)]
    for error in failed[1:]:
        log.error("%s", error.what, extra={"hint": error.hint})
    if failed:
        raise failed[0]

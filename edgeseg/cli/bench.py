"""bench, doctor: how fast is it here, and is this machine set up well?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseg.cli.common import JSON_OPTION, console, emit, identity, progress, size, table
from edgeseg.errors import EdgesegError, OptionError

app = typer.Typer()
BundleArg = Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)]
JsonOpt = Annotated[str | None, JSON_OPTION]
POINTS = ("p50", "p90", "p99")


@app.command()
def bench(
    bundle: BundleArg,
    seconds: Annotated[float, typer.Option(help="About how long.", min=1)] = 10.0,
    samples: Annotated[int, typer.Option(help="At least this many single-stream frames (MLPerf: 1024).", min=0)] = 0,
    frame_size: Annotated[str, typer.Option("--size", help="Size of the frames that come in.")] = "1280x720",
    seed: Annotated[int, typer.Option(help="Of the order of the frames.")] = 0,
    cold: Annotated[bool, typer.Option("--cold", help="Also start new processes: time to first mask, memory.")] = False,
    source: Annotated[str | None, typer.Option(help="Also run this source for the waterfall of a whole frame.")] = None,
    sustained: Annotated[int, typer.Option(help="Minutes of full load, minute by minute.", min=0)] = 0,
    host: Annotated[
        list[str] | None, typer.Option(help="Bench there instead: ssh://user@device; may be repeated.")
    ] = None,
    python: Annotated[str, typer.Option(help="The Python on --host.")] = "python3",
    json_to: JsonOpt = None,
) -> None:
    """Latency, throughput and where the time goes, beside pure inference of the same engine."""
    if host:
        _remote(bundle, host, python, ["--seconds", f"{seconds:g}", "--samples", str(samples), "--size", frame_size]
                + (["--cold"] if cold else []) + ["--sustained", str(sustained)], json_to)  # fmt: skip
        return
    from edgeseg.bench import measure
    from edgeseg.bundle import Bundle
    from edgeseg.machine import fingerprint
    from edgeseg.synth.street import Street

    loaded = Bundle.load(bundle)
    height, width = size(frame_size)
    frames = [Street(3, height=height, width=width).frame(t)[0] for t in range(0, 40, 5)]
    with progress(f"benching {loaded.name}") as update:
        result = measure.bench(bundle, frames, seconds, update, samples, seed)
    if cold:
        from edgeseg.bench.startup import cold_start

        with console.status("starting new processes"):
            result["cold_start"] = cold_start(bundle)
    if source:
        result["waterfall"] = _waterfall(bundle, source, seconds)
    if sustained:
        with progress(f"full load for {sustained} min") as update:
            result["sustained"] = measure.sustained(bundle, frames, sustained, update)
    result["advice"] = measure.advice(result.get("waterfall") or result["stages_ms"])
    _show(f"{loaded.name}: {loaded.target} {loaded.precision}, {frame_size} frames", result)
    stored = (loaded.manifest.get("metrics") or {}) if isinstance(loaded.manifest.get("metrics"), dict) else {}
    known = {"miou": stored.get("miou"), "pixel_accuracy": stored.get("pixel_accuracy")}
    emit({"kind": "bench", "bundle": identity(loaded), "machine": fingerprint(), **known, **result}, json_to)
    if reason := result["device"]["throttled"]:
        raise EdgesegError(
            f"The device throttled during the run: {reason}.",
            "These figures are not its best: cool it, lower the power mode, or measure --sustained on purpose.",
        )


@app.command()
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the self-test.")] = False,
    json_to: JsonOpt = None,
) -> None:
    """What this machine can run, what is missing, what is misconfigured; exit 1 where something must be mended."""
    from edgeseg.bench import doctor as examination
    from edgeseg.machine import fingerprint

    begin = time.monotonic()
    findings = examination.examine()
    if not quick:
        with console.status("self-test"):
            findings += examination.self_test()
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[bold red]problem[/]"}
    shown = table("edgeseg doctor", "", "", "found", "to do")
    for row in findings:
        shown.add_row(row.about, marks[row.level], row.found, row.do)
    for column in shown.columns:
        column.justify = "left"
    console.print(shown)
    problems = sum(row.level == "problem" for row in findings)
    console.print(f"{problems} problems, {time.monotonic() - begin:.1f} s", highlight=False)
    emit({"kind": "doctor", "machine": fingerprint(), "findings": [vars(row) for row in findings]}, json_to)
    raise typer.Exit(1 if problems else 0)


def _waterfall(bundle: Path, source: str, seconds: float) -> dict[str, Any]:
    """Percentiles of every stage of a frame's way from the source to a sink that keeps nothing."""
    import threading

    from edgeseg.stream import assemble, config

    stop = threading.Event()
    settings = config.Settings(bundle, config.from_options([source], ["null://"]))
    timer = threading.Timer(seconds, stop.set)
    with (
        console.status(f"running {seconds:g} s of the source"),
        assemble.opened(settings, stop) as run,
    ):
        timer.start()
        summary = run.go(None)
        timer.cancel()
    if summary.error:
        raise summary.error
    return {stage: row.to_dict() for stage, row in summary.stages.items()}


def _show(title: str, result: dict[str, Any]) -> None:
    shown = table(title, "ms", *POINTS)
    rows = {"single stream": result["latency_ms"], f"{result['streams']} streams at once": result["multi_stream_ms"]}
    rows |= {**result["stages_ms"], "network alone": result["pure_latency_ms"]}
    for name, row in rows.items():
        shown.add_row(name, *(f"{row[k]:.2f}" for k in POINTS))
    console.print(shown)
    console.print(
        f"[bold]{result['fps']:.1f} FPS[/] with full class maps; the network alone {result['pure_fps']:.1f} FPS "
        f"(ratio {result['fps'] / result['pure_fps']:.2f}); {result['samples']} single-stream frames"
    )
    if found := result.get("cold_start"):
        console.print(f"first mask {found['first_mask_s']:.2f} s after process start, {found['peak_memory_mb']:.0f} MB")
    if found := result.get("waterfall"):
        console.print("waterfall p50: " + ", ".join(f"{k} {row['p50']:.2f} ms" for k, row in found.items()))
    if found := result.get("sustained"):
        console.print(f"last minute {found['last_over_first']:.3f} of the first ({found['minutes_fps']})")
    if (joules := result["device"]["joules_per_frame"]) is not None:
        console.print(f"{1000 * joules:.1f} mJ a frame, idle draw included")
    if result["unstable"]:
        spread = ", ".join(f"{name} {100 * result['spread'][name]:.0f} %" for name in result["unstable"])
        console.print(f"[yellow]unstable[/], rounds differ by more than 5 %: {spread}", highlight=False)
    if result["advice"]:
        console.print(f"[yellow]advice[/] {result['advice']}", highlight=False)


def _remote(bundle: Path, uris: list[str], python: str, options: list[str], json_to: str | None) -> None:
    """One host's document is the result; of several, a list of them under `hosts`."""
    from edgeseg.bench.remote import Host, bench_on

    hosts = [Host.parse(uri) for uri in uris]
    if len(set(hosts)) != len(hosts):
        raise OptionError("--host names one device twice.", "Two benches on one device would disturb each other.")
    with console.status(f"benching on {', '.join(host.name for host in hosts)}"):
        answers = bench_on(hosts, bundle, options, python)
    done = [answer for answer in answers if not isinstance(answer, EdgesegError)]
    for answer in done:
        _show(f"{answer['host']}: {answer['bundle']['name']}", answer)
    if done:
        emit(done[0] if len(hosts) == 1 else {"kind": "benches", "hosts": done}, json_to)
    failed = [answer for answer in answers if isinstance(answer, EdgesegError)]
    for error in failed[1:]:
        console.print(f"{error.what} {error.hint}", highlight=False)
    if failed:
        raise failed[0]

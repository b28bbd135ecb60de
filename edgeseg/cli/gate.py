"""gate, baseline: may this build ship?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from xml.etree import ElementTree

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, progress, results, show_slices, styled, table, wrote
from edgeseg.errors import OptionError

if TYPE_CHECKING:
    from edgeseg.results.gate import Check, GateResult

app = typer.Typer()
MARKS = {"pass": ("pass", "green"), "fail": ("FAIL", "bold red"), "undecided": ("undecided", "yellow")}
EXIT = {"pass": 0, "fail": 1, "undecided": 3}


@app.command(
    rich_help_panel=options.VERIFY,
    epilog="Example: edgeseg gate street-int8 --data data --parent street-fp32 --max-drop 0.5 --class-floor road=90",
)
def gate(
    bundle: options.Bundle,
    data: options.Data,
    split: options.Split = "test",
    parent: Annotated[Path | None, typer.Option(help="Bundle to compare with on the same frames.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="File of edgeseg baseline to compare with instead.")] = None,
    max_drop: Annotated[float, typer.Option(help="Points of mIoU that may be lost.", min=0)] = 0.5,
    max_gain: Annotated[float, typer.Option(help="Points of mIoU that may be gained unexplained.", min=0)] = 2.0,
    boundary_drop: Annotated[float | None, typer.Option(help="Points of boundary F1 that may be lost.", min=0)] = None,
    class_floor: Annotated[
        list[str] | None, typer.Option(help="CLASS=POINTS: smallest IoU of a class; repeatable.", show_default=False)
    ] = None,
    slices: options.Slices = None,
    max_slice_drop: Annotated[
        float | None, typer.Option(help="Points of mIoU that any of --slices may lose.", min=0)
    ] = None,
    slice_floor: Annotated[
        list[str] | None, typer.Option(help="SLICE=POINTS: smallest mIoU of a slice; repeatable.", show_default=False)
    ] = None,
    max_p99: Annotated[str | None, typer.Option(help="Largest p99 latency of one frame, like 20ms.")] = None,
    confidence: Annotated[float, typer.Option(help="Confidence of a pass and of a fail.", min=0.5, max=0.999)] = 0.95,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append a Markdown summary to this file.")] = None,
    json_to: options.Json = None,
) -> None:
    """Pass or fail a build on its accuracy and latency, in CI.

    Exits 0 for pass, 1 for fail, 3 for undecided: the frames are too few to decide, and it says how many would.
    """
    from edgeseg.bundle import Bundle
    from edgeseg.data.dataset import Dataset
    from edgeseg.data.slices import read_slices
    from edgeseg.evaluation import gate as rules
    from edgeseg.evaluation.slice_gate import SliceLimits, check_slices
    from edgeseg.runtime import require_own_backend

    if parent and baseline:
        raise OptionError("--parent and --baseline were both given.", "Compare with one of them.")
    compared = parent is not None or baseline is not None
    limits = rules.Limits(
        max_drop if compared else None,
        boundary_drop,
        max_gain if compared else None,
        tuple(_floor(text, "--class-floor", "road=90") for text in class_floor or ()),
        _milliseconds(max_p99) if max_p99 else None,
        confidence,
    )
    if boundary_drop is not None and not compared:
        raise OptionError("--boundary-drop needs something to compare with.", "Give --parent or --baseline.")
    by_slice = SliceLimits(
        max_slice_drop, tuple(_floor(text, "--slice-floor", "'time: night=60'") for text in slice_floor or ())
    )
    if (max_slice_drop is not None or by_slice.floors) and not slices:
        raise OptionError("There is a limit for slices, and no slices.", "Name them: --slices slices.toml.")
    if max_slice_drop is not None and not compared:
        raise OptionError("--max-slice-drop needs something to compare with.", "Give --parent or --baseline.")
    if not compared and not limits.floors and not by_slice.floors and limits.max_p99 is None:
        rules.verdict([])
    dataset = Dataset.open(data, split)
    parts = read_slices(slices, [image.stem for image in dataset.images]) if slices else ()
    if limits.max_p99 is not None:
        require_own_backend(Bundle.load(bundle), "Leave out --max-p99 here, and check it there.")
    reference = rules.Measured.load(baseline) if baseline else None
    with progress("measuring") as update:
        build = rules.measure(bundle, dataset, update)
        if parent:
            reference = rules.measure(parent, dataset, update)
        checks = rules.check_accuracy(build, reference, limits)
        checks += check_slices(build, reference, parts, by_slice, confidence)
        if limits.max_p99 is not None:
            frames = [dataset[i][0] for i in range(min(16, len(dataset)))]
            checks.append(rules.latency(bundle, frames, limits.max_p99))
    result = rules.result_of(build, reference, checks, parts)
    _show(result, json_to)
    if junit:
        _write_junit(junit, build.name, checks)
        wrote(junit)
    if summary:
        _append_summary(summary, result)
        wrote(summary)
    emit(result, json_to)
    raise typer.Exit(EXIT[result.verdict])


@app.command(
    rich_help_panel=options.VERIFY,
    epilog="Example: edgeseg baseline street-int8 --data data --out baseline.json",
)
def baseline(
    bundle: options.Bundle,
    data: options.Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Baseline file to write.", show_default=False)],
    split: options.Split = "test",
    slices: options.Slices = None,
) -> None:
    """Store the accuracy that a bundle reaches today, for `edgeseg gate --baseline`.

    Commit the file: updating it is a decision.
    """
    from edgeseg.data.dataset import Dataset
    from edgeseg.data.slices import read_slices
    from edgeseg.evaluation import gate as rules
    from edgeseg.evaluation.evaluate import slice_scores
    from edgeseg.evaluation.statistics import estimate, miou

    dataset = Dataset.open(data, split)
    parts = read_slices(slices, [image.stem for image in dataset.images]) if slices else ()
    with progress("measuring") as update:
        measured = rules.measure(bundle, dataset, update)
    measured.save(out)
    accuracy = estimate(measured.tables, miou)
    ends = f"{100 * accuracy.low:.2f} to {100 * accuracy.high:.2f}"
    results().print(f"mIoU {100 * accuracy.value:.2f} ({ends}) on {len(dataset)} frames")
    show_slices([slice_scores(part, measured.tables, measured.data.classes) for part in parts], results())
    wrote(out)


def _show(result: GateResult, json_to: str | None) -> None:
    against = f" against {result.against}" if result.against else ""
    shown = table(f"gate: {result.bundle}{against}", "check", "", "measured")
    for check in result.checks:
        shown.add_row(check.name, styled(*MARKS[check.verdict]), check.text)
    shown_on = results(json_to)
    shown_on.print(shown)
    if result.backend.startswith("through"):
        shown_on.print(f"measured {result.backend}, not on its device")
    show_slices(result.slices, shown_on)
    shown_on.print(styled(*MARKS[result.verdict]))
    for check in result.checks:
        if check.verdict == result.verdict != "pass":
            shown_on.print(f"  {check.name}: {check.text}", markup=False)


def _write_junit(path: Path, name: str, checks: list[Check]) -> None:
    from edgeseg.files import write_bytes

    bad = {word: sum(check.verdict == word for check in checks) for word in ("fail", "undecided")}
    counts = {"tests": str(len(checks)), "failures": str(bad["fail"]), "errors": str(bad["undecided"])}
    suite = ElementTree.Element("testsuite", {"name": f"edgeseg gate {name}", **counts})
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "edgeseg.gate", "name": check.name})
        if check.verdict != "pass":
            kind = "failure" if check.verdict == "fail" else "error"
            ElementTree.SubElement(case, kind, {"message": check.text})
        ElementTree.SubElement(case, "system-out").text = check.text
    write_bytes(path, ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def _append_summary(path: Path, result: GateResult) -> None:
    """Appended, since CI systems collect the summaries of several steps in one file."""
    from edgeseg.report.blocks import Block, Heading, Table, Text, markdown

    rows = [[check.name, check.verdict, check.text] for check in result.checks]
    text = result.bundle + (f" against {result.against}" if result.against else "")
    blocks: list[Block] = [
        Heading(f"edgeseg gate: {result.verdict}"),
        Text(text),
        Table(["check", "verdict", "measured"], rows),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(markdown(blocks) + "\n")


def _floor(text: str, option: str, example: str) -> tuple[str, float]:
    name, _, points = text.rpartition("=")
    try:
        value = float(points)
        if not name or not 0 <= value <= 100:
            raise ValueError
    except ValueError:
        raise OptionError(f"{option} {text!r} is not a floor.", f"Expected NAME=POINTS, like {example}.") from None
    return name, value


def _milliseconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s)?", text)
    if not match or not float(match[1]):
        raise OptionError(f"--max-p99 {text!r} is not a time.", "Expected milliseconds, like 20ms.")
    return float(match[1]) * (1000 if match[2] == "s" else 1)

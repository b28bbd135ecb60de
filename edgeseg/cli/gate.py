"""gate, baseline: may this build ship?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import typer

from edgeseg.cli.common import JSON_OPTION, console, emit, progress, table
from edgeseg.errors import OptionError

app = typer.Typer()
BundleArg = Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)]
DataOpt = Annotated[Path, typer.Option("--data", help="Labeled frames to judge on.", show_default=False)]
SplitOpt = Annotated[str, typer.Option(help="train, val or test.")]
JsonOpt = Annotated[str | None, JSON_OPTION]
MARKS = {"pass": "[green]pass[/]", "fail": "[bold red]FAIL[/]", "undecided": "[yellow]undecided[/]"}
EXIT = {"pass": 0, "fail": 1, "undecided": 2}


@app.command()
def gate(
    bundle: BundleArg,
    data: DataOpt,
    split: SplitOpt = "test",
    parent: Annotated[Path | None, typer.Option(help="Bundle to compare with on the same frames.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="File of edgeseg baseline to compare with instead.")] = None,
    max_drop: Annotated[float, typer.Option(help="Points of mIoU that may be lost.", min=0)] = 0.5,
    max_gain: Annotated[float, typer.Option(help="Points of mIoU that may be gained unexplained.", min=0)] = 2.0,
    boundary_drop: Annotated[float | None, typer.Option(help="Points of boundary F1 that may be lost.", min=0)] = None,
    class_floor: Annotated[
        list[str] | None, typer.Option(help="CLASS=POINTS: smallest IoU; may be repeated.", show_default=False)
    ] = None,
    max_p99: Annotated[str | None, typer.Option(help="Largest p99 of one frame, like 20ms.")] = None,
    certainty: Annotated[float, typer.Option(help="Of a pass and of a fail.", min=0.5, max=0.999)] = 0.95,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append a Markdown summary to this file.")] = None,
    json_to: JsonOpt = None,
) -> None:
    """Pass or fail a build on accuracy and latency. Exit 0 pass, 1 fail, 2 when the frames are too few to tell."""
    from edgeseg.data.dataset import Dataset
    from edgeseg.evaluation import gate as rules

    if parent and baseline:
        raise OptionError("--parent and --baseline were both given.", "Compare with one of them.")
    dataset = Dataset.open(data, split)
    compared = parent is not None or baseline is not None
    limits = rules.Limits(
        max_drop if compared else None,
        boundary_drop,
        max_gain if compared else None,
        tuple(_floor(text) for text in class_floor or ()),
        _milliseconds(max_p99) if max_p99 else None,
        certainty,
    )
    if boundary_drop is not None and not compared:
        raise OptionError("--boundary-drop needs something to compare with.", "Give --parent or --baseline.")
    if not compared and not limits.floors and limits.max_p99 is None:
        rules.verdict([])
    reference = rules.Measured.load(baseline) if baseline else None
    with progress("judging") as update:
        build = rules.measure(bundle, dataset, update)
        if parent:
            reference = rules.measure(parent, dataset, update)
        checks = rules.judge(build, reference, limits)
        if limits.max_p99 is not None:
            frames = [dataset[i][0] for i in range(min(16, len(dataset)))]
            checks.append(rules.latency(bundle, frames, limits.max_p99))
    answer = rules.verdict(checks)
    against = reference.name if reference else None
    _show(build.name, against, checks, answer)
    if junit:
        _write_junit(junit, build.name, checks)
    if summary:
        _append_summary(summary, build.name, against, checks, answer)
    about = {"bundle": build.name, "digest": build.digest, "against": against, "data": build.data}
    rows = [check.to_dict() for check in checks]
    emit({"kind": "gate", "verdict": answer, **about, "checks": rows, "machine": build.machine}, json_to)
    raise typer.Exit(EXIT[answer])


@app.command()
def baseline(
    bundle: BundleArg,
    data: DataOpt,
    out: Annotated[Path, typer.Option("--out", "-o", help="The baseline file to write.")],
    split: SplitOpt = "test",
) -> None:
    """Write what a bundle reaches today, for `edgeseg gate --baseline`: updating it is a decision, so commit it."""
    from edgeseg.data.dataset import Dataset
    from edgeseg.evaluation import gate as rules
    from edgeseg.evaluation.statistics import estimate, miou

    dataset = Dataset.open(data, split)
    with progress("measuring") as update:
        made = rules.measure(bundle, dataset, update)
    made.save(out)
    found = estimate(made.tables, miou)
    ends = f"{100 * found.low:.2f} to {100 * found.high:.2f}"
    console.print(f"Wrote {out}: mIoU {100 * found.value:.2f} ({ends}) on {len(dataset)} frames.", highlight=False)


def _show(name: str, against: str | None, checks: list[Any], answer: str) -> None:
    shown = table(f"gate: {name}" + (f" against {against}" if against else ""), "check", "", "measured")
    for check in checks:
        shown.add_row(check.name, MARKS[check.verdict], check.text)
    console.print(shown)
    console.print(MARKS[answer])


def _write_junit(path: Path, name: str, checks: list[Any]) -> None:
    from edgeseg.files import write_bytes

    bad = {word: sum(check.verdict == word for check in checks) for word in ("fail", "undecided")}
    suite = ElementTree.Element(
        "testsuite",
        {"name": f"edgeseg gate {name}", "tests": str(len(checks)), "failures": str(bad["fail"]),
         "errors": str(bad["undecided"])},
    )  # fmt: skip
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "edgeseg.gate", "name": check.name})
        if check.verdict != "pass":
            kind = "failure" if check.verdict == "fail" else "error"
            ElementTree.SubElement(case, kind, {"message": check.text})
        ElementTree.SubElement(case, "system-out").text = check.text
    write_bytes(path, ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def _append_summary(path: Path, name: str, against: str | None, checks: list[Any], answer: str) -> None:
    """Appended, since CI systems collect the summaries of several steps in one file."""
    from edgeseg.report.blocks import Heading, Table, Text, markdown

    rows = [[check.name, check.verdict, check.text] for check in checks]
    title = f"edgeseg gate: {answer}"
    text = f"{name}" + (f" against {against}" if against else "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(markdown([Heading(title), Text(text), Table(["check", "verdict", "measured"], rows)]) + "\n")


def _floor(text: str) -> tuple[str, float]:
    name, _, points = text.rpartition("=")
    try:
        value = float(points)
        if not name or not 0 <= value <= 100:
            raise ValueError
    except ValueError:
        raise OptionError(f"--class-floor {text!r} is no floor.", "Expected CLASS=POINTS, like road=90.") from None
    return name, value


def _milliseconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s)?", text)
    if not found or not float(found[1]):
        raise OptionError(f"--max-p99 {text!r} is no time.", "Expected milliseconds, like 20ms.")
    return float(found[1]) * (1000 if found[2] == "s" else 1)

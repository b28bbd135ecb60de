"""What every verb shares: the console, progress bars, JSON output, options that mean the same everywhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edgeseg.errors import OptionError
from edgeseg.files import write_bytes

# Everything for people goes to stderr, so that `--json -` leaves stdout to machines.
console = Console(stderr=True, soft_wrap=True)

JSON_OPTION = typer.Option("--json", help="Write the result as JSON to this file, or - for standard output.")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; yields update(done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def emit(document: dict[str, Any], target: str | None) -> None:
    """Write `document` where --json says."""
    if target is None:
        return
    text = json.dumps(document, indent=1) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        write_bytes(Path(target), text.encode())


def size(text: str) -> tuple[int, int]:
    """`384x224` (width x height) -> (height, width)."""
    found = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", text)
    if not found:
        raise OptionError(f"Size {text[:40]!r} is not a size.", "Expected WIDTHxHEIGHT, for example 384x224.")
    return int(found[2]), int(found[1])


def table(title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i == 0 else "right")
    return made


def identity(bundle: Any) -> dict[str, Any]:
    """What a result says about the bundle it was measured on."""
    keys = ("name", "target", "precision", "parent", "parity")
    return {**{k: bundle.manifest.get(k) for k in keys}, "digest": bundle.digest, "bytes": bundle.size}


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"

"""What all verbs share: the two streams, tables, progress, JSON output.

Results for people and machines go to standard output, progress and log lines to the error stream. With `--json -` the
JSON alone is on standard output, and tables move to the error stream.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edgeseg.errors import OptionError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from edgeseg.records import Record
    from edgeseg.results.common import Interval
    from edgeseg.results.evaluation import SliceScores

log = logging.getLogger(__name__)
LOG_SECONDS = 10.0  # between log lines of one progress where there is no terminal
WIDE = 200  # columns where nobody's terminal sets a limit


def make_console(stderr: bool) -> Console:
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr, soft_wrap=True, width=None if terminal else WIDE, highlight=False, markup=False, emoji=False
    )


# Without markup: names come from files, and may hold brackets.
console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)


def results(json_to: str | None = None) -> Console:
    """Where a verb shows its result to people."""
    return make_console(stderr=json_to == "-")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """update(done, total): a bar on a terminal, else a log line every LOG_SECONDS and at the end."""
    if not console.is_terminal:
        yield _logged(what)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _logged(what: str) -> Callable[[int, int], None]:
    next_at = time.monotonic() + LOG_SECONDS

    def update(done: int, total: int) -> None:
        nonlocal next_at
        if done == total or time.monotonic() >= next_at:
            log.info("%s: %d of %d", what, done, total)
            next_at = time.monotonic() + LOG_SECONDS

    return update


@contextmanager
def status(what: str) -> Iterator[Callable[[str], None]]:
    """update(text), what is being done: a line that changes on a terminal, else log lines.

    Texts that differ in their numbers only ("frame 3 of 60") are logged every LOG_SECONDS.
    """
    if console.is_terminal:
        from rich.text import Text

        with console.status(Text(what)) as line:
            yield lambda text: line.update(Text(text))
        return
    last, next_at = "", 0.0

    def update(text: str) -> None:
        nonlocal last, next_at
        kind = re.sub(r"\d+", "", text)
        if kind != last or time.monotonic() >= next_at:
            log.info("%s", text)
            last, next_at = kind, time.monotonic() + LOG_SECONDS

    log.info("%s", what)
    yield update


class Interrupted(SystemExit):
    """Ctrl-C of a job that said how it goes on."""

    def __init__(self) -> None:
        super().__init__(130)


@contextmanager
def resumable() -> Iterator[None]:
    """Say on Ctrl-C that the same command resumes."""
    try:
        yield
    except KeyboardInterrupt:
        log.warning("Interrupted; run the same command again to resume after what was finished.")
        raise Interrupted from None


def show_slices(slices: Sequence[SliceScores], shown_on: Console) -> None:
    """The table of slices; nothing where there are none."""
    if not slices:
        return
    parts = table("By slice", "slice", "frames", "mIoU", "95 %", "pixel accuracy")
    for part in slices:
        parts.add_row(
            part.slice, str(part.frames), percent(part.miou), span(part.interval), percent(part.pixel_accuracy)
        )
    shown_on.print(parts)


def span(ends: Interval | None) -> str:
    return "-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def emit(document: Record | Mapping[str, Any], target: str | None) -> None:
    """Write a result as JSON where --json says."""
    if target is None:
        return
    plain = dict(document) if isinstance(document, Mapping) else document.to_dict()
    text = json.dumps(plain, indent=1) + "\n"
    from edgeseg.files import cannot_write, write_bytes

    if target == "-":
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError as error:
            raise cannot_write("standard output", error) from error
        return

    write_bytes(Path(target), text.encode())
    wrote(target)


def styled(text: str, style: str, after: str = "") -> Text:
    """`text` in a style, such as "bold red", and then `after` without one."""
    from rich.text import Text

    return Text.assemble((text, style), after)


def wrote(path: object) -> None:
    log.info("wrote %s", path)


def table(title: str, *columns: str) -> Table:
    """A table whose first column, names, is never cut."""
    from rich.table import Table

    new = Table(title=title, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        new.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0, overflow="fold")
    return new


def size(text: str) -> tuple[int, int]:
    """`384x224` (width x height) -> (height, width)."""
    match = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", text)
    if not match:
        raise OptionError(f"Size {text[:40]!r} is not a size.", "Expected WIDTHxHEIGHT, for example 384x224.")
    return int(match[2]), int(match[1])


def prepare_ray(address: str) -> None:
    """Have Ray, where it is asked for, send nothing to its makers."""
    if address:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"

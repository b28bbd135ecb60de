"""loop: one turn from collected frames to a better bundle."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, results, resumable, table

if TYPE_CHECKING:
    from edgeseg.results.loop import LoopResult

app = typer.Typer()
log = logging.getLogger(__name__)


@app.command(rich_help_panel=options.TRAIN, epilog="Example: edgeseg loop loop.toml --json -")
def loop(
    file: Annotated[Path, typer.Argument(metavar="LOOP.toml", help="Settings of the loop.", show_default=False)],
    status: Annotated[bool, typer.Option("--status", help="Only show the turns so far.")] = False,
    json_to: options.Json = None,
) -> None:
    """Go on with the turn: select collected frames, export, import the labels, train, compile, gate, promote.

    For operators, from a schedule: every step is recorded, and a run goes on where the last one ended. Exits 0 where it
    is done or waits for labels or frames (`state` in the JSON), 1 if the gate refuses the new bundle.
    See docs/how-to/loop.md.
    """
    from edgeseg.loop import ledger
    from edgeseg.loop.settings import LoopSettings

    settings = LoopSettings.load(file)
    if status:
        result = ledger.status(settings)
    else:
        with resumable():
            result = ledger.run(settings, lambda text: log.info("%s", text))
    _show(result, json_to)
    emit(result, json_to)
    if result.state == "refused" and not status:
        raise typer.Exit(1)


def _show(result: LoopResult, json_to: str | None) -> None:
    shown = results(json_to)
    rows = table("turns", "turn", "state", "steps", "since")
    for turn in result.turns:
        steps = ", ".join(step.name for step in turn.steps)
        rows.add_row(str(turn.number), turn.state, steps, turn.steps[-1].ended if turn.steps else "-")
    if result.turns:
        shown.print(rows)
    shown.print(f"{result.state}: {result.note}" if result.note else result.state)

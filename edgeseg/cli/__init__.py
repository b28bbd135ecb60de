"""The command line. It alone prints, exits and reads the environment; one file per verb group."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgeseg.cli import bench, calibrate, compile, compress, data, gate, measure, pipeline, run, signals, train, verify
from edgeseg.cli.common import console
from edgeseg.errors import EdgesegError

app = typer.Typer(
    name="edgeseg",
    help="Image segmentation from labeled frames to a camera on an edge device, with a proof at every step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for group in (pipeline, compile, compress, calibrate, verify, run, measure, bench, gate, train, data):
    app.add_typer(group.app)


@app.callback()
def root(debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False) -> None:
    pass


def main() -> None:
    """Run the command line: a user's error exits 2 with one clear message, Ctrl-C exits 130."""
    signals.restore_interrupt()
    try:
        app()
    except EdgesegError as error:
        if "--debug" in sys.argv:
            raise
        console.print(f"[bold red]{'Stopped' if error.exit_code == 1 else 'Error'}:[/] ", end="")
        console.print(error.what, markup=False, highlight=False)
        if error.hint:
            console.print(error.hint, markup=False, highlight=False, style="dim")
        sys.exit(error.exit_code)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        console.print("[bold red]Internal error:[/] ", end="")
        console.print(f"{type(error).__name__}: {error}", markup=False, highlight=False)
        console.print("This is a bug in edgeseg. Run `edgeseg --debug ...` again and report it.", style="dim")
        sys.exit(70)
    except KeyboardInterrupt:
        console.print("Interrupted.")
        sys.exit(130)

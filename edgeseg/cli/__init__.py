"""The command line. It alone prints, exits and reads the environment; one file per verb group."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edgeseg import __version__
from edgeseg.cli import (
    bench,
    calibrate,
    compile,
    compress,
    data,
    gate,
    logs,
    measure,
    pipeline,
    run,
    signals,
    train,
    verify,
)
from edgeseg.cli.common import Interrupted
from edgeseg.errors import EdgesegError, unknown
from edgeseg.stream.redact import redact


class Commands(TyperGroup):
    """The verbs. What was typed wrongly may hold a password: usage errors show none."""

    def invoke(self, ctx: Any) -> Any:
        with _redacted_usage():
            return super().invoke(ctx)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        with _redacted_usage():
            return super().make_context(*args, **extra)


@contextmanager
def _redacted_usage() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error, of click or of the copy in typer
            error.message = redact(str(getattr(error, "message", "")))  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="edgeseg",
    cls=Commands,
    help="Image segmentation on edge devices: train, compress, compile, run and measure, verified at every step.",
    epilog="Documentation: docs/ of the repository. Help of a verb: edgeseg VERB --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (compile, compress, calibrate, run, measure, bench, gate, verify, pipeline, train, data):
    app.add_typer(group.app)
log = logging.getLogger(__name__)
INTERRUPTED = 130  # exit code


def _version(requested: bool) -> None:
    if requested:
        sys.stdout.write(f"edgeseg {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Log warnings and errors only.")] = False,
    log_format: Annotated[str, typer.Option(help="text or json (one object a line, on the error stream).")] = "text",
    debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if log_format not in logs.FORMATS:
        raise unknown("log format", log_format, logs.FORMATS)
    logs.configure(int(verbose) - int(quiet), log_format)


def _show_traceback() -> None:
    if "--debug" in sys.argv:
        sys.stderr.write(redact(traceback.format_exc()))


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 a limit was missed, 2 the user's error, 3 undecided, 70 a bug of
    edgeseg, 130 interrupted."""
    logs.configure()
    signals.restore_interrupt()
    try:
        app()
    except EdgesegError as error:
        _show_traceback()
        log.error("%s", error.what, extra={"hint": error.hint})
        sys.exit(error.exit_code)
    except Exception as error:
        _show_traceback()
        hint = "This is a bug in edgeseg. Run `edgeseg --debug ...` again and report it."
        log.error("Internal error: %s: %s", type(error).__name__, error, extra={"hint": hint})
        sys.exit(70)
    except SystemExit as ended:
        if ended.code == INTERRUPTED and not isinstance(ended, Interrupted):  # typer catches KeyboardInterrupt
            log.warning("Interrupted.")
        raise
    except KeyboardInterrupt:
        log.warning("Interrupted.")
        sys.exit(INTERRUPTED)

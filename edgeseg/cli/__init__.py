"""The command line. It alone prints, exits and reads the environment; one file per verb group."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edgeseg import __version__, user_cache
from edgeseg.cli import (
    accuracy,
    bench,
    calibrate,
    collect,
    compile,
    compress,
    data,
    dataset,
    drift,
    gate,
    init,
    label,
    logs,
    loop,
    measure,
    pipeline,
    predict,
    rollout,
    run,
    search,
    serve,
    signals,
    train,
    verify,
    zones,
    zoo,
)
from edgeseg.cli.common import Interrupted
from edgeseg.errors import EdgesegError, out_of_memory, unknown
from edgeseg.files import cannot_write, describe
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
GROUPS = (
    *(compile, zoo, compress, calibrate, predict, run, zones, drift, collect, serve, rollout, accuracy, measure),
    *(bench, gate, verify, pipeline, train, search, loop, data, dataset, init, label),
)
for group in GROUPS:
    app.add_typer(group.app)
log = logging.getLogger(__name__)
BUG, INTERRUPTED = 70, 130  # exit codes


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
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="EDGESEG_CACHE",
            help="Folder of yours alone for engines that are built here [default: ~/.cache/edgeseg].",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if log_format not in logs.FORMATS:
        raise unknown("log format", log_format, logs.FORMATS)
    logs.configure(int(verbose) - int(quiet), log_format)
    user_cache.use(cache_dir or _xdg_cache())


def _xdg_cache() -> Path | None:
    """Where the XDG Base Directory Specification puts caches, if it was set to an absolute path."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return home / "edgeseg" if home.is_absolute() else None


def _show_traceback() -> None:
    if "--debug" in sys.argv:
        sys.stderr.write(redact(traceback.format_exc()))


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 a limit was missed, 2 the user's error, 3 undecided, 70 a bug of
    edgeseg, 130 interrupted."""
    logs.configure()
    signals.restore_interrupt()
    _show_any_text()
    code = _exit_code()
    try:
        sys.stdout.flush()
    except OSError as error:
        if not code:
            _report(cannot_write("standard output", error))
        code = code or EdgesegError.exit_code
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again, and fails, at exit
    sys.exit(code)


def _exit_code() -> int | str | None:
    """Run the verb; errors are shown here."""
    try:
        app()
        return 0
    except EdgesegError as error:
        _show_traceback()
        _report(error)
        return error.exit_code
    except Exception as error:
        fault = describe(error) if isinstance(error, OSError) else out_of_memory(error)
        _show_traceback()
        if fault:
            _report(fault)
            return fault.exit_code
        hint = "This is a bug in edgeseg. Run `edgeseg --debug ...` again and report it."
        log.error("Internal error: %s: %s", type(error).__name__, error, extra={"hint": hint})
        return BUG
    except SystemExit as ended:
        if ended.code == INTERRUPTED and not isinstance(ended, Interrupted):  # typer catches KeyboardInterrupt
            log.warning("Interrupted.")
        return ended.code
    except KeyboardInterrupt:
        log.warning("Interrupted.")
        return INTERRUPTED


def _report(error: EdgesegError) -> None:
    log.error("%s", error.what, extra={"hint": error.hint})


def _show_any_text() -> None:
    """Names that are no valid Unicode, or that a terminal's encoding lacks, are shown with backslashes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

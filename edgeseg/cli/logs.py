"""Logging: one handler, on the error stream, in text or JSON, without credentials."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone

from edgeseg.stream.redact import redact

FORMATS = ("text", "json")
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # of -q, none, -v


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, logger, message, and the hint of an error."""

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if hint := getattr(record, "hint", ""):
            row["hint"] = redact(hint)
        if record.exc_info:
            row["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(row)


class TextFormatter(logging.Formatter):
    """The message, after its level from warnings on; with the time where they go to a file."""

    def __init__(self, terminal: bool):
        super().__init__("%(message)s" if terminal else "%(asctime)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # the name is logging's
        if record.levelno >= logging.WARNING:
            record.message = f"{record.levelname.capitalize()}: {record.message}"
        text = super().formatMessage(record)
        hint = getattr(record, "hint", "")
        return f"{text}\n{hint}" if hint else text


class StandardError(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever sys.stderr is when a line is logged: progress bars and tests replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> object:
        return sys.stderr


def configure(verbosity: int = 0, kind: str = "text") -> None:
    """`verbosity`: -1 warnings only, 0 also what is going on, 1 everything. Libraries log warnings in any case."""
    handler = StandardError()
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter(sys.stderr.isatty()))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("edgeseg").setLevel(LEVELS[max(-1, min(verbosity, 1)) + 1])

"""URIs pick sources and sinks: `scheme://address` or a bare path, with checked options behind a mark.

Options follow `?` (`synthetic://street?seed=7`, `masks/?overlay=1`). The address of a network camera has a query of its
own, so there they follow `#` (`rtsp://host/live?channel=1#transport=tcp`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeseg.errors import OptionError, unknown

Convert = Callable[[str], Any]
SECRET_KEYS = r"[\w.-]*(?:user|login|pass|pwd|pw|token|key|secret|auth|sig|credential)[\w.-]*"
HIDDEN = "***"


def redact(text: str) -> str:
    """`text` with the credentials of every URI in it hidden; for messages, logs, summaries and metrics."""
    text = re.sub(r"(\w://)\S*@", rf"\1{HIDDEN}@", text)
    return re.sub(rf"([?&#;]{SECRET_KEYS}=)[^&#;\s'\"]*", rf"\1{HIDDEN}", text, flags=re.IGNORECASE)


@dataclass(frozen=True)
class Uri:
    """`scheme` in lower case ("" for a bare path) and the `rest` after `://`, options included."""

    text: str
    scheme: str
    rest: str

    @classmethod
    def parse(cls, text: str) -> Uri:
        found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
        if not found:
            return cls(text, "", text)
        return cls(text, found[1].lower(), text[found.end() :])

    def __str__(self) -> str:
        return redact(self.text)

    @property
    def path(self) -> str:
        """The part before the options of a bare path; glob patterns may hold a `?` that starts no option."""
        return re.split(r"\?(?=[a-z_]+=)", self.rest, maxsplit=1)[0]

    def split(self, known: Mapping[str, Convert], mark: str = "?") -> tuple[str, dict[str, Any]]:
        """The address and its options, each converted by `known`; OptionError for an unknown one or a bad value."""
        pattern = re.escape(mark) + ("" if self.scheme else r"(?=[a-z_]+=)")
        address, *rest = re.split(pattern, self.rest, maxsplit=1)
        options: dict[str, Any] = {}
        for pair in filter(None, rest[0].split("&") if rest else []):
            key, _, value = pair.partition("=")
            if key not in known:
                raise unknown(f"option of {self}", key, known)
            try:
                options[key] = known[key](value)
            except ValueError as error:
                raise OptionError(f"Option {key}={value!r} of {self} is not usable.", f"Expected {error}.") from error
        return address, options


def whole(low: int, high: int) -> Convert:
    def convert(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return convert


def number(low: float, high: float) -> Convert:
    def convert(text: str) -> float:
        if not re.fullmatch(r"-?\d+(\.\d*)?|\.\d+", text) or not low <= float(text) <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(text)

    return convert


def choice(*words: str) -> Convert:
    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return convert


def flag(text: str) -> bool:
    if text.lower() not in ("1", "0", "true", "false", "yes", "no"):
        raise ValueError("1 or 0")
    return text.lower() in ("1", "true", "yes")


def size(text: str) -> tuple[int, int]:
    """`1280x720` -> (1280, 720)."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found or not all(8 <= int(side) <= 16384 for side in found.groups()):
        raise ValueError("WIDTHxHEIGHT in pixels, 8 to 16384 each, such as 1280x720")
    return int(found[1]), int(found[2])

"""URIs pick sources and sinks: `scheme://address` or a bare path, with checked options behind a mark.

Options follow `?` (`synthetic://street?seed=7`, `masks/?overlay=1`). The address of a network camera has a query of its
own, so there they follow `#` (`rtsp://host/live?channel=1#transport=tcp`).
"""

from __future__ import annotations

import functools
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.errors import OptionError, unknown
from edgeseg.stream.redact import HARMLESS, HIDDEN, redact_uri, remember

Convert = Callable[[str], Any]


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
            if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text) and not Path(text).exists():
                raise OptionError(
                    f"{redact_uri(text)} has one slash behind its scheme.", "Write two: SCHEME://ADDRESS."
                )
            return cls(text, "", text)
        remember(found[1].lower(), text[found.end() :])
        return cls(text, found[1].lower(), text[found.end() :])

    def __str__(self) -> str:
        return redact_uri(self.text)

    def url(self) -> str:
        """The address without our options behind `#`, its user and password encoded as servers and FFmpeg expect."""
        address = self._parts("#")[0]
        user, mark, host = address.rpartition("@")
        if not mark or re.match(r"(\[[^]]*\]|[^/?@:]*)(:\d*)?[/?]", address):  # without one, or in the path or query
            return f"{self.scheme}://{address}"
        user = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", user)  # what is encoded already stays
        name, colon, password = user.partition(":")
        encode = functools.partial(urllib.parse.quote, safe="%!$&'()*+,;=~")
        return f"{self.scheme}://{encode(name)}{colon}{encode(password)}@{host}"

    def _parts(self, mark: str) -> list[str]:
        """The address and, if there are any, its options. A password may hold `#`: it marks options behind the host."""
        if mark == "#":
            user, at, rest = self.rest.rpartition("@")
            address, *options = rest.split("#", maxsplit=1)
            return [user + at + address, *options]
        return re.split(re.escape(mark) + ("" if self.scheme else r"(?=[a-z_]+=)"), self.rest, maxsplit=1)

    @property
    def path(self) -> str:
        """The part before the options of a bare path; glob patterns may hold a `?` that starts no option."""
        return re.split(r"\?(?=[a-z_]+=)", self.rest, maxsplit=1)[0]

    def split(self, known: Mapping[str, Convert], mark: str = "?") -> tuple[str, dict[str, Any]]:
        """The address and its options, each converted by `known`; OptionError for an unknown one or a bad value."""
        address, *rest = self._parts(mark)
        options: dict[str, Any] = {}
        for pair in filter(None, rest[0].split("&") if rest else []):
            key, _, value = pair.partition("=")
            if key not in known:
                shown = key if re.search(rf"[{mark}&]{re.escape(key)}=", str(self)) else HIDDEN
                raise unknown(f"option of {self}", shown, known)
            try:
                options[key] = known[key](value)
            except ValueError as error:
                shown = repr(value) if key in HARMLESS else HIDDEN
                raise OptionError(f"Option {key}={shown} of {self} is not usable.", f"Expected {error}.") from error
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


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(low: float, high: float) -> Convert:
    """`30s`, `10m`, `24h` or `7d` -> seconds, from `low` to `high`."""

    def convert(text: str) -> float:
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text)
        seconds = float(found[1]) * UNITS[found[2]] if found else -1.0
        if not low <= seconds <= high:
            raise ValueError(f"a time such as 30s, 10m, 24h or 7d, from {low:g} to {high:g} seconds")
        return seconds

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

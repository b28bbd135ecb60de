"""Rules: what `zones.toml` says, checked before anything opens.

size = [1280, 720]           # of the frame that the points were drawn on; without it points go from 0 to 1

[zones.gate]
points = [[120, 300], [640, 280], [700, 690], [100, 700]]
streams = ["front"]          # by default every stream has it

[rules.flood]
when = "share(water) > 30 % in gate for 5 s"
clear = "< 25 % for 10 s"    # by default when the condition has not held for as long as it had to hold
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeseg import toml
from edgeseg.errors import OptionError, unknown
from edgeseg.stream.events.grammar import Comparison, Condition, parse_clear, parse_when
from edgeseg.stream.events.zones import FRAME, WHOLE, Point, Zone, area, crossing_edges

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
KEYS = ("size", "zones", "rules")
ZONE_KEYS = ("points", "streams")
RULE_KEYS = ("when", "clear")
MOST_POINTS = 1000
SLACK = 0.01  # of the frame: how far a point may lie outside, as a hand that draws slips
SMALLEST = 1e-6  # of the frame


@dataclass(frozen=True)
class Rule:
    """`text`: as it was written. It begins when `when` has held for its seconds, and ends when `clear` has for
    `clear_seconds`."""

    name: str
    text: str
    when: Condition
    clear: Comparison
    clear_seconds: float


@dataclass(frozen=True)
class Rules:
    """Zones by name and the rules on them, of one file. `size`: of the frame they were drawn on, None if unknown."""

    path: Path = Path()
    zones: Mapping[str, Zone] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    size: tuple[int, int] | None = None

    def check(self, classes: Sequence[str], streams: Iterable[str]) -> None:
        """OptionError for a class that the model does not have, or a zone on a stream that is not run."""
        for rule in self.rules:
            for name in rule.when.classes:
                if name not in classes:
                    error = unknown("class", name, classes)
                    raise OptionError(f"{self.path}: rules.{rule.name}: {error.what}", error.hint)
        known = set(streams)
        for zone in self.zones.values():
            for name in zone.streams:
                if name not in known:
                    error = unknown("stream", name, known or ("(none has a name: --source NAME=URI)",))
                    raise OptionError(f"{self.path}: zones.{zone.name}: {error.what}", error.hint)

    def mismatch(self, height: int, width: int) -> str:
        """What to tell of zones that were drawn on a frame of another shape than `height` x `width`; "" if they fit."""
        drawn_width, drawn_height = self.size or (width, height)
        if abs(drawn_width / drawn_height / (width / height) - 1) < SLACK:
            return ""
        drawn = f"{drawn_width}x{drawn_height}"
        return f"{self.path}: zones were drawn on {drawn}, and frames of {width}x{height} have another shape."

    def of(self, stream: str) -> Rules:
        """The zones that `stream` has, and the rules on them."""
        zones = {name: zone for name, zone in self.zones.items() if not zone.streams or stream in zone.streams}
        return replace(self, zones=zones, rules=tuple(r for r in self.rules if r.when.zone in zones))


def load(path: Path) -> Rules:
    """OptionError or FileError for anything that cannot be meant."""
    data = toml.read(path, "Rules")
    _known_keys(path, "", data, KEYS)
    size = _size(path, data.get("size"))
    zones = {WHOLE: FRAME}
    for name, table in _tables(path, "zones", data).items():
        if name == WHOLE:
            raise OptionError(f"{path}: zones.{WHOLE} is the whole frame, always.", "Give that zone another name.")
        zones[name] = _zone(path, name, table, size)
    rules = tuple(_rule(path, name, table, zones) for name, table in _tables(path, "rules", data).items())
    if not rules:
        raise OptionError(f"{path} has no rule.", 'Add [rules.NAME] and when = "share(water) > 30 % in gate for 5 s".')
    return Rules(path, zones, rules, size)


def _tables(path: Path, section: str, data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tables = data.get(section, {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise OptionError(f"{path}: {section} is not made of tables.", f"Start each with [{section}.NAME].")
    for name in tables:
        if not NAME.fullmatch(name):
            raise OptionError(
                f"{path}: {section}.{name!r} is not a usable name.",
                "Expected a letter, then letters, digits, - and _, 64 at most.",
            )
    return tables


def _known_keys(path: Path, section: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            error = unknown("key", f"{section}{key}", [f"{section}{name}" for name in known])
            raise OptionError(f"{path}: {error.what}", error.hint)


def _size(path: Path, value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(type(side) is int and side > 0 for side in value):
        raise toml.wrong_value(path, "size", value, "the width and height of a frame, such as [1280, 720]")
    return value[0], value[1]


def _zone(path: Path, name: str, table: Mapping[str, Any], size: tuple[int, int] | None) -> Zone:
    section = f"zones.{name}"
    _known_keys(path, f"{section}.", table, ZONE_KEYS)
    streams = table.get("streams", [])
    if not isinstance(streams, list) or not all(isinstance(each, str) and each for each in streams):
        raise toml.wrong_value(path, f"{section}.streams", streams, "a list of names of streams")
    points = _points(path, f"{section}.points", table.get("points"))
    relative = tuple((_within(x / w), _within(y / h)) for w, h in (size or (1, 1),) for x, y in points)
    for (x, y), (across, down) in zip(points, relative):
        if not (0 <= across <= 1 and 0 <= down <= 1):
            drawn = f"frame of {size[0]}x{size[1]}" if size else "frame, whose points go from 0 to 1"
            hint = "Points in pixels need size = [WIDTH, HEIGHT] at the top of the file."
            raise OptionError(
                f"{path}: {section}: the point [{x:g}, {y:g}] is outside the {drawn}.",
                f"Is size right? It is of the frame that {name} was drawn on." if size else hint,
            )
    if size and all(max(point) <= 1 for point in points):
        raise OptionError(
            f"{path}: {section}: every point is within one pixel of a frame of {size[0]}x{size[1]}.",
            "Points from 0 to 1 need no size; leave it out, or give all points in pixels.",
        )
    _check_shape(path, section, relative)
    return Zone(name, relative, tuple(streams))


def _points(path: Path, section: str, value: Any) -> list[tuple[float, float]]:
    expected = "a list of three points [x, y] or more"
    if not isinstance(value, list) or not all(isinstance(point, list) and len(point) == 2 for point in value):
        raise OptionError(f"{path}: {section} is missing or no list of points.", f"Expected {expected}.")
    numbers = [number for point in value for number in point]
    # Only what is finite: TOML has nan and inf.
    if not all(isinstance(n, (int, float)) and not isinstance(n, bool) and abs(n) < 1e6 for n in numbers):
        raise OptionError(f"{path}: {section} holds something that is no number.", f"Expected {expected}.")
    if not 3 <= len(value) <= MOST_POINTS:
        raise OptionError(f"{path}: {section} has {len(value)} points.", f"Expected {expected}, {MOST_POINTS} at most.")
    return [(float(x), float(y)) for x, y in value]


def _within(share: float) -> float:
    """A place on the frame; one that is SLACK outside is on its edge."""
    return min(max(share, 0.0), 1.0) if -SLACK <= share <= 1 + SLACK else share


def _check_shape(path: Path, section: str, points: tuple[Point, ...]) -> None:
    crossed = crossing_edges(points)
    if crossed:
        raise OptionError(
            f"{path}: {section}: its edges {crossed[0]} and {crossed[1]} cross.",
            "Give the points in the order in which a pencil goes around.",
        )
    if area(points) < SMALLEST:
        raise OptionError(f"{path}: {section} has no area.", "Its points lie on one line, or on one another.")


def _rule(path: Path, name: str, table: Mapping[str, Any], zones: Mapping[str, Zone]) -> Rule:
    section = f"rules.{name}"
    _known_keys(path, f"{section}.", table, RULE_KEYS)
    texts = {key: table.get(key) for key in RULE_KEYS}
    for key, text in texts.items():
        if not isinstance(text, str) and (text is not None or key == "when"):
            state = "missing" if text is None else f"{text!r}, which is no text"
            raise OptionError(f"{path}: {section}.{key} is {state}.", 'Example: when = "person in track for 0.5 s"')
    where = f"{path}: {section}"
    text = str(texts["when"])
    when = parse_when(text, where)
    if when.zone not in zones:
        error = unknown("zone", when.zone, zones)
        raise OptionError(f"{where}: {error.what}", error.hint)
    if len(set(when.classes)) < len(when.classes):
        raise OptionError(f"{where}: a class is named twice in {text!r}.", "Name each class once.")
    if texts["clear"] is None:
        return Rule(name, text, when, when.compared.opposite(), when.seconds)
    clear = parse_clear(str(texts["clear"]), where)
    compared = clear.compared or when.compared.opposite()
    _check_apart(where, when.compared, compared)
    return Rule(name, text, when, compared, when.seconds if clear.seconds is None else clear.seconds)


def _check_apart(where: str, when: Comparison, clear: Comparison) -> None:
    """OptionError where a share can fulfill both."""
    hint = f"Expected {when.opposite()}, or a limit that is further away."
    if when.upward == clear.upward:
        raise OptionError(f"{where}: it begins at {when} and clears at {clear}, the same way.", hint)
    low, high = (clear, when) if when.upward else (when, clear)
    both = low.limit > high.limit or (low.limit == high.limit and low.sign == "<=" and high.sign == ">=")
    if both:
        raise OptionError(f"{where}: it begins at {when} and clears at {clear}: a share can be both.", hint)

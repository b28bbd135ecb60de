"""Settings of a run: what the command line's options and `--config stream.toml` say, checked before anything opens.

bundle = "models/street/street-int8"   # relative to this file, like every path here
mode = "latency"                       # or "throughput"; by default as the sources need
metrics = "127.0.0.1:9108"
stall = 5                              # see supervise.ReconnectPolicy for this and the other seconds

[[stream]]
name = "front"
source = "rtsp://user:password@camera/live"
sinks = ["front.jsonl", "mjpeg://127.0.0.1:8090"]
rules = "zones.toml"                   # see events/rules.py
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeseg import toml
from edgeseg.errors import OptionError, unknown
from edgeseg.reuse.policy import parse as parse_reuse
from edgeseg.segmenter import MODES
from edgeseg.signature import Required
from edgeseg.stream import sinks, sources
from edgeseg.stream.supervise import ReconnectPolicy
from edgeseg.stream.uri import Uri

POLICY_KEYS = tuple(f.name for f in dataclasses.fields(ReconnectPolicy))
STREAM_KEYS = ("name", "source", "sinks", "rules")
KEY_TYPES: dict[str, type] = {
    "bundle": str,
    "mode": str,
    "metrics": str,
    "require_signature": str,
    "bundle_name": str,
    "rules": str,
    "blur": list,
    "fill": list,
    "min_confidence": float,
    "review_class": list,
    "review_queue": str,
    "overlay": bool,
    "reconnect": bool,
    "max_frames": int,
    "queue": int,
    "threads": int,
    "min_version": int,
    "watchdog": float,
    "reuse": str,
    "max_drop": float,
    "stabilize": bool,
    "deadline_ms": float,
    "fallback": list,
    **dict.fromkeys(POLICY_KEYS, float),
}
TYPE_NAMES = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list of strings",
    dict: "a table",
    type(None): "missing",
}


@dataclass(frozen=True)
class StreamSettings:
    source: str
    sinks: tuple[str, ...] = ("null://",)
    name: str = ""
    rules: Path | None = None


@dataclass(frozen=True)
class Settings:
    """`queue` None: the newest frame of a camera. `threads` None: for inference, every CPU this process may use.
    `reconnect`: cameras, and the sinks that show them. Times in seconds.

    `deadline_ms` switches the fallback policy on (fallback.py); `fallback`: its cheaper bundles, in the order they are
    tried. `require_signature`: a public key; every bundle must be signed by its owner, and `bundle` as a version of
    `bundle_name` from `min_version` up, where they are given. `rules`: the zones.toml of streams that name none;
    `blur`, `fill`: classes that no sink gets to see. `min_confidence`, `review_class`: what makes a result undecided
    (monitoring/undecided.py); `review_queue`: the folder that such frames go to.

    `reuse`: how many frames share an inference, or "auto", for a loss of at most `max_drop` points of mIoU;
    `stabilize`: classes do not flicker. See edgeseg/reuse.
    """

    bundle: Path
    streams: tuple[StreamSettings, ...]
    mode: str | None = None
    overlay: bool = True
    max_frames: int | None = None
    queue: int | None = None
    threads: int | None = None
    reconnect: bool = True
    watchdog: float = 30.0
    deadline_ms: float | None = None
    fallback: tuple[Path, ...] = ()
    metrics: str | None = None
    rules: Path | None = None
    blur: tuple[str, ...] = ()
    fill: tuple[str, ...] = ()
    min_confidence: float | None = None
    review_class: tuple[str, ...] = ()
    review_queue: Path | None = None
    require_signature: Path | None = None
    bundle_name: str = ""
    min_version: int | None = None
    reuse: str | None = None
    max_drop: float | None = None
    stabilize: bool = False
    policy: ReconnectPolicy = field(default_factory=ReconnectPolicy)

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in MODES:
            raise unknown("mode", self.mode, MODES)
        for key, lowest in (("queue", 1), ("threads", 1), ("max_frames", 1), ("watchdog", 0.1), ("deadline_ms", 1)):
            value = getattr(self, key)
            if value is not None and value < lowest:
                raise OptionError(f"{key} is {value}.", f"Expected at least {lowest}.")
        if self.fallback and self.deadline_ms is None:
            raise OptionError("Fallback bundles without a deadline.", "Add --deadline MS: when to fall back.")
        if (self.bundle_name or self.min_version is not None) and not self.require_signature:
            raise OptionError(
                "A name or version of the bundle without a signature.", "Add --require-signature PUBLIC.pem."
            )
        if self.review_queue is not None and self.min_confidence is None and not self.review_class:
            raise OptionError(
                "A review queue, but nothing says what is to be reviewed.", "Add --min-confidence or --review-class."
            )
        if self.reuse is not None:
            parse_reuse(self.reuse, self.max_drop)
        elif self.max_drop is not None:
            raise OptionError("max_drop without reuse.", "Add --reuse auto.")
        if (self.reuse or self.stabilize) and self.deadline_ms is not None:
            raise OptionError(
                "A deadline together with --reuse or --stabilize.",
                "Reuse makes frames cheaper, which a deadline is for; leave one of them out.",
            )
        if (self.reuse or self.stabilize) and (self.blur or self.fill):
            raise OptionError(
                "--blur or --fill together with --reuse or --stabilize.",
                "Who comes into view would be seen for some frames: leave --reuse and --stabilize out.",
            )
        if not self.streams:
            raise OptionError("No source is given.", "Give --source URI, or a [[stream]] table in --config FILE.")
        _check_names(self.streams)

    @property
    def required(self) -> Required | None:
        """The signature that the bundle must have."""
        key = self.require_signature
        return Required(key, self.bundle_name, self.min_version) if key else None


def from_options(sources: Sequence[str], outputs: Sequence[str]) -> tuple[StreamSettings, ...]:
    """Streams from repeated --source [NAME=]URI and --sink URI; `{name}` in a sink stands for the stream's name."""
    streams = []
    for i, text in enumerate(sources, start=1):
        named = re.fullmatch(r"([A-Za-z][\w-]*)=(.+)", text) if not Path(text).exists() else None
        name = named[1] if named else f"stream{i}" if len(sources) > 1 else ""
        expanded = tuple(uri.replace("{name}", name) for uri in outputs or ("null://",))
        streams.append(StreamSettings(named[2] if named else text, expanded, name))
    return tuple(streams)


def load(path: Path, **options: object) -> Settings:
    """Settings of a TOML file; an option that is given (not None, not empty) replaces what the file says.

    Paths in the file are relative to it. OptionError for an unknown key or a value of the wrong type.
    """
    data = toml.read(path, "Config")
    for key in data:
        if key not in (*KEY_TYPES, "stream"):
            raise unknown(f"key of {path}", key, (*KEY_TYPES, "stream"))
    if type(data.get("reuse")) is int:
        data["reuse"] = str(data["reuse"])
    values = {key: _typed(path, key, value, KEY_TYPES[key]) for key, value in data.items() if key != "stream"}
    if "fallback" in values:
        values["fallback"] = tuple(path.parent / _typed(path, "fallback", name, str) for name in values["fallback"])
    for key in ("blur", "fill", "review_class"):
        if key in values:
            values[key] = tuple(_typed(path, key, name, str) for name in values[key])
    for key in ("bundle", "require_signature", "rules", "review_queue"):
        if key in values:
            values[key] = path.parent / values[key]
    values["policy"] = ReconnectPolicy(**{key: values.pop(key) for key in POLICY_KEYS if key in values})
    values["streams"] = _streams(path, data.get("stream", []))
    values.update({key: value for key, value in options.items() if value not in (None, ())})
    if "bundle" not in values:
        raise OptionError(f"Config {path} has no bundle.", 'Add bundle = "FOLDER", or give it on the command line.')
    return Settings(**values)  # the keys were checked above


def _streams(path: Path, tables: object) -> tuple[StreamSettings, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise OptionError(f"{path}: stream is not a list of tables.", "Start each stream with [[stream]].")
    streams = []
    for table in tables:
        for key in table:
            if key not in STREAM_KEYS:
                raise unknown(f"key of [[stream]] in {path}", key, STREAM_KEYS)
        source = _beside(path, sources.full(_typed(path, "source", table.get("source"), str)))
        outputs = _typed(path, "sinks", table.get("sinks", ["null://"]), list)
        name = _typed(path, "name", table.get("name", ""), str)
        rules = path.parent / _typed(path, "rules", table["rules"], str) if "rules" in table else None
        places = tuple(_beside(path, _typed(path, "sinks", uri, str), of_sink=True) for uri in outputs)
        streams.append(StreamSettings(source, places, name, rules))
    if len(streams) > 1:
        streams = [dataclasses.replace(s, name=s.name or f"stream{i}") for i, s in enumerate(streams, start=1)]
    return tuple(streams)


def _beside(path: Path, text: str, of_sink: bool = False) -> str:
    """A URI of the file `path`: where it is a path, relative to that file. Its options stay behind it."""
    scheme, mark, rest = text.partition("://")
    if of_sink and mark and getattr(sinks.find(text)[0], "IS_PATH", False):
        return f"{scheme}://{_beside(path, rest)}"
    if Uri.parse(text).scheme or text.split("?")[0] == "-" or path.parent == Path():
        return text
    return os.path.join(path.parent, text)  # noqa: PTH118 -- a slash at the end means a folder


def _typed(path: Path, key: str, value: object, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        # A value of another type may be anything, a table with a password among it: only its type is shown.
        shown = repr(value) if isinstance(value, (bool, int, float)) else TYPE_NAMES.get(type(value), "no value")
        raise OptionError(f"{path}: {key} is {shown}.", f"Expected {TYPE_NAMES[kind]}.")
    if isinstance(value, float) and not value >= 0:  # nor NaN
        raise OptionError(f"{path}: {key} is {value!r}.", "Expected a number from 0 up.")
    return value


def _check_names(streams: tuple[StreamSettings, ...]) -> None:
    names = [stream.name for stream in streams]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise OptionError(f"Two streams are called {twice!r}.", "Give each a name of its own.")
    seen: set[str] = set()
    for uri in (uri for stream in streams for uri in stream.sinks):
        module, parsed = sinks.find(uri)
        if uri in seen and not getattr(module, "SHARED", False):
            raise OptionError(f"Several streams would write to {parsed}.", "Put {name} into it: out-{name}.mp4")
        seen.add(uri)

"""TOML files as plain tables or as dataclasses, with errors that name the file, the key and what was expected."""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgeseg.errors import FileError, OptionError, unknown
from edgeseg.files import require_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
MAX_BYTES = 1 << 20
TYPE_NAMES = {int: "whole number", float: "number", str: "string", bool: "boolean (true or false)"}


def read(path: Path, what: str) -> dict[str, Any]:
    """The table in `path`; FileError for a file that is missing, empty, too large or not TOML. `what` names it."""
    if require_file(path, what).stat().st_size > MAX_BYTES:
        raise FileError(f"{what} {path} is larger than {MAX_BYTES} bytes.", "Expected a page of TOML.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        _check_integers(table)
        return table
    except ValueError as error:  # what tomllib raises, and what Python does of characters and numbers
        raise FileError(f"{what} {path} is not valid TOML: {error}.", "Fix that line.") from None
    except RecursionError:
        raise FileError(f"{what} {path} is nested too deeply.", "Expected a page of TOML.") from None
    except OSError as error:
        raise FileError(f"{what} {path} cannot be read: {error.strerror}.", "Check its permissions.") from None


def _check_integers(value: Any) -> None:
    """ValueError for an integer of more than 64 bits, which TOML does not have."""
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_integers(inner)
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError("an integer has more than 64 bits")


def number(default: Any, low: float, high: float) -> Any:
    """A dataclass field whose value, or each of whose values, lies in low..high."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def choice(*words: str) -> Any:
    """A dataclass field that is one of `words`, the first by default."""
    return dataclasses.field(default=words[0], metadata={"choice": words})


def to_dataclass(kind: type[T], table: Any, section: str, path: Path) -> T:
    """A TOML table as a frozen dataclass. `section`: its dotted name in the file, "" for the top level.

    OptionError for unknown keys, wrong types, values out of range and missing keys. Fields that a file cannot set have
    compare=False.
    """
    if not isinstance(table, dict):
        raise OptionError(f"{path}: {section} is {table!r}.", f"Expected a section [{section}].")
    fields = {f.name: f for f in dataclasses.fields(kind) if f.compare}  # type: ignore[arg-type]
    types = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        dotted = f"{section}.{key}" if section else key
        if key not in fields:
            what = "section" if isinstance(value, dict) else "key"
            error = unknown(what, dotted, list(_dotted(fields, section)))
            raise OptionError(f"{path}: {error.what}", error.hint)
        values[key] = _value(types[key], value, dotted, path, fields[key].metadata.get("range"))
        choices = fields[key].metadata.get("choice")
        if choices and value not in choices:
            raise wrong_value(path, dotted, value, " or ".join(repr(word) for word in choices))
    required = [key for key, f in fields.items() if f.default is dataclasses.MISSING]
    for key in required:
        if key not in values:
            needed = ", ".join(_dotted(required, section))
            raise OptionError(f"{path}: {key} is missing.", f"Expected at least: {needed}.")
    return kind(**values)


def wrong_value(path: Path, dotted: str, value: Any, expected: str) -> OptionError:
    """The error for a key whose value cannot be used."""
    return OptionError(f"{path}: {dotted} is {value!r}.", f"Expected {expected}.")


def _dotted(names: Iterable[str], section: str) -> Iterable[str]:
    return (f"{section}.{name}" if section else name for name in names)


def _value(kind: Any, value: Any, dotted: str, path: Path, span: tuple[float, float] | None) -> Any:
    """`value` as `kind` (a field's type), or OptionError with what was expected."""
    kind = next((k for k in typing.get_args(kind) if dataclasses.is_dataclass(k)), kind)
    if dataclasses.is_dataclass(kind):
        return to_dataclass(typing.cast("type[Any]", kind), value, dotted, path)
    if typing.get_origin(kind) is tuple:
        item, *rest = typing.get_args(kind)
        count = None if rest == [Ellipsis] else 1 + len(rest)
        if not isinstance(value, (list, tuple)) or (count is not None and len(value) != count):
            raise wrong_value(path, dotted, value, f"a list of {count or 'any number of'} {TYPE_NAMES[item]}s")
        return tuple(_value(item, v, dotted, path, span) for v in value)
    fits = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if not fits:
        raise wrong_value(path, dotted, value, f"a {TYPE_NAMES[kind]}")
    if span and not span[0] <= value <= span[1]:
        raise OptionError(f"{path}: {dotted} is {value}, out of range.", f"Expected {span[0]:g} to {span[1]:g}.")
    return float(value) if kind is float else value


def dumps(table: Mapping[str, Any]) -> str:
    """TOML of nested tables whose values are text, numbers, booleans and lists of these; None is left out."""
    return "\n".join(_lines(table, ""))


def _lines(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in table.items():
        if not isinstance(value, Mapping) and value is not None:
            yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from ("", f"[{prefix}{key}]", *_lines(value, f"{prefix}{key}."))

"""Record: a result with a JSON form. Frozen dataclasses in the program, plain values with a schema number outside.

`msgspec` does the conversion and checks every type on the way in, so that a damaged or foreign file is an error that
names the place, not a surprise later.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from edgeseg.errors import FileError, OptionError
from edgeseg.files import require_file, write_bytes

R = TypeVar("R", bound="Record")
T = TypeVar("T")


class Record:
    """Base of every result. `KIND` names it in files; `SCHEMA` grows when a key changes its meaning or goes away;
    `HINT` says how to get a whole one."""

    KIND: ClassVar[str]
    SCHEMA: ClassVar[int] = 1
    HINT: ClassVar[str] = "Measure it again."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with `kind` and `schema`."""
        return {"kind": self.KIND, "schema": self.SCHEMA, **msgspec.to_builtins(self)}

    @classmethod
    def from_dict(cls: type[R], data: object, name: object = "The result") -> R:
        """The record in `data`, plain values; `name` says in errors where they came from.

        OptionError for a schema newer than this edgeseg knows, FileError for anything that is not such a record.
        """
        check_schema(data, cls.SCHEMA, name)
        kind = data.get("kind", cls.KIND) if isinstance(data, dict) else None
        if kind != cls.KIND:
            raise FileError(f"{name} is of kind {kind!r}.", f"Expected a result of kind {cls.KIND!r}. {cls.HINT}")
        return convert(data, cls, f"{name} is not a complete {cls.KIND} result", cls.HINT)

    def save(self, path: Path) -> None:
        write_bytes(path, (json.dumps(self.to_dict(), indent=1) + "\n").encode())

    @classmethod
    def load(cls: type[R], path: Path) -> R:
        return cls.from_dict(read_json(path, hint=cls.HINT), path)


def check_schema(data: object, newest: int, name: object) -> None:
    """OptionError if `data` says that it follows a newer schema than `newest`."""
    schema = data.get("schema", 1) if isinstance(data, dict) else 1
    if type(schema) is not int or schema < 1:
        raise FileError(f"{name} has schema {schema!r}.", f"Expected a number from 1 to {newest}; write it again.")
    if schema > newest:
        raise OptionError(
            f"{name} has schema {schema}, from a newer edgeseg.",
            f"This one reads schemas up to {newest}: update edgeseg, or write it again with this version.",
        )


def convert(data: object, kind: type[T], what: str, hint: str) -> T:
    """Plain values as `kind`, every type checked; FileError, `what` and the place and reason, where they do not fit."""
    try:
        return msgspec.convert(data, kind, strict=True)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise FileError(f"{what}: {error or type(error).__name__}.", hint) from None


def parse_json(text: bytes) -> Any:
    """The value of a JSON text.

    ValueError or RecursionError where it is none, or holds an integer of more than 64 bits or half a surrogate pair.
    """
    value = json.loads(text.decode(), parse_int=_integer)
    if b"\\ud" in text or b"\\uD" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _integer(text: str) -> int:
    value = int(text)
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"the integer {text[:40]} has more than 64 bits")
    return value


def read_json(path: Path, what: str = "Result", hint: str = "Make it with --json FILE.") -> dict[str, Any]:
    """A JSON object from a file; FileError for anything else."""
    try:
        document = parse_json(require_file(path, what).read_bytes())
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return document
    except OSError as error:
        raise FileError(f"{what} {path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{what} {path} is not JSON of edgeseg: {error}.", hint) from error

"""Ledger: the inputs and the result of each stage of a long job, so that a finished stage does not run again."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgeseg.files import sha256, write_bytes
from edgeseg.records import convert, read_json

Log = Callable[[str], None]
T = TypeVar("T")
HINT = "Remove that file and run again."


@dataclass(frozen=True)
class Entry:
    """A stage: digests of its inputs and outputs, how long it took, and its result as plain values. A stage that began
    and did not end has its inputs only."""

    inputs: str
    outputs: tuple[str, ...] | None = None
    seconds: float | None = None
    result: Any = None


class Ledger:
    """ledger.json of a folder. FileError where it cannot be read."""

    def __init__(self, folder: Path, log: Log):
        self.folder, self.log = folder, log
        self.path = folder / "ledger.json"
        stored = read_json(self.path, "Ledger", HINT) if self.path.is_file() else {}
        self.entries = convert(stored, dict[str, Entry], f"{self.path} is not a ledger", HINT)

    def stage(self, name: str, inputs: Any, outputs: Sequence[Path], kind: type[T], work: Callable[[], T]) -> T:
        """work()'s result, from the ledger when `inputs` (plain values) and the content of `outputs` are unchanged.

        `kind`: the type of the result, which is stored as plain values and comes back as itself.
        """
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
        entry = self.entries.get(name)
        if entry and entry.inputs == digest and entry.outputs == _digests(outputs):
            self.log(f"{name}: unchanged")
            return convert(entry.result, kind, f"{self.path} holds another result of {name!r}", HINT)
        if not entry or entry.inputs != digest:
            # A stage that was interrupted continues from its folder, but only with the same inputs.
            shutil.rmtree(self.folder / name, ignore_errors=True)
            self._store(name, Entry(digest))
        self.log(name)
        begin = time.monotonic()
        result = work()
        seconds = round(time.monotonic() - begin, 1)
        self._store(name, Entry(digest, _digests(outputs), seconds, msgspec.to_builtins(result)))
        return result

    def _store(self, name: str, entry: Entry) -> None:
        self.entries[name] = entry
        write_bytes(self.path, (json.dumps(msgspec.to_builtins(self.entries), indent=1) + "\n").encode())


def _digests(paths: Sequence[Path]) -> tuple[str, ...]:
    return tuple(sha256(path) if path.is_file() else "" for path in paths)

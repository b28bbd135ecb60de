"""Ledger: what each stage of a long job was made from, so that a finished stage is not done twice."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeseg.files import sha256, write_bytes

Log = Callable[[str], None]


class Ledger:
    """Remembers what each stage was made from, so that a finished stage is not done twice."""

    def __init__(self, folder: Path, log: Log):
        self.folder = folder
        self.log = log
        self.path = folder / "ledger.json"
        self.rows: dict[str, Any] = json.loads(self.path.read_text()) if self.path.is_file() else {}

    def stage(self, name: str, inputs: Any, outputs: list[Path], work: Callable[[], Any]) -> Any:
        """work()'s result (JSON), from the ledger when `inputs` (JSON) and the content of `outputs` are unchanged."""
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
        row = self.rows.get(name, {})
        if row.get("inputs") == digest and row.get("outputs") == _digests(outputs):
            self.log(f"{name}: unchanged")
            return row["result"]
        if row.get("inputs") != digest:
            # A stage that was interrupted continues from its folder, but only with the same inputs.
            shutil.rmtree(self.folder / name, ignore_errors=True)
            self._note(name, {"inputs": digest})
        self.log(name)
        begin = time.monotonic()
        result = work()
        seconds = round(time.monotonic() - begin, 1)
        self._note(name, {"inputs": digest, "outputs": _digests(outputs), "seconds": seconds, "result": result})
        return result

    def _note(self, name: str, row: dict[str, Any]) -> None:
        self.rows[name] = row
        write_bytes(self.path, (json.dumps(self.rows, indent=1) + "\n").encode())


def _digests(paths: list[Path]) -> list[str]:
    return [sha256(path) if path.is_file() else "" for path in paths]

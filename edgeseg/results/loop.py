"""The ledger of `edgeseg loop`: its turns, and what every step of them did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeseg.records import Record


@dataclass(frozen=True)
class LoopStep:
    """A finished step. `ended`: UTC in ISO 8601, by the wall clock. `digests`: sha256 of what it used or made, by name.
    `figures`: what it measured or counted."""

    name: str
    ended: str
    seconds: float
    digests: dict[str, str]
    figures: dict[str, int | float | str | None]


@dataclass(frozen=True)
class LoopTurn:
    """`state`: unfinished, waiting, promoted or refused. `note`: what it waits for, or why it was refused."""

    number: int
    state: str
    note: str = ""
    steps: tuple[LoopStep, ...] = ()

    def step(self, name: str) -> LoopStep | None:
        return next((step for step in self.steps if step.name == name), None)


@dataclass(frozen=True, kw_only=True)
class LoopResult(Record):
    """`state`, `note`: of the latest turn; "new" where there was none yet. `turns`: all of them, oldest first."""

    KIND: ClassVar[str] = "loop"
    HINT: ClassVar[str] = "Restore it from a backup, or name another folder: out = ..."

    turns: tuple[LoopTurn, ...] = ()
    state: str = "new"
    note: str = ""

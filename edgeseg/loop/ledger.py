"""run: the next steps of the loop, up to the end of a turn or to where it waits for people."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone

from edgeseg.bundle import Bundle
from edgeseg.errors import OptionError
from edgeseg.files import alone, cannot_write
from edgeseg.loop.settings import LoopSettings
from edgeseg.loop.turn import Done, Log, Refused, Turn, Waiting
from edgeseg.results.loop import LoopResult, LoopStep, LoopTurn

LEDGER = "turns.json"
FINISHED = ("promoted", "refused")


def status(settings: LoopSettings) -> LoopResult:
    """The ledger as it is; FileError where it cannot be read."""
    path = settings.path(settings.out) / LEDGER
    return LoopResult.load(path) if path.is_file() else LoopResult()


def run(settings: LoopSettings, log: Log) -> LoopResult:
    """Go on with the unfinished turn, or begin one. Every step is recorded when it is done, and not done again.

    `state` of the result is waiting, promoted or refused. OptionError while another run is at work.
    """
    out = settings.path(settings.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    # A schedule may start the next run before a long training has ended.
    with alone(out / ".lock", OptionError(f"Another run is at work in {out}.", "Wait until it has ended.")):
        return _Run(settings, log).run()


class _Run:
    def __init__(self, settings: LoopSettings, log: Log):
        self.settings, self.log = settings, log
        turns = status(settings).turns
        self.earlier = tuple(turn for turn in turns if turn.state in FINISHED)
        begun = [turn for turn in turns if turn.state not in FINISHED]
        self.turn = begun[-1] if begun else LoopTurn(len(turns) + 1, "unfinished")
        self.work = Turn(settings, self.turn.number, self.earlier, log)

    def run(self) -> LoopResult:
        self.work.clean()
        if not self.work.promoting():
            self.work.check()
            self._forget_old_gate()
        try:
            for name, work in self.work.steps.items():
                if self.turn.step(name) is None:
                    self._step(name, work)
            return self._save("promoted", f"The new bundle is at {self.work.deployed}.")
        except Waiting as reason:
            return self._save("waiting", str(reason))
        except Refused as reason:
            return self._save("refused", str(reason))

    def _step(self, name: str, work: Callable[[], Done]) -> None:
        if name == "promote" and (gate := self.turn.step("gate")) and not self.work.promoting():
            self.work.verdict(gate.figures)
        self.log(f"turn {self.turn.number}: {name}")
        begin = time.monotonic()
        done = work()
        ended = datetime.now(timezone.utc).isoformat(timespec="seconds")
        step = LoopStep(name, ended, round(time.monotonic() - begin, 1), done.digests, done.figures)
        self.turn = replace(self.turn, steps=(*self.turn.steps, step))
        self._save("unfinished", "")

    def _forget_old_gate(self) -> None:
        """The gate is passed again where another bundle was deployed since."""
        gate = self.turn.step("gate")
        if gate and gate.digests["deployed"] != Bundle.load(self.work.deployed).digest:
            self.log("another bundle was deployed since the gate: it is passed again")
            self.turn = replace(self.turn, steps=tuple(step for step in self.turn.steps if step is not gate))

    def _save(self, state: str, note: str) -> LoopResult:
        self.turn = replace(self.turn, state=state, note=note)
        result = LoopResult(turns=(*self.earlier, self.turn), state=state, note=note)
        result.save(self.settings.path(self.settings.out) / LEDGER)
        return result

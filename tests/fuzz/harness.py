"""Runs readers on mutated files in forked workers, and says what must not be: a status other than 0, 1, 2 or 3, not one
message, a signal, too much memory, too much time.

A worker runs many cases, one after another; each is told by READER:NUMBER and can be made again. What a worker dies
of is found by its parent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import TextIO

import mutate
from readers import Reader

ALLOWED = (0, 1, 2, 3)
CASE_SECONDS = 30
MAX_MEMORY = 1536 << 20  # what one case may add to what the worker had
CASES_PER_WORKER = 300
SOUND = -1  # the case of seeds as they are
ERROR_LINE = re.compile(r"^(?:\d\d:\d\d:\d\d )?Error: ", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """`status`: of the command, or minus the signal it died of. `memory`: bytes added. `wrong`: why it fails, or ""."""

    case: str
    file: str
    status: int
    memory: int
    seconds: float
    wrong: str = ""
    output: str = ""


@dataclass
class Summary:
    """What happened, by reader and status."""

    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)
    memory: int = 0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.case.split(":")[0], outcome.status] += 1
        self.memory = max(self.memory, outcome.memory)
        self.seconds = max(self.seconds, outcome.seconds)
        if outcome.wrong:
            self.failures.append(outcome)

    @property
    def cases(self) -> int:
        return sum(self.counts.values())

    def statuses(self) -> dict[int, int]:
        total: Counter[int] = Counter()
        for (_, status), number in self.counts.items():
            total[status] += number
        return dict(sorted(total.items()))


def mutated(reader: Reader, number: int, seeds: Path, work: Path) -> tuple[Path, str]:
    """The folder of the case `number` of a reader, and which of its files was mutated; none for SOUND."""
    random = Random(f"{reader.name}:{number}")
    folder = Path(shutil.copytree(seeds / reader.name, work / "case"))
    if number == SOUND:
        return folder, ""
    found = sorted({path for glob in reader.files for path in folder.glob(glob) if path.is_file()})
    path = random.choice(found)
    path.write_bytes(mutate.data(path.read_bytes(), path.name, random))
    name = path.relative_to(folder).as_posix()
    reader.before(folder, name, random)
    return folder, name


def run_case(reader: Reader, number: int, seeds: Path) -> Outcome:
    """One case in this process."""
    with tempfile.TemporaryDirectory(prefix="edgeseg-fuzz-") as place, _outputs(Path(place)) as said:
        folder, name = mutated(reader, number, seeds, Path(place))
        before, begin = _reset_peak(), time.monotonic()
        wrong = ""
        try:
            status = reader.run(folder)
        except (Exception, SystemExit):
            status, wrong = 70, "raised"
            traceback.print_exc()
        seconds, memory = time.monotonic() - begin, _peak() - before
        output = said()
    return Outcome(
        f"{reader.name}:{number}", name, status, memory, seconds, wrong or judge(status, memory, output), output[-4000:]
    )


def judge(status: int, memory: int, output: str) -> str:
    """What is wrong with an outcome, or ""."""
    if status not in ALLOWED:
        return f"exit {status}"
    if memory > MAX_MEMORY:
        return f"{memory >> 20} MiB"
    errors = len(ERROR_LINE.findall(output))
    if "Traceback (most recent call last)" in output:
        return "a traceback"
    if status == 2 and errors != 1:
        return f"{errors} messages"
    return f"status 0 with {errors} errors" if status == 0 and errors else ""


@contextlib.contextmanager
def _outputs(place: Path) -> Iterator[object]:
    """Both output streams, those of libraries too, into a file; gives a function that reads it."""
    kept = [os.dup(1), os.dup(2)]
    streams = sys.stdout, sys.stderr
    with (
        (place / "output").open("w+b") as file,
        _stream(1) as sys.stdout,
        _stream(2) as sys.stderr,
    ):
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield lambda: (place / "output").read_bytes().decode(errors="replace")
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
            sys.stdout, sys.stderr = streams
            for number, old in zip((1, 2), kept):
                os.dup2(old, number)
                os.close(old)


def _stream(number: int) -> TextIO:
    return os.fdopen(number, "w", buffering=1, errors="backslashreplace", closefd=False)


def _reset_peak() -> int:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """VmHWM in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0


def _work(tasks: Connection, readers: Sequence[Reader], seeds: Path) -> None:
    """A worker: cases in, outcomes out."""
    limit = 6 << 30  # a case that needs more fails at once instead of taking the machine along
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()  # of pytest: the parent says what the worker died of
    by_name = {reader.name: reader for reader in readers}
    while (task := tasks.recv()) is not None:
        name, number = task
        tasks.send(run_case(by_name[name], number, seeds))


class _Worker:
    def __init__(self, readers: Sequence[Reader], seeds: Path):
        context = multiprocessing.get_context("fork")
        self._tasks, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, readers, seeds), daemon=True)
        self._process.start()
        theirs.close()
        self.left = CASES_PER_WORKER

    def run(self, name: str, number: int) -> Outcome:
        """The outcome of a case, also where the worker did not survive it: then `left` is 0."""
        begin = time.monotonic()
        self._tasks.send((name, number))
        self.left -= 1
        if self._tasks.poll(CASE_SECONDS):
            with contextlib.suppress(EOFError, ConnectionResetError):
                outcome: Outcome = self._tasks.recv()
                return outcome
            self._process.join()
            status, wrong = self._process.exitcode or 0, "died"
        else:
            status, wrong = -signal.SIGALRM, f"still running after {CASE_SECONDS} s"
        self.close(kill=True)
        return Outcome(f"{name}:{number}", "", status, 0, time.monotonic() - begin, wrong)

    def close(self, kill: bool = False) -> None:
        self.left = 0
        if kill:
            self._process.kill()
        else:
            with contextlib.suppress(OSError):
                self._tasks.send(None)
        self._process.join()


def sound(readers: Sequence[Reader], seeds: Path) -> list[Outcome]:
    """Each reader on its seeds as they are, in a worker: all have to be read."""
    worker = _Worker(readers, seeds)
    outcomes = []
    for reader in readers:
        outcomes.append(worker.run(reader.name, SOUND))
        if not worker.left:
            worker = _Worker(readers, seeds)
    worker.close()
    return outcomes


def fuzz(readers: Sequence[Reader], seeds: Path, seed: int, seconds: float, most: int, keep: Path) -> Summary:
    """Cases in an order that follows from `seed`, for so long and at most so many; those that fail are kept."""
    random, summary, end = Random(seed), Summary(), time.monotonic() + seconds
    weights = [reader.weight for reader in readers]
    worker = _Worker(readers, seeds)
    try:
        while summary.cases < most and time.monotonic() < end:
            [reader] = random.choices(readers, weights)
            outcome = worker.run(reader.name, random.getrandbits(40))
            summary.add(outcome)
            if outcome.wrong:
                _keep(reader, outcome, seeds, keep)
            if not worker.left:
                worker.close()
                worker = _Worker(readers, seeds)
    finally:
        worker.close()
    return summary


def _keep(reader: Reader, outcome: Outcome, seeds: Path, keep: Path) -> None:
    """The files of a case that failed, and what it said."""
    number = int(outcome.case.split(":")[1])
    place = keep / f"{reader.name}-{number}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    _, name = mutated(reader, number, seeds, place)
    (place / "outcome.txt").write_text(
        f"{outcome.case} {name}: {outcome.wrong} (status {outcome.status}, {outcome.memory >> 20} MiB, "
        f"{outcome.seconds:.1f} s)\n\n{outcome.output}"
    )

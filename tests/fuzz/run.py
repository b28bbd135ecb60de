"""Fuzz every reader: python tests/fuzz/run.py [--seed N] [--seconds S] [--cases N] [--only READER] (make fuzz).

The same seed gives the same cases. Those that fail are kept in build/fuzz/READER-NUMBER with what they said; run one
again with --replay READER:NUMBER. Exits 1 if one failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import harness  # noqa: E402
import readers as known  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--only", action="append", help="reader; repeatable")
    parser.add_argument("--replay", metavar="READER:NUMBER")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeseg-seeds-") as folder:
        seeds = made_elsewhere(Path(folder))
        readers = known.all_of(seeds)
        if options.replay:
            return replay(options.replay, readers, seeds)
        chosen = [reader for reader in readers if not options.only or reader.name in options.only]
        load()
        for outcome in harness.sound(chosen, seeds):
            if outcome.status:
                raise SystemExit(f"{outcome.case}: its seeds are not sound: {outcome.wrong} {outcome.output[-1000:]}")
        begin = time.monotonic()
        summary = harness.fuzz(chosen, seeds, options.seed, options.seconds, options.cases, options.keep)
        show(summary, time.monotonic() - begin)
    return 1 if summary.failures else 0


def made_elsewhere(folder: Path) -> Path:
    """Seeds, made in a process of their own: engines start threads, which a fork would lose."""
    process = multiprocessing.get_context("fork").Process(target=_make, args=(folder,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"the seeds cannot be made: {(folder / 'log').read_text()[-2000:]}")
    return folder


def _make(folder: Path) -> None:
    with harness._outputs(folder) as said:
        try:
            known.make_seeds(folder)
        finally:
            (folder / "log").write_text(said())


def load() -> None:
    """Import what readers need, once, before workers are forked."""
    import edgeseg.cli
    import edgeseg.compile
    import edgeseg.training.checkpoint  # noqa: F401


def replay(case: str, readers: list[known.Reader], seeds: Path) -> int:
    name, _, number = case.partition(":")
    [reader] = [reader for reader in readers if reader.name == name]
    outcome = harness.run_case(reader, int(number), seeds)
    print(outcome.output)
    print(
        f"{case} {outcome.file}: status {outcome.status}, {outcome.memory >> 20} MiB. {outcome.wrong or 'as it should'}"
    )
    return int(bool(outcome.wrong))


def show(summary: harness.Summary, seconds: float) -> None:
    names = sorted({name for name, _ in summary.counts})
    statuses = list(summary.statuses())
    print(f"{'reader':24}" + "".join(f"{status:>7}" for status in statuses))
    for name in names:
        print(f"{name:24}" + "".join(f"{summary.counts[name, status] or '':>7}" for status in statuses))
    print(f"{'all':24}" + "".join(f"{number:>7}" for number in summary.statuses().values()))
    print(
        f"{summary.cases} cases in {seconds:.0f} s; the most memory one added: {summary.memory >> 20} MiB; "
        f"the longest took {summary.seconds:.1f} s; {len(summary.failures)} failed"
    )
    for outcome in summary.failures[:40]:
        last = next((line for line in reversed(outcome.output.splitlines()) if "rror" in line), "")
        print(f"  {outcome.case} {outcome.file}: {outcome.wrong} {last[:160]}")


if __name__ == "__main__":
    sys.exit(main())

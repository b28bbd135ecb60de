"""The fuzzing suite itself: its seeds are read, its cases come again, it notices what must not be; and a short run."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import harness
import mutate
import pytest
import readers
import run
from readers import Reader, api

from edgeseg import backends
from edgeseg.data import formats

for package in ("torch", "onnx", "onnxruntime", "pycocotools", "cryptography"):
    pytest.importorskip(package)
SECONDS = 8


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.made_elsewhere(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def known(seeds: Path) -> list[Reader]:
    run.load()
    return readers.all_of(seeds)


def test_every_backend_and_format_has_seeds(seeds: Path, known: list[Reader]) -> None:
    names = {reader.name for reader in known}
    assert {f"labels-{name}" for name in formats.names()} <= names, "add tests/fuzz/seeds/NAME"
    here = [name for name in backends.names() if not backends.get(name).probe()]
    assert len([name for name in names if name.startswith("bundle-")]) == len(here)


def test_seeds_are_read(seeds: Path, known: list[Reader]) -> None:
    failed = [outcome for outcome in harness.sound(known, seeds) if outcome.status or outcome.wrong]
    assert not failed, failed[0]


def test_a_short_run_finds_nothing(seeds: Path, known: list[Reader], tmp_path: Path) -> None:
    summary = harness.fuzz(known, seeds, seed=1, seconds=SECONDS, most=2000, keep=tmp_path)
    assert summary.cases > 50
    assert not summary.failures, (summary.failures[0], "kept in", tmp_path)


def test_a_case_comes_again(seeds: Path, known: list[Reader], tmp_path: Path) -> None:
    for reader in known:
        for place in ("a", "b"):
            (tmp_path / place).mkdir()
            harness.mutated(reader, 7, seeds, tmp_path / place)
        files = [sorted(p for p in (tmp_path / place).rglob("*") if p.is_file()) for place in ("a", "b")]
        assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
        for place in ("a", "b"):
            shutil.rmtree(tmp_path / place)


@pytest.mark.parametrize("name", ["a.json", "a.toml", "a.png", "a.pt", "a.bin"])
def test_anything_can_be_mutated(name: str) -> None:
    for number in range(300):
        random = Random(number)
        content = random.choice(
            (b"", b"{", b'{"a": [1, "b", {"c": 2.5}]}', b"\x89PNG\r\n\x1a\n" + bytes(40), b"PK\3\4")
        )
        assert isinstance(mutate.data(content, name, random), bytes)


def said(text: str, status: int) -> object:
    def read(folder: Path) -> int:
        print(text, file=sys.stderr)
        return status

    return read


def fill(folder: Path) -> None:
    b"x" * (128 << 20)


WRONG = {
    "a bug": (said("Error: Internal error: KeyError", 70), "exit 70"),
    "silent": (said("", 2), "0 messages"),
    "twice": (said("Error: a\nError: b", 2), "2 messages"),
    "raises": (api(lambda folder: {}["x"]), "raised"),
    "traceback": (said("Traceback (most recent call last):\n  x\nError: a", 2), "a traceback"),
    "signal": (api(lambda folder: os.kill(os.getpid(), signal.SIGSEGV)), "died"),
    "memory": (api(fill), "MiB"),
    "hang": (api(lambda folder: time.sleep(60)), "still running"),
    "fine": (said("12:00:00 Error: it is broken", 2), ""),
}


@pytest.fixture
def one_seed(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "seeds" / "x").mkdir(parents=True)
    (tmp_path / "seeds" / "x" / "file").write_text("content")
    yield tmp_path / "seeds"


@pytest.mark.parametrize("kind", WRONG)
def test_what_must_not_be_is_noticed_and_kept(
    kind: str, one_seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "CASE_SECONDS", 2)
    monkeypatch.setattr(harness, "MAX_MEMORY", 64 << 20)
    read, wrong = WRONG[kind]
    summary = harness.fuzz([Reader("x", ("file",), read)], one_seed, 1, 60, 2, tmp_path / "kept")  # type: ignore[arg-type]
    assert summary.cases == 2
    assert [wrong in outcome.wrong for outcome in summary.failures] == ([True, True] if wrong else [])
    kept = list((tmp_path / "kept").glob("x-*"))
    assert len(kept) == (2 if wrong else 0)
    for place in kept:
        assert (place / "case" / "file").is_file() and wrong in (place / "outcome.txt").read_text()

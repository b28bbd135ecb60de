"""Cached engines: whatever happens to the folder or to the processes, no wrong or half-written engine is loaded."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgeseg.errors import EdgesegError, FileError
from edgeseg.tensorrt import cache as enginecache
from edgeseg.tensorrt.cache import obtain, path_of, read, write

KEY = {
    **{"graph": "a" * 64, "plan": "b" * 64, "tensorrt": "10.3.0", "gpu": "Orin", "compute_capability": "8.7"},
    **{"driver": "12.6", "precision": "int8", "dla": -1, "power_mode": "pmode:0000"},
}
# An engine holds the key it was built for, so that a wrong one is noticed; 200 kB are many write calls.
BUILD = """
import json, sys, time
from pathlib import Path
from edgeseg.tensorrt import cache as enginecache
folder, key, log, pause = Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
def build():
    with log.open("a") as file:
        file.write("build\\n")
    time.sleep(pause)
    return json.dumps(key, sort_keys=True).encode() + bytes(200_000)
def use(engine):
    assert json.loads(engine.rstrip(b"\\0")) == key
    return engine
print(len(enginecache.obtain(folder, key, build, use, lambda text: print(text, flush=True))), flush=True)
"""


def engine_of(key: dict[str, Any]) -> bytes:
    return json.dumps(key, sort_keys=True).encode()


def start(folder: Path, key: dict[str, Any], log: Path, pause: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", BUILD, folder, json.dumps(key), log, pause]
    return subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_engine_is_built_once_and_then_loaded_from_the_cache(tmp_path: Path) -> None:
    builds: list[int] = []

    def build() -> bytes:
        builds.append(1)
        return b"engine"

    for _ in range(3):
        assert obtain(tmp_path / "new" / "cache", KEY, build, bytes) == b"engine"
    assert len(builds) == 1
    assert (path_of(tmp_path / "new" / "cache", KEY).stat().st_mode & 0o077) == 0


@pytest.mark.parametrize("field", KEY)
def test_a_change_of_anything_an_engine_depends_on_rebuilds_it(tmp_path: Path, field: str) -> None:
    obtain(tmp_path, KEY, lambda: b"old", bytes)
    changed = {**KEY, field: 5 if field == "dla" else "other"}
    assert obtain(tmp_path, changed, lambda: b"new", bytes) == b"new"
    assert obtain(tmp_path, KEY, lambda: b"never", bytes) == b"old"


def test_ten_thousand_changes_of_the_key_never_load_a_wrong_engine(tmp_path: Path) -> None:
    """Keys change at random, files are damaged, swapped and removed in between."""
    choice = random.Random(7)
    values: dict[str, list[Any]] = {field: [old, 0 if field == "dla" else "other"] for field, old in KEY.items()}
    key, built, refused = dict(KEY), 0, 0

    def build() -> bytes:
        nonlocal built
        built += 1
        return engine_of(key)

    def log(text: str) -> None:
        nonlocal refused
        refused += 1

    for step in range(10_000):
        field = choice.choice(list(values))
        key = {**key, field: choice.choice(values[field])}
        path = path_of(tmp_path, key)
        if step % 10 == 0 and path.exists():
            damage(choice, path)
        assert obtain(tmp_path, key, build, bytes, log) == engine_of(key)
    assert 1000 < built < 2000 and refused > 500


def damage(choice: random.Random, path: Path) -> None:
    data = path.read_bytes()
    what = choice.randrange(5)
    if what == 0:
        path.write_bytes(data[: choice.randrange(len(data))])
    elif what == 1:
        at = choice.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << choice.randrange(8)]) + data[at + 1 :])
    elif what == 2:
        others = [p for p in path.parent.glob("*.engine") if p != path]
        path.write_bytes(choice.choice(others).read_bytes() if others else b"")
    elif what == 3:
        path.unlink()
    else:
        path.write_bytes(data + b"more")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.write_bytes(b""), "not one of ours"),
        (lambda p: p.write_bytes(os.urandom(5000)), "not one of ours"),
        (lambda p: p.write_bytes(b"[" * 70_000), "not one of ours"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"X"), "damaged"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"Orin", b"Thor")), r"another device or model \(gpu\)"),
        (lambda p: p.chmod(0o666), "another user"),
    ],
    ids=["empty", "noise", "deep", "cut short", "altered", "of another GPU", "writable by all"],
)
def test_damaged_cache_entries_are_rejected_and_rebuilt(tmp_path: Path, change: Any, message: str) -> None:
    obtain(tmp_path, KEY, lambda: b"engine", bytes)
    path = path_of(tmp_path, KEY)
    change(path)
    with pytest.raises(FileError, match=message):
        read(path, KEY)
    messages: list[str] = []
    assert obtain(tmp_path, KEY, lambda: b"again", bytes, messages.append) == b"again"
    assert "refused" in messages[0] and "Building it again" in messages[0]
    assert read(path, KEY) == b"again"


def test_a_cached_engine_that_fails_verification_is_rebuilt_and_a_new_one_that_fails_is_not_cached(
    tmp_path: Path,
) -> None:
    write(path_of(tmp_path, KEY), KEY, b"worn out")

    def use(engine: bytes) -> bytes:
        if engine != b"good":
            raise EdgesegError("golden frames differ.")
        return engine

    assert obtain(tmp_path, KEY, lambda: b"good", use) == b"good"
    other = {**KEY, "gpu": "Thor"}
    with pytest.raises(EdgesegError, match="golden frames differ"):
        obtain(tmp_path, other, lambda: b"bad", use)
    assert read(path_of(tmp_path, other), other) is None


def test_a_folder_that_others_can_write_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(FileError, match="can be written by other users"):
        obtain(tmp_path / "open", KEY, lambda: b"x", bytes)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="Cannot keep engines"):
        obtain(tmp_path / "file", KEY, lambda: b"x", bytes)


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = [start(tmp_path / "cache", KEY, log, 0.6) for _ in range(3)]
    messages = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], messages
    assert log.read_text() == "build\n"
    assert sum("waiting for it" in out for out, _ in messages) >= 1
    assert {out.splitlines()[-1] for out, _ in messages} == {str(len(engine_of(KEY)) + 200_000)}


def test_a_process_killed_at_any_moment_leaves_no_engine_or_a_whole_one(tmp_path: Path) -> None:
    """The next one is neither blocked nor loads half an engine, and cleans up."""
    choice, log = random.Random(3), tmp_path / "log"
    for i in range(12):
        key = {**KEY, "graph": str(i)}
        killed = start(tmp_path / "cache", key, log, 0.05)
        lines = 0
        while lines <= i and killed.poll() is None:  # it has begun to build
            lines = log.read_text().count("build") if log.exists() else 0
            time.sleep(0.005)
        time.sleep(choice.uniform(0, 0.08))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        result = read(path_of(tmp_path / "cache", key), key)
        assert result is None or json.loads(result.rstrip(b"\0")) == key
        log.write_text("build\n" * (i + 1))
        size = len(obtain(tmp_path / "cache", key, lambda key=key: engine_of(key) + bytes(200_000), bytes))
        assert size == len(engine_of(key)) + 200_000
    assert not list((tmp_path / "cache").glob("*.tmp")) and not list((tmp_path / "cache").glob(".*.tmp"))


def test_half_written_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    path = path_of(tmp_path, KEY)
    (tmp_path / f".{path.name}.4711.tmp").write_bytes(b"half")
    obtain(tmp_path, KEY, lambda: b"engine", bytes)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".engine", ".lock"]


def test_the_default_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert enginecache.default_folder() == tmp_path / ".cache" / "edgeseg" / "engines"

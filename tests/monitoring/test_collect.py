"""collect:// and `edgeseg collect`: what is kept and why, within which budget, and what it survives."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny

from edgeseg.data.dataset import Dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.monitoring.ring import Ring
from edgeseg.monitoring.statistics import measure
from edgeseg.result import Frame, Result
from edgeseg.results.drift import ReferenceStatistics
from edgeseg.stream import sinks
from edgeseg.stream.clock import Clock
from edgeseg.stream.sinks.collect import Collect

INFO = sinks.Info(tiny.SPEC, name="front")


class Hand(Clock):
    """A clock that is moved by hand; `wall` may be set to anything."""

    def __init__(self) -> None:
        self.now, self.wall = 1000.0, 1.8e9

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Hand:
    return Hand()


def result(index: int, margin: float = 5.0, image: np.ndarray | None = None) -> Result:
    """A different picture for every index, halves of two classes."""
    image = tiny.frames(1, seed=index)[0] if image is None else image
    classes = np.zeros((tiny.HEIGHT, tiny.WIDTH), np.uint8)
    classes[:, tiny.WIDTH // 2 :] = index % 7 + 1
    margins = np.full(classes.shape, margin, np.float32)
    return Result(Frame(image, index), classes, {"infer": 0.01}, margins, tiny.SPEC)


def collect(folder: Path, clock: Hand, info: sinks.Info = INFO, **options: Any) -> Collect:
    return Collect(folder, info, clock=clock, wall=lambda: clock.wall, **{"every": 1.0, "random": 0, **options})


def feed(sink: Collect, clock: Hand, results: list[Result]) -> None:
    """One result a second."""
    for one in results:
        clock.now += 1.0
        clock.wall += 1.0
        sink.write(one, None)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "collected.jsonl").read_text().splitlines()]


def test_uncertain_frames_are_kept_as_a_dataset(tmp_path: Path, clock: Hand) -> None:
    with collect(tmp_path / "c", clock) as sink:
        feed(sink, clock, [result(i, margin=1.0 if i in (40, 50) else 5.0 + i % 3) for i in range(60)])
    kept = {row["frame"]: row for row in lines(tmp_path / "c")}
    assert kept[0]["why"] == {"diverse": 1.0} and {40, 50} <= set(kept) and len(kept) < 30
    assert kept[40]["why"]["uncertain"] == 1 and kept[40]["stream"] == "front" and kept[40]["worth"] >= 1
    data = Dataset.open(tmp_path / "c", "train")
    assert len(data) == len(kept) and data.classes.names == tiny.SPEC.classes
    frame, mask = data[[image.stem for image in data.images].index(kept[40]["name"])]
    assert (mask[:, -1] == 40 % 7 + 1).all() and np.abs(frame.astype(int) - tiny.frames(1, 40)[0]).mean() < 8


def test_what_looks_like_a_kept_frame_is_not_kept_again(tmp_path: Path, clock: Hand) -> None:
    still = tiny.frames(1, seed=3)[0]
    with collect(tmp_path / "c", clock) as sink:
        feed(sink, clock, [replace(result(7, 0.1, still), frame=Frame(still, i)) for i in range(100)])
    assert len(lines(tmp_path / "c")) == 1


def test_frames_unlike_the_reference_are_novel_and_drifted(tmp_path: Path, clock: Hand) -> None:
    from edgeseg.monitoring import statistics

    usual = [result(0, 5.0, np.clip(image * 0.3 + 60 + i, 0, 255).astype(np.uint8)) for i, image in
             enumerate(tiny.frames(30, seed=1))]  # fmt: skip
    rows = tuple(tuple(measure(one, len(tiny.SPEC.classes)).tolist()) for one in usual)
    names = statistics.names(tiny.SPEC.classes)
    reference = ReferenceStatistics(names=names, rows=rows, classes=tiny.SPEC.classes)
    info = replace(INFO, reference=json.dumps(reference.to_dict()).encode())
    with collect(tmp_path / "c", clock, info) as sink:
        feed(sink, clock, [*usual, result(1, 5.0, np.full((64, 96, 3), 250, np.uint8))])
    reasons = lines(tmp_path / "c")[-1]["why"]
    assert lines(tmp_path / "c")[-1]["frame"] == 1 and reasons["novel"] == 1 and reasons["drifted"] > 0


def test_one_of_every_so_many_seconds_and_so_many_a_day(tmp_path: Path, clock: Hand) -> None:
    with collect(tmp_path / "rate", clock, every=10.0) as sink:
        feed(sink, clock, [result(i, margin=100.0 - i) for i in range(100)])
    times = [row["time"] for row in lines(tmp_path / "rate")]
    assert 5 <= len(times) <= 11 and min(np.diff(times)) >= 9
    with collect(tmp_path / "day", clock, per_day=4) as sink:
        feed(sink, clock, [result(i, margin=100.0 - i) for i in range(60)])
        assert len(lines(tmp_path / "day")) == 4
        clock.now += 86400
        feed(sink, clock, [result(i, margin=-float(i)) for i in range(100, 140)])
        assert len(lines(tmp_path / "day")) == 8
    clock.now += 5
    with collect(tmp_path / "day", clock, per_day=4) as sink:  # another process on the same day
        feed(sink, clock, [result(i, margin=-float(i)) for i in range(200, 260)])
    assert len(lines(tmp_path / "day")) == 8


def test_the_least_worthy_make_room(tmp_path: Path) -> None:
    size = Ring(tmp_path / "probe", tiny.SPEC, 10**6)
    size.add(result(0), "s", {"diverse": 1.0}, 1.8e9)
    ring = Ring(tmp_path / "c", tiny.SPEC, int(5.5 * size.bytes_used))
    for i, worth in enumerate((1.0, 0.2, 3.0, 1.0, 2.0)):
        ring.add(result(i), "s", {"uncertain": worth}, 1.8e9 + i)
    kept, gone = ring.add(result(9), "s", {"uncertain": 1.5}, 1.8e9 + 9)
    assert kept is not None and gone == [1] and [row.frame for row in ring.kept] == [0, 2, 3, 4, 9]
    assert ring.add(result(10), "s", {"uncertain": 0.1}, 1.8e9) == (None, [])
    assert len(list((tmp_path / "c/train/images").iterdir())) == len(list((tmp_path / "c/train/masks").iterdir())) == 5
    for i in range(500):
        ring.add(result(20 + i), "s", {"uncertain": 1.0}, 1.8e9)
    assert 2 not in [row.frame for row in ring.kept] and ring.bytes_used <= int(5.5 * size.bytes_used)
    assert len(lines(tmp_path / "c")) <= 2 * len(ring.kept) + 1, "the record is rewritten, it does not grow for ever"
    again = Ring(tmp_path / "c", tiny.SPEC, 10**9)
    assert [row.name for row in again.kept] == [row.name for row in ring.kept]


@contextmanager
def no_larger_files_than(limit: int) -> Iterator[None]:
    """A disk that is full, as far as this process can tell: writes behind `limit` fail with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_reported_once_and_left_alone_for_a_while(
    tmp_path: Path, clock: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    with collect(tmp_path / "c", clock) as sink:
        with no_larger_files_than(100):
            feed(sink, clock, [result(i, margin=100.0 - i) for i in range(60)])
        assert sink.lost == 2 and len(caplog.messages) == 1 and "File too large" in caplog.messages[0]
        assert [p for p in (tmp_path / "c").rglob("*") if p.suffix in (".jpg", ".png")] == []
        clock.now += 60
        feed(sink, clock, [result(i, margin=-float(i)) for i in range(100, 140)])
    assert len(Dataset.open(tmp_path / "c", "train")) == len(lines(tmp_path / "c")) > 5
    assert len(sink.warnings) == 1


@pytest.mark.parametrize("jump", [-40 * 365 * 86400.0, -3600.0, 30 * 365 * 86400.0, 1e13])
def test_a_clock_that_jumps_stops_nothing(tmp_path: Path, clock: Hand, jump: float) -> None:
    with collect(tmp_path / "c", clock, per_day=30) as sink:
        feed(sink, clock, [result(i, margin=100.0 - i) for i in range(40)])
        before = len(lines(tmp_path / "c"))
        clock.wall += jump
        feed(sink, clock, [result(i, margin=-float(i)) for i in range(40, 80)])
    rows = lines(tmp_path / "c")
    assert before < len(rows) <= 30 and len({row["name"] for row in rows}) == len(rows)
    assert len(Dataset.open(tmp_path / "c", "train")) == len(rows)


def test_a_folder_that_is_removed_begins_anew(tmp_path: Path, clock: Hand, caplog: pytest.LogCaptureFixture) -> None:
    with collect(tmp_path / "c", clock) as sink:
        feed(sink, clock, [result(i, margin=100.0 - i) for i in range(40)])
        shutil.rmtree(tmp_path / "c")
        feed(sink, clock, [result(i, margin=-float(i)) for i in range(40, 60)])
    assert "was removed; a new collection begins" in caplog.text
    rows = lines(tmp_path / "c")
    assert rows and min(row["frame"] for row in rows) >= 40
    assert len(Dataset.open(tmp_path / "c", "train")) == len(rows)


def test_a_folder_of_another_model_is_refused_before_anything_runs(tmp_path: Path) -> None:
    sinks.open(f"collect://{tmp_path}/c", INFO).close()
    with pytest.raises(FileError, match=r"holds frames of other classes\.\nChoose another folder"):
        sinks.open(f"collect://{tmp_path}/c", replace(INFO, spec=tiny.PAIR))
    with pytest.raises(OptionError, match="per_day"):
        sinks.open(f"collect://{tmp_path}/d?perday=3", INFO)


def test_a_damaged_record_costs_its_line_only(tmp_path: Path) -> None:
    ring = Ring(tmp_path, tiny.SPEC, 10**6)
    for i in range(3):
        ring.add(result(i), "s", {"diverse": 1.0}, 1.8e9)
    with (tmp_path / "collected.jsonl").open("a") as file:
        file.write('{"name": "cut o')
    assert len(Ring(tmp_path, tiny.SPEC, 10**6).kept) == 3


def test_the_command_writes_a_dataset_that_is_without_errors(
    edgeseg: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    for i, frame in enumerate(tiny.frames(600, seed=4)):
        (tmp_path / "frames").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "frames" / f"{i:03d}.png"), frame)
    done = edgeseg(
        "collect", bundle, "--source", tmp_path / "frames", "--out", tmp_path / "c", "--every", "0s", "--json", "-"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["frames"] == 600 and len(lines(tmp_path / "c")) >= 2
    checked = edgeseg("data", "check", tmp_path / "c", "--json", "-")
    assert json.loads(checked.out)["errors"] == [], checked.out

"""Results that the model is not sure of: what makes them undecided, how every sink says so, the queue for review."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from stream_helpers import FakeClock

from edgeseg.errors import FileError, OptionError
from edgeseg.images import decode_mask, write_image
from edgeseg.labeling.review import Review
from edgeseg.monitoring.undecided import ReviewPolicy
from edgeseg.overlay import AMBER, mark_undecided
from edgeseg.result import Decision, Frame, Result
from edgeseg.spec import Spec
from edgeseg.stream import sinks
from edgeseg.stream.events.rules import load
from edgeseg.stream.events.watch import Watch
from edgeseg.stream.record import ResultRecord
from edgeseg.stream.sinks.review import ReviewQueue

SPEC = Spec(64, 96, ("road", "sky", "a:b", "person"))
INFO = sinks.Info(SPEC, name="front", review=True)
SURE, UNSURE = 10.0, 0.2


def result(index: int = 0, margin: float | np.ndarray | None = SURE, person: int = 0, spec: Spec = SPEC) -> Result:
    """Road, with `person` rows of a person."""
    classes = np.zeros((spec.height, spec.width), np.uint8)
    classes[:person] = 3
    margins = None if margin is None else np.broadcast_to(np.float32(margin), classes.shape).copy()
    return Result(Frame(tiny.frames(1, seed=index)[0], index), classes, {"infer": 0.01}, margins, spec)


def undecided(index: int = 0, reasons: tuple[str, ...] = ("confidence",), confidence: float = 0.1) -> Result:
    return replace(result(index), decision=Decision(confidence, reasons, (confidence,) * len(reasons)))


def policy(least: float | None = None, *classes: str) -> ReviewPolicy:
    found = ReviewPolicy.of(SPEC, least, classes)
    assert found is not None
    return found


@given(st.floats(0, 20), st.floats(0, 20), st.integers(1, 63), st.floats(0.01, 0.99))
def test_the_confidence_of_a_frame_is_the_mean_over_its_pixels(
    low: float, high: float, rows: int, limit: float
) -> None:
    margins = np.full((64, 96), high, np.float32)
    margins[:rows] = low
    expected = (rows * np.tanh(low / 2) + (64 - rows) * np.tanh(high / 2)) / 64
    found = policy(limit).decide(result(margin=margins))
    assert found.confidence == pytest.approx(expected, abs=1e-3)
    if abs(expected - limit) > 1e-3:
        assert found.reasons == (("confidence",) if expected < limit else ())
    assert found.confidence == pytest.approx(result(margin=margins).confidence().mean() / 255, abs=0.01)


def test_padding_does_not_count() -> None:
    spec = replace(SPEC, fit="letterbox")
    margins = np.full((64, 96), SURE, np.float32)
    margins[:, :16] = margins[:, 80:] = 0.0  # a square frame fills the middle
    square = replace(result(margin=margins, spec=spec), frame=Frame(np.zeros((200, 200, 3), np.uint8)))
    assert policy(0.9).decide(square).confidence == pytest.approx(np.tanh(SURE / 2), abs=0.02)


def test_a_class_that_requires_review() -> None:
    always, below = policy(None, "person"), policy(None, "person:0.8")
    assert always.decide(result(person=20)).reasons == ("class person",)
    assert always.decide(result(person=0)).reasons == () and below.decide(result(person=20)).reasons == ()
    margins = np.full((64, 96), SURE, np.float32)
    margins[:20] = UNSURE
    assert below.decide(result(margin=margins, person=20)).reasons == ("class person",)
    assert below.decide(result(margin=margins, person=20)).levels == (pytest.approx(np.tanh(UNSURE / 2), abs=1e-4),)
    assert policy(0.99, "person:0.8", "road").decide(result(margin=margins, person=20)).reasons == (
        "confidence",
        "class person",
        "class road",
    )
    few = result(margin=margins)
    few.classmap[0, :6] = 3  # under a thousandth of the frame is not there
    assert always.decide(few).reasons == ()


def test_a_result_without_a_margin_goes_by_the_one_before() -> None:
    """Such as one that was moved along with the motion of a video."""
    before = policy(0.9).decide(result(margin=UNSURE))
    assert policy(0.9).decide(result(margin=None), before) is before
    assert not policy(0.9).decide(result(margin=None)).undecided


def test_a_name_may_hold_a_colon() -> None:
    assert policy(None, "a:b").reasons() == ("class a:b",)
    assert policy(0.5, "a:b:0.5").classes == {2: 0.5}
    assert ReviewPolicy.of(SPEC, None, ()) is None


@pytest.mark.parametrize(
    ("least", "classes", "message"),
    [
        (1.5, (), r"min_confidence is 1.5.*\n.*from 0 \(a tie\) to 1"),
        (-0.1, (), "min_confidence is -0.1"),
        (float("nan"), (), "min_confidence is nan"),
        (None, ("person:2",), "review_class 'person:2' is 2"),
        (None, ("preson",), r"Unknown class 'preson'.*\n.*Did you mean 'person'"),
        (None, ("preson:0.5",), "Unknown class 'preson'"),
        (None, ("person:half",), "Unknown class 'person:half'"),
        (None, ("person", "person:0.5"), "'person' is to be reviewed twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(least: float | None, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ReviewPolicy.of(SPEC, least, classes)


def test_records_of_results_say_so() -> None:
    row = ResultRecord.of(undecided(confidence=0.3), INFO).to_dict()
    assert (row["undecided"], row["reasons"], row["confidence"]) == (True, ("confidence",), 0.3)
    row = ResultRecord.of(result(), INFO).to_dict()
    assert (row["undecided"], row["reasons"], row["confidence"]) == (False, (), None)


def test_events_say_whether_the_frame_that_decided_them_is_undecided(tmp_path: Path) -> None:
    """The rules go on: what an unsure model sees must not silence an alarm."""
    (tmp_path / "zones.toml").write_text('[rules.seen]\nwhen = "person in frame"\n')
    watch = Watch(load(tmp_path / "zones.toml"), SPEC, fps=10)
    judge = policy(0.9)

    def events(one: Result) -> list[dict[str, Any]]:
        return [event.to_dict() for event in watch.update(replace(one, decision=judge.decide(one))).events]

    assert events(result(0)) == []
    [start] = events(result(1, UNSURE, person=20))
    assert (start["event"], start["undecided"], start["reasons"]) == ("start", True, ["confidence"])
    [end] = events(result(2))
    assert (end["event"], end["undecided"], end["reasons"], end["reason"]) == ("end", False, [], "cleared")
    assert events(result(3, SURE, person=20))[0]["undecided"] is False
    events(result(4, UNSURE, person=20))
    assert watch.stop()[0].undecided


@pytest.mark.parametrize("size", [(720, 1280), (64, 96), (20, 16)])
def test_the_mark_is_seen_and_leaves_the_frame_itself(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    marked = mark_undecided(image, "confidence (0.31), class schön")
    assert (image == 90).all() and (marked[0] == AMBER).any() and (marked[-1] == AMBER).all()
    assert (marked[:, 0] == AMBER).all() and (marked[:, -1] == AMBER).any()
    if size[0] > 200:
        assert (marked[size[0] // 2, 40:-40] == 90).all()


def test_a_run_marks_them_in_every_sink(edgeseg: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    for i, image in enumerate(tiny.frames(6, seed=5)):
        write_image(tmp_path / "in" / f"{i}.png", image)
    words = ("run", bundle, "--source", tmp_path / "in", "--sink", tmp_path / "log.jsonl", "--sink",
             f"{tmp_path}/out/?overlay=1", "--json", "-")  # fmt: skip
    plain = edgeseg(*words)
    assert plain.code == 0 and json.loads(plain.out)["streams"][0]["undecided"] == 0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert not any(line["undecided"] for line in lines)
    (tmp_path / "log.jsonl").unlink()
    edgeseg(*words, "--min-confidence", "0")
    levels = sorted(json.loads(line)["confidence"] for line in (tmp_path / "log.jsonl").read_text().splitlines())
    (tmp_path / "log.jsonl").unlink()
    limit = (levels[2] + levels[3]) / 2  # three are below
    ran = edgeseg(*words, "--min-confidence", limit, "--review-queue", tmp_path / "queue")
    assert ran.code == 0 and json.loads(ran.out)["streams"][0]["undecided"] == 3
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["undecided"] for line in lines] == [line["confidence"] < limit for line in lines]
    for line in lines:
        name = line["frame"]
        with pil.open(tmp_path / "out" / f"{name}.png") as mask:
            mask.load()
            assert ("edgeseg.undecided" in mask.text) is line["undecided"]
            if line["undecided"]:
                assert mask.text["edgeseg.undecided"] == f"confidence ({line['confidence']:.2f})"
        ids = decode_mask((tmp_path / "out" / f"{name}.png").read_bytes(), Path("x.png"))
        assert ids.shape == (64, 96) and ids.max() < 8
        corner = cv2.imread(str(tmp_path / "out" / f"{name}.overlay.jpg"))[-1].mean(0)
        assert bool(np.abs(corner - AMBER).max() < 40) is line["undecided"]
    review = Review(tmp_path / "queue", tmp_path / "reviewed")
    [frame] = review.frames()["frames"]  # three in less than two seconds
    assert set(frame["why"]) == {"confidence"}
    assert "kept: 1; not, by the limits of every= and per_day=: 2; for want of room: 0" in ran.err


def test_frames_without_an_overlay_are_marked_too(edgeseg: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "0.png", tiny.frames(1)[0])
    sink = f"{tmp_path}/out/?masks=0&overlay=1"
    words = ("run", bundle, "--source", tmp_path / "in", "--sink", sink, "--no-overlay", "--min-confidence", "1")
    assert edgeseg(*words).code == 0
    assert np.abs(cv2.imread(str(tmp_path / "out" / "0.overlay.jpg"))[-1].mean(0) - AMBER).max() < 40


def test_wrong_options_of_a_run(edgeseg: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "0.png", tiny.frames(1)[0])
    (tmp_path / "file").write_text("x")
    for words, message in (
        (("--review-queue", tmp_path / "q"), "nothing says what is to be reviewed"),
        (("--sink", f"review://{tmp_path}/q"), "no result is ever undecided"),
        (("--min-confidence", "7"), "min_confidence is 7"),
        (("--review-class", "unicorn"), "Unknown class 'unicorn'"),
        (("--min-confidence", "1", "--review-queue", tmp_path / "file"), "file is a file, not a folder"),
        (("--min-confidence", "1", "--sink", f"review://{tmp_path}/q?evry=1s"), "Did you mean 'every'"),
    ):
        ran = edgeseg("run", bundle, "--source", tmp_path / "in", *words)
        assert ran.code == 2 and message in ran.err, ran.err


def test_a_config_names_them(tmp_path: Path) -> None:
    from edgeseg.stream import config

    text = 'bundle = "b"\nmin_confidence = 0.6\nreview_class = ["person:0.9"]\nreview_queue = "queue"\n'
    (tmp_path / "c.toml").write_text(text + '[[stream]]\nsource = "synthetic://street"\n')
    settings = config.load(tmp_path / "c.toml")
    assert (settings.min_confidence, settings.review_class) == (0.6, ("person:0.9",))
    assert settings.review_queue == tmp_path / "queue"


# The queue


def queue(folder: Path, clock: FakeClock, wall: Callable[[], float] = lambda: 1.79e9, **options: Any) -> ReviewQueue:
    return ReviewQueue(folder, INFO, clock=clock, wall=wall, **options)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "collected.jsonl").read_text().splitlines()]


def test_only_undecided_frames_are_queued_and_not_too_many(tmp_path: Path, clock: FakeClock) -> None:
    with queue(tmp_path / "q", clock, every=2.0, per_day=4) as sink:
        for i in range(20):
            clock.advance(0.5)
            sink.write(undecided(i, ("class person",)) if i % 2 else result(i), None)
        assert sink.queued() == {"queued": 4, "limited": 6, "lost": 0}
        clock.advance(86400)
        sink.write(undecided(30), None)
    assert sink.queued()["queued"] == 5 and sink.lost == 0
    first = rows(tmp_path / "q")[0]
    assert first["why"] == {"class person": 0.9} and first["undecided"] == ["class person"]
    assert first["stream"] == "front"
    assert "not, by the limits of every= and per_day=: 6; for want of room: 0." in sink.warnings[0]


def test_the_disk_is_bounded_and_what_made_room_is_counted(tmp_path: Path, clock: FakeClock) -> None:
    with queue(tmp_path / "q", clock, every=0.0, disk=0.1) as sink:
        for i in range(60):
            clock.advance(1.0)
            sink.write(undecided(i, confidence=0.5), None)
    size = sum(path.stat().st_size for path in (tmp_path / "q" / "train").rglob("*.*"))
    images = len(list((tmp_path / "q" / "train" / "images").iterdir()))
    counts = sink.queued()
    assert size <= 1e5 and counts["queued"] == 60 and counts["lost"] == 60 - images > 0
    assert f"for want of room: {counts['lost']}." in sink.warnings[0]


def test_a_clock_that_jumps_backward_stops_nothing(tmp_path: Path, clock: FakeClock) -> None:
    times = iter([1.79e9, 1.0, 1e300, 1.79e9, 1.79e9])
    with queue(tmp_path / "q", clock, wall=lambda: next(times), every=0.0) as sink:
        for i in range(5):
            clock.advance(1.0)
            sink.write(undecided(i), None)
    assert sink.queued()["queued"] == 5 and len({row["name"] for row in rows(tmp_path / "q")}) == 5


def test_a_queue_that_is_removed_begins_anew(tmp_path: Path, clock: FakeClock) -> None:
    with queue(tmp_path / "q", clock, every=0.0) as sink:
        for i in range(3):
            sink.write(undecided(i), None)
        shutil.rmtree(tmp_path / "q")
        sink.write(undecided(7), None)
    assert [row["frame"] for row in rows(tmp_path / "q")] == [7]
    with pytest.raises(FileError, match="holds frames of other classes"):
        shutil.rmtree(tmp_path / "q" / "train")
        ReviewQueue(tmp_path / "q", replace(INFO, spec=tiny.SPEC))


@contextmanager
def no_room() -> Iterator[None]:
    """Every file that is written is too large, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_logged_once_counted_and_tried_again(tmp_path: Path, clock: FakeClock) -> None:
    with queue(tmp_path / "q", clock, every=0.0) as sink:
        with no_room():
            for i in range(4):
                clock.advance(1.0)
                sink.write(undecided(i), None)
        assert sink.queued() == {"queued": 0, "limited": 0, "lost": 4} and sink.lost == 4
        assert len(sink.warnings) == 1 and "File too large" in sink.warnings[0]
        clock.advance(31.0)
        sink.write(undecided(9), None)
    assert [row["frame"] for row in rows(tmp_path / "q")] == [9]


def test_a_frame_that_was_deleted_meanwhile_is_said_in_the_review(tmp_path: Path, clock: FakeClock) -> None:
    with queue(tmp_path / "q", clock, every=0.0) as sink:
        sink.write(undecided(1), None)
    review = Review(tmp_path / "q", tmp_path / "out")
    [frame] = review.frames()["frames"]
    (tmp_path / "q" / "train" / "images" / f"{frame['name']}.jpg").unlink()
    with pytest.raises(FileError, match="was removed meanwhile"):
        review.decide(frame["name"], "accept")


def test_the_metrics_are_those_of_the_catalog() -> None:
    from edgeseg.telemetry.catalog import labels
    from edgeseg.telemetry.metrics import RunSample, StreamSample, rows

    counts = {"confidence": 2, "class person": 0}, {"queued": 1, "limited": 1, "lost": 0}
    stream = StreamSample("front", 1, 1.0, 0.0, "STREAMING", (), 0, 0, {}, undecided=counts[0], queued=counts[1])
    found = {(name, *values): value for name, values, value in rows(RunSample(1.0, 1, (stream,)))}
    assert found["edgeseg_undecided_frames", "front", "confidence"] == 2
    assert found["edgeseg_undecided_frames", "front", "class person"] == 0
    assert found["edgeseg_review_frames", "front", "limited"] == 1
    assert labels("edgeseg_review_frames") == ("stream", "outcome")

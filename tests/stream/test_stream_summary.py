"""RunSummary to JSON and back, and the log lines of a run without a terminal."""

from __future__ import annotations

import json
import logging

import pytest

from edgeseg.errors import EdgesegError, FileError, StreamError
from edgeseg.stream.progress import Progress, ProgressLog
from edgeseg.stream.summary import Drops, FallbackSummary, RunSummary, StreamSummary
from edgeseg.stream.timings import LatestValues, StageTimings
from edgeseg.timing import Percentiles

FRONT = StreamSummary("front", "rtsp://***@cam/x", "STOPPED", 90, 25.0, 0.1, 2, 3, Drops(4, 5, {"out.mp4": 6}))
BACK = StreamSummary("back", "rtsp://cam/y", "STREAMING", 10, 2.5, None, 0, 0, Drops())
SUMMARY = RunSummary(
    frames=100,
    seconds=4.0,
    count=None,
    latency=Percentiles(8.0, 9.0, 12.0),
    stages={"read": Percentiles(0.1, 0.2, 0.3), "age": Percentiles(9.0, 10.0, 20.0)},
    streams=(FRONT, BACK),
    warnings=("front: 3 damaged packets were skipped.",),
    fallback=FallbackSummary(1, "skip", 1, 12, {"full": 60, "skip": 40}, 50.0),
    result="failed",
    error=StreamError("It broke.", "Try again."),
)


def test_a_summary_goes_to_json_and_back():
    document = json.loads(json.dumps(SUMMARY.to_dict()))
    again = RunSummary.from_dict(document)
    assert again == SUMMARY and again.to_dict() == SUMMARY.to_dict()
    assert again.error is not None and again.error.what == "It broke."
    assert RunSummary.from_dict({"kind": "run", "bundle": {}, "machine": {}, **document}) == SUMMARY


def test_the_documented_keys():
    document = SUMMARY.to_dict()
    assert (document["schema"], document["fps"], document["count"]) == (1, 25.0, None)
    assert document["latency_ms"] == {"p50": 8.0, "p90": 9.0, "p99": 12.0}
    assert document["drops"] == {"front source": 4, "front fallback": 5, "front sink out.mp4": 6}
    assert document["streams"][0]["drops"] == {"source": 4, "fallback": 5, "sink out.mp4": 6}
    assert document["streams"][1]["silent_s"] is None and document["streams"][1]["drops"] == {}
    assert document["error"] == "It broke." and document["fallback"]["results"] == {"full": 60, "skip": 40}


def test_a_summary_is_frozen():
    with pytest.raises(AttributeError):
        SUMMARY.frames = 1


@pytest.mark.parametrize("schema", [2, 0, None, "1", 1.5, True])
def test_another_schema_is_refused(schema):
    document = {**SUMMARY.to_dict(), "schema": schema}
    with pytest.raises(EdgesegError, match=r"has schema .*\n(This one reads schemas up to 1|Expected a number from 1)"):
        RunSummary.from_dict(document)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("frames", ..., "`frames`"),
        ("stages", {"read": {"p50": 1}}, "`p90`"),
        ("streams", [{"name": "x"}], "`source`"),
        ("frames", "many", "Expected `int`, got `str`"),
    ],
)
def test_a_document_that_is_no_run_summary(key, value, problem):
    document = {**SUMMARY.to_dict(), key: value}
    if value is ...:
        del document[key]
    with pytest.raises(FileError, match=rf"This is not a run summary: .*{problem}.*\nWrite it again: edgeseg run"):
        RunSummary.from_dict(document)


def test_stages_stand_in_the_order_a_frame_passes_them_and_every_one_is_observed():
    timings, observed = StageTimings(), []
    timings.on_stage = lambda *values: observed.append(values)
    for stage in ("age", "sink", "infer", "latency", "decode", "read"):
        timings.add("front", stage, 0.002)
    assert list(timings.stages()) == ["read", "infer", "decode", "sink", "age"]
    assert timings.percentiles("latency") == Percentiles(2.0, 2.0, 2.0) and timings.percentiles("none") is None
    assert len(observed) == 6 and observed[0] == ("front", "age", 0.002)


def test_only_the_latest_values_stay():
    latest = LatestValues(3)
    for value in range(5):
        latest.add(value)
    assert sorted(latest.values()) == [2, 3, 4]


def test_progress_is_logged_at_a_steady_interval_and_at_the_end(clock, caplog):
    caplog.set_level(logging.INFO, "edgeseg.stream")
    progress_log = ProgressLog("run", clock=clock)
    for second in range(1, 71):
        clock.advance(1)
        progress_log(Progress(frames=second * 25, seconds=float(second), count=5000))
    progress_log.close()
    assert caplog.messages == [
        "run: 750 of 5000 frames in 30 s, 25.0 FPS",
        "run: 1500 of 5000 frames in 60 s, 25.0 FPS",
        "run: 1750 of 5000 frames in 70 s, 25.0 FPS",
    ]


def test_a_run_that_never_reported_logs_nothing(caplog):
    caplog.set_level(logging.INFO, "edgeseg.stream")
    ProgressLog("run").close()
    assert caplog.messages == []

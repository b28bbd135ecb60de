"""The soak finds what it is there to find, and nothing else."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from stream_helpers import bundle

from edgeseg.errors import OptionError
from edgeseg.stream.soak import objectives
from edgeseg.stream.soak.loopback import read_stamp, stamp
from edgeseg.stream.soak.run import soak

GOOD = {
    "error": None,
    "uptime": {"front": 0.7, "back": 1.0},
    "faults": {"kill": {"times": 2, "not_recovered": 0, "p50": 0.4, "p95": 0.5}},
    "reconnect_s": {"p50": 0.4, "p95": 0.5},
    "age_ms": {"p50": 6.0, "p99": 20.0},
    "memory_mib": {"growth": 1.0, "per_minute": 1.0},
    "threads": {"most": 13, "growth": 0},
}


def test_a_good_report_has_no_breaches():
    assert list(objectives.breaches(GOOD)) == []


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("error",), "The sink broke.", "the run ended: The sink broke."),
        (("uptime", "back"), 0.9, "the untouched camera was up 90.00%; at least 99%"),
        (("faults", "kill", "not_recovered"), 1, "1 times no recovery from kill within 15 s"),
        (("reconnect_s", "p95"), 9.0, "recovery p95 9.0 s; at most 6 s"),
        (("age_ms", "p99"), 800.0, "frame age p99 800 ms; at most 500 ms"),
        (("threads", "growth"), 20, "20 more threads than after warm-up"),
    ],
)
def test_each_objective(where, value, message):
    report = copy.deepcopy(GOOD)
    at = report
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = value
    assert list(objectives.breaches(report)) == [message]


def test_a_slow_leak_shows_in_an_hour_and_a_peak_does_not():
    t = np.arange(0, 3600, 2.0)
    leak = {"memory": [(x, 150 + x / 60 * 10, 12) for x in t]}
    peak = {"memory": [(x, 150 + 200 * (1800 < x < 1810), 12) for x in t]}
    for record, found in ((leak, True), (peak, False)):
        report = {**GOOD, "memory_mib": objectives._growth(record["memory"])}
        assert bool(list(objectives.breaches(report))) == found


def test_a_stamp_survives_compression():
    import cv2

    image = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
    stamp(image, 123_456_789_012)
    assert read_stamp(cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_COLOR)) == 123_456_789_012


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgeseg[openvino]'")
    pytest.importorskip("av", reason="needs PyAV: pip install 'edgeseg[camera]'")
    return bundle(tmp_path_factory.mktemp("model") / "colors")


def test_a_leak_is_found_and_the_absent_camera_is_picked_up(model):
    report = soak(model, 0.1, sabotage="leak")
    missed = [b for b in report["breaches"] if "frame age" not in b]  # a busy machine may be slow; it must not leak
    assert len(missed) == 1 and "a leak" in missed[0] and not report["ok"]
    assert report["faults"]["absent"]["not_recovered"] == 0 and report["uptime"]["back"] > 0.9
    assert report["frames"] > 100 and report["reconnects"] == {"front": 0, "back": 0}


def test_a_hang_is_found(model):
    report = soak(model, 0.2, sabotage="hang")
    assert "the run ended: Inference gave no answer for 5 s." in report["breaches"]


@pytest.mark.slow
def test_a_round_of_all_faults_keeps_every_objective(model):
    report = soak(model, 1.2)
    assert report["breaches"] == [] and set(report["faults"]) >= {
        "kill",
        "freeze",
        "still",
        "corrupt",
        "resize",
        "full",
    }


def test_an_unknown_sabotage(model):
    with pytest.raises(OptionError, match=r"Unknown sabotage 'leek'\.\nDid you mean 'leak'"):
        soak(model, 0.2, sabotage="leek")

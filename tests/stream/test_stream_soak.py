"""The soak finds what it is there to find, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stream_helpers import bundle

from edgeseg.errors import OptionError, StreamError
from edgeseg.stream.soak.loopback import read_stamp, stamp
from edgeseg.stream.soak.objectives import (
    Measurements,
    MemoryGrowth,
    MemorySample,
    Recoveries,
    SoakReport,
    ThreadGrowth,
    breaches,
)
from edgeseg.stream.soak.rig import Timing
from edgeseg.stream.soak.run import soak
from edgeseg.stream.summary import RunSummary

GOOD = SoakReport(
    minutes=1.0,
    frames=1500,
    fps=25.0,
    uptime={"front": 0.7, "back": 1.0},
    faults={"kill": Recoveries(count=2, recovered=2, p50=0.4, p95=0.5)},
    reconnect_s={"p50": 0.4, "p95": 0.5},
    age_ms={"p50": 6.0, "p99": 20.0},
    drops={},
    reconnects={"front": 2, "back": 0},
    damaged={"front": 0, "back": 0},
    memory_mib=MemoryGrowth(growth=1.0, per_minute=1.0),
    threads=ThreadGrowth(most=13, growth=0),
    result="stopped",
)


def test_a_good_report_has_no_breaches():
    assert breaches(GOOD) == [] and GOOD.ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"error": "The sink broke."}, "the run ended: The sink broke."),
        ({"uptime": {"front": 0.7, "back": 0.9}}, "the untouched camera was up 90.00%; at least 99%"),
        ({"faults": {"kill": Recoveries(2, 1, 0.4, 0.5)}}, "1 times no recovery from kill within 15 s"),
        ({"reconnect_s": {"p50": 0.4, "p95": 9.0}}, "recovery p95 9.0 s; at most 6 s"),
        ({"age_ms": {"p50": 6.0, "p99": 800.0}}, "frame age p99 800 ms; at most 500 ms"),
        ({"memory_mib": MemoryGrowth(growth=30, per_minute=9)}, "memory grew by 30 MiB, 9.0 MiB a minute: a leak"),
        ({"threads": ThreadGrowth(most=33, growth=20)}, "20 more threads than after warm-up"),
    ],
)
def test_each_objective(change, message):
    assert breaches(replace(GOOD, **change)) == [message]


def test_a_slow_leak_shows_in_an_hour_and_a_peak_does_not():
    t = np.arange(0, 3600, 2.0)
    leak = [MemorySample(x, 150 + x / 60 * 10, 12) for x in t]
    peak = [MemorySample(x, 150 + 200 * (1800 < x < 1810), 12) for x in t]
    for memory, is_leak in ((leak, True), (peak, False)):
        assert bool(breaches(replace(GOOD, memory_mib=MemoryGrowth.of(memory)))) == is_leak


def test_a_report_of_measurements_goes_to_json_with_its_documented_keys():
    measured = Measurements(faults={"kill": [0.4, None]}, samples=100, fresh=[70, 100])
    summary = RunSummary(frames=1500, seconds=60.0, result="failed", error=StreamError("It broke."))
    report = SoakReport.of(summary, measured, [0.006] * 99 + [0.02], ["the script failed"]).to_dict()
    assert report["schema"] == 2 and report["uptime"] == {"front": 0.7, "back": 1.0} and not report["ok"]
    assert report["faults"] == {"kill": {"count": 2, "recovered": 1, "p50": 0.4, "p95": 0.4}}
    assert report["age_ms"]["p50"] == 6.0 and report["memory_mib"]["growth"] == 0.0
    assert report["breaches"] == [
        "the script failed",
        "the run ended: It broke.",
        "1 times no recovery from kill within 15 s",
    ]


def test_a_stamp_survives_compression():
    import cv2

    image = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
    stamp(image, 123_456_789_012)
    assert read_stamp(cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_COLOR)) == 123_456_789_012


# Real cameras (processes) and a real engine: where all cores are taken, one may miss its time-out.
QUICK = Timing(absent=1.0, calm=2.5, memory=0.15, watchdog=2.0)
real_time = pytest.mark.flaky(reruns=2, reruns_delay=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgeseg[openvino]'")
    pytest.importorskip("av", reason="needs PyAV: pip install 'edgeseg[camera]'")
    return bundle(tmp_path_factory.mktemp("model") / "colors")


@real_time
def test_a_leak_is_found_and_the_absent_camera_is_picked_up(model):
    report = soak(model, 0.05, sabotage="leak", timing=QUICK)
    missed = [b for b in report.breaches if "frame age" not in b]  # a busy machine may be slow; it must not leak
    assert len(missed) == 1 and "a leak" in missed[0] and not report.ok
    assert report.faults["absent"].recovered == 1 and report.uptime["back"] > 0.9
    assert report.frames > 100 and report.reconnects == {"front": 0, "back": 0}


@real_time
def test_a_hang_is_found(model):
    report = soak(model, 0.2, sabotage="hang", timing=QUICK)
    assert "the run ended: Inference gave no answer for 2 s." in report.breaches


@real_time
def test_a_sink_whose_folder_goes_away_comes_back(model):
    so_far: list[SoakReport] = []
    report = soak(model, 0.08, faults=("folder_removed",), timing=QUICK, on_interim=so_far.append)
    assert so_far and all(early.result == "running" for early in so_far)
    assert so_far[0].faults["folder_removed"].count == 1 and so_far[0].frames < report.frames
    assert report.faults["folder_removed"].count >= 1
    assert report.faults["folder_removed"].recovered == report.faults["folder_removed"].count
    assert report.error is None
    assert any(stage.startswith("front sink") and stage.endswith("log.jsonl") for stage in report.drops)


@pytest.mark.slow
@real_time
def test_a_faster_script_brings_more_faults(model):
    report = soak(model, 0.3, faults=("full", "resize"), timing=Timing(speed=8))
    counts = [report.faults[kind].count for kind in ("full", "resize")]
    assert sum(counts) > 18 / 3 and min(counts) >= 3  # one takes at least 6.5 s at the usual speed
    assert all(report.faults[kind].recovered == report.faults[kind].count for kind in ("full", "resize"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults",
    [
        ("kill", "freeze", "still", "corrupt", "resize", "slow", "full"),
        ("flap", "gop250", "frozen_h264", "folder_removed"),
    ],
)
def test_a_round_of_all_faults_keeps_every_objective(model, faults):
    report = soak(model, 1.2, faults=faults)
    assert report.breaches == () and set(report.faults) >= set(faults)


def test_an_unknown_sabotage_or_fault(model):
    with pytest.raises(OptionError, match=r"Unknown fault 'flop'\.\nDid you mean 'flap'"):
        soak(model, 0.2, faults=("flop",))
    with pytest.raises(OptionError, match=r"Unknown sabotage 'leek'\.\nDid you mean 'leak'"):
        soak(model, 0.2, sabotage="leek")

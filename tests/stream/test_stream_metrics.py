"""Metrics as Prometheus sees them: scraped over HTTP from a run, read by prometheus_client's own parser."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request

import pytest
from stream_helpers import HEAD, SPEC, ColorEngine, FakeClock, frame_image, segmenter

from edgeseg.errors import OptionError
from edgeseg.result import Frame
from edgeseg.segmenter import Segmenter
from edgeseg.stream.fallback import WINDOW, FallbackPolicy, Level
from edgeseg.stream.loop import Run
from edgeseg.stream.metrics_server import FRESH_SECONDS, MetricsServer, not_ready
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.sinks.null import Null
from edgeseg.stream.sources import EndOfStream, Source
from edgeseg.stream.summary import Drops, StreamSummary
from edgeseg.telemetry.families import BuildInfo
from edgeseg.telemetry.metrics import AGE_BUCKETS, STAGE_BUCKETS

parser = pytest.importorskip("prometheus_client.parser", reason="needs: pip install 'edgeseg[metrics]'")
BUILD = BuildInfo("1.2.3", "street-int8", "abc", "openvino-cpu", "int8")


class Frames(Source):
    """`count` frames, captured now."""

    reconnects = 2
    damaged = 3

    def __init__(self, count: int, clock: FakeClock):
        super().__init__()
        self._count, self._clock, self._number = count, clock, 0

    def read(self, timeout):
        if self._number == self._count:
            raise EndOfStream
        self._number += 1
        return Frame(frame_image(self._number), self._number, self._clock.monotonic())


def get(server: MetricsServer, page: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{page}", timeout=5) as response:
        return response.read().decode()


def scrape(server: MetricsServer) -> dict[str, dict[tuple[str, ...], float]]:
    """{sample name: {label values in the order of their names: value}}, as Prometheus would store it."""
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parser.text_string_to_metric_families(get(server, "metrics")):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in sorted(sample.labels))
            samples.setdefault(sample.name, {})[labels] = sample.value
    return samples


def test_a_scrape_of_a_run_with_two_streams(clock):
    streams = [Stream(Frames(n, clock), [Null()], name) for name, n in (("front", 5), ("back", 7))]
    run = Run(segmenter(), streams, clock=clock)
    with MetricsServer("127.0.0.1:0", run, BUILD) as server:
        run.go()
        clock.advance(3)
        found = scrape(server)
    assert found["edgeseg_frames_total"] == {("front",): 5, ("back",): 7}
    assert found["edgeseg_reconnects_total"] == {("front",): 2, ("back",): 2}
    assert found["edgeseg_damaged_total"] == {("front",): 3, ("back",): 3}
    assert found["edgeseg_silent_seconds"] == {("front",): 3, ("back",): 3}
    assert found["edgeseg_state"][("STOPPED", "front")] == 1 and found["edgeseg_state"][("STREAMING", "front")] == 0
    assert found["edgeseg_uptime_seconds"] == {(): 3} and found["edgeseg_resident_bytes"][()] > 1 << 20
    assert found["edgeseg_build_info"] == {("street-int8", "abc", "int8", "openvino-cpu", "1.2.3"): 1}
    shares = {key: share for key, share in found["edgeseg_class_area_ratio"].items() if key[1] == "front"}
    assert set(shares) == {(name, "front") for name in SPEC.classes} and sum(shares.values()) == pytest.approx(1)
    assert "edgeseg_fallback_level" not in found and "edgeseg_late_total" not in found


def test_stages_and_ages_are_histograms_that_add_up(clock):
    """Inference takes 20 ms of the clock for the age, and some real time for the stages."""
    engine = ColorEngine(slots=1, seconds=0.02, clock=clock)
    run = Run(
        Segmenter(SPEC, engine, HEAD),
        [Stream(Frames(10, clock), [Null()], "front")],
        queue_depth=1,
        clock=clock,
    )
    with MetricsServer("127.0.0.1:0", run, BUILD) as server:
        summary = run.go()
        found = scrape(server)
    for stage in ("read", "resize", "infer", "mask", "sink"):
        buckets = [found["edgeseg_stage_seconds_bucket"][(repr(le), stage)] for le in STAGE_BUCKETS]
        assert buckets == sorted(buckets) and found["edgeseg_stage_seconds_bucket"][("+Inf", stage)] == 10
        assert found["edgeseg_stage_seconds_count"][(stage,)] == 10
        mean = found["edgeseg_stage_seconds_sum"][(stage,)] / 10
        assert 0 < mean * 1e3 <= summary.stages[stage].p99 * 1.001
    ages = [found["edgeseg_frame_age_seconds_bucket"][(repr(le), "front")] for le in AGE_BUCKETS]
    assert ages[0] == 0 and ages[-1] == 10 == found["edgeseg_frame_age_seconds_count"][("front",)]
    assert found["edgeseg_frame_age_seconds_sum"][("front",)] >= 10 * 0.02
    assert found["edgeseg_latency_seconds_count"] == {("front",): 10}
    assert not any("quantile" in line for line in get_lines(found))


def test_the_margin_is_exported_where_it_is_measured(clock):
    run = Run(Segmenter(SPEC, ColorEngine(), HEAD, margin=True), [Stream(Frames(3, clock), [Null()])], clock=clock)
    with MetricsServer("127.0.0.1:0", run, BUILD) as server:
        run.go()
        assert scrape(server)["edgeseg_margin"][("main",)] > 0


def get_lines(found: dict[str, dict[tuple[str, ...], float]]) -> list[str]:
    return [f"{name} {labels}" for name, rows in found.items() for labels in rows]


def test_drops_are_counted_by_the_stage_that_lost_them_and_the_fallback_is_shown(clock):
    full = Segmenter(SPEC, ColorEngine(slots=1, seconds=0.5, clock=clock), HEAD)
    policy = FallbackPolicy([Level("full", full), Level("skip", full, every=2)], 0.1, clock=clock)
    run = Run(policy, [Stream(Frames(30, clock), [Null()], "front")], clock=clock)
    with MetricsServer("127.0.0.1:0", run, BUILD) as server:
        summary = run.go()
        found = scrape(server)
    assert found["edgeseg_fallback_level"] == {(): 1}
    assert found["edgeseg_late_total"][()] == summary.fallback.late >= WINDOW
    skipped = summary.drops["front fallback"]
    assert found["edgeseg_dropped_total"] == {("fallback", "front"): skipped, ("source", "front"): 0}
    assert summary.frames + summary.drops["front fallback"] == 30


def test_each_run_has_a_registry_of_its_own(clock):
    for frames in (2, 3):
        run = Run(segmenter(), [Stream(Frames(frames, clock), [Null()])], clock=clock)
        with MetricsServer("127.0.0.1:0", run, BUILD) as server:
            run.go()
            assert scrape(server)["edgeseg_frames_total"] == {("main",): frames}


def test_health_and_readiness(clock):
    run = Run(segmenter(), [Stream(Frames(2, clock), [Null()])], stop=threading.Event(), clock=clock)
    with MetricsServer("127.0.0.1:0", run, BUILD) as server:
        with pytest.raises(urllib.error.HTTPError) as waiting:
            get(server, "readyz")
        assert waiting.value.code == 503
        clock.advance(6)
        with pytest.raises(urllib.error.HTTPError) as hanging:
            get(server, "healthz")
        assert hanging.value.code == 503
        run.go()
        assert get(server, "readyz") == '{"waiting_for": []}\n' and get(server, "healthz") == "alive\n"
        with pytest.raises(urllib.error.HTTPError) as unknown:
            get(server, "metric")
        assert unknown.value.code == 404 and b"/metrics" in unknown.value.read()


def test_a_stream_without_a_fresh_result_is_not_ready():
    def stream(name: str, silent: float | None) -> StreamSummary:
        return StreamSummary(name, f"source of {name}", "STREAMING", 1, 1.0, silent, 0, 0, Drops())

    streams = [stream("a", 0.1), stream("b", FRESH_SECONDS + 1), stream("", None)]
    assert not_ready(streams) == ["b", "source of "]


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost:http", ""])
def test_an_address_without_a_port(clock, address):
    run = Run(segmenter(), [Stream(Frames(1, clock), [Null()])], clock=clock)
    with pytest.raises(OptionError, match=r"has no port\.\nExpected HOST:PORT, such as 127\.0\.0\.1:9108"):
        MetricsServer(address, run, BUILD)

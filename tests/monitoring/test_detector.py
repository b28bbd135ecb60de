"""The change detector on streams whose truth is known: correlated and unchanged, changed, disturbed for a moment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import OptionError
from edgeseg.evaluation.statistics import student_t
from edgeseg.monitoring.detector import ChangeDetector
from edgeseg.monitoring.ranges import BETS, LONGEST, Ranges, autocorrelation_time
from edgeseg.monitoring.statistics import names
from edgeseg.results.drift import ReferenceStatistics

CLASSES = ("road", "car")
NAMES = names(CLASSES)
CENTER = np.array([100, 40, -2, 0, 0, 0, 10, 0, 0.7, 0.3, 5.0])
SPREAD = np.array([5, 3, 0.2, 2, 2, 0.2, 6, 6, 0.05, 0.05, 0.4])
DAY = 2 * 86400  # observations, two a second
BLOCKS = 7 * DAY / 2
PATIENCE = 12


def frames(count: int, seed: int = 0, correlation: float = 0.0) -> np.ndarray:
    """[count, 11] statistics, each a Gaussian AR(1) of that lag-1 correlation."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, len(NAMES))) * np.sqrt(1 - correlation**2)
    noise[0] /= np.sqrt(1 - correlation**2)
    for t in range(1, count):
        noise[t] += correlation * noise[t - 1]
    return CENTER + SPREAD * noise


def reference(rows: np.ndarray, sequence: bool = False) -> ReferenceStatistics:
    return ReferenceStatistics(names=NAMES, rows=tuple(map(tuple, rows)), classes=CLASSES, sequence=sequence)


def detector(rows: np.ndarray | None = None, sequence: bool = False, blocks: float = BLOCKS) -> ChangeDetector:
    ranges = Ranges.of(reference(frames(64, 99) if rows is None else rows, sequence), blocks)
    return ChangeDetector(ranges, blocks, PATIENCE)


def alarms(found: ChangeDetector, stream: np.ndarray) -> list[tuple[int, str]]:
    return [(i, NAMES[change.index]) for i, row in enumerate(stream) for change in found.add(row)]


@pytest.mark.parametrize("correlation", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("sequence", [False, True])
def test_an_unchanged_stream_raises_no_alarm_in_six_hours_however_correlated(correlation, sequence):
    stream = frames(DAY // 4 + 1200, 7, correlation)
    rows = stream[:1200] if sequence else frames(64, 8)
    assert alarms(detector(rows, sequence), stream[1200:]) == []


@given(st.floats(-1, 1), st.sampled_from(BETS), st.floats(0.05, 1))
def test_e_values_are_at_most_one_on_average_where_the_mean_is_in_range(where, bet, scale):
    """The condition of the theorem, by quadrature: a mean in [low, high], a spread of the reference's or less."""
    low, high, spread = -3.0, 3.0, 1.0
    x = np.linspace(-9, 9, 4001)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    value = 3 * where + spread * scale * x
    for beyond in (value - high, low - value):
        e = np.exp(bet * beyond - bet**2 / 2)
        assert np.trapezoid(e * density, x) <= 1 + 1e-6


def test_the_average_time_to_a_false_alarm_is_at_least_what_was_asked_for():
    """With a bound low enough to be reached: at the edge of its range all the time, a stream alarms late on average."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        watched = detector(blocks=20)
        edge = watched._ranges.high + watched._ranges.deviation * rng.normal(size=(4000, len(NAMES)))
        first = next((i for i, row in enumerate(edge) if watched.add(row)), 4000)
        found.append(first / 2)  # in the shortest blocks
    assert np.mean(found) >= 20


@pytest.mark.parametrize(
    ("statistic", "sign"), [("brightness", -1), ("sharpness", -1), ("area car", 1), ("margin", -1)]
)
def test_a_change_is_found_within_ten_seconds_and_named(statistic, sign):
    stream = frames(400, 3, 0.9)
    stream[200:, NAMES.index(statistic)] += sign * 9 * SPREAD[NAMES.index(statistic)]
    found = alarms(detector(), stream)
    assert [name for _, name in found] == [statistic]
    assert 200 + PATIENCE <= found[0][0] <= 220


def test_what_is_measured_now_and_then_is_watched_as_well():
    stream = frames(800, 3, 0.9)
    stream[200:, -1] -= 10 * SPREAD[-1]
    stream[np.arange(800) % 4 != 0, -1] = np.nan
    found = alarms(detector(), stream)
    assert [name for _, name in found] == ["margin"] and found[0][0] <= 240


def test_a_lorry_that_passes_is_no_drift():
    stream = frames(600, 4, 0.9)
    for begin in (100, 300, 500):
        stream[begin : begin + 8] += 30 * SPREAD  # four seconds
    assert alarms(detector(), stream) == []


def test_a_statistic_alarms_once_until_it_has_been_back():
    stream = frames(1200, 5, 0.9)
    for begin, end in ((100, 400), (700, 1000)):
        stream[begin:end, 0] -= 10 * SPREAD[0]
    found = detector()
    raised = alarms(found, stream[:600])
    assert [name for _, name in raised] == ["brightness"] and found.scores[0] == 0
    raised += alarms(found, stream[600:990])
    assert [name for _, name in raised] == ["brightness"] * 2 and found.scores[0] == 1


def test_the_evidence_says_since_when():
    stream = frames(400, 6, 0.9)
    stream[200:, 0] -= 9 * SPREAD[0]
    watched = detector()
    changes = [change for row in stream for change in watched.add(row)]
    assert 190 <= changes[0].since <= 206 and changes[0].evidence >= BLOCKS / 100


def test_blocks_follow_the_autocorrelation():
    lengths = {}
    for correlation in (0.0, 0.6, 0.97):
        watched = detector()
        alarms(watched, frames(600, 2, correlation))
        lengths[correlation] = watched.length
    assert lengths[0.0] == 2 and 2 < lengths[0.6] < LONGEST and lengths[0.97] == LONGEST


def test_a_statistic_that_was_never_measured_is_not_watched():
    rows = frames(64, 1)
    rows[:, -1] = np.nan
    watched = detector(rows)
    stream = frames(300, 2)
    stream[:, -1] = 1e6
    assert alarms(watched, stream) == [] and np.isfinite(watched.scores).all()


def test_ranges_need_some_frames():
    with pytest.raises(OptionError, match=r"reference statistics are of 9 frames\.\nExpected at least 16"):
        Ranges.of(reference(frames(9)), BLOCKS)


def test_a_reference_of_frames_that_are_alike_counts_as_few():
    alike, apart = (
        Ranges.of(reference(frames(400, 1, correlation), sequence=True), BLOCKS) for correlation in (0.98, 0.0)
    )
    assert np.median((alike.high - alike.low) / SPREAD) > np.median((apart.high - apart.low) / SPREAD)


def test_autocorrelation_time_of_a_known_process():
    assert autocorrelation_time(frames(40000, 1, 0.9)[:, 0]) == pytest.approx(19, rel=0.15)
    assert autocorrelation_time(frames(40000, 1, 0.0)[:, 0]) == pytest.approx(1, abs=0.1)
    assert autocorrelation_time(np.ones(5)) == 1


@pytest.mark.parametrize(
    ("z", "freedom", "expected"), [(2.3263, 5, 3.365), (2.3263, 30, 2.457), (3.0902, 10, 4.144), (3.0902, 100, 3.174)]
)
def test_quantiles_of_student_are_those_of_the_tables(z, freedom, expected):
    assert student_t(z, freedom) == pytest.approx(expected, rel=0.02)

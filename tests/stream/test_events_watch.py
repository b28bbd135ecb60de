"""Rules over time: scripted scenes with known events through a real engine, jumps of the clock, changing frames."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_helpers import COLORS, SPEC, segmenter

from edgeseg.errors import StreamError
from edgeseg.result import Frame, Result
from edgeseg.stream.events.grammar import parse_clear, parse_when
from edgeseg.stream.events.rules import Rule, Rules
from edgeseg.stream.events.state import ObservedTime, RuleState
from edgeseg.stream.events.watch import Event, Watch
from edgeseg.stream.events.zones import FRAME, Zone

HALF = Zone("gate", ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)))


def rule(when: str, clear: str = "", name: str = "r") -> Rule:
    condition = parse_when(when, name)
    if not clear:
        return Rule(name, when, condition, condition.compared.opposite(), condition.seconds)
    end = parse_clear(clear, name)
    seconds = condition.seconds if end.seconds is None else end.seconds
    return Rule(name, when, condition, end.compared or condition.compared.opposite(), seconds)


def watch(*rules: Rule, zones: tuple[Zone, ...] = (HALF,), live: bool = False, spec=SPEC) -> Watch:
    named = {zone.name: zone for zone in (FRAME, *zones)}
    return Watch(Rules(Path("zones.toml"), named, rules), spec, "front", live, fps=10.0)


def result(i: int, share: float, pts: float | None = None, size=(128, 192), captured: float = 0.0, spec=SPEC) -> Result:
    """A class map whose left half, the zone, is "car" from the top down to `share` of it."""
    classmap = np.zeros((spec.height, spec.width), np.uint8)
    classmap[: round(share * spec.height), : spec.width // 2] = 3
    image = np.zeros((*size, 3), np.uint8)
    return Result(Frame(image, i, captured, pts=pts), classmap, {}, spec=spec)


def play(watching: Watch, shares: list[float], fps: float = 10.0, start: float = 0.0) -> list[Event]:
    found: list[Event] = []
    for i, share in enumerate(shares):
        found += watching.update(result(i, share, start + i / fps)).events
    return found


def test_an_event_begins_after_its_time_and_ends_after_its_own() -> None:
    watching = watch(rule("share(car) > 30 % in gate for 0.5 s", "< 20 % for 1 s"))
    found = play(watching, [0] * 10 + [0.5] * 20 + [0.25] * 20 + [0.75, 0] + [0] * 19)
    start, end = found
    assert (start.event, start.frame, start.pts, start.share, start.seconds) == (
        "start",
        15,
        1.5,
        0.5,
        pytest.approx(0.5),
    )
    assert (end.event, end.frame, end.peak, end.seconds) == ("end", 61, 0.75, pytest.approx(4.1))
    assert end.id == start.id and end.reason == "cleared" and start.stream == "front" and start.zone == "gate"
    assert start.time - start.began == pytest.approx(0.5) and end.began == start.began


def test_a_share_that_flickers_makes_no_event_and_one_event_does_not_flicker() -> None:
    watching = watch(rule("share(car) > 30 % in gate for 0.5 s", "< 20 % for 1 s"))
    assert play(watching, [0.5, 0.5, 0.5, 0] * 20) == []
    assert len(play(watching, [0.5] * 10 + [0, 0, 0, 0.5] * 20, start=10.0)) == 1


def test_without_a_time_a_rule_acts_at_once() -> None:
    found = play(watch(rule("car in gate")), [0, 0.5, 0, 0.5])
    assert [(e.event, e.frame) for e in found] == [("start", 1), ("end", 2), ("start", 3)]


def test_absence_is_a_rule_too() -> None:
    found = play(watch(rule("no car in gate for 0.3 s")), [0.5] * 5 + [0] * 5 + [0.5] * 5)
    assert [(e.event, e.frame, e.peak) for e in found] == [("start", 8, 0.0), ("end", 13, 0.0)]


def test_classes_are_added_and_limits_are_exact() -> None:
    both = watch(rule("share(car + road) >= 100 % in gate"), rule("share(car) > 50 % in gate", name="over"))
    observed = both.update(result(0, 0.5))
    assert observed.active == {"r": True, "over": False} and observed.shares["gate"].tolist() == [0.5, 0, 0, 0.5]


def test_the_end_of_a_run_ends_what_is_open() -> None:
    watching = watch(rule("car in gate"), rule("tree in gate", name="tree"))
    play(watching, [0, 0.5, 0.25])
    (stopped,) = watching.stop()
    assert (stopped.event, stopped.reason, stopped.frame, stopped.share, stopped.peak) == (
        "end",
        "stopped",
        2,
        0.25,
        0.5,
    )
    assert stopped.seconds == pytest.approx(0.1) and watching.stop() == ()


@pytest.mark.parametrize("jump", [3600.0, -3600.0, -0.5])
def test_a_jump_in_time_is_not_time_that_was_watched(jump: float) -> None:
    """A seek, a clock that was set, or a camera that was away: what must hold has to hold anew."""
    watching = watch(rule("car in gate for 1 s"))
    assert play(watching, [0.5] * 8) == []
    assert [e.frame for e in play(watching, [0.5] * 20, start=0.7 + jump)] == [10]
    assert play(watching, [0] * 8, start=100.0 + jump) == [], "nor does it end"
    (end,) = play(watching, [0] * 12, start=50.0 + jump)
    assert end.event == "end" and end.seconds < 6


def test_slow_sources_are_watched_and_their_gaps_are_not() -> None:
    watched = ObservedTime()
    assert [watched.advance(60.0 * i) for i in range(4)] == [True, False, True, True] and watched.seconds == 120
    assert not watched.advance(1000.0) and watched.seconds == 120 and watched.jumps == 2


def test_live_streams_go_by_the_time_of_capture() -> None:
    watching = watch(rule("car in gate for 1 s"), live=True)
    found = [watching.update(result(i, 0.5, pts=1e6 * i, captured=50 + 0.3 * i)).events for i in range(6)]
    assert [len(events) for events in found] == [0, 0, 0, 0, 1, 0]


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0, 1)), max_size=80))
def test_a_rule_never_ends_twice_and_time_never_goes_back(steps: list[tuple[float, float]]) -> None:
    state, watched, at, changes, before = (
        RuleState(rule("share(car) > 40 % in gate for 2 s")),
        ObservedTime(),
        0.0,
        [],
        0.0,
    )
    for step, share in steps:
        at += step
        if not watched.advance(at):
            state.restart()
        assert watched.seconds >= before
        before = watched.seconds
        if state.update(share, watched.seconds):
            changes.append(state.active)
    assert changes == [i % 2 == 0 for i in range(len(changes))]


def test_frames_may_change_their_size() -> None:
    watching = watch(rule("share(car) > 45 % in gate"))
    sizes = [(64 + i, 300 - 2 * i) for i in range(40)]
    assert all(watching.update(result(i, 0.5, i / 10, size)).active["r"] for i, size in enumerate(sizes))


def test_a_zone_that_the_network_does_not_see_is_an_error_at_first_and_later_waits(caplog) -> None:
    spec = replace(SPEC, fit="crop")
    corner = Zone("corner", ((0.0, 0.0), (0.05, 0.0), (0.05, 1.0), (0.0, 1.0)))
    wide, seen = (64, 400), (64, 96)
    watching = watch(rule("car in corner"), zones=(corner,), spec=spec)
    with pytest.raises(
        StreamError, match=r"network sees nothing of zones.corner in frames of 400x64.\nIts input is 96x64"
    ):
        watching.update(result(0, 1.0, size=wide, spec=spec))
    watching = watch(rule("car in corner for 1 s"), zones=(corner,), spec=spec)
    for i in range(5):
        watching.update(result(i, 1.0, i / 10, seen, spec=spec))
    for i in range(5, 30):
        assert watching.update(result(i, 1.0, i / 10, wide, spec=spec)).events == ()
    assert caplog.text.count("sees nothing of zones.corner") == 1 and "Its rules wait" in caplog.text


def test_zones_of_a_frame_of_another_shape_are_warned_about(caplog) -> None:
    rules = Rules(Path("zones.toml"), {"gate": HALF}, (rule("car in gate"),), size=(1280, 720))
    watching = Watch(rules, SPEC)
    for i, size in enumerate([(360, 640), (720, 1280), (480, 640), (480, 640)]):
        watching.update(result(i, 0.5, i / 10, size))
    warning = "zones.toml: zones were drawn on 1280x720, and frames of 640x480 have another shape. They are stretched"
    assert caplog.text.count(warning) == 1 and caplog.text.count("another shape") == 1


# A hundred scenes: a car drives in and out of a zone, stands beside it, is too small, or stays too short.

FPS = 10.0
LEVELS = {"high": 0.8, "between": 0.28, "low": 0.0, "beside": 0.0}
SCENE_RULE = ("share(car) > 45 % in zone for 1 s", "< 12 % for 1.5 s")


@dataclass(frozen=True)
class Scene:
    zone: Zone
    levels: list[str]
    times: list[float]
    sizes: list[tuple[int, int]]


def scripted(seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    angles = (np.arange(7) + rng.random()) * 2 * np.pi / 7
    reach = rng.uniform(0.3, 0.42, 7)
    zone = Zone("zone", tuple((0.42 + r * np.cos(a), 0.5 + r * np.sin(a)) for r, a in zip(reach, angles)))
    levels: list[str] = ["low"] * 5
    while len(levels) < 120:
        levels += [str(rng.choice(list(LEVELS)))] * int(rng.choice([3, 6, 9, 13, 18, 30]))
    steps = rng.uniform(0.04, 0.16, len(levels)) if seed % 4 == 1 else np.full(len(levels), 1 / FPS)
    if seed % 4 == 2:
        steps[rng.integers(20, 100)] = rng.choice([900.0, -40.0])
    change = 60 if seed % 4 == 3 else len(levels)
    return Scene(zone, levels, np.cumsum(steps).tolist(), [(128, 192)] * change + [(180, 240)] * (len(levels) - change))


def drawn(scene: Scene, i: int) -> np.ndarray:
    """The frame: road, and as much of the zone as the script says is covered by a car from the left."""
    height, width = scene.sizes[i]
    image = np.ascontiguousarray(np.broadcast_to(COLORS[0], (height, width, 3)))
    outline = np.round(np.array(scene.zone.points) * (width, height)).astype(np.int32)
    columns = cv2.fillPoly(np.zeros((height, width), np.uint8), [outline], 1).sum(0).cumsum()
    covered = int(np.searchsorted(columns, LEVELS[scene.levels[i]] * columns[-1]))
    if LEVELS[scene.levels[i]]:
        image[:, :covered] = COLORS[3]
    if scene.levels[i] == "beside":
        image[:, int(0.9 * width) :] = COLORS[3]
    return image


def truth(scene: Scene) -> list[tuple[str, int]]:
    """What should happen, from the script alone: runs of frames between which time is steady."""
    happened: list[tuple[str, int]] = []
    on, since = False, None
    for i, level in enumerate(scene.levels):
        step = scene.times[i] - scene.times[i - 1] if i else 0.0
        if not 0 <= step < 5:
            since = None
        relevant = level in ("low", "beside") if on else level == "high"
        since = (i if since is None else since) if relevant else None
        if since is not None and scene.times[i] - scene.times[since] >= (1.5 if on else 1.0) - 1e-6:
            on, since = not on, None
            happened.append(("start" if on else "end", i))
    return happened


def test_a_hundred_scenes_with_known_events() -> None:
    counted: Counter[str] = Counter()
    with segmenter() as engine:
        for seed in range(100):
            scene = scripted(seed)
            watching = watch(rule(*SCENE_RULE), zones=(scene.zone,))
            found = []
            for i, at in enumerate(scene.times):
                engine.submit(Frame(drawn(scene, i), i, pts=at))
                found += [(e.event, e.frame) for e in watching.update(engine.collect()).events]
            expected = truth(scene)
            counted["true"] += len(expected)
            counted["found"] += len(set(found) & set(expected))
            counted["false"] += len(set(found) - set(expected))
    print(dict(counted))
    assert counted["true"] > 140 and counted["found"] == counted["true"] and counted["false"] == 0

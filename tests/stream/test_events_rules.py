"""zones.toml: what rules mean, and what is said of those that cannot be meant."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.stream.events.grammar import Comparison, Condition, parse_clear, parse_when
from edgeseg.stream.events.rules import Rules, load

ZONES = "[zones.gate]\npoints = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]\n"
RULE = '[rules.flood]\nwhen = "share(water) > 30 % in gate for 5 s"\n'


def rules(tmp_path: Path, text: str) -> Rules:
    path = tmp_path / "zones.toml"
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("share(water) > 30 % in gate for 5 s", Condition(("water",), Comparison(">", 0.3), "gate", 5.0)),
        (
            "share(car+truck)>=12.5% in gate for 500ms",
            Condition(("car", "truck"), Comparison(">=", 0.125), "gate", 0.5),
        ),
        ("person in track for 0.5 s", Condition(("person",), Comparison(">", 0.001), "track", 0.5)),
        ("no person in track for 2 min", Condition(("person",), Comparison("<=", 0.001), "track", 120.0)),
        ("'traffic light' in frame", Condition(("traffic light",), Comparison(">", 0.001), "frame", 0.0)),
        ('share("no" + "in") < 1 % in gate for 1h', Condition(("no", "in"), Comparison("<", 0.01), "gate", 3600.0)),
        ("  Straße   in  gate  ", Condition(("Straße",), Comparison(">", 0.001), "gate", 0.0)),
    ],
)
def test_a_rule_is_read(text: str, expected: Condition) -> None:
    assert parse_when(text, "rules.r") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the name of a class at column 1 of '', but it ends"),
        ("share(water) > 30 % in", "expected the name of a zone at column 23 of .*, but it ends"),
        ("share(water) > 30 % gate", "expected 'in' at column 21 .*, but there is 'gate'"),
        ("share water > 30 % in gate", r"expected '\(' at column 7 .*'water'"),
        ("share(water > 30 % in gate", r"expected '\)' at column 13"),
        ("share() > 3 % in gate", "expected the name of a class at column 7"),
        ("share(water) in gate", "expected a comparison such as > 30 % at column 14"),
        ("share(water) > 0.3 in gate", "expected '%' at column 20"),
        ("share(water) > much % in gate", "expected a number of percent at column 16"),
        ("share(water) > -5 % in gate", "column 16 of .* is '-', which no rule has"),
        ("share(water) == 5 % in gate", "column 14 of .* is '='"),
        ("share(water) > 100 % in gate", "a share of a zone is never > 100 %"),
        ("share(water) >= 0 % in gate", "a share of a zone is always >= 0 %"),
        ("share(water) < 0 % in gate", "a share of a zone is never < 0 %"),
        ("share(water) < 130 % in gate", "a share of a zone is always < 130 %"),
        ("person in gate for ever", "expected a time such as 5 s at column 20"),
        ("person in gate for 5", r"expected a unit of time \(ms, s, m, min, h\) at column 21"),
        ("person in gate for 5 days", "expected a unit of time"),
        ("person in gate for 25 h", "lasts over a day"),
        ("person in gate for 5 s and car", "expected its end at column 24 .*, but there is 'and'"),
        ("no share(water) > 3 % in gate", "expected the name of a class at column 4"),
        ("in in gate", "expected the name of a class at column 1"),
        ('"unfinished in gate', "column 1 of .* is '\"'"),
    ],
)
def test_a_rule_that_cannot_be_read_is_explained(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=f"^zones.toml: rules.r: .*{message}") as caught:
        parse_when(text, "zones.toml: rules.r")
    assert "Expected" in caught.value.hint


@given(st.text(st.sampled_from("share()no inforgate<>=%+\"' 0123.5smh-ßé\n\0"), max_size=60) | st.text(max_size=40))
def test_any_text_is_a_rule_or_an_error(text: str) -> None:
    for parse in (parse_when, parse_clear):
        try:
            parse(text, "r")
        except OptionError as error:
            assert error.what.startswith("r: ") and error.hint.startswith("Expected")


def test_a_file_of_zones_and_rules(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        "size = [200, 100]\n[zones.gate]\npoints = [[0, 0], [201, 0], [100, 50]]\nstreams = ['front']\n"
        + RULE
        + 'clear = "< 25 % for 10 s"\n[rules.empty]\nwhen = "no person in frame for 1 s"',
    )
    assert found.zones["gate"].points == ((0, 0), (1, 0), (0.5, 0.5)) and set(found.zones) == {"frame", "gate"}
    flood, empty = found.rules
    assert (flood.clear, flood.clear_seconds) == (Comparison("<", 0.25), 10.0)
    assert (empty.clear, empty.clear_seconds) == (Comparison(">", 0.001), 1.0)
    assert [r.name for r in found.of("back").rules] == ["empty"] and len(found.of("front").rules) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Rules .*zones.toml is empty"),
        (ZONES, "has no rule"),
        ("zone = 1", "Unknown key 'zone'.\nDid you mean 'zones'"),
        ("zones = 3\n" + RULE, r"zones is not made of tables.\nStart each with \[zones.NAME\]"),
        (ZONES + RULE.replace("in gate", "in gaet"), "rules.flood: Unknown zone 'gaet'.\nDid you mean 'gate'"),
        (ZONES + RULE.replace("when", "wenn"), "Unknown key 'rules.flood.wenn'.\nDid you mean 'rules.flood.when'"),
        (ZONES + "[rules.a]\n", "rules.a.when is missing"),
        (ZONES + "[rules.a]\nwhen = 3\n", "rules.a.when is 3, which is no text"),
        (ZONES + RULE + "clear = true", "rules.flood.clear is True, which is no text"),
        (ZONES + '[rules."a b"]\nwhen = "x in gate"', "rules.'a b' is not a usable name"),
        (ZONES + RULE + 'clear = "< 40 % for 1 s"', "begins at > 30 % and clears at < 40 %: a share can be both"),
        (ZONES + RULE + 'clear = "> 40 %"', "begins at > 30 % and clears at > 40 %, the same way.\nExpected <= 30 %"),
        (ZONES + RULE + 'clear = "later"', "expected a comparison such as < 25 %, or for and a time at column 1"),
        (ZONES + '[rules.a]\nwhen = "share(a + a) > 1 % in gate"', "a class is named twice"),
        (ZONES.replace("gate", "frame") + RULE, "zones.frame is the whole frame, always"),
        (ZONES.replace("0.9, 0.9", "0.9, 1.4") + RULE, r"point \[0.9, 1.4\] is outside the frame, whose .* 0 to 1"),
        ("size = [1280, 720]\n[zones.gate]\npoints = [[0, 0], [1300, 0], [9, 9]]\n" + RULE,
         r"point \[1300, 0\] is outside the frame of 1280x720.\nIs size right"),
        ("size = [1280, 720]\n" + ZONES + RULE, "every point is within one pixel of a frame of 1280x720"),
        ("size = [1280]\n" + ZONES + RULE, r"size is \[1280\].\nExpected the width and height"),
        ("size = [0, 720]\n" + ZONES + RULE, r"size is \[0, 720\]"),
        ("[zones.gate]\npoints = [[0, 0], [1, 1]]\n" + RULE, "zones.gate.points has 2 points"),
        ("[zones.gate]\npoints = [[0, 0], [0.5, 0.5], [1, 1]]\n" + RULE, "zones.gate has no area"),
        ("[zones.gate]\npoints = [[0, 0], [1, 1], [1, 0], [0, 1]]\n" + RULE, "its edges 1 and 3 cross"),
        ("[zones.gate]\npoints = [[0, 0], [1], [1, 0]]\n" + RULE, "is missing or no list of points"),
        ("[zones.gate]\npoints = [[0, 0], [1, 'a'], [1, 0]]\n" + RULE, "holds something that is no number"),
        ("[zones.gate]\npoints = [[0, 0], [1, nan], [1, 0]]\n" + RULE, "holds something that is no number"),
        ("[zones.gate]\nstreams = 'front'\n" + RULE, "zones.gate.streams is 'front'"),
        ("[zones.gate]\npoint = 1\n" + RULE, "Unknown key 'zones.gate.point'"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EdgesegError, match=message):
        rules(tmp_path, text)


NUMBERS = st.floats(-2, 2) | st.integers(-2000, 2000) | st.sampled_from([float("nan"), float("inf"), 0, 1])
ODD = st.text("[]ab", max_size=3) | st.booleans() | NUMBERS


@given(
    st.lists(st.lists(NUMBERS | ODD, max_size=3), max_size=6) | ODD,
    st.lists(NUMBERS, max_size=3) | ODD | st.just([1280, 720]),
    st.sampled_from(["car in a", "share(car) > 5 % in a for 1 s", "car in b", ""]),
    st.sampled_from(["< 3 %", "for 2 s", "> 1 %", "nonsense"]),
)
def test_any_file_is_rules_or_an_error(tmp_path_factory, points, size, when: str, clear: str) -> None:
    """TOML writes lists, numbers and texts as JSON does, but for infinity and nan."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    values = [
        json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan") for value in (size, points, when, clear)
    ]
    path.write_text("size = {}\n[zones.a]\npoints = {}\n[rules.r]\nwhen = {}\nclear = {}\n".format(*values))
    try:
        zone = load(path).zones["a"]
    except EdgesegError as error:
        assert str(path) in error.what and error.hint
    else:
        assert all(0 <= value <= 1 for point in zone.points for value in point)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"Rules .*nowhere.toml does not exist"):
        load(tmp_path / "nowhere.toml")


def test_classes_and_streams_are_checked(tmp_path: Path) -> None:
    found = rules(tmp_path, ZONES + "streams = ['front']\n" + RULE)
    found.check(("land", "water"), ("front", "back"))
    with pytest.raises(OptionError, match=r"rules.flood: Unknown class 'water'.\nDid you mean 'waters'"):
        found.check(("land", "waters"), ("front",))
    with pytest.raises(OptionError, match=r"zones.gate: Unknown stream 'front'.\nDid you mean 'frond'"):
        found.check(("land", "water"), ("frond",))
    with pytest.raises(OptionError, match="none has a name"):
        found.check(("land", "water"), ())


def test_the_example_of_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert [rule.name for rule in rules(tmp_path, examples[0]).rules] == ["flood", "trespass", "unattended"]
    for text in re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE):
        if " in " in text:
            parse_when(text, "docs")

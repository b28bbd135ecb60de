"""The gate: its three answers on known losses, on real bundles, and everything it refuses to compare."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from edgeseg.errors import FileError, OptionError
from edgeseg.evaluation import gate
from edgeseg.evaluation.gate import Limits, Measured, judge, verdict
from edgeseg.evaluation.metrics import GUESS, MATCHED, RIGHT, TRUTH
from edgeseg.synth.files import write_dataset

Edgeseg = Callable[..., Any]
CLASSES = ["road", "sky"]


def measured(lost: float, frames: int = 200, spread: float = 1.0, name: str = "build") -> Measured:
    """A model that gets 800 of 1000 pixels right in every frame, less `lost` on average, give or take `spread`."""
    random = np.random.default_rng(1)
    tables = np.zeros((frames, 2, 7), np.int64)
    tables[..., TRUTH] = tables[..., GUESS] = 1000
    tables[..., RIGHT] = np.rint(800 - lost - random.normal(0, spread, (frames, 2)) * (lost != 0))
    tables[..., MATCHED:] = 100
    data = {"root": "d", "split": "test", "digest": "1", "frames": frames, "classes": CLASSES}
    return Measured(name, "digest", data, tables, {})


PARENT = measured(0, name="parent")


@pytest.mark.parametrize(
    ("build", "limits", "answers"),
    [
        (PARENT, Limits(), {"mIoU drop": "pass", "unexplained mIoU gain": "pass"}),
        (measured(1), Limits(), {"mIoU drop": "pass", "unexplained mIoU gain": "pass"}),
        (measured(20), Limits(), {"mIoU drop": "fail", "unexplained mIoU gain": "pass"}),
        (measured(-40), Limits(), {"mIoU drop": "pass", "unexplained mIoU gain": "fail"}),
        (measured(4, 20, 10), Limits(), {"mIoU drop": "undecided", "unexplained mIoU gain": "pass"}),
        (PARENT, Limits(None, None, None, (("road", 60.0),)), {"IoU of road": "pass"}),
        (PARENT, Limits(None, None, None, (("sky", 70.0),)), {"IoU of sky": "fail"}),
        (PARENT, Limits(None, 1.0, None), {"boundary F1 drop": "pass"}),
    ],
)
def test_answers(build: Measured, limits: Limits, answers: dict[str, str]) -> None:
    reference = dataclasses.replace(PARENT, tables=PARENT.tables[: len(build.tables)])
    assert {check.name: check.verdict for check in judge(build, reference, limits)} == answers


def test_undecided_says_how_many_frames_would_decide_and_they_do() -> None:
    few = measured(4, 20, 10)
    (check,) = judge(few, dataclasses.replace(PARENT, tables=PARENT.tables[:20]), Limits(max_gain=None))
    assert check.frames_needed is not None and check.frames_needed > 20
    assert f"20 frames are too few to tell: about {check.frames_needed} frames like these" in check.text
    many = measured(4, 2 * check.frames_needed, 10)
    (check,) = judge(many, measured(0, 2 * len(many.tables) // 2), Limits(max_gain=None))
    assert check.verdict != "undecided"


def test_boundaries_may_be_lost_alone() -> None:
    build = measured(0)
    build.tables[..., MATCHED] = 80
    answers = {c.name: c.verdict for c in judge(build, PARENT, Limits(boundary_drop=1.0))}
    assert answers == {"mIoU drop": "pass", "unexplained mIoU gain": "pass", "boundary F1 drop": "fail"}


def test_the_worst_answer_counts_and_nothing_asked_is_an_error() -> None:
    checks = [gate.Check("x", word, "", 0, 0, 0, 0) for word in ("pass", "undecided", "fail")]
    assert [verdict(checks), verdict(checks[:2]), verdict(checks[:1])] == ["fail", "undecided", "pass"]
    with pytest.raises(OptionError, match=r"nothing to check\.\nGive --parent or --baseline"):
        verdict([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": "2"}, r"measured on other data: d test, 200 frames\.\nGive the same --data"),
        ({"classes": ["road", "cloud"]}, r"has the classes road, cloud; the data has road, sky"),
    ],
)
def test_other_data_is_not_compared(change: dict[str, Any], message: str) -> None:
    other = dataclasses.replace(PARENT, data={**PARENT.data, **change})
    with pytest.raises(OptionError, match=message):
        judge(PARENT, other, Limits())


def test_floors_of_classes_that_are_not_there() -> None:
    with pytest.raises(OptionError, match=r"Unknown class 'raod'\.\nDid you mean 'road'"):
        judge(PARENT, None, Limits(None, None, None, (("raod", 1.0),)))
    empty = measured(0)
    empty.tables[:, 1] = 0
    with pytest.raises(OptionError, match=r"Class sky never occurs in the data"):
        judge(empty, None, Limits(None, None, None, (("sky", 1.0),)))


def test_a_baseline_comes_back_as_it_was(tmp_path: Path) -> None:
    PARENT.save(tmp_path / "b.json")
    again = Measured.load(tmp_path / "b.json")
    assert (again.tables == PARENT.tables).all()
    assert (again.name, again.digest, again.data) == (PARENT.name, PARENT.digest, PARENT.data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no baseline: Expecting"),
        ("[]", "is no baseline"),
        ("{}", "is no baseline: it has no 'kind'"),
        ('{"kind": "eval"}', "its kind is 'eval'"),
        ('{"kind": "baseline", "tables": [[1, 2], [3]], "data": {}}', "is no baseline"),
        ('{"kind": "baseline", "tables": [], "data": {"frames": 1, "classes": []}}', r"its tables are \(0,\)"),
        ("[" * 100_000, "is no baseline"),
    ],
)
def test_files_that_are_no_baseline(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(FileError, match=message):
        Measured.load(path)
    with pytest.raises(FileError, match="does not exist"):
        Measured.load(tmp_path / "none.json")


def test_real_bundles_through_the_command_line(
    edgeseg: Edgeseg, bundle: Path, bundle_of: Callable[[str, str], Path], street: Path, tmp_path: Path
) -> None:
    xml, md, js, base = (tmp_path / name for name in ("j.xml", "s.md", "g.json", "b.json"))
    compared = ["gate", bundle, "--data", street, "--parent", bundle_of("onnxruntime-cpu", "fp32")]
    ran = edgeseg(*compared, "--max-p99", "2s", "--junit", xml, "--summary", md, "--json", js)
    assert ran.code == 0, ran.err
    suite = ElementTree.parse(xml).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "0", "0")
    assert "edgeseg gate: pass" in md.read_text()
    found = json.loads(js.read_text())
    assert found["verdict"] == "pass"
    assert [check["name"] for check in found["checks"]] == ["mIoU drop", "unexplained mIoU gain", "latency p99"]
    ran = edgeseg("baseline", bundle, "--data", street, "--out", base)
    assert ran.code == 0 and "on 4 frames" in ran.err
    assert edgeseg("gate", bundle, "--data", street, "--baseline", base).code == 0
    ran = edgeseg(*compared, "--max-p99", "0.001ms", "--class-floor", "road=100", "--junit", xml, "--summary", md)
    assert ran.code == 1, ran.err
    suite = ElementTree.parse(xml).getroot()
    assert next(failure.get("message") for failure in suite.iter("failure")).endswith("at least 100")
    assert md.read_text().count("edgeseg gate: ") == 2
    other = tmp_path / "other"
    write_dataset(other, train=1, val=1, test=3, height=64, width=96, seed=9)
    ran = edgeseg("gate", bundle, "--data", other, "--baseline", base)
    assert ran.code == 2 and "measured on other data" in ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to check"),
        (["--class-floor", "road"], "'road' is no floor"),
        (["--class-floor", "road=101"], "'road=101' is no floor"),
        (["--max-p99", "fast"], "'fast' is no time"),
        (["--boundary-drop", "1"], "--boundary-drop needs something to compare with"),
        (["--parent", "a", "--baseline", "b"], "--parent and --baseline were both given"),
        (["--baseline", "b"], "b does not exist"),
        (["--parent", "a"], "a is not a folder"),
    ],
)
def test_what_the_command_line_refuses(
    edgeseg: Edgeseg, bundle: Path, street: Path, words: list[str], message: str
) -> None:
    ran = edgeseg("gate", bundle, "--data", street, *words)
    assert ran.code == 2 and message in ran.err.replace("\n", " ")

"""The gate: its three verdicts on known losses and on real bundles, and comparisons that it refuses."""

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
from edgeseg.evaluation.gate import Limits, Measured, check_accuracy, verdict
from edgeseg.evaluation.metrics import MATCHED, PREDICTED, RIGHT, TRUTH
from edgeseg.machine import fingerprint
from edgeseg.results.common import DataIdentity
from edgeseg.results.gate import Check
from edgeseg.synth.files import write_dataset

Edgeseg = Callable[..., Any]
CLASSES = ("road", "sky")
MACHINE = fingerprint()


def measured(lost: float, frames: int = 200, spread: float = 1.0, name: str = "build") -> Measured:
    """A model with 800 of 1000 pixels right in every frame, less `lost` on average with deviation `spread`."""
    random = np.random.default_rng(1)
    tables = np.zeros((frames, 2, 7), np.int64)
    tables[..., TRUTH] = tables[..., PREDICTED] = 1000
    tables[..., RIGHT] = np.rint(800 - lost - random.normal(0, spread, (frames, 2)) * (lost != 0))
    tables[..., MATCHED:] = 100
    return Measured(name, "digest", DataIdentity("d", "test", frames, "1", CLASSES), tables, MACHINE)


PARENT = measured(0, name="parent")


@pytest.mark.parametrize(
    ("build", "limits", "verdicts"),
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
def test_verdicts(build: Measured, limits: Limits, verdicts: dict[str, str]) -> None:
    reference = dataclasses.replace(PARENT, tables=PARENT.tables[: len(build.tables)])
    assert {check.name: check.verdict for check in check_accuracy(build, reference, limits)} == verdicts


def test_undecided_names_the_number_of_frames_that_decides() -> None:
    few = measured(4, 20, 10)
    (check,) = check_accuracy(few, dataclasses.replace(PARENT, tables=PARENT.tables[:20]), Limits(max_gain=None))
    assert check.frames_needed is not None and check.frames_needed > 20
    assert f"20 frames are too few to decide: about {check.frames_needed} frames like these" in check.text
    many = measured(4, 2 * check.frames_needed, 10)
    (check,) = check_accuracy(many, measured(0, 2 * len(many.tables) // 2), Limits(max_gain=None))
    assert check.verdict != "undecided"


def test_boundaries_may_be_lost_alone() -> None:
    build = measured(0)
    build.tables[..., MATCHED] = 80
    verdicts = {c.name: c.verdict for c in check_accuracy(build, PARENT, Limits(boundary_drop=1.0))}
    assert verdicts == {"mIoU drop": "pass", "unexplained mIoU gain": "pass", "boundary F1 drop": "fail"}


def test_the_worst_verdict_counts_and_no_check_is_an_error() -> None:
    checks = [Check("x", word, "", 0, 0, 0, 0) for word in ("pass", "undecided", "fail")]
    assert [verdict(checks), verdict(checks[:2]), verdict(checks[:1])] == ["fail", "undecided", "pass"]
    with pytest.raises(OptionError, match=r"nothing to check\.\nGive --parent or --baseline"):
        verdict([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": "2"}, r"measured on other data: d test, 200 frames\.\nGive the same --data"),
        ({"classes": ("road", "cloud")}, r"has the classes road, cloud; the data has road, sky"),
    ],
)
def test_other_data_is_not_compared(change: dict[str, Any], message: str) -> None:
    other = dataclasses.replace(PARENT, data=dataclasses.replace(PARENT.data, **change))
    with pytest.raises(OptionError, match=message):
        check_accuracy(PARENT, other, Limits())


def test_floors_of_classes_that_do_not_exist_or_occur() -> None:
    with pytest.raises(OptionError, match=r"Unknown class 'raod'\.\nDid you mean 'road'"):
        check_accuracy(PARENT, None, Limits(None, None, None, (("raod", 1.0),)))
    empty = measured(0)
    empty.tables[:, 1] = 0
    with pytest.raises(OptionError, match=r"Class sky never occurs in the data"):
        check_accuracy(empty, None, Limits(None, None, None, (("sky", 1.0),)))


def test_a_baseline_survives_its_file(tmp_path: Path) -> None:
    PARENT.save(tmp_path / "b.json")
    again = Measured.load(tmp_path / "b.json")
    assert (again.tables == PARENT.tables).all()
    assert dataclasses.replace(again, tables=PARENT.tables) == PARENT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"b\.json is not JSON of edgeseg: Expecting"),
        ("[]", r"b\.json is not JSON of edgeseg: not an object"),
        ("[" * 100_000, r"b\.json is not JSON of edgeseg: maximum recursion depth"),
        ("{}", r"is not a complete baseline result: Object missing required field `name`"),
        ('{"kind": "eval"}', r"is of kind 'eval'\.\nExpected a result of kind 'baseline'\."),
    ],
)
def test_files_that_are_not_a_baseline(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(FileError, match=message) as caught:
        Measured.load(path)
    assert "Make one: edgeseg baseline BUNDLE --data D." in caught.value.hint
    with pytest.raises(FileError, match="does not exist"):
        Measured.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([], r"b\.json is not a baseline: its tables are \(0,\)"),
        ([[[1] * 7] * 3] * 200, r"its tables are \(200, 3, 7\)"),
        ([[[-1] * 7] * 2] * 200, r"b\.json is not a baseline: its tables are"),
        ([[[1] * 7], [[1] * 6]], r"b\.json is not a baseline: setting an array element"),
        ([[1, 2], [3]], r"not a complete baseline result: Expected `array`, got `int` - at `\$\.tables"),
    ],
)
def test_a_baseline_with_other_tables_is_refused(tmp_path: Path, tables: list[Any], message: str) -> None:
    path = tmp_path / "b.json"
    PARENT.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "tables": tables}))
    with pytest.raises(FileError, match=message) as caught:
        Measured.load(path)
    assert "Make one: edgeseg baseline BUNDLE --data D." in caught.value.hint


def test_a_baseline_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    PARENT.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2}))
    with pytest.raises(
        OptionError, match=r"b\.json has schema 2, from a newer edgeseg\.\nThis one reads schemas up to 1"
    ):
        Measured.load(path)


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
    assert ran.code == 0 and "on 4 frames" in ran.out
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
        (["--class-floor", "road"], "'road' is not a floor"),
        (["--class-floor", "road=101"], "'road=101' is not a floor"),
        (["--max-p99", "fast"], "'fast' is not a time"),
        (["--boundary-drop", "1"], "--boundary-drop needs something to compare with"),
        (["--parent", "a", "--baseline", "b"], "--parent and --baseline were both given"),
        (["--baseline", "b"], "b does not exist"),
        (["--parent", "a"], "a is not a folder"),
    ],
)
def test_options_that_the_command_line_refuses(
    edgeseg: Edgeseg, bundle: Path, street: Path, words: list[str], message: str
) -> None:
    ran = edgeseg("gate", bundle, "--data", street, *words)
    assert ran.code == 2 and message in ran.err.replace("\n", " ")

"""Slices in the gate: a loss that the whole hides is found, the slice is named, and small slices decide nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from test_gate import PARENT

from edgeseg.data.slices import FrameSlice
from edgeseg.errors import OptionError
from edgeseg.evaluation.gate import Limits, Measured, check_accuracy
from edgeseg.evaluation.metrics import RIGHT
from edgeseg.evaluation.slice_gate import FEWEST, SliceLimits, check_slices

Edgeseg = Callable[..., Any]
NIGHT = FrameSlice("time: night", tuple(range(20)))
DAY = FrameSlice("time: day", tuple(range(20, 200)))
FEW = FrameSlice("site: north", tuple(range(FEWEST - 1)))


def worse_at_night(lost: float, gained: float) -> Measured:
    """Of 1000 pixels, `lost` are lost in the first 20 of 200 frames and `gained` won in the others."""
    tables = PARENT.tables.copy()
    noise = np.random.default_rng(3).normal(0, 2, tables.shape[:2])
    tables[:20, :, RIGHT] = np.rint(800 - lost + noise[:20])
    tables[20:, :, RIGHT] = np.rint(800 + gained + noise[20:])
    return dataclasses.replace(PARENT, name="build", tables=tables)


def test_a_loss_at_night_is_found_though_the_whole_gains() -> None:
    build = worse_at_night(60, 10)
    assert [c.verdict for c in check_accuracy(build, PARENT, Limits())] == ["pass", "pass"]
    night, day = check_slices(build, PARENT, (NIGHT, DAY), SliceLimits(max_drop=1.0))
    assert (night.name, night.verdict) == ("mIoU drop, time: night", "fail")
    assert (day.name, day.verdict) == ("mIoU drop, time: day", "pass")
    assert night.value is not None and night.low is not None and night.low > 1.0
    assert "allowed 1" in night.text


def test_a_floor_of_a_slice() -> None:
    floors = SliceLimits(floors=(("time: night", 60.0), ("time: day", 60.0)))
    checks = check_slices(worse_at_night(60, 10), None, (NIGHT, DAY), floors)
    assert [(c.name, c.verdict) for c in checks] == [("mIoU, time: night", "fail"), ("mIoU, time: day", "pass")]


def test_a_loss_within_noise_is_undecided_and_says_how_many_frames() -> None:
    build = worse_at_night(0, 0)
    build.tables[:20, :, RIGHT] += np.tile([[90], [-110]], (10, 2))
    (night,) = check_slices(build, PARENT, (NIGHT,), SliceLimits(max_drop=2.0))
    assert night.verdict == "undecided" and night.frames_needed is not None and night.frames_needed > 20
    assert "20 frames are too few" in night.text


def test_slices_of_few_frames_decide_nothing() -> None:
    """Their bootstrap is too narrow: one frame has no interval at all."""
    limits = SliceLimits(1.0, ((FEW.name, 10.0),))
    for check in check_slices(worse_at_night(60, 10), PARENT, (FEW,), limits):
        assert check.verdict == "undecided" and check.frames_needed == FEWEST and check.low is None
        assert f"{FEWEST - 1} frames are too few to decide: at least {FEWEST} are needed" in check.text


def test_what_cannot_be_checked() -> None:
    with pytest.raises(OptionError, match=r"Unknown slice 'time: nigth'\.\nDid you mean 'time: night'"):
        check_slices(PARENT, None, (NIGHT, DAY), SliceLimits(floors=(("time: nigth", 1.0),)))
    with pytest.raises(OptionError, match="needs something to compare with"):
        check_slices(PARENT, None, (NIGHT,), SliceLimits(max_drop=1.0))
    other = dataclasses.replace(PARENT, data=dataclasses.replace(PARENT.data, digest="2"))
    with pytest.raises(OptionError, match="measured on other data"):
        check_slices(PARENT, other, (NIGHT,), SliceLimits(max_drop=1.0))


def test_through_the_command_line(
    edgeseg: Edgeseg, bundle: Path, bundle_of: Callable[[str, str], Path], tmp_path: Path
) -> None:
    from edgeseg.synth.files import write_dataset

    data = tmp_path / "data"
    write_dataset(data, train=1, val=1, test=12, height=64, width=96)
    (tmp_path / "slices.toml").write_text('[patterns.part]\nfirst = "^0+[0-5]$"\nlast = "."\n')
    (tmp_path / "base.json").unlink(missing_ok=True)
    ran = edgeseg(
        "baseline", bundle, "--data", data, "--slices", tmp_path / "slices.toml", "-o", tmp_path / "base.json"
    )
    assert ran.code == 0 and "part: first" in ran.out
    xml, md, js = (tmp_path / name for name in ("j.xml", "s.md", "g.json"))
    gate = ("gate", bundle_of("onnxruntime-cpu", "fp32"), "--data", data, "--slices", tmp_path / "slices.toml")
    written = ("--junit", xml, "--summary", md, "--json", js)
    ran = edgeseg(*gate, "--baseline", tmp_path / "base.json", "--max-slice-drop", "1", *written)
    assert ran.code == 0, ran.out + ran.err
    found = json.loads(js.read_text())
    assert [c["name"] for c in found["checks"]][2:] == ["mIoU drop, part: first", "mIoU drop, part: last"]
    assert {row["slice"]: row["frames"] for row in found["slices"]} == {"part: first": 6, "part: last": 6}
    assert edgeseg("report", js, "--out", tmp_path / "r.md").code == 0
    assert "By slice" in (tmp_path / "r.md").read_text()
    ran = edgeseg(*gate, "--slice-floor", "part: last=100", *written)
    assert ran.code == 1 and "FAIL\n  mIoU, part: last: " in ran.out
    failures = [case.get("name") for case in ElementTree.parse(xml).getroot() if case.find("failure") is not None]
    assert failures == ["mIoU, part: last"] and "mIoU, part: last | fail" in md.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-slice-drop", "1"), "There is a limit for slices, and no slices"),
        (("--slice-floor", "a=1"), "There is a limit for slices, and no slices"),
        (("--slices", "s.toml", "--max-slice-drop", "1"), "--max-slice-drop needs something to compare with"),
        (("--slices", "s.toml", "--slice-floor", "a"), "--slice-floor 'a' is not a floor"),
        (("--slices", "s.toml", "--slice-floor", "a=101"), "Expected NAME=POINTS, like 'time: night=60'"),
        (("--slices", "s.toml"), "The gate has nothing to check"),
        (("--slices", "s.toml", "--slice-floor", "a=1"), "s.toml does not exist"),
    ],
)
def test_options_that_do_not_fit(
    words: tuple[str, ...], message: str, bundle: Path, street: Path, edgeseg: Edgeseg
) -> None:
    ran = edgeseg("gate", bundle, "--data", street, *words)
    assert ran.code == 2 and message in ran.err

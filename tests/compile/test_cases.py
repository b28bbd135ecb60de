"""Foreign networks compiled to bundles, against ONNX Runtime on the untouched file and plain numpy (foreign_cases)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import foreign_cases
import onnx
from foreign_cases import FILES, OWN, Case

from edgeseg.compile import compile_model, spec_of
from edgeseg.runtime import open_segmenter
from edgeseg.target import Target

GRAPHS = Path(__file__).parents[3] / "shared" / "cases" / "graphs"
TARGETS = ("openvino-cpu", "onnxruntime-cpu")
NORMALIZATION: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "color": "RGB"}


def agreement_of(case: Case, path: Path, out: Path, target: str) -> float:
    """The share of pixels on which the case's fp32 bundle agrees with the file."""
    _, height, width, _, _ = foreign_cases.input_size(path)
    frames = foreign_cases.frames(height, width)
    spec, _ = spec_of(path, {**NORMALIZATION, **case.flags})
    compile_model(path, out, Target.load(target), "fp32", spec=spec, frames=frames)
    truth = foreign_cases.expected(path, case, frames)
    with open_segmenter(out) as segmenter:
        return float(np.mean([segmenter(frame).classmap == one for frame, one in zip(frames, truth)]))


def test_every_case_has_something_to_tell_apart(tmp_path: Path) -> None:
    """An agreement proves nothing where the class map is of one class."""
    for case in OWN:
        assert case.build is not None
        onnx.save(case.build(), str(tmp_path / "case.onnx"))
        _, height, width, _, _ = foreign_cases.input_size(tmp_path / "case.onnx")
        maps = foreign_cases.expected(tmp_path / "case.onnx", case, foreign_cases.frames(height, width))
        assert np.bincount(np.ravel(maps)).max() < 0.97 * np.size(maps), case.name


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_a_file_of_the_shared_cases(case: Case, target: str, tmp_path: Path) -> None:
    path = GRAPHS / f"{case.name}.onnx"
    if not path.is_file():
        pytest.skip("the folder shared/cases is not beside this checkout")
    assert agreement_of(case, path, tmp_path / "out", target) >= case.floor


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", OWN, ids=lambda case: case.name)
def test_an_instance_of_our_own(case: Case, target: str, tmp_path: Path) -> None:
    assert case.build is not None
    onnx.save(case.build(), str(tmp_path / "case.onnx"))
    assert agreement_of(case, tmp_path / "case.onnx", tmp_path / "out", target) >= case.floor

"""What stands between a misread or ruined network and a bundle: the float proof, the floor, and held-out frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

pytest.importorskip("onnx")

from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import LEAST_AGREEMENT, AccuracyLoss, compile_model, held_out
from edgeseg.errors import EdgesegError
from edgeseg.images import read_image, write_image
from edgeseg.onnx_graph import head
from edgeseg.recipe import PTQ
from edgeseg.target import Target

Run = Callable[..., Any]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_graph_that_was_misread_is_refused_in_every_precision(
    network: Path, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setitem(head.UPSAMPLES, "half_pixel", "align_corners")
    with pytest.raises(
        EdgesegError, match=r"The float32 bundle agrees with .* on \d\d\.\d\d% of pixels only"
    ) as caught:
        compile_model(
            network,
            tmp_path / "out",
            Target.load("openvino-cpu"),
            precision,
            spec=tiny.SPEC,
            frames=tiny.frames(4, seed=1),
            calibration=CalibrationSet.choose(street, 10) if precision == "int8" else None,
        )
    assert caught.value.exit_code == 2
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu"])
def test_int8_below_the_floor_is_refused_unless_one_insists(
    fragile: Path, labeled: Path, tmp_path: Path, target: str
) -> None:
    def build(**more: Any) -> float:
        bundle = compile_model(
            fragile, tmp_path / "out", Target.load(target), "int8", spec=tiny.SPEC,
            frames=tiny.frames(4, seed=1), calibration=CalibrationSet.choose(labeled, 10),
            ptq=PTQ("minmax"), **more,
        )  # fmt: skip
        assert bundle.manifest.parity is not None
        return bundle.manifest.parity.agreement

    with pytest.raises(AccuracyLoss, match=r"agrees with .* of pixels only \(4 frames\); at least 90%") as caught:
        build()
    assert caught.value.exit_code == 1
    assert "The noisiest layers: t" in caught.value.hint and "--allow-loss" in caught.value.hint
    assert not any(tmp_path.iterdir())
    assert build(allow_loss=True) < LEAST_AGREEMENT


def test_the_command_line_exits_with_1_and_writes_nothing(
    edgeseg: Run, fragile: Path, labeled: Path, tmp_path: Path
) -> None:
    words = ("compile", fragile, "-p", "int8", "--calibration", labeled, "--ranges", "minmax", "-o", tmp_path / "out")
    ran = edgeseg(*words)
    assert ran.code == 1 and "at least 90% is expected" in ran.err
    assert not any(tmp_path.iterdir())
    assert edgeseg(*words, "--allow-loss").code == 0
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu", "tflite-cpu", "jetson-orin"])
def test_what_plain_int8_ruins_is_repaired_without_being_asked(
    fragile: Path, labeled: Path, tmp_path: Path, target: str
) -> None:
    lines: list[str] = []
    bundle = compile_model(
        fragile, tmp_path / "out", Target.load(target), "int8", spec=tiny.SPEC,
        frames=tiny.frames(4, seed=1), calibration=CalibrationSet.choose(labeled, 10), log=lines.append,
    )  # fmt: skip
    manifest = bundle.manifest
    assert manifest.parity is not None and manifest.parity.agreement > 0.97
    assert manifest.ptq is not None and (manifest.ptq.equalize or manifest.kept)
    tried = [line for line in lines if line.startswith("INT8 with ranges")]
    assert len(tried) > 4 and "of pixels, mean IoU" in tried[0]


def write_frames(folder: Path, count: int) -> None:
    folder.mkdir()
    for i, frame in enumerate(tiny.frames(count)):
        write_image(folder / f"{i:02}.png", frame)


def test_agreement_is_measured_on_frames_that_were_not_calibrated_with(tmp_path: Path) -> None:
    write_frames(tmp_path / "frames", 14)
    write_image(tmp_path / "frames" / "copy.png", tiny.frames(14)[0])
    chosen = CalibrationSet.choose(tmp_path / "frames", 8)
    calibrated = list(chosen.images(tiny.SPEC))
    others = held_out(chosen, tiny.SPEC)
    assert len(others) in (6, 7)
    assert not any(np.array_equal(a, b) for a in others for b in calibrated)


def test_without_other_frames_the_calibration_frames_are_mirrored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_frames(tmp_path / "frames", 9)
    chosen = CalibrationSet.choose(tmp_path / "frames", 9)
    mirrored = held_out(chosen, tiny.SPEC, 3)
    assert np.array_equal(mirrored[0][:, ::-1], read_image(chosen.frames[0]))
    assert "mirror images" in caplog.text


def test_a_float16_parent_that_disagrees_is_told_by_its_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    net = tiny.Net(float_type=np.float16)
    onnx.save(net.model(net.resize(net.head("image", 8)), spec=tiny.SPEC), str(tmp_path / "half.onnx"))
    monkeypatch.setitem(head.UPSAMPLES, "half_pixel", "align_corners")
    with pytest.raises(EdgesegError, match=r"It computes in float16(.|\n)*Export it in float32"):
        compile_model(
            tmp_path / "half.onnx", tmp_path / "out", Target.load("openvino-cpu"), "fp32",
            spec=tiny.SPEC, frames=tiny.frames(4, seed=1),
        )  # fmt: skip

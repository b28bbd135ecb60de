"""INT8 on OpenVINO: the kernels that run, not only the types in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import qdq_corpus
import tiny

from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model
from edgeseg.images import write_image
from edgeseg.runtime import open_segmenter
from edgeseg.spec import Spec
from edgeseg.target import Target

onnx = pytest.importorskip("onnx")
pytest.importorskip("nncf")


def test_depthwise_convolutions_run_in_int8(labeled: Path, tmp_path: Path) -> None:
    """Their weights come through a Reshape in OpenVINO; a rounding in front of it would leave them in float."""
    net, spec = qdq_corpus.Net().body("depthwise", "residual", "depthwise"), qdq_corpus.SPEC
    onnx.save(net, str(tmp_path / "net.onnx"))
    bundle = compile_model(
        tmp_path / "net.onnx",
        tmp_path / "out",
        Target.load("openvino-cpu"),
        "int8",
        spec=spec,
        frames=tiny.frames(2, 0, spec.height, spec.width),
        calibration=CalibrationSet.choose(labeled, 8),
    )
    convolutions = sum(node.op_type == "Conv" for node in net.graph.node)
    assert convolutions == 7
    executed = tiny.executed(bundle.path / "model.xml")
    assert executed.total() == convolutions and set(executed) <= {"u8", "i8"}, executed


def test_a_channel_that_is_zero_on_the_calibration_frames_still_works(tmp_path: Path) -> None:
    """A range for each channel in front of a depthwise convolution would clip it to nothing."""
    spec = Spec(64, 96, ("other", "red"), mean=(0, 0, 0), std=(1, 1, 1))
    net = tiny.Net()
    detect = np.zeros((4, 3, 1, 1))
    detect[0, 0] = detect[2, 1] = detect[3, 2] = 1
    detect[1, 0] = 4  # red above 0.8
    x = net.add("Conv", "image", net.constant(detect), net.constant([0, -3.2, 0, 0]))
    center = np.pad(np.ones((4, 1, 1, 1)), ((0, 0), (0, 0), (1, 1), (1, 1)))
    x = net.add("Relu", x)
    x = net.add("Relu", net.add("Conv", x, net.constant(center), group=4, pads=[1] * 4))
    classify = np.zeros((2, 4, 1, 1))
    classify[1, 1] = 1
    x = net.add("Conv", x, net.constant(classify), net.constant([0.1, 0]))
    onnx.save(net.model(x, spec=spec), str(tmp_path / "net.onnx"))
    for number, frame in enumerate(tiny.frames(8, 1)):
        frame[..., 2] //= 2
        write_image(tmp_path / "dull" / f"{number}.png", frame)
    bundle = compile_model(
        tmp_path / "net.onnx",
        tmp_path / "out",
        Target.load("openvino-cpu"),
        "int8",
        spec=spec,
        frames=tiny.frames(1),
        calibration=CalibrationSet.choose(tmp_path / "dull", 8),
    )
    assert set(tiny.executed(bundle.path / "model.xml")) <= {"u8", "i8"}
    frame = np.full((64, 96, 3), 60, np.uint8)
    frame[16:48, 24:72, 2] = 255
    with open_segmenter(bundle.path) as segmenter:
        assert (segmenter(frame).classmap == (frame[..., 2] == 255)).all()


def test_excluded_layers_run_in_bfloat16_with_int8_bf16(
    stubborn: Path, labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino as ov

    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    executed, requested = {}, []
    compile_model_of_openvino = ov.Core.compile_model

    def recording(core: object, model: object, device: str, properties: dict[str, str]) -> object:
        requested.append(properties["INFERENCE_PRECISION_HINT"])
        return compile_model_of_openvino(core, model, device, properties)

    for precision, compute in (("int8", "f32"), ("int8-bf16", "bf16")):
        bundle = compile_model(
            stubborn,
            tmp_path / precision,
            Target.load("openvino-cpu"),
            precision,
            spec=tiny.SPEC,
            frames=tiny.frames(2),
            calibration=CalibrationSet.choose(labeled, 8),
            excluded=["t6"],
        )
        with monkeypatch.context() as patch:
            patch.setattr(ov.Core, "compile_model", recording)
            open_segmenter(bundle.path).close()
        assert requested[-1] == compute
        executed[precision] = tiny.executed(bundle.path / "model.xml", compute)
    assert (executed["int8"]["f32"], executed["int8-bf16"]["bf16"]) == (1, 1), executed
    assert all(types["u8"] + types["i8"] == 2 for types in executed.values()), executed

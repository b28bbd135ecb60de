"""A network that plain INT8 ruins though it computes the same as the tiny one, and frames labeled by both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from edgeseg.images import write_image
from edgeseg.synth.street import CLASSES

SPREAD = 2000.0


def rescaled(source: Path, out: Path) -> Path:
    """Every second channel in front of the last Conv SPREAD times larger, its weights there as much smaller.

    ReLU is positively homogeneous, so the float output is the same; but one scale for all channels of that tensor
    leaves nothing of the small ones.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(source))
    weights = {w.name: w for w in model.graph.initializer}
    norm = [n for n in model.graph.node if n.op_type == "BatchNormalization"][-1]
    conv = [n for n in model.graph.node if n.op_type == "Conv"][-1]
    scale = np.where(np.arange(16) % 2, SPREAD, 1.0).astype(np.float32)
    for name, factor in (
        (norm.input[1], scale),
        (norm.input[2], scale),
        (conv.input[1], 1 / scale[None, :, None, None]),
    ):
        values = numpy_helper.to_array(weights[name]) * factor
        weights[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(model, str(out))
    return out


@pytest.fixture(scope="session")
def fragile(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network, rescaled: an ONNX file."""
    return rescaled(network, tmp_path_factory.mktemp("fragile") / "fragile.onnx")


@pytest.fixture(scope="session")
def stubborn(fragile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a Clip that clips nothing for the last ReLU, where no channels are equalized across: only excluding
    the last Conv helps."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(fragile))
    relu = [n for n in model.graph.node if n.op_type == "Relu"][-1]
    clip = helper.make_node("Clip", [relu.input[0], "none", "lots"], [relu.output[0]], name=relu.name)
    relu.CopyFrom(clip)
    for name, value in (("none", 0), ("lots", 1e9)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    path = tmp_path_factory.mktemp("stubborn") / "stubborn.onnx"
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def labeled(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that the float network gets right everywhere: 10 + 4 + 1 frames of 96x64."""
    import onnx

    root = tmp_path_factory.mktemp("labeled") / "clouds"
    model = onnx.load(str(network))
    pictures = iter(tiny.frames(15, seed=3))
    for split, count in (("train", 10), ("val", 4), ("test", 1)):
        for i in range(count):
            frame = next(pictures)
            write_image(root / split / "images" / f"{i}.png", frame)
            write_image(root / split / "masks" / f"{i}.png", tiny.parent_says(model, frame, tiny.SPEC))
    (root / "classes.txt").write_text(CLASSES.text())
    return root

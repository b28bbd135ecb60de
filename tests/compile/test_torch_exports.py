"""The ends that networks of torch have, by its own exporter in an old and a current opset, against the file itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch", reason="training needs the extra edgeseg[train]")

import foreign_cases  # noqa: E402
from foreign_cases import HEIGHT, WIDTH, Case, above, argmax, ids  # noqa: E402

from edgeseg.compile import compile_model, spec_of  # noqa: E402
from edgeseg.runtime import open_segmenter  # noqa: E402
from edgeseg.target import Target  # noqa: E402

# name -> (channels, what follows the upsampled logits, how its output is read)
TAILS: dict[str, tuple[int, Callable[[Any], Any], foreign_cases.Rule]] = {
    "argmax": (5, lambda y: y.argmax(1), ids),
    "max": (5, lambda y: y.max(1)[1].float(), ids),
    "channels_last": (5, lambda y: y.permute(0, 2, 3, 1), argmax(3)),
    "sigmoid_squeezed": (1, lambda y: torch.sigmoid(y).squeeze(1), above(0.5)),
    "compared": (1, lambda y: y > 0.1, ids),
    "clamped": (1, lambda y: (y * 0.2 + 0.5).clamp(0, 1), above(0.5)),
    "softmax_second": (2, lambda y: y.softmax(1)[:, 1], above(0.5)),
    "softmax_first": (2, lambda y: y.softmax(1)[:, 0:1], above(0.5)),
}


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("name", sorted(TAILS))
def test_an_export_of_torch(name: str, opset: int, tmp_path: Path) -> None:
    channels, tail, rule = TAILS[name]
    torch.manual_seed(0)

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 8, 3, 2, 1)
            self.norm = torch.nn.GroupNorm(4, 8)
            self.last = torch.nn.Conv2d(8, channels, 3, 2, 1)
            self.center = torch.nn.InstanceNorm2d(channels)

        def forward(self, x: Any) -> Any:
            y = self.center(self.last(torch.relu(self.norm(self.first(x)))))
            return tail(torch.nn.functional.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False))

    path = tmp_path / "net.onnx"
    torch.onnx.export(Net().eval(), torch.zeros(1, 3, HEIGHT, WIDTH), str(path), dynamo=False, opset_version=opset)
    frames = foreign_cases.frames(HEIGHT, WIDTH)
    spec, _ = spec_of(path, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "color": "RGB"})
    compile_model(path, tmp_path / "out", Target.load("openvino-cpu"), "fp32", spec=spec, frames=frames)
    truth = foreign_cases.expected(path, Case(name, rule), frames)
    assert len(np.unique(truth)) > 1
    with open_segmenter(tmp_path / "out") as segmenter:
        assert np.mean([segmenter(frame).classmap == one for frame, one in zip(frames, truth)]) >= 0.9999

"""One server for most tests, and images for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from serving_helpers import Served, serving

from edgeseg.images import Image


@pytest.fixture(scope="session")
def frames(street: Path) -> list[Image]:
    """Four frames of the street, twice as large as the model's input."""
    images = [cv2.imread(str(path)) for path in sorted((street / "test/images").iterdir())]
    return [np.asarray(cv2.resize(image, None, fx=2, fy=2), np.uint8) for image in images]


@pytest.fixture(scope="session")
def jpegs(frames: list[Image]) -> list[bytes]:
    return [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames]


@pytest.fixture(scope="session")
def server(bundle_of: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two models, `tiny` (OpenVINO) and `other` (ONNX Runtime)."""
    log = tmp_path_factory.mktemp("serve") / "log"
    words = (f"tiny={bundle_of('openvino-cpu', 'fp32')}", f"other={bundle_of('onnxruntime-cpu', 'fp32')}")
    with serving(log, *words) as served:
        yield served
        assert "Traceback" not in log.read_text()

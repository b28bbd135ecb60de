"""Parity: how far a bundle agrees with the model it was made from, compared by class maps, through the Segmenter.

The model's own class maps come from the file as it is, run by a runtime, and are read by reading.py from the values
that come out: nothing here knows how onnx_graph reads the graph, so that a misreading there shows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError, MissingPackage, first_line
from edgeseg.evaluation import reading
from edgeseg.images import Image
from edgeseg.mask import agreement
from edgeseg.results.common import Parity
from edgeseg.segmenter import Segmenter
from edgeseg.spec import LUMA, Spec

log = logging.getLogger(__name__)
CHANNELS = (1, 3, 4)
Run = Callable[[NDArray[np.float32]], NDArray[Any]]


@dataclass(frozen=True)
class Entry:
    """What the parent's input takes: axes NCHW or NHWC, element type, and frames at once."""

    layout: str
    dtype: np.dtype[Any]
    batch: int


def compare(segmenter: Segmenter, expected: list[Image], frames: list[Image], runtime: str = "") -> Parity:
    """Agreement of the segmenter's class maps with `expected`, those of the parent in `runtime`, over `frames`."""
    shares = [agreement(segmenter(frame).classmap, truth) for frame, truth in zip(frames, expected)]
    return Parity(len(shares), float(np.mean(shares)), float(np.min(shares)), runtime)


def reference(model: Path, spec: Spec, frames: list[Image], output: str = "") -> tuple[list[Image], str]:
    """The class maps of the parent for frames of the Spec's size, and the name of the runtime it ran in.

    What the outputs do not say themselves, and was assumed, is logged as a warning.
    """
    raw, name = outputs(model, spec, frames, output)
    classmaps, assumed = reading.class_maps(raw, spec)
    for line in assumed:
        log.warning("the model's output is taken for %s", line)
    return classmaps, name


def outputs(model: Path, spec: Spec, frames: list[Image], output: str = "") -> tuple[Iterator[NDArray[Any]], str]:
    """The raw outputs of the parent for frames of the Spec's size, one by one, and the name of the runtime.

    The parent runs in float32, unchanged: frames are normalized here in numpy, it upsamples itself. This shares no code
    with the deploy graph, so it also verifies the preprocessing that was moved into that.
    EdgesegError if the model does not run, MissingPackage where neither runtime is installed.
    """
    with _explained(model, spec):
        run, entry, name = _runner(model, output)
    return _run_all(run, entry, model, spec, frames), name


@contextmanager
def _explained(model: Path, spec: Spec) -> Iterator[None]:
    try:
        yield
    except EdgesegError:
        raise
    except Exception as error:  # the runtimes' exceptions share no public base class
        raise EdgesegError(
            f"The model {model} itself does not run at {spec.width}x{spec.height}: {first_line(error)}.",
            "If it was exported for another size, give that: --size WIDTHxHEIGHT. Else export it again.",
        ) from error


def _run_all(run: Run, entry: Entry, model: Path, spec: Spec, frames: list[Image]) -> Iterator[NDArray[Any]]:
    for frame in frames:
        if entry.dtype == np.uint8:  # its normalization is inside
            batch = _in_color_order(frame, spec)[None]
        else:
            batch = normalized(frame, spec).astype(entry.dtype)
        batch = np.repeat(batch.transpose(0, 3, 1, 2) if entry.layout == "NCHW" else batch, entry.batch, 0)
        with _explained(model, spec):
            yield run(np.ascontiguousarray(batch))[:1] if entry.batch > 1 else run(np.ascontiguousarray(batch))


def normalized(frame: Image, spec: Spec) -> NDArray[np.float32]:
    """A frame as the parent gets it: [1, H, W, 3] float32 in the Spec's color order."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    if spec.color == "GRAY":
        gray = frame @ np.array(LUMA, np.float32)
        return np.asarray((gray[None, ..., None] / 255 - mean[0]) / std[0], np.float32)
    scaled = (_in_color_order(frame, spec).astype(np.float32) / 255 - mean) / std
    if spec.color.endswith("A"):
        scaled = np.concatenate([scaled, np.ones((*scaled.shape[:2], 1), np.float32)], 2)
    return np.asarray(scaled[None], np.float32)


def _in_color_order(frame: Image, spec: Spec) -> Image:
    return frame[..., ::-1] if spec.color.startswith("RGB") else frame


def _runner(model: Path, output: str) -> tuple[Run, Entry, str]:
    try:
        return _with_onnxruntime(model, output)
    except ImportError:
        pass
    try:
        return _with_openvino(model, output)
    except ImportError:
        raise MissingPackage("openvino or onnxruntime", "Measuring parity", "openvino") from None


def _with_onnxruntime(model: Path, output: str) -> tuple[Run, Entry, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    weights = {i.name for i in session.get_overridable_initializers()}
    image = next(i for i in session.get_inputs() if i.name not in weights)
    names = [output] if output else [o.name for o in session.get_outputs()]

    def run(x: NDArray[Any]) -> NDArray[Any]:
        return reading.largest(session.run(names, {image.name: x}), x.shape)

    return run, _entry(image.shape, image.type), f"onnxruntime {onnxruntime.__version__}"


def _with_openvino(model: Path, output: str) -> tuple[Run, Entry, str]:
    import openvino as ov

    core = ov.Core()
    loaded = core.read_model(model)
    compiled = core.compile_model(loaded, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    keys = [compiled.output(output)] if output else list(compiled.outputs)
    shape = [d.get_length() if d.is_static else None for d in loaded.input(0).partial_shape]

    def run(x: NDArray[Any]) -> NDArray[Any]:
        found = compiled(x)
        return reading.largest([np.asarray(found[key]) for key in keys], x.shape)

    return run, _entry(shape, str(loaded.input(0).element_type)), f"openvino {ov.__version__} f32"


def _entry(shape: list[Any], kind: str) -> Entry:
    """From a runtime's own words for a type: tensor(float16), f16, u8, ..."""
    layout = "NHWC" if shape[3] in CHANNELS and shape[1] not in CHANNELS else "NCHW"
    names = {"float16": "float16", "f16": "float16", "double": "float64", "f64": "float64"}
    names |= {"uint8": "uint8", "u8": "uint8"}
    dtype = next((name for word, name in names.items() if word in kind), "float32")
    return Entry(layout, np.dtype(dtype), shape[0] if isinstance(shape[0], int) else 1)

"""Parity: how far a bundle agrees with the model it was made from, compared by class maps, through the Segmenter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import mask
from edgeseg.errors import EdgesegError, MissingPackage
from edgeseg.images import Image
from edgeseg.mask import agreement
from edgeseg.results.common import Parity
from edgeseg.segmenter import Segmenter
from edgeseg.spec import Spec

Run = Callable[[NDArray[np.float32]], NDArray[Any]]


def compare(segmenter: Segmenter, expected: list[Image], frames: list[Image], runtime: str = "") -> Parity:
    """Agreement of the segmenter's class maps with `expected`, those of the parent in `runtime`, over `frames`."""
    shares = [agreement(segmenter(frame).classmap, truth) for frame, truth in zip(frames, expected)]
    return Parity(len(shares), float(np.mean(shares)), float(np.min(shares)), runtime)


def reference(model: Path, spec: Spec, frames: list[Image], output: str = "") -> tuple[list[Image], str]:
    """The class maps of the parent for frames of the Spec's size, and the name of the runtime it ran in."""
    raw, name = outputs(model, spec, frames, output)
    return [class_map(out, spec) for out in raw], name


def outputs(model: Path, spec: Spec, frames: list[Image], output: str = "") -> tuple[Iterator[NDArray[Any]], str]:
    """The raw outputs of the parent for frames of the Spec's size, one by one, and the name of the runtime.

    The parent runs in float32, unchanged: frames are normalized here in numpy, it upsamples itself. This shares no code
    with the deploy graph, so it also verifies the preprocessing that was moved into that.
    EdgesegError if the model does not run, MissingPackage where neither runtime is installed.
    """
    with _explained(model, spec):
        run, layout, name = _runner(model, output)
    return _run_all(run, layout, model, spec, frames), name


@contextmanager
def _explained(model: Path, spec: Spec) -> Iterator[None]:
    try:
        yield
    except EdgesegError:
        raise
    except Exception as error:  # the runtimes' exceptions share no public base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise EdgesegError(
            f"The model {model} itself does not run at {spec.width}x{spec.height}: {reason}.",
            "If it was exported for another size, give that: --size WIDTHxHEIGHT. Else export it again.",
        ) from error


def _run_all(run: Run, layout: str, model: Path, spec: Spec, frames: list[Image]) -> Iterator[NDArray[Any]]:
    for frame in frames:
        batch = normalized(frame, spec)
        with _explained(model, spec):
            yield run(np.ascontiguousarray(batch.transpose(0, 3, 1, 2) if layout == "NCHW" else batch))


def normalized(frame: Image, spec: Spec) -> NDArray[np.float32]:
    """A frame as the parent gets it: [1, H, W, 3] float32 in the Spec's color order."""
    pixels = (frame[..., ::-1] if spec.color == "RGB" else frame).astype(np.float32)
    scaled = (pixels / 255 - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    return np.asarray(scaled[None], np.float32)


def has_logits(out: NDArray[Any], spec: Spec) -> bool:
    """Whether an output holds logits of every class, not class ids, probabilities or one logit."""
    scores = np.issubdtype(out.dtype, np.floating) and out.ndim == 4 and out.shape[1] == len(spec.classes)
    return bool(scores and not (out.min() >= 0 and out.max() <= 1))


def class_map(out: NDArray[Any], spec: Spec) -> Image:
    """The class map [H, W] uint8 of an output: logits, probabilities or class ids."""
    logits = np.asarray(out, np.float32).reshape(-1, *out.shape[-2:])
    if not np.issubdtype(out.dtype, np.floating) or (len(logits) == 1 and spec.head == "argmax"):
        return np.asarray(logits[0], np.uint8)  # class ids already
    if spec.head == "threshold":
        threshold = 0.5 if logits.min() >= 0 and logits.max() <= 1 else 0.0  # probabilities or logits
        logits = np.concatenate([np.full_like(logits, threshold), logits])
    return mask.dense(logits, spec.height, spec.width, "half_pixel")


def _runner(model: Path, output: str) -> tuple[Run, str, str]:
    try:
        return _with_onnxruntime(model, output)
    except ImportError:
        pass
    try:
        return _with_openvino(model, output)
    except ImportError:
        raise MissingPackage("openvino or onnxruntime", "Measuring parity", "openvino") from None


def _with_onnxruntime(model: Path, output: str) -> tuple[Run, str, str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    outputs = [output or session.get_outputs()[0].name]
    kind = np.float16 if "float16" in image.type else np.float32
    layout = _layout(image.shape)
    return (
        lambda x: session.run(outputs, {image.name: x.astype(kind)})[0],
        layout,
        f"onnxruntime {onnxruntime.__version__}",
    )


def _with_openvino(model: Path, output: str) -> tuple[Run, str, str]:
    import openvino as ov

    loaded = ov.Core().read_model(model)
    compiled = ov.Core().compile_model(loaded, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    key = compiled.output(output) if output else compiled.output(0)
    kind = np.float16 if "f16" in str(loaded.input(0).element_type) else np.float32
    shape = [d.get_length() if d.is_static else None for d in loaded.input(0).partial_shape]
    return lambda x: np.asarray(compiled(x.astype(kind))[key]), _layout(shape), f"openvino {ov.__version__} f32"


def _layout(shape: list[Any]) -> str:
    return "NHWC" if shape[3] == 3 and shape[1] != 3 else "NCHW"

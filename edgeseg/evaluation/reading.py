"""A network's raw outputs -> class maps, from their shapes and values alone: the reference that parity compares with.

It shares no rule with onnx_graph, which reads the same from the graph's operators. Scores have the axis whose size is
the number of classes. A single channel holds class ids where it has only a few different values, and otherwise a
probability (0..1 or 0..255, border in the middle) or a logit (border 0).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import mask
from edgeseg.errors import OptionError
from edgeseg.images import Image
from edgeseg.spec import Spec

Output = NDArray[Any]
BYTE = 255
MOST_CHANNELS = 4


def largest(outputs: Sequence[Output], image: Sequence[int]) -> Output:
    """Of several outputs for an input of the shape `image`, the one that covers it with the most positions."""
    if len(outputs) == 1:
        return outputs[0]
    height, width = image[2:4] if image[1] <= MOST_CHANNELS else image[1:3]

    def positions(out: Output) -> int:
        planes = (out.shape[-2:], out.shape[1:3]) if out.ndim > 2 else ()  # channels first, channels last
        in_proportion = [h * w for h, w in planes if abs(h * width - w * height) <= max(height, width)]
        return max((area for area in in_proportion if area <= 4 * height * width), default=0)

    return max(outputs, key=positions)


def has_logits(out: Output, spec: Spec) -> bool:
    """Whether an output holds logits [1, C, h, w] of every class, not class ids, probabilities or one logit."""
    scores = np.issubdtype(out.dtype, np.floating) and out.ndim == 4 and out.shape[1] == len(spec.classes)
    return bool(scores and _class_axis(out, spec) == 0 and not (out.min() >= 0 and out.max() <= 1))


def class_map(out: Output, spec: Spec) -> Image:
    """The class map [H, W] uint8 of one output: logits, probabilities or class ids."""
    return class_maps([out], spec)[0][0]


def class_maps(outputs: Iterable[Output], spec: Spec) -> tuple[list[Image], list[str]]:
    """The class maps of the outputs for several frames, which are read alike, and what was assumed about them.

    OptionError where an output has no axis of the Spec's classes and more than one channel.
    """
    maps: list[Image] = []
    planes: list[Output] = []
    assumed: dict[str, None] = {}  # ordered, each once
    for out in outputs:
        axis = _class_axis(out, spec)
        if axis is None:
            planes.append(_plane(out, spec))
            continue
        scores = np.moveaxis(np.asarray(out, np.float32)[0] if out.ndim == 4 else np.asarray(out, np.float32), axis, 0)
        if axis:
            assumed[f"scores of {len(scores)} classes along its last axis, shape {list(out.shape)}"] = None
        maps.append(mask.dense(np.ascontiguousarray(scores), spec.height, spec.width, "half_pixel"))
    if planes:
        single, line = _of_planes(planes, spec)
        maps += single
        assumed[line] = None
    return maps, [line for line in assumed if line]


def _class_axis(out: Output, spec: Spec) -> int | None:
    """The axis of the classes without the batch's, 0 or 2 of three; None for a single channel."""
    shape = out.shape[1:] if out.ndim == 4 else out.shape
    count = len(spec.classes)
    if len(shape) != 3 or spec.head == "threshold":
        return None
    fits = [axis for axis in (0, 2) if shape[axis] == count]
    if len(fits) == 2:  # the remaining two axes are the frame's: their proportions tell
        fits.sort(key=lambda axis: _distortion(shape[1:] if axis == 0 else shape[:2], spec))
    return fits[0] if fits else None


def _distortion(plane: Sequence[int], spec: Spec) -> float:
    return abs(float(np.log(plane[0] * spec.width / (plane[1] * spec.height))))


def _plane(out: Output, spec: Spec) -> Output:
    """An output of one channel as [h, w]."""
    sized = [size for size in out.shape if size != 1]
    if len(sized) != 2:
        raise OptionError(
            f"The model's output has shape {list(out.shape)}, which is neither scores of {len(spec.classes)} classes "
            "nor one channel.",
            "Correct --classes, or choose another output with --output.",
        )
    return out.reshape(sized)


def _of_planes(planes: list[Output], spec: Spec) -> tuple[list[Image], str]:
    values = np.unique(np.concatenate([np.unique(plane) for plane in planes])).astype(np.float64)
    count = len(spec.classes)
    if spec.border is not None and len(values) > 2:
        return [_above(plane, spec.border, spec) for plane in planes], ""
    if len(values) <= count and (scale := _scale(values, count)):
        line = "" if scale == 1 else f"class ids times {scale:g}"
        return [_ids(np.rint(plane.astype(np.float64) / scale), spec) for plane in planes], line
    if spec.head == "argmax":
        return [_ids(plane, spec) for plane in planes], f"class ids, of which it has {len(values)}"
    border, kind = _border(values)
    return [_above(plane, border, spec) for plane in planes], f"a {kind}: above {border:g} is class 1"


def _scale(values: NDArray[np.float64], count: int) -> float:
    """What class ids were multiplied with: 1 where the values are ids, else the smallest of them above 0; 0 for values
    that are no ids."""
    if np.all(values == np.rint(values)) and values.min() >= 0 and values.max() < count:
        return 1.0
    return float(values[1]) if len(values) > 1 and values[0] == 0 else 0.0


def _border(values: NDArray[np.float64]) -> tuple[float, str]:
    if values.min() < 0:
        return 0.0, "logit"
    if values.max() <= 1:
        return 0.5, "probability"
    if values.max() <= BYTE:
        return BYTE / 2, "probability times 255"
    return 0.0, "logit"


def _above(plane: Output, border: float, spec: Spec) -> Image:
    scores = np.asarray(plane, np.float32)[None]
    pair = np.concatenate([np.full_like(scores, border), scores])
    return mask.dense(pair, spec.height, spec.width, "half_pixel")


def _ids(plane: Output, spec: Spec) -> Image:
    """Ids of another size are repeated, not interpolated."""
    rows = np.arange(spec.height) * plane.shape[0] // spec.height
    columns = np.arange(spec.width) * plane.shape[1] // spec.width
    return np.asarray(plane[rows][:, columns], np.uint8)

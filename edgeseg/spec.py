"""Spec: the only description of what goes into a model and what comes out of it."""

from __future__ import annotations

import colorsys
import dataclasses
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeseg.errors import OptionError, unknown

# The channels of each color order; Y is gray, A is opaque everywhere.
CHANNELS_OF = {"RGB": "RGB", "BGR": "BGR", "GRAY": "Y", "RGBA": "RGBA", "BGRA": "BGRA"}
COLORS = tuple(CHANNELS_OF)
LUMA = (0.114, 0.587, 0.299)  # of B, G, R in gray (ITU-R BT.601), as OpenCV and PIL convert
HEADS = ("argmax", "threshold")
FITS = ("stretch", "letterbox", "crop", "pad")
INTERPOLATIONS = ("linear", "nearest", "area", "cubic")
BORN_LATER = ("border", "fit", "interpolation", "pad_color", "things")  # older readers of bundles do not know them
ONNX_KEY = "edgeseg.spec"  # where an ONNX file carries its Spec as JSON (metadata_props)
Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Spec:
    """Pre- and post-processing of one model.

    The network sees `(pixel / 255 - mean) / std` per channel, channels in `color` order (GRAY takes the first of `mean`
    and `std`; alpha is 1 everywhere), at `height` x `width`
    pixels; `fit` (stretch, letterbox, crop or pad, see fit.py) says how frames of another size or shape get there, with
    which `interpolation`, and `pad_color` (RGB) what fills the rest. `head` says how its logits become a class map:
    `argmax` over the channels, or `threshold` (one channel; above `border` is class 1). `border` is in the units of
    the model's output; None stands for 0 for logits and half of the range for probabilities. `task` names the module
    of edgeseg.heads that turns outputs into results. `things`: the classes of which each object is a segment by itself
    (task panoptic); the others are stuff.
    """

    height: int
    width: int
    classes: tuple[str, ...]
    palette: tuple[Rgb, ...] = ()
    ignore_index: int | None = 255
    color: str = "RGB"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    head: str = "argmax"
    task: str = "semantic"
    border: float | None = None
    fit: str = "stretch"
    interpolation: str = "linear"
    pad_color: Rgb = (114, 114, 114)
    things: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("height", self.height), ("width", self.width)):
            if type(value) is not int or not 8 <= value <= 16384:
                raise OptionError(f"Spec: {name} is {value!r}.", "Expected whole pixels from 8 to 16384.")
        if not 2 <= len(self.classes) <= 255:
            raise OptionError(
                f"Spec: {len(self.classes)} classes.",
                "Expected 2 to 255 class names: a class map has one byte for each pixel. Of a network with more "
                "classes add up, before you export it, the scores of those that you need not tell apart.",
            )
        if not all(isinstance(c, str) and c for c in self.classes) or len(set(self.classes)) != len(self.classes):
            raise OptionError(f"Spec: classes {self.classes}.", "Expected class names that differ, none empty.")
        if unfit := next((c for c in self.classes if not all(map(_is_readable, c))), None):
            raise OptionError(f"Spec: class name {unfit!r}.", "Expected text without control characters.")
        if self.ignore_index is not None and (type(self.ignore_index) is not int or not 0 <= self.ignore_index <= 255):
            raise OptionError(f"Spec: ignore_index is {self.ignore_index!r}.", "Expected an id from 0 to 255, or none.")
        if not isinstance(self.task, str) or not self.task.isidentifier():
            raise OptionError(f"Spec: task is {self.task!r}.", "Expected the name of a task, like semantic.")
        if stray := next((t for t in self.things if t not in self.classes), None):
            raise OptionError(f"Spec: thing {stray!r} is none of the classes.", f"They are: {', '.join(self.classes)}.")
        if len(set(self.things)) != len(self.things):
            raise OptionError(f"Spec: things {self.things}, one of them twice.", "Name each class once.")
        if self.color not in COLORS:
            raise unknown("color order", self.color, COLORS)
        if self.head not in HEADS:
            raise unknown("head", self.head, HEADS)
        if self.fit not in FITS:
            raise unknown("fit", self.fit, FITS)
        if self.interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", self.interpolation, INTERPOLATIONS)
        if len(self.pad_color) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in self.pad_color):
            raise OptionError(f"Spec: pad_color is {self.pad_color}.", "Expected r, g, b from 0 to 255.")
        if self.head == "threshold" and len(self.classes) != 2:
            raise OptionError(
                f"Spec: head 'threshold' with {len(self.classes)} classes.", "It has 2: background, object."
            )
        if self.border is not None and not (_is_number(self.border) and self.head == "threshold"):
            raise OptionError(
                f"Spec: border {self.border!r} with head {self.head!r}.", "Expected a number, for head threshold only."
            )
        if not (_three_numbers(self.mean) and _three_numbers(self.std) and all(s > 0 for s in self.std)):
            raise OptionError(
                f"Spec: mean {self.mean}, std {self.std}.", "Expected three numbers each, std above 0, on a 0..1 scale."
            )
        if not self.palette:
            object.__setattr__(self, "palette", default_palette(len(self.classes)))
        if len(self.palette) != len(self.classes):
            raise OptionError(
                f"Spec: {len(self.palette)} colors for {len(self.classes)} classes.", "Expected one each."
            )
        if not all(0 <= v <= 255 for color in self.palette for v in color):
            raise OptionError("Spec: a color of the palette is out of range.", "Expected r, g, b from 0 to 255.")

    def to_dict(self) -> dict[str, Any]:
        """The keys that from_dict takes; those of BORN_LATER only where they are not the default."""
        data = dataclasses.asdict(self)
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return {key: value for key, value in data.items() if key not in BORN_LATER or value != defaults[key]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spec:
        """Raises OptionError for an unknown or missing key or a value of the wrong type."""
        names = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(data, dict):
            raise OptionError(f"Spec is {data!r:.60}.", f"Expected a table with the keys: {', '.join(sorted(names))}.")
        if isinstance(data.get("classes"), str):
            raise OptionError(f"Spec: classes is {data['classes']!r}.", "Expected a list of class names.")
        for key in data:
            if key not in names:
                raise unknown("Spec key", key, names)
        try:
            values = dict(data)
            for key in ("classes", "mean", "std", "pad_color", "things"):
                if key in values:
                    values[key] = tuple(values[key])
            if "palette" in values:
                values["palette"] = tuple((int(r), int(g), int(b)) for r, g, b in values["palette"])
            return cls(**values)
        except (TypeError, ValueError, OverflowError) as error:
            raise OptionError(f"Spec is not usable: {error}.", f"Its keys are: {', '.join(sorted(names))}.") from error


def _is_readable(character: str) -> bool:
    """Neither a control character nor half of one (a surrogate)."""
    return unicodedata.category(character) not in ("Cc", "Cs")


def _three_numbers(values: tuple[Any, ...]) -> bool:
    return len(values) == 3 and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def default_palette(count: int) -> tuple[Rgb, ...]:
    """`count` distinct RGB colors; hues step by the golden ratio, so neighbors in the list differ."""

    def color(i: int) -> Rgb:
        r, g, b = colorsys.hsv_to_rgb(i * 0.618034 % 1.0, 0.85 - 0.35 * (i % 3 == 2), 0.95 - 0.3 * (i % 2))
        return int(r * 255), int(g * 255), int(b * 255)

    return tuple(color(i) for i in range(count))

"""Label Studio's tasks, and the areas of their results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgeseg.data.formats import _files
from edgeseg.geometry import rle
from edgeseg.geometry.regions import Region, box, by_centers, ellipse, placed, points

KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")


class Value(msgspec.Struct, gc=False):
    brushlabels: list[str] = []
    polygonlabels: list[str] = []
    rectanglelabels: list[str] = []
    ellipselabels: list[str] = []
    points: list[tuple[float, float]] = []
    rle: list[int] = []
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0
    radiusX: float = 0
    radiusY: float = 0
    rotation: float = 0


class Result(msgspec.Struct, gc=False):
    type: str
    value: msgspec.Raw
    original_width: int = 0
    original_height: int = 0


class Annotation(msgspec.Struct, gc=False):
    result: list[Result]
    was_cancelled: bool = False


class Task(msgspec.Struct, gc=False):
    data: dict[str, Any]
    annotations: list[Annotation] = []
    file_upload: str | None = None

    @property
    def image(self) -> str:
        """The path or address of the image."""
        named = [self.data.get(key) for key in ("image", "img", "ocr", "image_url")]
        texts = [text for text in (*named, *self.data.values()) if isinstance(text, str)]
        return texts[0] if texts else self.file_upload or ""

    @property
    def chosen(self) -> list[Result]:
        return next((a.result for a in self.annotations if not a.was_cancelled), [])


def value_of(path: Path, result: Result) -> Value:
    return _files.decode(result.value, Value, f"{path}: a {result.type}") if result.type in KINDS else Value()


def names(value: Value, kind: str) -> list[str]:
    """The first label, if there is one."""
    return getattr(value, kind, [])[:1]


def region(what: str, kind: str, value: Value, height: int, width: int) -> Region:
    """The pixels of a result; coordinates are percent of the image."""
    if kind == "brushlabels":
        return placed(rle.from_label_studio(value.rle, height, width), 0, 0, height, width)
    sx, sy = width / 100, height / 100
    if kind == "polygonlabels":
        return by_centers([points(value.points, what) * (sx, sy)], height, width)
    if kind == "ellipselabels":
        return ellipse(
            value.x * sx, value.y * sy, value.radiusX * sx, value.radiusY * sy, value.rotation, height, width
        )
    x, y = value.x * sx, value.y * sy
    corners = box(x, y, value.width * sx, value.height * sy, value.rotation, pivot=(x, y))
    return by_centers([points(corners.tolist(), what)], height, width)

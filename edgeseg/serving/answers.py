"""A result in the formats that /v1/segment answers with."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edgeseg.data.regions import Region
from edgeseg.data.rle import coco_runs, coco_text
from edgeseg.data.trace import Ring, rings
from edgeseg.errors import unknown
from edgeseg.fit import unfit
from edgeseg.images import Image, palette_png
from edgeseg.segmenter import Result
from edgeseg.serving.errors import BAD_REQUEST, NOT_ACCEPTABLE, HttpError
from edgeseg.serving.models import Served
from edgeseg.spec import Spec
from edgeseg.stream.overlay import Overlay

JSON, GEOJSON, PNG, JPEG = "application/json", "application/geo+json", "image/png", "image/jpeg"
SIZES = ("frame", "model")
QUALITY = 90
BY_TYPE = {PNG: "png", JPEG: "overlay", GEOJSON: "polygons", JSON: "rle"}  # what an Accept header means, best first


@dataclass(frozen=True)
class Wanted:
    """How to answer. `size`: the class map at the size of the `frame` or of the `model`; `picture`: of an overlay."""

    format: str
    size: str = "frame"
    picture: str = JPEG

    @classmethod
    def of(cls, query: str | None, size: str | None, accept: str) -> Wanted:
        """From ?format=, ?size= and the Accept header; HttpError for what is not known."""
        accepted = _accepted(accept)
        if size is not None and size not in SIZES:
            raise HttpError.of(unknown("size", size[:40], SIZES), BAD_REQUEST)
        if query is None:
            query = next((BY_TYPE[kind] for kind in accepted if kind in BY_TYPE), None)
            if query is None and accepted and "*/*" not in accepted and "image/*" not in accepted:
                raise HttpError(NOT_ACCEPTABLE, f"No answer is {accept[:80]!r}.", f"Known: {', '.join(BY_TYPE)}.")
        elif query not in FORMATS:
            raise HttpError.of(unknown("format", query[:40], FORMATS), BAD_REQUEST)
        picture = PNG if PNG in accepted and JPEG not in accepted else JPEG
        return cls(query or "png", size or "frame", picture)


def _accepted(header: str) -> list[str]:
    """Media types of an Accept header, the most wanted first."""
    found = []
    for part in header.lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            found.append((-float(weight), kind))
        except ValueError:
            continue
    return [kind for weight, kind in sorted(found, key=lambda pair: pair[0]) if kind and weight]


@dataclass(frozen=True)
class Answer:
    """The body of a response and its media type."""

    kind: str
    body: bytes

    @classmethod
    def json(cls, document: object, kind: str = JSON) -> Answer:
        return cls(kind, json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())


def single(served: Served, wanted: Wanted, model: str) -> Answer:
    """One image's answer."""
    return FORMATS[wanted.format](served, wanted, model)


def several(answers: Sequence[Answer], names: Sequence[str]) -> Answer:
    """The answers of a batch in one JSON document; pictures in base64."""
    results = []
    for answer, name in zip(answers, names):
        row: dict[str, Any] = {"name": name, "content_type": answer.kind}
        if answer.kind in (JSON, GEOJSON):
            row["result"] = json.loads(answer.body)
        else:
            row["data"] = base64.b64encode(answer.body).decode()
        results.append(row)
    return Answer.json({"results": results})


def class_map(result: Result, spec: Spec, size: str) -> Image:
    """The class map at the size of the frame or of the model."""
    height, width = result.frame.image.shape[:2]
    return unfit(result.classmap, spec, height, width) if size == "frame" else result.classmap


def class_map_png(classes: Image, spec: Spec) -> bytes:
    """A palette PNG; ids that are no class (outside of what the model saw) are black."""
    palette = list(spec.palette)
    if classes.max() >= len(palette):
        palette += [(0, 0, 0)] * (256 - len(palette))
    return palette_png(classes, palette)


def _png(served: Served, wanted: Wanted, model: str) -> Answer:
    spec = served.bundle.spec
    return Answer(PNG, class_map_png(class_map(served.result, spec, wanted.size), spec))


def _overlay(served: Served, wanted: Wanted, model: str) -> Answer:
    picture = Overlay(served.bundle.spec).draw(served.result.frame.image, served.result.classmap)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if wanted.picture == JPEG else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    _, data = cv2.imencode(".jpg" if wanted.picture == JPEG else ".png", picture, options)
    return Answer(wanted.picture, data.tobytes())


def _areas(served: Served, wanted: Wanted, model: str) -> Answer:
    return Answer.json(_about(served, wanted, model)[0])


def _rle(served: Served, wanted: Wanted, model: str) -> Answer:
    about, classes = _about(served, wanted, model)
    height, width = classes.shape
    for row in about["classes"]:
        runs = coco_runs(Region(0, 0, classes == row["id"]), height, width)
        row["rle"] = {"size": [height, width], "counts": coco_text(runs)}
    return Answer.json(about)


def _polygons(served: Served, wanted: Wanted, model: str) -> Answer:
    about, classes = _about(served, wanted, model)
    rows = about.pop("classes")
    features = [
        {
            "type": "Feature",
            "properties": row,
            "geometry": {"type": "MultiPolygon", "coordinates": list(polygons(classes == row["id"]))},
        }
        for row in rows
    ]
    return Answer.json({"type": "FeatureCollection", **about, "features": features}, GEOJSON)


FORMATS: dict[str, Callable[[Served, Wanted, str], Answer]] = {
    "png": _png,
    "overlay": _overlay,
    "rle": _rle,
    "polygons": _polygons,
    "areas": _areas,
}


def _about(served: Served, wanted: Wanted, model: str) -> tuple[dict[str, Any], Image]:
    """What every JSON answer says, the areas of the classes that are there included, and the class map."""
    spec = served.bundle.spec
    classes = class_map(served.result, spec, wanted.size)
    counts = np.bincount(classes.ravel(), minlength=256)[: len(spec.classes)]
    rows = [
        {
            "id": int(i),
            "name": spec.classes[i],
            "color": list(spec.palette[i]),
            "pixels": int(counts[i]),
            "share": round(float(counts[i] / classes.size), 6),
        }
        for i in np.flatnonzero(counts)
    ]
    height, width = classes.shape
    times = {stage: round(1000 * seconds, 3) for stage, seconds in served.result.times.items()}
    about = {"model": model, "bundle": served.bundle.digest, "width": width, "height": height, "times_ms": times}
    return {**about, "classes": rows}, classes


def polygons(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Iterator[list[list[list[int]]]]:
    """Polygons along pixel corners, each its outline (closed) and then its holes, in pixels from the upper left."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)
    boxes = _boxes(labels, count)
    for label, (y, x) in enumerate(boxes, start=1):
        found = rings(labels[y, x] == label)
        found.sort(key=_extent, reverse=True)  # the outline encloses its holes
        yield [_closed(ring, x.start, y.start) for ring in found]


def _boxes(labels: Any, count: int) -> list[tuple[slice, slice]]:
    """The part of the image that each component covers."""
    y, x = np.nonzero(labels)
    which = labels[y, x]
    low, high = np.full((2, count), 1 << 30), np.zeros((2, count), np.int64)
    for axis, values in enumerate((y, x)):
        np.minimum.at(low[axis], which, values)
        np.maximum.at(high[axis], which, values)
    return [
        (slice(int(low[0, i]), int(high[0, i]) + 1), slice(int(low[1, i]), int(high[1, i]) + 1))
        for i in range(1, count)
    ]


def _extent(ring: Ring) -> int:
    return int(np.prod(np.ptp(ring, axis=0)))


def _closed(ring: Ring, x: int, y: int) -> list[list[int]]:
    points = (ring + np.array((x, y))).tolist()
    return [*points, points[0]]

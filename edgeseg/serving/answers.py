"""A result in the formats that /v1/segment answers with."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import unknown
from edgeseg.images import palette_png
from edgeseg.overlay import mark_undecided
from edgeseg.serving.errors import BAD_REQUEST, NOT_ACCEPTABLE, HttpError
from edgeseg.serving.models import Served

JSON, GEOJSON, PNG, JPEG = "application/json", "application/geo+json", "image/png", "image/jpeg"
SIZES = ("frame", "model")
QUALITY = 90
BY_TYPE = {PNG: "png", JPEG: "overlay", GEOJSON: "polygons", JSON: "rle"}  # what an Accept header means, best first


@dataclass(frozen=True)
class Wanted:
    """How to answer. `size`: a class map at the size of the `frame` or of the `model`; `picture`: of an overlay;
    `min_area`: of polygons, in pixels."""

    format: str
    size: str = "frame"
    picture: str = JPEG
    min_area: int = 0

    @property
    def margin(self) -> bool:
        """Whether the result must have one."""
        return self.format == "confidence"

    @classmethod
    def of(cls, options: Mapping[str, str], accept: str) -> Wanted:
        """From ?format=, ?size=, ?min_area= and the Accept header; HttpError for what is not known."""
        query, size, area = options.get("format"), options.get("size"), options.get("min_area", "0")
        accepted = _accepted(accept)
        if size is not None and size not in SIZES:
            raise HttpError.of(unknown("size", size[:40], SIZES), BAD_REQUEST)
        if not re.fullmatch("[0-9]{1,9}", area):
            raise HttpError(BAD_REQUEST, f"min_area is {area[:40]!r}.", "Expected whole pixels.")
        if query is None:
            query = next((BY_TYPE[kind] for kind in accepted if kind in BY_TYPE), None)
            if query is None and accepted and "*/*" not in accepted and "image/*" not in accepted:
                raise HttpError(NOT_ACCEPTABLE, f"No answer is {accept[:80]!r}.", f"Known: {', '.join(BY_TYPE)}.")
        elif query not in FORMATS:
            raise HttpError.of(unknown("format", query[:40], FORMATS), BAD_REQUEST)
        picture = PNG if PNG in accepted and JPEG not in accepted else JPEG
        return cls(query or "png", size or "frame", picture, int(area))


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


def _png(served: Served, wanted: Wanted, model: str) -> Answer:
    result = served.result
    classes = result.at_frame_size() if wanted.size == "frame" else result.classmap
    return Answer(PNG, palette_png(classes, served.bundle.spec.palette))


def _overlay(served: Served, wanted: Wanted, model: str) -> Answer:
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if wanted.picture == JPEG else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    picture, decision = served.result.plot(), served.result.decision
    if decision and decision.undecided:
        picture = mark_undecided(picture, str(decision))
    _, data = cv2.imencode(".jpg" if wanted.picture == JPEG else ".png", picture, options)
    return Answer(wanted.picture, data.tobytes())


def _confidence(served: Served, wanted: Wanted, model: str) -> Answer:
    """Gray: see Result.confidence."""
    _, data = cv2.imencode(".png", served.result.confidence(), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return Answer(PNG, data.tobytes())


def _rle(served: Served, wanted: Wanted, model: str) -> Answer:
    return Answer.json({**_about(served, model), **served.result.to_dict()})


def _areas(served: Served, wanted: Wanted, model: str) -> Answer:
    shares, spec = served.result.areas(), served.bundle.spec
    rows = [
        {"id": i, "name": name, "color": list(spec.palette[i]), "share": round(shares[name], 6)}
        for i, name in enumerate(spec.classes)
        if name in shares
    ]
    height, width = served.result.frame.image.shape[:2]
    ms = served.result.milliseconds()
    return Answer.json({**_about(served, model), "size": [width, height], "classes": rows, "ms": ms})


def _polygons(served: Served, wanted: Wanted, model: str) -> Answer:
    """Features as GeoJSON has them (RFC 7946), in pixels of the image from its upper left corner, y downward."""
    features = [
        {
            "type": "Feature",
            "properties": {"id": piece.class_id, "name": piece.name, "area": piece.area},
            "geometry": {
                "type": "Polygon",
                "coordinates": [_closed(ring) for ring in (piece.exterior, *piece.holes)],
            },
        }
        for piece in served.result.polygons(wanted.min_area)
    ]
    height, width = served.result.frame.image.shape[:2]
    document = {"type": "FeatureCollection", **_about(served, model), "size": [width, height], "features": features}
    return Answer.json(document, GEOJSON)


FORMATS: dict[str, Callable[[Served, Wanted, str], Answer]] = {
    "png": _png,
    "overlay": _overlay,
    "rle": _rle,
    "polygons": _polygons,
    "areas": _areas,
    "confidence": _confidence,
}


def _about(served: Served, model: str) -> dict[str, Any]:
    """`undecided`, `reasons` and `confidence` where the server marks results that a person has to look at."""
    decision = served.result.decision
    about = {"model": model, "bundle": served.bundle.digest}
    if decision is None:
        return about
    reasons = {"reasons": list(decision.reasons), "confidence": decision.confidence}
    return {**about, "undecided": decision.undecided, **reasons}


def _closed(ring: NDArray[np.int64]) -> list[list[int]]:
    points: list[list[int]] = ring.tolist()
    return [*points, points[0]]

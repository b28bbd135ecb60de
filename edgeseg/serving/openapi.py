"""What the OpenAPI document says of each route: bodies, parameters, answers, examples. Handlers read requests
themselves, within their limits, so nothing of it can be found in their signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeseg.serving.answers import FORMATS, GEOJSON, JPEG, JSON, PNG, SIZES
from edgeseg.serving.tensors import HEADER

if TYPE_CHECKING:
    from fastapi import FastAPI

Options = dict[str, Any]
PLACES = (
    "/v1/segment",
    "/v1/models",
    "/v1/streams",
    "/v2",
    "/v2/health/ready",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
)
BINARY = {"schema": {"type": "string", "format": "binary"}}
ERROR_EXAMPLE = {
    "error": {
        "status": 415,
        "what": "The image is no image that is read here, or damaged.",
        "hint": "Expected the content of a JPEG, PNG or WebP file.",
        "request_id": "5f2b8c0d9e1a7364",
    }
}
REASONS = {
    "400": "The request cannot be understood.",
    "401": "A token is needed, or it is wrong.",
    "403": "This host name, site or change is not allowed.",
    "404": "There is no such model.",
    "406": "No answer is of an accepted type.",
    "408": "The body came too slowly.",
    "409": "The model is being reloaded, or has no bundle to go back to.",
    "413": "Too many bytes, pixels or images.",
    "415": "Not an image that is read here.",
    "422": "The image is damaged, or the new bundle is not usable.",
    "429": "Too many requests wait; Retry-After says how many seconds to wait.",
    "503": "The server is about to end.",
    "504": "There is no answer within the deadline.",
}
CLASS_ROW = {"id": 1, "name": "road", "color": [128, 64, 128], "share": 0.412}
ABOUT = {"model": "street-int8", "bundle": "9c1d...", "size": [1280, 720]}
MS = {"resize": 0.4, "infer": 4.1, "mask": 0.5}
AREAS_EXAMPLE = {**ABOUT, "classes": [CLASS_ROW], "ms": MS}
RLE_EXAMPLE = {
    **ABOUT,
    "schema": 1,
    "kind": "result",
    "classes": [{"id": 1, "name": "road", "share": 0.412, "rle": {"size": [720, 1280], "counts": "o`02^f00..."}}],
    "ms": MS,
}
POLYGONS_EXAMPLE = {
    "type": "FeatureCollection",
    **ABOUT,
    "features": [
        {
            "type": "Feature",
            "properties": {"id": 1, "name": "road", "area": 12},
            "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 3], [0, 3], [0, 0]]]},
        }
    ],
}
MODEL_EXAMPLE = {
    "name": "street-int8",
    "bundle": {"name": "street-int8", "digest": "9c1d...", "target": "openvino-cpu", "precision": "int8", "bytes": 1},
    "backend": "openvino",
    "slots": 3,
    "classes": [{"id": 1, "name": "road", "color": [128, 64, 128]}],
    "spec": {"width": 384, "height": 224, "classes": ["road"]},
}
# 8x8 pixels, so that the example works as it is.
GRAY_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVQI12NsaGhgwAaYGHCAwSkBADAXAZBK52muAAAAAElFTkSuQmCC"
HEADER_TEXT = "Bytes of the JSON, where binary data follows it; 0: the body is an image."
INFER_EXAMPLE = {
    "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [GRAY_PNG]}],
    "outputs": [{"name": "png", "parameters": {"binary_data": False}}],
}
INFER_ANSWER = {
    "model_name": "street-int8",
    "model_version": "1",
    "id": "",
    "outputs": [{"name": "png", "datatype": "BYTES", "shape": [1], "data": ["iVBORw0KGgo..."]}],
}


def _parameter(name: str, where: str, text: str, schema: Options, required: bool = False) -> Options:
    return {"name": name, "in": where, "description": text, "required": required or where == "path", "schema": schema}


def _json(example: object, text: str = "Done.", kind: str = JSON) -> Options:
    return {"description": text, "content": {kind: {"schema": {"type": "object"}, "example": example}}}


def _errors(*statuses: str, key: str = "v1") -> Options:
    schema = {"$ref": f"#/components/schemas/Error{key.upper()}"}
    return {status: {"description": REASONS[status], "content": {JSON: {"schema": schema}}} for status in statuses}


def _route(
    answer: Options, errors: Options, parameters: Sequence[Options] = (), body: Options | None = None
) -> Options:
    """Keyword arguments of add_api_route."""
    extra: Options = {"parameters": list(parameters)} if parameters else {}
    if body:
        extra["requestBody"] = {"required": True, "content": body}
    return {"responses": {"200": answer, **errors}, "openapi_extra": extra, "response_model": None}


NAME = _parameter("name", "path", "The model.", {"type": "string"})
SEGMENT_PARAMETERS = (
    _parameter("model", "query", "The model; by default the first one.", {"type": "string"}),
    _parameter("format", "query", "Of the answer; by default what Accept says, else png.", {"enum": list(FORMATS)}),
    _parameter("size", "query", "Of a class map (png): that of the image or of the model.", {"enum": list(SIZES)}),
    _parameter("min_area", "query", "Of polygons: leave out smaller ones (pixels).", {"type": "integer", "minimum": 0}),
)
SEGMENT = _route(
    {
        "description": "The class map, picture or document; of several images, a document with all of them.",
        "content": {
            PNG: BINARY,
            JPEG: BINARY,
            JSON: {
                "schema": {"type": "object"},
                "examples": {"areas": {"value": AREAS_EXAMPLE}, "rle": {"value": RLE_EXAMPLE}},
            },
            GEOJSON: {"schema": {"type": "object"}, "example": POLYGONS_EXAMPLE},
        },
    },
    _errors("400", "401", "403", "404", "406", "408", "413", "415", "422", "429", "503", "504"),
    SEGMENT_PARAMETERS,
    {
        **dict.fromkeys((JPEG, PNG, "image/webp", "application/octet-stream"), BINARY),
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "image": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                },
                "required": ["image"],
            },
            "encoding": {"image": {"contentType": f"{JPEG}, {PNG}, image/webp"}},
        },
    },
)
MODELS = _route(_json({"models": [MODEL_EXAMPLE]}), _errors("401", "403", "503"))
STREAMS = _route(
    _json({"streams": [{"name": "gate", "url": "http://127.0.0.1:8090/stream"}]}), _errors("401", "403", "503")
)
MODEL = _route(_json(MODEL_EXAMPLE), _errors("401", "403", "404", "503"), [NAME])
CHANGE = _route(
    _json({"model": "street-int8", "bundle": "9c1d...", "before": "07aa...", "changed": True}),
    _errors("401", "403", "404", "409", "422", "503"),
    [NAME],
)
HEALTH = _route(_json({"live": True}, "Yes."), {"503": _json({"live": False}, "No.")})
HEALTH_JSON = _route(_json({"ready": True}, "Yes."), {"503": _json({"ready": False}, "No.")})
METRICS = _route({"description": "Metrics.", "content": {"text/plain": {}}}, _errors("401", "403", "503"))
V2_JSON = _route(_json({"name": "edgeseg", "version": "1", "extensions": []}), _errors("401", "403", "503", key="v2"))
V2_MODEL = _route(_json({"name": "street-int8"}), _errors("401", "403", "404", "503", key="v2"), [NAME])
V2_MODEL_READY = _route(
    _json({"name": "street-int8", "ready": True}, "Yes."), _errors("401", "403", "404", "503", key="v2"), [NAME]
)
V2_INFER = _route(
    _json(INFER_ANSWER),
    _errors("400", "401", "403", "404", "408", "413", "415", "422", "429", "503", "504", key="v2"),
    [
        NAME,
        _parameter(
            HEADER,
            "header",
            HEADER_TEXT,
            {"type": "integer"},
        ),
    ],
    {
        JSON: {"schema": {"type": "object", "required": ["inputs"]}, "example": INFER_EXAMPLE},
        "application/octet-stream": BINARY,
    },
)


def document(api: FastAPI) -> Options:
    """The OpenAPI document, with what FastAPI does not know: errors, the token, versions of models in paths."""
    found: Options = api.openapi()
    components = found.setdefault("components", {})
    text = {"type": "string"}
    about = {"status": {"type": "integer"}, "what": text, "hint": text, "request_id": text}
    components["schemas"] = {
        "ErrorV1": {
            "type": "object",
            "properties": {"error": {"type": "object", "properties": about, "required": list(about)}},
            "required": ["error"],
            "example": ERROR_EXAMPLE,
        },
        "ErrorV2": {"type": "object", "properties": {"error": text, "request_id": text}, "required": ["error"]},
    }
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    version = _parameter("version", "path", "Always 1.", {"enum": ["1"]})
    for path, operations in found["paths"].items():
        for operation in operations.values():
            if path.startswith("/v") and "/health/" not in path:
                operation["security"] = [{}, {"token": []}]
            if "{version}" in path:
                operation["parameters"] = [*operation["parameters"], version]
    return found

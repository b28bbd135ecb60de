"""Requests and answers of the Open Inference Protocol (KServe v2) over REST, with its binary tensor data extension.

https://github.com/kserve/open-inference-protocol and Triton's protocol/extension_binary_data.md. A request is JSON;
with the header Inference-Header-Content-Length, binary data of its input follows it, as many bytes as its parameter
binary_data_size says. An element of BYTES is its length (4 bytes, little endian) and its content; in JSON, it is base64
text, or {"b64": text} as TensorFlow Serving and OpenVINO Model Server have it.
With a header of 0 the body is the image (Triton's raw binary request).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseg.images import Image
from edgeseg.serving.errors import BAD_REQUEST, TOO_LARGE, HttpError

HEADER = "Inference-Header-Content-Length"
ENCODED, FRAME = "image", "frame"  # inputs, of which a request has one
CLASSMAP, FRAME_CLASSMAP, PICTURE = "classmap", "frame_classmap", "png"  # outputs
OUTPUTS = (CLASSMAP, FRAME_CLASSMAP, PICTURE)
MAX_JSON = 8 << 20
DECODED_JSON = 20  # bytes of values per byte of JSON, at most
COLORS = ("BGR", "RGB")
Tensor = NDArray[np.uint8] | bytes  # of UINT8, or the one element of BYTES


@dataclass(frozen=True)
class InputTensor:
    name: str
    shape: list[int]
    datatype: str
    data: Any = None
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestedOutput:
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class InferRequest:
    """The JSON of a request; parameters of the protocol that mean nothing here are ignored."""

    inputs: list[InputTensor]
    outputs: list[RequestedOutput] = field(default_factory=list)
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)

    def wanted(self) -> list[RequestedOutput]:
        return self.outputs or [RequestedOutput(CLASSMAP)]

    def binary(self, output: RequestedOutput) -> bool:
        default = self.parameters.get("binary_data_output", False)
        return output.parameters.get("binary_data", default) is True


@dataclass(frozen=True)
class Parsed:
    """A request and its image: the content of an image file, or [H, W, 3] uint8 BGR."""

    request: InferRequest
    image: bytes | Image


def parse(body: bytes, header_length: str | None) -> Parsed:
    """HttpError 400 for anything but a request with one image."""
    size = json_size(body, header_length)
    if header_length is not None and not size:
        if not body:
            raise _bad("The request is empty.", f"Expected JSON, or with {HEADER}: 0 an image file.")
        return Parsed(InferRequest([]), body)
    request = _request(body[:size])
    for output in request.outputs:
        if output.name not in OUTPUTS:
            raise _bad(f"There is no output {output.name[:60]!r}.", f"Known: {', '.join(OUTPUTS)}.")
    if len(request.inputs) != 1:
        raise _bad(f"The request has {len(request.inputs)} inputs.", f"Expected one: {ENCODED} or {FRAME}.")
    tensor = request.inputs[0]
    return Parsed(request, _image(tensor, _binary(tensor, body[size:]), request.parameters))


def json_size(body: bytes, header_length: str | None) -> int:
    """Bytes of the JSON, at most MAX_JSON: decoded, it takes many times as much memory."""
    size = len(body)
    if header_length is not None:
        if not re.fullmatch("[0-9]{1,18}", header_length) or int(header_length) > len(body):
            raise _bad(f"{HEADER} is {header_length[:20]!r}, and the body has {len(body)} bytes.")
        size = int(header_length)
    if size > MAX_JSON:
        raise HttpError(TOO_LARGE, f"The JSON has {size} bytes.", f"At most {MAX_JSON}; send tensors as binary data.")
    return size


def _request(text: bytes) -> InferRequest:
    try:
        request = msgspec.json.decode(text, type=InferRequest)  # refuses NaN and Infinity
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _bad(
            f"The request is not JSON of the Open Inference Protocol: {error or type(error).__name__}."
        ) from None
    if any(not 0 < size < 1 << 31 for tensor in request.inputs for size in tensor.shape):
        raise _bad("A shape holds sizes that no image has.")
    return request


def _binary(tensor: InputTensor, rest: bytes) -> bytes | None:
    """The binary data of the only input; None where its data is in the JSON."""
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        if rest:
            raise _bad(f"{len(rest)} bytes follow the JSON.", "Expected binary_data_size in the input's parameters.")
        return None
    if type(size) is not int or size != len(rest):
        raise _bad(f"binary_data_size is {str(size)[:20]}, and {len(rest)} bytes follow the JSON.")
    return rest


def _image(tensor: InputTensor, binary: bytes | None, parameters: dict[str, Any]) -> bytes | Image:
    if tensor.datatype == "BYTES" and tensor.name in (ENCODED, FRAME):
        if tensor.shape not in ([1], [1, 1]):
            raise _bad(f"{tensor.name} has the shape {tensor.shape}.", "Expected one image: [1].")
        return _element(binary) if binary is not None else _text(tensor.data)
    if tensor.datatype != "UINT8" or tensor.name not in (ENCODED, FRAME):
        raise _bad(
            f"The input is {tensor.name[:60]!r} of {tensor.datatype[:20]!r}.",
            f"Expected {ENCODED} of BYTES, the content of an image file, or {FRAME} of UINT8, [height, width, 3].",
        )
    color = parameters.get("color", COLORS[0])
    if color not in COLORS:
        raise _bad(f"The parameter color is {str(color)[:20]!r}.", f"Known: {', '.join(COLORS)}.")
    pixels = _pixels(tensor, binary)
    return np.ascontiguousarray(pixels[..., ::-1]) if color == "RGB" else pixels


def _element(data: bytes) -> bytes:
    if len(data) < 4 or struct.unpack_from("<I", data)[0] != len(data) - 4:
        raise _bad("The binary data of BYTES is not one element.", "Expected 4 bytes with its length, then it.")
    return data[4:]


def _text(data: Any) -> bytes:
    while isinstance(data, list) and len(data) == 1:
        data = data[0]
    if isinstance(data, dict) and set(data) == {"b64"}:
        data = data["b64"]
    try:
        if not isinstance(data, str):
            raise ValueError
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        raise _bad("The data of BYTES is not one base64 text.", "Send it so, or as binary data.") from None


def _pixels(tensor: InputTensor, binary: bytes | None) -> Image:
    shape = tensor.shape[1:] if len(tensor.shape) == 4 and tensor.shape[0] == 1 else tensor.shape
    if len(shape) != 3 or shape[2] != 3:
        raise _bad(f"{tensor.name} has the shape {tensor.shape}.", "Expected [height, width, 3].")
    values = np.frombuffer(binary, np.uint8) if binary is not None else _listed(tensor.data)
    if values.size != shape[0] * shape[1] * 3:
        raise _bad(f"{tensor.name} holds {values.size} values.", f"Expected {shape[0] * shape[1] * 3} for {shape}.")
    return values.reshape(shape)


def _listed(data: Any) -> Image:
    try:
        values = np.array(data)
    except (ValueError, OverflowError):
        values = np.array(None)
    if values.dtype != np.int64 or values.size == 0 or values.min() < 0 or values.max() > 255:
        raise _bad("The data of UINT8 holds something else than whole numbers from 0 to 255.")
    return values.ravel().astype(np.uint8)


@dataclass(frozen=True)
class InferAnswer:
    """`headers`: of the response; with HEADER where binary data follows the JSON."""

    body: bytes
    headers: dict[str, str]


def answer(request: InferRequest, model: str, version: str, values: dict[str, Tensor]) -> InferAnswer:
    """The outputs that were asked for, of `values` by name."""
    outputs, blobs = [], []
    for wanted in request.wanted():
        value = values[wanted.name]
        row: dict[str, Any] = {"name": wanted.name, "datatype": datatype(value), "shape": shape(value)}
        if request.binary(wanted):
            blob = struct.pack("<I", len(value)) + value if isinstance(value, bytes) else value.tobytes()
            blobs.append(blob)
            row["parameters"] = {"binary_data_size": len(blob)}
        else:
            row["data"] = [base64.b64encode(value).decode()] if isinstance(value, bytes) else value.ravel().tolist()
        outputs.append(row)
    document = {"model_name": model, "model_version": version, "id": request.id, "outputs": outputs}
    text = json.dumps(document, separators=(",", ":")).encode()
    if not blobs:
        return InferAnswer(text, {"Content-Type": "application/json"})
    headers = {"Content-Type": "application/octet-stream", HEADER: str(len(text))}
    return InferAnswer(b"".join((text, *blobs)), headers)


def datatype(value: Tensor) -> str:
    return "BYTES" if isinstance(value, bytes) else "UINT8"


def shape(value: Tensor) -> Sequence[int]:
    return [1] if isinstance(value, bytes) else list(value.shape)


def _bad(what: str, hint: str = "") -> HttpError:
    return HttpError(BAD_REQUEST, what, hint)

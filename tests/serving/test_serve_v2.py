"""/v2: the Open Inference Protocol, asked by hand and by Triton's own client."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving_helpers import Answer, Served

from edgeseg import EdgesegError, open_segmenter
from edgeseg.images import Image, decode_image, decode_mask
from edgeseg.result import Result
from edgeseg.serving import tensors

INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def local(bundle: Path, jpegs: list[bytes]) -> Result:
    with open_segmenter(bundle) as segmenter:
        return segmenter(decode_image(jpegs[0], Path("x.jpg")))


def infer(server: Served, document: object, binary: bytes = b"", **headers: str) -> Answer:
    text = json.dumps(document).encode()
    if binary:
        headers["Inference_Header_Content_Length"] = str(len(text))
    return server.ask("POST", INFER, text + binary, **headers)


def encoded(data: object, shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": shape or [1], "data": data}], **more}


def test_metadata_and_health(server: Served) -> None:
    assert server.ask("GET", "/v2").json["extensions"] == ["binary_tensor_data"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/tiny/ready", "/v2/models/tiny/versions/1/ready"):
        answer = server.ask("GET", path)
        assert answer.status == 200 and True in answer.json.values()
    model = server.ask("GET", "/v2/models/other").json
    assert model["outputs"][0] == {"name": "classmap", "datatype": "UINT8", "shape": [64, 96]}
    assert "no model" in server.ask("GET", "/v2/models/x/ready").reason
    assert "no version" in server.ask("GET", "/v2/models/tiny/versions/2").reason


@pytest.mark.parametrize("wrap", [lambda t: [t], lambda t: [{"b64": t}], lambda t: t, lambda t: [[t]]])
def test_an_image_in_json(server: Served, jpegs: list[bytes], local: Result, wrap: Any) -> None:
    answer = infer(server, encoded(wrap(base64.b64encode(jpegs[0]).decode()), id="a7"))
    assert answer.json["id"] == "a7" and answer.json["model_version"] == "1"
    output = answer.json["outputs"][0]
    assert (output["name"], output["datatype"], output["shape"]) == ("classmap", "UINT8", [64, 96])
    assert np.array_equal(np.array(output["data"], np.uint8).reshape(64, 96), local.classmap)


def test_binary_data_both_ways(server: Served, jpegs: list[bytes], local: Result) -> None:
    blob = struct.pack("<I", len(jpegs[0])) + jpegs[0]
    document = encoded(None)
    document["inputs"][0]["parameters"] = {"binary_data_size": len(blob)}
    document["outputs"] = [
        {"name": "frame_classmap", "parameters": {"binary_data": True}},
        {"name": "png", "parameters": {"binary_data": False}},
    ]
    answer = infer(server, document, blob)
    size = int(answer.headers["Inference-Header-Content-Length"])
    first, second = json.loads(answer.body[:size])["outputs"]
    expected = local.at_frame_size()
    assert first["parameters"]["binary_data_size"] == expected.size == len(answer.body) - size
    assert np.array_equal(np.frombuffer(answer.body[size:], np.uint8).reshape(expected.shape), expected)
    assert np.array_equal(decode_mask(base64.b64decode(second["data"][0]), Path("x")), expected)


@pytest.mark.parametrize("batch", [[], [1]])
def test_pixels_in_either_order(server: Served, frames: list[Image], bundle: Path, batch: list[int]) -> None:
    with open_segmenter(bundle) as segmenter:
        expected = segmenter(frames[1]).classmap
    for color, pixels in (("BGR", frames[1]), ("RGB", frames[1][..., ::-1])):
        tensor = {"name": "frame", "datatype": "UINT8", "shape": [*batch, *pixels.shape], "data": pixels.tolist()}
        answer = infer(server, {"inputs": [tensor], "parameters": {"color": color}})
        assert np.array_equal(np.array(answer.json["outputs"][0]["data"]).reshape(64, 96), expected)


PIXEL = {"name": "frame", "datatype": "UINT8", "shape": [1, 1, 3]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "not JSON of the Open Inference Protocol: .*inputs"),
        ([], "Expected `object`"),
        ({"inputs": []}, "0 inputs.*Expected one"),
        ({"inputs": [{**PIXEL, "data": [1, 2, 3]}] * 2}, "2 inputs"),
        ({"inputs": [{**PIXEL, "data": [1, 2]}]}, "holds 2 values. Expected 3"),
        ({"inputs": [{**PIXEL, "data": [1, 2, 256]}]}, "whole numbers from 0 to 255"),
        ({"inputs": [{**PIXEL, "data": [1, 2, -1]}]}, "whole numbers from 0 to 255"),
        ({"inputs": [{**PIXEL, "data": [1, 2, 0.5]}]}, "whole numbers from 0 to 255"),
        ({"inputs": [{**PIXEL, "data": [1, 2, float("nan")]}]}, "not JSON"),
        ({"inputs": [{**PIXEL, "data": [1, 2, 1 << 70]}]}, "whole numbers|not JSON"),
        ({"inputs": [{**PIXEL, "data": [[1], [2, 3]]}]}, "whole numbers"),
        ({"inputs": [{**PIXEL, "data": [True, True, True]}]}, "whole numbers"),
        ({"inputs": [{**PIXEL, "data": None}]}, "whole numbers"),
        ({"inputs": [{**PIXEL, "shape": [3], "data": [1, 2, 3]}]}, r"shape \[3\]. Expected"),
        ({"inputs": [{**PIXEL, "shape": [-1, 1, 3], "data": [1, 2, 3]}]}, "sizes that no image has"),
        ({"inputs": [{**PIXEL, "shape": [1 << 40, 1, 3], "data": [1]}]}, "sizes that no image has"),
        ({"inputs": [{**PIXEL, "datatype": "FP32", "data": [1, 2, 3]}]}, "Expected image of BYTES"),
        ({"inputs": [{**PIXEL, "name": "x", "data": [1, 2, 3]}]}, "Expected image of BYTES"),
        ({"inputs": [{**PIXEL, "data": [1, 2, 3]}], "parameters": {"color": "HSV"}}, "color is 'HSV'. Known"),
        ({"inputs": [{**PIXEL, "data": [1, 2, 3]}], "outputs": [{"name": "logits"}]}, "no output 'logits'. Known"),
        (encoded(["&"]), "not one base64 text"),
        (encoded([1]), "not one base64 text"),
        (encoded(["QQ==", "QQ=="], [2]), r"shape \[2\]"),
        (encoded(["QUFB"]), "no image that is read here"),
    ],
)
def test_what_is_wrong_is_named(server: Served, document: object, message: str) -> None:
    import re

    answer = infer(server, document)
    assert answer.status in (400, 415)
    assert re.search(message, answer.reason), answer.reason
    assert set(answer.json) == {"error", "request_id"}


@pytest.mark.parametrize(
    ("size", "blob", "message"),
    [
        (7, b"1234567", "not one element"),
        (4, b"\xff\xff\xff\xff", "not one element"),
        (3, b"1234", "binary_data_size is 3, and 4 bytes"),
        (1 << 62, b"1234", "and 4 bytes follow"),
        (-1, b"1234", "binary_data_size is -1"),
        ("4", b"1234", "binary_data_size is 4"),
        (None, b"1234", "4 bytes follow the JSON. Expected binary_data_size"),
    ],
)
def test_binary_data_that_does_not_fit(server: Served, size: object, blob: bytes, message: str) -> None:
    document = encoded(None)
    document["inputs"][0]["parameters"] = {} if size is None else {"binary_data_size": size}
    answer = infer(server, document, blob)
    assert answer.status == 400 and message in answer.reason, answer.reason


@pytest.mark.parametrize("length", ["-1", "x", "99999999", "", "1e3"])
def test_a_wrong_header_length(server: Served, length: str) -> None:
    answer = infer(server, encoded(["QQ=="]), Inference_Header_Content_Length=length)
    assert answer.status == 400 and "Inference-Header-Content-Length" in answer.reason


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=5), st.integers(-3, 300).map(str)))
def test_anything_is_parsed_or_refused(body: bytes, length: str | None) -> None:
    raw = length is not None and length.isascii() and length.isdigit() and int(length) == 0 and len(body) > 0
    if raw:  # an image file alone, to be decoded later
        assert tensors.parse(body, length).image == body
        return
    with pytest.raises(EdgesegError):
        tensors.parse(body, length)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=20,
    ),
    st.lists(st.integers(-2, 5), max_size=5),
    st.sampled_from(["BYTES", "UINT8", "FP32"]),
    st.sampled_from(["image", "frame", "other"]),
)
def test_any_data_is_parsed_or_refused(data: object, shape: list[int], kind: str, name: str) -> None:
    document = {"inputs": [{"name": name, "datatype": kind, "shape": shape, "data": data}]}
    try:
        parsed = tensors.parse(json.dumps(document).encode("utf-8", "surrogatepass"), None)
    except EdgesegError:
        return
    assert isinstance(parsed.image, bytes) or (parsed.image.ndim == 3 and parsed.image.dtype == np.uint8)


@pytest.fixture
def triton(server: Served) -> Any:
    httpclient = pytest.importorskip("tritonclient.http")
    client = httpclient.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield client
    client.close()


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_works_unchanged(
    triton: Any, jpegs: list[bytes], frames: list[Image], local: Result, bundle: Path, binary: bool
) -> None:
    import tritonclient.http as httpclient

    assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready("tiny", "1")
    assert triton.get_server_metadata()["name"] == "edgeseg"
    assert triton.get_model_metadata("tiny")["inputs"][0]["name"] == "image"
    assert triton.get_model_config("tiny")["max_batch_size"] == 0
    wanted = [httpclient.InferRequestedOutput(name, binary_data=binary) for name in ("classmap", "frame_classmap")]
    image = httpclient.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([jpegs[0]], object))
    answer = triton.infer("tiny", [image], outputs=wanted, request_id="7")
    assert np.array_equal(answer.as_numpy("classmap"), local.classmap)
    assert np.array_equal(answer.as_numpy("frame_classmap"), local.at_frame_size())
    frame = httpclient.InferInput("frame", list(frames[0].shape), "UINT8")
    frame.set_data_from_numpy(frames[0], binary_data=binary)
    with open_segmenter(bundle) as segmenter:
        expected = segmenter(frames[0]).classmap
    assert np.array_equal(triton.infer("tiny", [frame]).as_numpy("classmap"), expected)
    png = triton.infer("tiny", [image], outputs=[httpclient.InferRequestedOutput("png")]).as_numpy("png")[0]
    assert np.array_equal(decode_mask(png, Path("x")), local.at_frame_size())


def test_tritons_client_shows_our_errors(triton: Any) -> None:
    import tritonclient.http as httpclient
    from tritonclient.utils import InferenceServerException

    image = httpclient.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([b"no image"], object))
    with pytest.raises(InferenceServerException, match="no image that is read here"):
        triton.infer("tiny", [image])
    with pytest.raises(InferenceServerException, match="no model"):
        triton.infer("absent", [image])


def test_a_raw_binary_request_is_an_image_alone(server: Served, jpegs: list[bytes]) -> None:
    """Triton's "raw binary request": no JSON, and no length before the element."""
    raw = server.ask("POST", "/v2/models/tiny/infer", jpegs[0], Inference_Header_Content_Length="0")
    assert raw.status == 200, raw.body
    (output,) = raw.json["outputs"]
    expected = decode_mask(server.segment(jpegs[0], "?size=model").body, Path("x.png"))
    assert np.array_equal(np.reshape(output["data"], output["shape"]), expected)
    empty = server.ask("POST", "/v2/models/tiny/infer", b"", Inference_Header_Content_Length="0")
    assert empty.status == 400 and b"The request is empty" in empty.body

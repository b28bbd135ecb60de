"""/v1: every format, batches, models, and what a client of ours gets."""

from __future__ import annotations

import base64
import dataclasses
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from serving_helpers import Served, multipart, serving

from edgeseg import Client, EdgesegError, open_segmenter
from edgeseg.errors import OptionError
from edgeseg.geometry.regions import by_centers
from edgeseg.geometry.rle import from_coco_text, from_runs
from edgeseg.images import Image, decode_image, decode_mask
from edgeseg.result import Frame, Result
from edgeseg.serving.settings import Live


@pytest.fixture(scope="module")
def local(bundle: Path, jpegs: list[bytes]) -> list[Result]:
    """What the bundle gives here for the same bytes."""
    with open_segmenter(bundle) as segmenter:
        return [segmenter(decode_image(jpeg, Path("x.jpg"))) for jpeg in jpegs]


def test_png_is_the_class_map_at_the_size_of_the_image(server: Served, jpegs: list[bytes], local: list[Result]) -> None:
    for jpeg, expected in zip(jpegs, local):
        answer = server.segment(jpeg)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
        assert np.array_equal(decode_mask(answer.body, Path("x.png")), expected.at_frame_size())
        small = server.segment(jpeg, "?format=png&size=model")
        assert np.array_equal(decode_mask(small.body, Path("x.png")), expected.classmap)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_images_of_three_kinds_are_read(server: Served, frames: list[Image], suffix: str, bundle: Path) -> None:
    data = cv2.imencode(suffix, frames[0])[1].tobytes()
    with open_segmenter(bundle) as segmenter:
        expected = segmenter(decode_image(data, Path("x"))).at_frame_size()
    answer = server.segment(data, Content_Type="image/" + suffix.strip(".").replace("jpg", "jpeg"))
    assert np.array_equal(decode_mask(answer.body, Path("x.png")), expected)


@pytest.mark.parametrize(
    ("query", "accept", "kind"),
    [
        ("?format=overlay", "*/*", "image/jpeg"),
        ("?format=overlay", "image/png", "image/png"),
        ("", "image/jpeg", "image/jpeg"),
        ("", "application/geo+json", "application/geo+json"),
        ("", "text/html;q=0.9, application/json", "application/json"),
        ("", "image/png;q=0.1, application/json;q=0.5", "application/json"),
        ("?format=areas", "image/png", "application/json"),
    ],
)
def test_format_and_accept_choose_the_answer(
    server: Served, jpegs: list[bytes], query: str, accept: str, kind: str
) -> None:
    answer = server.segment(jpegs[0], query, Accept=accept)
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)


def test_overlay_is_the_plot(server: Served, jpegs: list[bytes], local: list[Result]) -> None:
    answer = server.segment(jpegs[1], "?format=overlay", Accept="image/png")
    assert np.array_equal(decode_image(answer.body, Path("x")), local[1].plot())


def test_rle_areas_and_polygons_say_the_same(server: Served, jpegs: list[bytes], local: list[Result]) -> None:
    expected = local[0].at_frame_size()
    height, width = expected.shape
    rle = server.segment(jpegs[0], "?format=rle").json
    rebuilt = np.full(expected.shape, 255, np.uint8)
    for row in rle["classes"]:
        columns = from_runs(from_coco_text(row["rle"]["counts"]), width, height)
        rebuilt[columns.T] = row["id"]
    assert np.array_equal(rebuilt, expected)
    areas = server.segment(jpegs[0], "?format=areas").json
    assert {row["name"]: row["share"] for row in areas["classes"]} == pytest.approx(local[0].areas(), abs=1e-6)
    assert areas["model"] == "tiny" and areas["size"] == [width, height]
    rebuilt[:] = 255
    features = server.segment(jpegs[0], "?format=polygons").json["features"]
    for feature in features:
        rings = [np.array(ring[:-1], float) for ring in feature["geometry"]["coordinates"]]
        assert all(ring[0] == ring[-1] for ring in feature["geometry"]["coordinates"])
        region = by_centers(rings, height, width)
        rebuilt[region.window][region.mask] = feature["properties"]["id"]
    assert np.array_equal(rebuilt, expected)
    large = server.segment(jpegs[0], "?format=polygons&min_area=50").json["features"]
    assert len(large) == sum(feature["properties"]["area"] >= 50 for feature in features)


def test_a_batch_is_answered_in_order(server: Served, jpegs: list[bytes], local: list[Result]) -> None:
    body, kind = multipart(*((f"{i}\u2028<b>.jpg", jpeg) for i, jpeg in enumerate(jpegs)))
    results = server.segment(body, Content_Type=kind).json["results"]
    assert [row["name"] for row in results] == [f"{i}\u2028<b>.jpg" for i in range(len(jpegs))]
    for row, expected in zip(results, local):
        assert np.array_equal(decode_mask(base64.b64decode(row["data"]), Path("x")), expected.at_frame_size())
    areas = server.segment(body, "?format=areas", Content_Type=kind).json["results"]
    assert [row["result"]["size"] for row in areas] == [[192, 128]] * len(jpegs)
    one, kind = multipart(("only.jpg", jpegs[2]))
    assert np.array_equal(decode_mask(server.segment(one, Content_Type=kind).body, Path("x")), local[2].at_frame_size())


def test_models_describe_themselves(server: Served) -> None:
    models = server.ask("GET", "/v1/models").json["models"]
    assert [model["name"] for model in models] == ["tiny", "other"]
    assert server.ask("GET", "/v1/models/other").json == models[1]
    assert models[0]["classes"][0] == {"id": 0, "name": "road", "color": [128, 64, 128]}
    assert models[0]["slots"] >= 1


def test_the_second_model_is_asked_by_name(server: Served, jpegs: list[bytes]) -> None:
    assert server.segment(jpegs[0], "?format=areas&model=other").json["model"] == "other"
    wrong = server.segment(jpegs[0], "?model=tyni")
    assert wrong.status == 404 and "Did you mean 'tiny'" in wrong.reason


def test_health_metrics_and_openapi(server: Served, jpegs: list[bytes]) -> None:
    assert server.ask("GET", "/healthz").json == {"alive": True}
    assert server.ask("GET", "/readyz").json == {"ready": True}
    before = server.metric('edgeseg_images_total{model="tiny"}')
    server.segment(jpegs[0])
    assert server.metric('edgeseg_images_total{model="tiny"}') == before + 1
    assert server.metric('edgeseg_requests_total{route="/v1/segment",status="200"}') > 0
    document = server.ask("GET", "/openapi.json").json
    assert {"/v1/segment", "/v1/models/{name}", "/v2/models/{name}/infer", "/healthz"} <= set(document["paths"])
    answers = document["paths"]["/v1/segment"]["post"]["responses"]
    assert {"200", "413", "415", "429", "504"} <= set(answers)
    assert answers["200"]["content"]["application/geo+json"]["example"]["features"]


def test_answers_carry_an_id_and_headers_for_browsers(server: Served, jpegs: list[bytes]) -> None:
    answer = server.segment(jpegs[0], X_Request_Id="frame-7.1")
    assert answer.headers["X-Request-Id"] == "frame-7.1"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    forged = server.segment(b"x", X_Request_Id="a<b>")
    assert forged.headers["X-Request-Id"] != "a<b>"
    assert forged.json["error"]["request_id"] == forged.headers["X-Request-Id"]


def test_a_client_gives_what_the_segmenter_gives(
    server: Served, frames: list[Image], jpegs: list[bytes], bundle: Path, local: list[Result], tmp_path: Path
) -> None:
    with open_segmenter(bundle) as segmenter, Client(server.url) as client:
        assert client.models() == ["tiny", "other"]
        here, there = segmenter(frames[0]), client(frames[0])
        assert type(there) is type(here)
        assert np.array_equal(there.classmap, here.classmap)
        assert there.spec == here.spec and there.areas() == here.areas()
        assert set(there.times) == set(here.times) and all(seconds > 0 for seconds in there.times.values())
        path = tmp_path / "frame.jpg"
        path.write_bytes(jpegs[1])
        assert np.array_equal(client(path).at_frame_size(), local[1].at_frame_size())
        assert np.array_equal(Client(server.url, model="other")(path).classmap.shape, local[1].classmap.shape)


def test_a_client_says_what_is_wrong(server: Served, tmp_path: Path, frames: list[Image]) -> None:
    with pytest.raises(EdgesegError, match=r"refuses: There is no model 'x'.\n.*Known"):
        Client(server.url, model="x")(frames[0])
    with pytest.raises(EdgesegError, match="does not answer: Connection refused"):
        Client("http://127.0.0.1:1")(frames[0])
    for url in ("ftp://x", "127.0.0.1:80", "http://", "http://u:p@h", "http://h:99999"):
        with pytest.raises(EdgesegError, match="address of the server"):
            Client(url)
    with pytest.raises(EdgesegError, match="token is not usable"):
        Client(server.url, token="a\r\nX: y")
    with pytest.raises(ValueError, match="uint8 BGR"):
        Client(server.url)(np.zeros((4, 4), np.uint8))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8nothing")
    with pytest.raises(EdgesegError, match="cannot be decoded"):
        Client(server.url)(broken)


def test_a_client_of_something_else_says_so(tmp_path: Path, frames: list[Image]) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(501)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, args=(0.05,), daemon=True).start()
        with pytest.raises(EdgesegError, match=r"status 501.\nIs it edgeseg serve"):
            Client(f"http://127.0.0.1:{other.server_port}")(frames[0])
        other.shutdown()


def test_crop_shows_what_was_not_seen(network: Path, tmp_path: Path, frames: list[Image], bundle_of: object) -> None:
    """Ids outside of the palette are black, and every program can read the PNG."""
    import dataclasses

    import tiny

    from edgeseg.compile import compile_model
    from edgeseg.target import Target

    spec = dataclasses.replace(tiny.SPEC, fit="crop")
    compile_model(network, tmp_path / "crop", Target.load("openvino-cpu"), "fp32", spec=spec, frames=tiny.frames(2))
    wide = cv2.imencode(".png", cv2.resize(frames[0], (300, 60)))[1].tobytes()
    with serving(tmp_path / "log", tmp_path / "crop") as served:
        answer = served.segment(wide)
        ids = decode_mask(answer.body, Path("x"))
        assert set(np.unique(ids)) - set(range(8)) == {255}
        colors = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
        assert (colors[ids == 255] == 0).all()
        assert served.end() == 0


def test_confidence_is_the_margin_as_gray(server: Served, jpegs: list[bytes], bundle: Path) -> None:
    """Also beside requests that want no margin, which have none computed."""
    with open_segmenter(bundle, margin=True) as segmenter:
        expected = segmenter(decode_image(jpegs[0], Path("x.jpg")))
    assert expected.margin is not None
    answer = server.segment(jpegs[0], "?format=confidence")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    gray = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(gray, expected.confidence())
    by_hand = np.rint(255 * np.tanh(expected.margin.astype(np.float64) / 2))
    by_hand = cv2.resize(by_hand, gray.shape[::-1], interpolation=cv2.INTER_NEAREST)
    np.testing.assert_allclose(gray, by_hand, atol=1)
    assert server.segment(jpegs[0]).status == 200


def test_what_a_cropping_net_did_not_see_has_no_confidence(frames: list[Image]) -> None:
    import tiny

    spec = dataclasses.replace(tiny.SPEC, fit="crop")
    frame = Frame(np.zeros((64, 300, 3), np.uint8))
    margin = np.full((64, 96), 20, np.float32)
    result = Result(frame, np.zeros((64, 96), np.uint8), {}, margin, spec)
    gray = result.confidence()
    assert gray.shape == (64, 300)
    assert (gray == 255).sum() == 64 * 96 and (gray == 0).sum() == 64 * 204
    with pytest.raises(ValueError, match="made without a margin"):
        dataclasses.replace(result, margin=None).confidence()


def test_live_streams_are_listed_and_their_pictures_allowed(bundle: Path, tmp_path: Path) -> None:
    live = ("--live", "gate=http://127.0.0.1:8090?token=abcdefgh", "--live", "b=https://cam.local/stream")
    with serving(tmp_path / "log", f"tiny={bundle}", *live, token="a-token-of-tests") as served:
        assert served.ask("GET", "/v1/streams").status == 401
        answer = served.ask("GET", "/v1/streams", Authorization="Bearer a-token-of-tests")
        assert answer.json["streams"] == [
            {"name": "gate", "url": "http://127.0.0.1:8090/stream?token=abcdefgh"},
            {"name": "b", "url": "https://cam.local/stream"},
        ]
        policy = answer.headers["Content-Security-Policy"]
        assert "img-src 'self' blob: data: http://127.0.0.1:8090 https://cam.local;" in policy
        assert "abcdefgh" not in policy
        assert "abcdefgh" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "text",
    ["gate", "=http://127.0.0.1:1", "gate=rtsp://cam/1", "gate=http://", "gate=http://a b", "x=http://u:p@cam",
     "gate=http://cam;script-src *", "gate=http://cam\r\nX: y", "gate=javascript:alert(1)", "gate=http://cam:port"],
)  # fmt: skip
def test_a_live_stream_that_is_none(text: str) -> None:
    with pytest.raises(OptionError, match=r"Live stream .*\nExpected NAME=http://HOST:PORT"):
        Live.parse(text)


def test_undecided_answers_say_so(bundle: Path, jpegs: list[bytes], tmp_path: Path) -> None:
    words = (f"tiny={bundle}", "--min-confidence", "1", "--review-class", "road:0")
    with serving(tmp_path / "log", *words) as served:
        answer = served.segment(jpegs[0], "?format=areas")
        assert (answer.json["undecided"], answer.json["reasons"]) == (True, ["confidence"])
        assert 0 < answer.json["confidence"] < 1
        assert answer.headers["X-Edgeseg-Undecided"] == f"confidence ({answer.json['confidence']:.2f})"
        picture = cv2.imdecode(np.frombuffer(served.segment(jpegs[0], "?format=overlay").body, np.uint8), 1)
        assert np.abs(picture[-1].mean(0) - (0, 176, 255)).max() < 40
        assert served.segment(jpegs[0]).headers["X-Edgeseg-Undecided"]
    with serving(tmp_path / "log", f"tiny={bundle}", "--min-confidence", "0") as served:
        answer = served.segment(jpegs[0], "?format=rle")
        assert answer.json["undecided"] is False and "X-Edgeseg-Undecided" not in answer.headers
        assert "undecided" not in (tmp_path / "log").read_text()


def test_a_server_refuses_a_class_to_review_that_its_bundle_does_not_have(bundle: Path, edgeseg: Any) -> None:
    ran = edgeseg("serve", bundle, "--port", "0", "--review-class", "unicorn")
    assert ran.code == 2 and "Unknown class 'unicorn'" in ran.err

"""Who may ask, and input of every bad kind: refused with a message, memory bounded, the server goes on."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving_helpers import Served, multipart, serving

from edgeseg import Client, EdgesegError
from edgeseg.image_header import PNG
from edgeseg.images import Image
from edgeseg.serving import body as bodies
from edgeseg.serving.models import places

TOKEN = "secret-of-the-tests"


@pytest.fixture(scope="module")
def guarded(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a token, a name and small limits."""
    folder = tmp_path_factory.mktemp("guarded")
    token = folder / "token"
    token.write_text(f"{TOKEN}\n")
    words = ("--token-file", token, "--allow-host", "camera.lan", "--max-megabytes", "1", "--max-megapixels", "0.1")
    with serving(folder / "log", f"tiny={bundle}", *words) as served:
        yield served
        log = (folder / "log").read_text()
        assert "Traceback" not in log and TOKEN not in log


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
)
def test_a_wrong_token_is_refused(guarded: Served, jpegs: list[bytes], given: str) -> None:
    headers = {"Authorization": given} if given else {}
    for method, path in (("POST", "/v1/segment"), ("GET", "/metrics"), ("GET", "/v2"), ("GET", "/openapi.json"),
                         ("POST", "/v1/models/tiny/reload"), ("POST", "/v2/models/tiny/infer")):  # fmt: skip
        answer = guarded.ask(method, path, b"", **headers)
        assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert "token is needed" in answer.reason
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/"):
        assert guarded.ask("GET", path, **headers).status == 200


def test_the_right_token_is_let_in(guarded: Served, jpegs: list[bytes], frames: list[Image]) -> None:
    assert guarded.segment(jpegs[0], **bearer(TOKEN)).status == 200
    assert guarded.segment(jpegs[0], Authorization=f"bearer  {TOKEN}").status == 200
    assert Client(guarded.url, token=TOKEN)(frames[0]).classmap.shape == (64, 96)


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 403), ("evil.example:80", 403), ("localhost.evil.example", 403), ("", 403),
     ("127.0.0.1.evil", 403), ("camera.lan", 200), ("CAMERA.LAN:8080", 200), ("localhost:9", 200),
     ("127.0.0.1", 200), ("[::1]:80", 200)],
)  # fmt: skip
def test_only_known_host_names(guarded: Served, host: str, status: int) -> None:
    for path in ("/v1/models", "/", "/healthz"):
        assert guarded.ask("GET", path, Host=host, **bearer(TOKEN)).status == status


def test_pages_of_other_sites_may_not_ask(server: Served, jpegs: list[bytes]) -> None:
    assert server.segment(jpegs[0], Origin="https://evil.example").status == 403
    assert server.segment(jpegs[0], Origin=server.url, Host=f"127.0.0.1:{server.port}").status == 200


def test_without_a_token_nobody_may_reload(server: Served) -> None:
    for verb in ("reload", "rollback"):
        answer = server.ask("POST", f"/v1/models/tiny/{verb}", b"")
        assert answer.status == 403 and "no token" in answer.reason and "SIGHUP" in answer.reason


def png(width: int, height: int, rows: bytes = b"", depth: int = 8, color: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_image_bombs_cost_no_memory(guarded: Served) -> None:
    before = resident(guarded.process.pid)
    for data in (png(30000, 30000, bytes(10_000_000)), png(1 << 31, 8), png(20000, 1000, depth=16)):
        for _ in range(5):
            answer = guarded.segment(data, **bearer(TOKEN))
            assert answer.status in (413, 415, 422), answer.body
    assert resident(guarded.process.pid) - before < 60 << 20


@pytest.mark.parametrize(
    ("data", "kind", "status", "message"),
    [
        (b"", "", 415, "no image that is read here"),
        (b"hello", "", 415, "Expected the content of a JPEG, PNG or WebP file"),
        (b"GIF89a" + bytes(50), "image/gif", 415, "no image"),
        (b"BM" + bytes(60), "image/bmp", 415, "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 415, "no image"),
        (b"\xff\xd8\xff\xe0garbage", "image/jpeg", 415, "damaged"),
        (b"{}", "application/json", 415, "content type is 'application/json'"),
        (b"x", "text/html; charset=utf-8", 415, "content type is 'text/html'"),
        (b"x", "multipart/form-data", 400, "no boundary"),
        (b"x", "multipart/form-data; boundary=b", 400, "cut off, empty"),
        (b"--b\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b", 400, "holds no file"),
        (b"--b\r\nx\r\n--b--", "multipart/form-data; boundary=b", 400, "no header"),
        (b"--b\r\n" * 100, "multipart/form-data; boundary=b", 400, "too many parts"),
    ],
)
def test_what_is_no_image(server: Served, data: bytes, kind: str, status: int, message: str) -> None:
    answer = server.segment(data, **({"Content_Type": kind} if kind else {}))
    assert answer.status == status and message in answer.reason, answer.body


def test_a_truncated_image_is_refused(server: Served, jpegs: list[bytes], frames: list[Image]) -> None:
    whole = png(frames[0].shape[1], frames[0].shape[0], bytes(100))
    answer = server.segment(whole[:60])
    assert answer.status == 415 and "damaged" in answer.reason
    body, kind = multipart(("good.jpg", jpegs[0]), ("bad <b>.jpg", jpegs[1][:20]))
    batch = server.segment(body, Content_Type=kind)
    assert batch.status == 415 and "bad <b>.jpg" in batch.reason
    assert batch.headers["Content-Type"] == "application/json"


def test_limits_of_bytes_pixels_and_images(guarded: Served, server: Served, jpegs: list[bytes]) -> None:
    large = guarded.segment(jpegs[0] + bytes(2 << 20), **bearer(TOKEN))
    assert large.status == 413 and "more than 1048576 bytes" in large.reason
    wide = guarded.segment(png(1000, 1000, bytes(3_001_000)), **bearer(TOKEN))
    assert wide.status == 413 and "1000x1000" in wide.reason and "At most 100000 pixels" in wide.reason
    body, kind = multipart(*((str(i), jpegs[0]) for i in range(17)))
    many = server.segment(body, Content_Type=kind)
    assert many.status == 413 and "holds 17 images" in many.reason
    tensor = b'{"inputs":[{"name":"frame","datatype":"UINT8","shape":[400,400,3],"data":[' + b"1," * 479_999 + b"1]}]}"
    assert guarded.ask("POST", "/v2/models/tiny/infer", tensor, **bearer(TOKEN)).status == 413
    text = b'{"inputs":[' + b"[" * (9 << 20)
    answer = server.ask("POST", "/v2/models/tiny/infer", text)
    assert answer.status == 413 and "send tensors as binary data" in answer.reason
    assert server.ask("POST", "/v2/models/tiny/infer", b"[" * 100_000).status == 400


@pytest.mark.parametrize(
    ("query", "message"),
    [("?format=bmp", "Unknown format 'bmp'.*polygons"), ("?size=huge", "Unknown size"), ("?min_area=-1", "min_area is"),
     ("?min_area=1e9", "min_area is"), ("?format=", "Unknown format")],
)  # fmt: skip
def test_wrong_options(server: Served, jpegs: list[bytes], query: str, message: str) -> None:
    import re

    answer = server.segment(jpegs[0], query)
    assert answer.status == 400 and re.search(message, answer.reason), answer.body


def test_no_acceptable_answer(server: Served, jpegs: list[bytes]) -> None:
    answer = server.segment(jpegs[0], Accept="text/html")
    assert answer.status == 406 and "application/geo+json" in answer.reason


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/page/../app.py", "/page/%2e%2e%2fapp.py", "/page/..%2fapp.py",
                                  "/v1/models/..%2f..", "/page/", "/docs", "/v1/segmnt", "/v1/models/%00"])  # fmt: skip
def test_paths_that_are_none(server: Served, path: str) -> None:
    answer = server.ask("GET", path)
    assert answer.status == 404 and set(answer.json["error"]) == {"status", "what", "hint", "request_id"}


def test_wrong_methods(server: Served) -> None:
    answer = server.ask("GET", "/v1/segment")
    assert answer.status == 405 and "Method Not Allowed" in answer.reason
    assert server.ask("GET", "/v1/segmnt").reason.startswith("Not Found. Did you mean '/v1/segment'")
    assert isinstance(server.ask("PUT", "/v2/models/tiny").json["error"], str)


def test_a_compressed_body_is_refused(server: Served, jpegs: list[bytes]) -> None:
    answer = server.segment(zlib.compress(bytes(50_000_000)), Content_Encoding="gzip")
    assert answer.status == 415 and "uncompressed" in answer.reason


def raw(port: int, data: bytes, seconds: float = 20) -> bytes:
    """What the server says to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as sock:
        answer = b""
        try:
            sock.sendall(data)
            while chunk := sock.recv(65536):
                answer += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


def test_giant_and_broken_headers(server: Served) -> None:
    assert b" 400 " in raw(server.port, b"GET / HTTP/1.1\r\nX: " + b"y" * (1 << 20))
    assert b" 400 " in raw(server.port, b"\x16\x03\x01\x02\x00" * 20 + b"\r\n\r\n")
    assert b" 400 " in raw(server.port, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n")
    start = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\n"
    both = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert raw(server.port, start + both + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert server.ask("GET", "/healthz").status == 200


def test_slow_clients_are_disconnected(bundle: Path, jpegs: list[bytes]) -> None:
    """In this process, with short limits: no header, half a header, half a body, an idle connection."""
    import asyncio
    import threading

    from edgeseg.serving import app, server
    from edgeseg.serving.models import Models
    from edgeseg.serving.service import Service
    from edgeseg.serving.settings import Settings
    from edgeseg.serving.worker import Opener
    from edgeseg.stream.http import Address

    settings = Settings(header_seconds=0.4, body_seconds=0.6)
    service = Service(Models.open({"tiny": bundle}, Opener("latency"), 4), settings)
    import uvicorn

    sock = server.listen(Address("127.0.0.1", 0))
    protocol = type("Protocol", (server.TimedProtocol,), {"settings": settings})
    config = uvicorn.Config(app.create(service, "127.0.0.1"), http=protocol, lifespan="off", log_config=None)
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(runner.serve([sock])))
    thread.start()
    try:
        port = sock.getsockname()[1]
        for start in (b"", b"GET / HTTP/1.1\r\nHo", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"GET /heal"):
            began = time.monotonic()
            raw(port, start, 5)
            assert 0.3 < time.monotonic() - began < 3
        half = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n\xff\xd8"
        began = time.monotonic()
        answer = raw(port, half, 5)
        assert b" 408 " in answer and b"within 0.6 s" in answer and time.monotonic() - began < 3
        with Client(f"http://127.0.0.1:{port}") as client:
            client(np.zeros((64, 96, 3), np.uint8))
            time.sleep(0.2)
            client(np.zeros((64, 96, 3), np.uint8))
        assert service.memory.used == 0 and service.traffic.active == 0
    finally:
        runner.should_exit = True
        thread.join(10)
        service.close()


def test_mutated_images_never_break_it(server: Served, jpegs: list[bytes], frames: list[Image]) -> None:
    random = np.random.default_rng(5)
    seeds = [jpegs[0], png(96, 64, bytes(64 * (96 * 3 + 1)))]
    before = resident(server.process.pid)
    for i in range(200):
        data = bytearray(seeds[i % 2])
        for at in random.integers(0, len(data), 1 + i % 7):
            data[at] = random.integers(256)
        answer = server.segment(bytes(data[: random.integers(8, len(data))] if i % 3 == 0 else data), "?format=areas")
        assert answer.status in (200, 413, 415, 422), answer.body
    assert resident(server.process.pid) - before < 100 << 20
    assert server.ask("GET", "/healthz").status == 200


@given(st.binary(max_size=300), st.sampled_from(["multipart/form-data; boundary=b", 'multipart/x; boundary="b"', ""]))
def test_any_body_is_split_or_refused(data: bytes, kind: str) -> None:
    for body in (data, b"--b\r\nContent-Type: image/png\r\n\r\n" + data + b"\r\n--b--"):
        try:
            found = bodies.uploads(body, kind)
        except EdgesegError:
            continue
        assert sum(len(upload.data) for upload in found) <= len(body)


@given(st.lists(st.binary(max_size=40).filter(lambda b: b"--x7" not in b), min_size=1, max_size=5))
def test_a_form_gives_back_its_files(files: list[bytes]) -> None:
    body, kind = multipart(*((f"{i}.png", data) for i, data in enumerate(files)))
    assert [upload.data for upload in bodies.uploads(body, kind)] == files


def test_tls(bundle: Path, tmp_path: Path, frames: list[Image]) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl")
    with serving(tmp_path / "log", bundle, "--tls-cert", certificate, "--tls-key", key) as served:
        address = f"https://127.0.0.1:{served.port}"
        assert Client(address, ca=certificate)(frames[0]).classmap.shape == (64, 96)
        with pytest.raises(EdgesegError, match="certificate"):
            Client(address)(frames[0])
        with pytest.raises((ssl.SSLError, OSError, EdgesegError)):
            Client(served.url, timeout=5)(frames[0])
        assert served.end() == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{bundle}", "--port", "{taken}"), "Cannot serve on 127.0.0.1:.*--port"),
        (("{bundle}", "--host", "256.1.1.1"), "Cannot serve on 256.1.1.1"),
        (("{bundle}", "{bundle}"), "Two bundles are called"),
        (("a b={bundle}",), "Model name 'a b'"),
        (("{absent}",), "is not a folder"),
        (("{bundle}", "--mode", "fast"), "Unknown mode 'fast'"),
        (("{bundle}", "--tls-key", "{absent}"), "belong together"),
        (("{bundle}", "--tls-key", "{absent}", "--tls-cert", "{absent}"), "TLS with"),
        (("{bundle}", "--token-file", "{absent}"), "Token file .* does not exist"),
        (("{bundle}", "--token-file", "{short}"), "token of .* is not usable"),
        (("{bundle}", "--min-version", "1"), "Add --require-signature"),
        (("{bundle}", "--require-signature", "{absent}"), "absent"),
    ],
)
def test_wrong_words_on_the_command_line(
    edgeseg: Callable[..., object], bundle: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    import re

    (tmp_path / "short").write_text("abc")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = {"bundle": bundle, "taken": taken.getsockname()[1], "absent": tmp_path / "absent",
                  "short": tmp_path / "short"}  # fmt: skip
        given = [word.format(**values) for word in words]
        ran = edgeseg("serve", *given, *(() if "--port" in given else ("--port", "0")))
    assert ran.code == 2 and re.search(message, ran.err, re.S), ran.err  # type: ignore[attr-defined]


def test_everyone_is_warned_about(bundle: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "log", bundle, "--host", "0.0.0.0") as served:
        assert "Everyone who reaches this machine may use the server" in served.log.read_text()
        assert served.end() == 0


def test_names_of_models() -> None:
    assert places(["a/street-int8", "b=c=d"]) == {"street-int8": Path("a/street-int8"), "b": Path("c=d")}
    with pytest.raises(EdgesegError, match="Model name"):
        places(["../..=x"])

"""The local HTTP servers: who may read them, and what too many clients cost."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time

import pytest
from stream_helpers import SPEC, frame_image, segmenter
from test_stream_metrics import BUILD, Frames

from edgeseg.errors import OptionError
from edgeseg.stream import sinks
from edgeseg.stream.http import MAX_REQUESTS
from edgeseg.stream.loop import Run
from edgeseg.stream.metrics_server import MetricsServer
from edgeseg.stream.pipeline import Stream

INFO = sinks.Info(SPEC, 25.0, live=True)
TOKEN = "s3cret-token"


def get(port: int, path: str = "/", host: str = "127.0.0.1", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    with contextlib.closing(connection):
        return answer.status, answer.read()


def metrics(address: str, clock) -> MetricsServer:
    return MetricsServer(address, Run(segmenter(), [Stream(Frames(1, clock), [])], clock=clock), BUILD)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8090", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8090", 200),
        ("192.168.1.20:8090", 200),
        ("camera.local:8090", 200),
        ("evil.example:8090", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("", 403),
    ],
)
def test_the_name_in_the_request_must_be_one_of_ours(host, status, clock):
    with sinks.open("mjpeg://127.0.0.1:0?allow=camera.local,gate", INFO) as sink:
        assert get(sink.port, Host=host)[0] == status
    with metrics("127.0.0.1:0?allow=camera.local", clock) as server:
        assert get(server.port, "/healthz", Host=host)[0] == status
        assert get(server.port, "/metrics", Host=host)[0] == status


def test_a_token(clock):
    with sinks.open(f"mjpeg://127.0.0.1:0?token={TOKEN}", INFO) as sink:
        sink.write(None, frame_image(0))
        assert [get(sink.port, p)[0] for p in ("/", "/frame.jpg", "/stream")] == [401] * 3
        assert get(sink.port, "/frame.jpg?token=s3cret-tokem")[0] == 401
        assert get(sink.port, "/frame.jpg", Authorization="Basic " + TOKEN)[0] == 401
        assert get(sink.port, "/frame.jpg", Authorization="Bearer " + TOKEN)[0] == 200
        status, page = get(sink.port, f"/?token={TOKEN}")
        assert status == 200 and f'src="/stream?token={TOKEN}"'.encode() in page
        assert get(sink.port, f"/frame.jpg?token={TOKEN}")[0] == 200
    with metrics(f"127.0.0.1:0?token={TOKEN}", clock) as server:
        assert get(server.port, "/metrics")[0] == 401
        assert get(server.port, "/metrics", Authorization=f"bearer {TOKEN}")[0] == 200


def test_ipv6(clock):
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        with sinks.open("mjpeg://[::1]:0", INFO) as sink, metrics("[::1]:0", clock) as server:
            assert get(sink.port, host="::1")[0] == 200 and get(server.port, "/healthz", host="::1")[0] == 200
        return
    pytest.skip("no IPv6 here")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "127.0.0.1:0", f"0.0.0.0:0?token={TOKEN}"])
def test_who_can_read_it_is_said_when_it_starts(address, clock, caplog):
    with sinks.open(f"mjpeg://{address}", INFO), metrics(address, clock):
        pass
    expected = 2 if address == "0.0.0.0:0" else 0
    assert caplog.text.count("can be seen by everyone who reaches this machine") == expected


def test_clients_that_say_nothing_cost_no_more_than_their_share(clock):
    with metrics("127.0.0.1:0", clock) as server, contextlib.ExitStack() as clients:
        for _ in range(MAX_REQUESTS + 20):
            clients.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
        time.sleep(0.5)
        assert get(server.port, "/healthz")[0] == 503
        clients.close()
        until = time.monotonic() + 5
        while get(server.port, "/healthz")[0] != 200:
            assert time.monotonic() < until


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mjpeg://127.0.0.1", r"mjpeg://127\.0\.0\.1 has no port\.\nExpected mjpeg://127"),
        ("mjpeg://::1:8090", r"has no port"),
        ("mjpeg://127.0.0.1:99999", r"has no port"),
        ("mjpeg://bob:secret@127.0.0.1:1", r"mjpeg://\*\*\*@127.0.0.1:1 names a user, but readers need none"),
        ("mjpeg://127.0.0.1:1?token=short", r"Option token=.* is not usable\.\nExpected at least 8"),
        ("mjpeg://127.0.0.1:1?allow=a/b", r"Expected host names"),
        ("mjpeg://no.such.host.invalid:1", r"Cannot serve images on no\.such\.host"),
    ],
)
def test_wrong_addresses(uri, message):
    with pytest.raises(OptionError, match=message) as refused:
        sinks.open(uri, INFO)
    assert "secret" not in str(refused.value) and "short" not in str(refused.value)

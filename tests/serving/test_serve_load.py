"""Many clients, deadlines, ending, reloading, restarting."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from serving_helpers import Answer, Served, multipart, serving

from edgeseg import Client, EdgesegError, open_segmenter
from edgeseg.images import Image, decode_image, decode_mask
from edgeseg.serving.client import ServerError

TOKEN = "a-token-of-tests"
AUTH = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def expected(bundle: Path, jpegs: list[bytes]) -> list[Image]:
    with open_segmenter(bundle) as segmenter:
        return [segmenter(decode_image(jpeg, Path("x"))).at_frame_size() for jpeg in jpegs]


@pytest.fixture(scope="module")
def large() -> bytes:
    """A JPEG that takes a while to decode, so that requests pile up."""
    return cv2.imencode(".jpg", cv2.resize(tiny.frames(1)[0], (4000, 3000)))[1].tobytes()


def test_twenty_clients_get_no_wrong_answer(server: Served, jpegs: list[bytes], expected: list[Image]) -> None:
    """Every answer is right or 429, both models at once."""

    def work(client: int) -> Counter[int]:
        found: Counter[int] = Counter()
        for i in range(15):
            which = (client + i) % len(jpegs)
            answer = server.segment(jpegs[which])
            found[answer.status] += 1
            if answer.status == 200:
                assert np.array_equal(decode_mask(answer.body, Path("x")), expected[which])
            else:
                assert answer.status == 429 and int(answer.headers["Retry-After"]) >= 1
        return found

    with ThreadPoolExecutor(20) as pool:
        total = sum(pool.map(work, range(20)), Counter())
    assert total.total() == 300 and total[200] >= 150
    assert server.metric('edgeseg_in_flight{model="tiny"}') == 0


def test_a_full_queue_says_when_to_come_again(
    bundle: Path, tmp_path: Path, large: bytes, jpegs: list[bytes], expected: list[Image]
) -> None:
    with serving(tmp_path / "log", bundle, "--queue", "0", "--mode", "latency") as served:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: served.segment(large, "?format=areas"), range(8)))
        found = Counter(answer.status for answer in answers)
        assert set(found) == {200, 429} and found[200] >= 1, found
        refused = next(answer for answer in answers if answer.status == 429)
        assert "At most 0 may wait" in refused.reason and int(refused.headers["Retry-After"]) >= 1
        batch, kind = multipart(("a", jpegs[0]), ("b", jpegs[1]))
        assert served.segment(batch, Content_Type=kind).status == 429  # both or none
        clients = [Client(served.url, timeout=60) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:  # they wait for their turn
            results = list(pool.map(lambda pair: pair[0](decode_image(pair[1], Path("x"))), zip(clients, jpegs)))
        for result, truth in zip(results, expected):
            assert np.array_equal(result.at_frame_size(), truth)
        holder = threading.Thread(target=lambda: [served.segment(large) for _ in range(6)])
        holder.start()
        try:
            with pytest.raises(ServerError, match="images in work") as refusal:
                for _ in range(100):
                    Client(served.url, timeout=0.5)(decode_image(jpegs[0], Path("x")))
        finally:
            holder.join()
        assert refusal.value.status == 429
        assert served.end() == 0


def test_a_deadline_gives_504(bundle: Path, tmp_path: Path, large: bytes, jpegs: list[bytes]) -> None:
    with serving(tmp_path / "log", bundle, "--deadline", "0.02") as served:
        late = served.segment(large)
        assert late.status == 504 and "within 0.02 s" in late.reason
        for _ in range(50):  # the server itself goes on
            if served.segment(jpegs[0], "?format=png&size=model").status == 200:
                break
        else:
            raise AssertionError(served.log.read_text())
        assert served.metric(f'edgeseg_in_flight{{model="{bundle.name}"}}') == 0
        assert served.end() == 0


def test_memory_of_all_requests_is_bounded(bundle: Path, tmp_path: Path, large: bytes) -> None:
    """36 MB a decoded image, 80 MiB for all."""
    with serving(tmp_path / "log", bundle, "--max-memory", "80") as served:
        with ThreadPoolExecutor(8) as pool:
            found = Counter(pool.map(lambda _: served.segment(large, "?format=areas").status, range(8)))
        assert found[200] >= 2 and found[429] >= 1 and found.total() == 8, found
        assert served.segment(large).status == 200


def test_sigterm_finishes_what_is_in_work(bundle: Path, tmp_path: Path, large: bytes) -> None:
    with serving(tmp_path / "log", f"tiny={bundle}") as served:
        answers: list[Answer] = []
        threads = [
            threading.Thread(target=lambda: answers.append(served.segment(large, "?format=areas"))) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        while served.metric('edgeseg_in_flight{model="tiny"}') < 4:
            pass
        served.process.send_signal(signal.SIGTERM)
        refused = Answer(0, None, b"")  # type: ignore[arg-type]
        ready = 0
        while served.process.poll() is None:
            try:
                ready = served.ask("GET", "/readyz").status
                refused = served.segment(large)
            except OSError:
                break
            if refused.status == 503:
                break
        for thread in threads:
            thread.join()
        assert [answer.status for answer in answers] == [200] * 6
        assert ready == 503 and refused.status == 503 and refused.headers["Connection"] == "close"
        assert served.process.wait(20) == 0


def test_a_second_signal_ends_it_at_once(bundle: Path, tmp_path: Path, large: bytes) -> None:
    with serving(tmp_path / "log", bundle) as served:
        asking = threading.Thread(target=lambda: _quiet(lambda: served.segment(large)), daemon=True)
        asking.start()
        served.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(20) == 0
        asking.join(10)


def _quiet(work: Callable[[], object]) -> None:
    with suppress(OSError):
        work()


def test_a_killed_server_starts_again_on_its_port(bundle: Path, tmp_path: Path, jpegs: list[bytes]) -> None:
    with serving(tmp_path / "log", bundle) as served:
        assert served.segment(jpegs[0]).status == 200
        port = served.port
    with serving(tmp_path / "log", bundle, "--port", port) as again:
        assert again.port != 0 and again.segment(jpegs[0]).status == 200


@pytest.fixture
def other_bundle(bundle_of: Callable[[str, str], Path]) -> Path:
    """Another one with the same classes."""
    return bundle_of("onnxruntime-cpu", "fp32")


@pytest.fixture
def changing(bundle: Path, tmp_path: Path) -> Iterator[tuple[Served, Path]]:
    """A server with a token, and the folder that its model is read from."""
    place = tmp_path / "current"
    shutil.copytree(bundle, place)
    with serving(tmp_path / "log", f"tiny={place}", token=TOKEN) as served:
        yield served, place


def replace(place: Path, source: Path) -> None:
    shutil.rmtree(place)
    shutil.copytree(source, place)


def spoiled(source: Path, out: Path) -> Path:
    """A bundle whose digests fit and whose golden class maps are wrong."""
    from edgeseg.bundle import Bundle, seal

    shutil.copytree(source, out)
    for mask in (out / "golden").glob("*.mask.png"):
        ids = decode_mask(mask.read_bytes(), mask)
        cv2.imwrite(str(mask), (ids + 1) % 8)
    seal(out, dataclasses.replace(Bundle.load(source).manifest, files={}))
    return out


def test_reload_swaps_and_rollback_goes_back(
    changing: tuple[Served, Path], bundle: Path, other_bundle: Path, jpegs: list[bytes]
) -> None:
    served, place = changing
    change = lambda verb: served.ask("POST", f"/v1/models/tiny/{verb}", b"", **AUTH)  # noqa: E731
    digest = lambda: served.ask("GET", "/v1/models/tiny", **AUTH).json["bundle"]["digest"]  # noqa: E731
    first = digest()
    assert change("reload").json["changed"] is False
    assert change("rollback").status == 409
    replace(place, other_bundle)
    assert change("reload").json == {"model": "tiny", "bundle": digest(), "before": first, "changed": True}
    second = digest()
    assert second != first
    assert served.segment(jpegs[0], **AUTH).headers["X-Edgeseg-Bundle"] == second
    assert change("rollback").json["bundle"] == first == digest()
    assert change("rollback").json["bundle"] == second
    assert served.ask("POST", "/v1/models/absent/reload", b"", **AUTH).status == 404


def test_a_bad_bundle_leaves_the_old_one_serving(
    changing: tuple[Served, Path], bundle: Path, jpegs: list[bytes], tmp_path: Path
) -> None:
    served, place = changing
    before = served.segment(jpegs[0], **AUTH)
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    (damaged / "model.bin").write_bytes(b"0" * (damaged / "model.bin").stat().st_size)
    for source, message in (
        (spoiled(bundle, tmp_path / "spoiled"), "golden frame agrees on"),
        (damaged, "differs from its digest"),
        (None, "is not a folder"),
    ):
        shutil.rmtree(place)
        if source:
            shutil.copytree(source, place)
        answer = served.ask("POST", "/v1/models/tiny/reload", b"", **AUTH)
        assert answer.status == 422 and message in answer.reason, answer.reason
        assert "before still serves" in answer.reason
        assert served.segment(jpegs[0], **AUTH).body == before.body
    with_token = "\n".join(served.log.read_text().splitlines())
    assert "still serving" in with_token and TOKEN not in with_token
    text = served.ask("GET", "/metrics", **AUTH).body.decode()
    assert 'edgeseg_reloads_total{model="tiny",result="refused"} 3.0' in text


def test_swaps_under_load_fail_no_request(
    changing: tuple[Served, Path], bundle: Path, other_bundle: Path, jpegs: list[bytes]
) -> None:
    """SIGHUP, reload and rollback while eight clients ask; the two bundles agree on nearly every pixel."""
    served, place = changing
    ended = threading.Event()
    truth = decode_mask(served.segment(jpegs[0], **AUTH).body, Path("x"))

    def work(_: int) -> Counter[str]:
        found: Counter[str] = Counter()
        while not ended.is_set():
            answer = served.segment(jpegs[0], **AUTH)
            assert answer.status == 200, answer.body
            assert (decode_mask(answer.body, Path("x")) == truth).mean() > 0.99
            found[answer.headers["X-Edgeseg-Bundle"]] += 1
        return found

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(work, i) for i in range(8)]
        try:
            for source in (other_bundle, bundle, other_bundle):
                replace(place, source)
                assert served.ask("POST", "/v1/models/tiny/reload", b"", **AUTH).json["changed"]
            assert served.ask("POST", "/v1/models/tiny/rollback", b"", **AUTH).json["changed"]
            served.process.send_signal(signal.SIGHUP)
            wanted = json.loads((served.ask("GET", "/v1/models/tiny", **AUTH)).body)["bundle"]["digest"]
            end = time.monotonic() + 20
            while served.ask("GET", "/v1/models/tiny", **AUTH).json["bundle"]["digest"] == wanted:
                assert time.monotonic() < end
        finally:
            ended.set()
        total = sum((job.result() for job in running), Counter())
    assert len(total) == 2 and min(total.values()) > 5, total
    assert served.end() == 0, served.log.read_text()


def test_sighup_with_a_bad_bundle_is_logged(changing: tuple[Served, Path], jpegs: list[bytes]) -> None:
    served, place = changing
    (place / "model.xml").write_text("<net/>")
    served.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 20
    while "differs from its digest" not in served.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert served.segment(jpegs[0], **AUTH).status == 200


def test_a_client_learns_of_a_reload(changing: tuple[Served, Path], other_bundle: Path, frames: list[Image]) -> None:
    served, place = changing
    client = Client(served.url, token=TOKEN)
    client(frames[0])
    replace(place, other_bundle)
    assert served.ask("POST", "/v1/models/tiny/reload", b"", **AUTH).status == 200
    assert client(frames[0]).spec is not None
    with pytest.raises(EdgesegError, match="A token is needed"):
        Client(served.url)(frames[0])

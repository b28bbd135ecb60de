"""What serving costs: requests a second and their times against the Segmenter alone, on the same machine.

    python benchmarks/serving.py models/street/street-int8 [--rounds 5] [--seconds 2] [--size 1280x720] [--peers]

Prints JSON, medians over rounds that measure everything in turn. `alone`: frames in memory through Segmenter.stream
(throughput mode), a second; `decoding`: JPEGs decoded in the same thread and then so; `latency`: one at a time,
decoded, and its class map encoded. `N_...`: N clients, each with one connection that asks again at once; they share the
machine with the server. `over_...`: the share of that rate which is served. `added_p50_ms`: what HTTP adds to `latency`
for one client. `cpu_ms`: of all threads of the server, or of this process, for an image; other work on the machine
changes it little. `refused`: answers 429, which their clients wait 50 ms after.
`memory`: MiB of the server before and after each tenth of --requests.

Servers: `edgeseg` in throughput mode, `edgeseg_latency` (--mode latency), and with --peers a plain FastAPI handler
(`fastapi`) and `litserve` around the same engine, each left out where its package is missing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import peers.fastapi_handler
import peers.litserve_handler

from edgeseg import Frame, Segmenter, Street, open_segmenter
from edgeseg.images import decode_image, palette_png

ROOT = Path(__file__).resolve().parents[1]
PATH = "/v1/segment?format=png&size=model"
PEERS = {"fastapi": peers.fastapi_handler, "litserve": peers.litserve_handler}


@dataclass(frozen=True)
class Server:
    """A running server; `request` makes the body of an image."""

    name: str
    port: int
    pid: int
    path: str = PATH
    request: Callable[[bytes], bytes] = bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--size", default="1280x720", help="of the images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement of a round")
    parser.add_argument("--requests", type=int, default=2000, help="of the measurement of memory; 0 leaves it out")
    parser.add_argument("--clients", default="1,2,8,64", help="numbers of clients")
    parser.add_argument("--peers", action="store_true", help="also serve by others")
    words = parser.parse_args()
    width, height = map(int, words.size.split("x"))
    jpegs = images(height, width)
    clients = [int(n) for n in words.clients.split(",")]
    with ExitStack() as stack:
        servers = [stack.enter_context(edgeseg(words.bundle, mode)) for mode in ("throughput", "latency")]
        if words.peers:
            servers += [stack.enter_context(peer(name, words.bundle)) for name in PEERS if find_spec(name)]
        segmenter = stack.enter_context(open_segmenter(words.bundle, mode="throughput"))
        alone = stack.enter_context(open_segmenter(words.bundle))
        one_round(segmenter, alone, servers, jpegs, clients, words.seconds)  # to warm up
        load = os.getloadavg()[0]
        rounds = [one_round(segmenter, alone, servers, jpegs, clients, words.seconds) for _ in range(words.rounds)]
        resident_mib = memory(servers[0].port, jpegs, words.requests, servers[0].pid) if words.requests else []
    document = {"cpus": os.cpu_count(), "load": round(load, 1), "bundle": words.bundle.name, "size": words.size}
    print(json.dumps({**document, "memory": resident_mib, **medians(rounds)}, indent=1))


@contextmanager
def edgeseg(bundle: Path, mode: str) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "edgeseg", "serve", str(bundle), "--port", str(port), "--mode", mode]
    with running(command, port) as pid:
        yield Server("edgeseg" if mode == "throughput" else f"edgeseg_{mode}", port, pid)


@contextmanager
def peer(name: str, bundle: Path) -> Iterator[Server]:
    port, module = free_port(), PEERS[name]
    with running([sys.executable, "-m", module.__name__, str(bundle), str(port)], port) as pid:
        yield Server(name, port, pid, module.PATH, module.request)


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """The id of a server's process, once it listens."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")))
    with tempfile.TemporaryFile() as log:
        environment = {**os.environ, "PYTHONPATH": paths}
        process = subprocess.Popen(command, stderr=log, stdout=log, env=environment, start_new_session=True)
        try:
            wait_for(port, process)
            yield process.pid
        finally:
            process.terminate()
            process.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # LitServe leaves its workers behind


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        assert process.poll() is None, f"{process.args!r} ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"{process.args!r} does not listen")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def one_round(
    segmenter: Segmenter,
    alone: Segmenter,
    servers: list[Server],
    jpegs: list[bytes],
    clients: list[int],
    seconds: float,
) -> dict[str, float]:
    """Every measurement once; ratios are of this round's own."""
    found = direct(segmenter, alone, jpegs, seconds)
    for number in clients:
        for server in servers:
            served = load(server, jpegs, number, seconds)
            prefix = f"{server.name}_{number}"
            found.update({f"{prefix}_{key}": value for key, value in served.items()})
            found[f"{prefix}_over_alone"] = served["per_second"] / found["alone"]
            found[f"{prefix}_over_decoding"] = served["per_second"] / found["decoding"]
            if number == 1:
                found[f"{server.name}_added_p50_ms"] = served["p50_ms"] - found["latency_p50_ms"]
    return found


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(float(np.median([each[key] for each in rounds])), 2) for key in rounds[0]}


def images(height: int, width: int) -> list[bytes]:
    """Eight street frames as JPEG."""
    street = Street(5, height, width)
    return [cv2.imencode(".jpg", street.frame(i)[0])[1].tobytes() for i in range(8)]


def direct(segmenter: Segmenter, alone: Segmenter, jpegs: list[bytes], seconds: float) -> dict[str, float]:
    """`segmenter` in throughput mode, `alone` in latency mode, without a server."""
    frames = [decode_image(jpeg, Path("x")) for jpeg in jpegs]

    def endless(decoding: bool) -> Iterator[Frame]:
        end, i = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            yield Frame(decode_image(jpegs[i % 8], Path("x")) if decoding else frames[i % 8], i)
            i += 1

    found: dict[str, float] = {}
    for name, decoding in (("alone", False), ("decoding", True)):
        began, cpu = time.monotonic(), time.process_time()
        count = sum(1 for _ in segmenter.stream(endless(decoding)))
        found[name] = count / (time.monotonic() - began)
        found[f"{name}_cpu_ms"] = 1e3 * (time.process_time() - cpu) / count
    times = []
    for frame in endless(False):
        began = time.perf_counter()
        palette_png(alone(decode_image(jpegs[frame.index % 8], Path("x"))).classmap, alone.spec.palette)
        times.append(time.perf_counter() - began)
    return {**found, **{f"latency_{key}": value for key, value in quantiles(times).items()}}


def load(server: Server, jpegs: list[bytes], clients: int, seconds: float) -> dict[str, float]:
    cpu = cpu_seconds(server.pid)
    bodies = [server.request(jpeg) for jpeg in jpegs]
    times: list[float] = []
    refused = [0]
    end = time.monotonic() + seconds

    def work(start: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        headers = {"Content-Type": "application/json" if bodies[0][:1] == b"{" else "image/jpeg"}
        i = start
        while time.monotonic() < end:
            began = time.perf_counter()
            connection.request("POST", server.path, bodies[i % len(bodies)], headers)
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                times.append(time.perf_counter() - began)
            else:
                assert response.status == 429, (server.name, response.status)
                refused[0] += 1
                time.sleep(0.05)
            i += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = round(len(times) / (time.monotonic() - began), 1)
    spent = 1e3 * (cpu_seconds(server.pid) - cpu) / max(1, len(times))
    return {"per_second": rate, "refused": refused[0], "cpu_ms": spent, **quantiles(times)}


def quantiles(times: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": round(1e3 * float(np.percentile(times, q)), 2) for q in (50, 99)}


def memory(port: int, jpegs: list[bytes], requests: int, pid: int) -> list[float]:
    """MiB after each tenth of the requests."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    found = [resident(pid)]
    for i in range(requests):
        connection.request("POST", ("/v1/segment?format=rle", "/v1/segment?format=overlay", PATH)[i % 3], jpegs[i % 8])
        assert connection.getresponse().read()
        if (i + 1) % (requests // 10) == 0:
            found.append(resident(pid))
    return found


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)


if __name__ == "__main__":
    main()

"""What serving costs: requests a second and their times against the Segmenter alone, on the same machine.

    python benchmarks/serving.py models/street/street-int8 [--seconds 8] [--requests 2000]

Prints JSON. `alone`: frames in memory through Segmenter.stream (throughput mode); `decoding`: JPEGs decoded in the same
thread and then so; `latency`: one frame at a time, decoded. `served`: by clients, each with one connection that asks
again at once; client and server share the machine. `memory`: MiB of the server before and after --requests requests.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edgeseg import Frame, Street, open_segmenter
from edgeseg.images import decode_image

CLIENTS = (1, 2, 8, 64)
PATH = "/v1/segment?format=png&size=model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--requests", type=int, default=2000)
    words = parser.parse_args()
    jpegs = images()
    document = {"cpus": os.cpu_count(), "bundle": words.bundle.name, **direct(words.bundle, jpegs, words.seconds)}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as file:
            command = [sys.executable, "-m", "edgeseg", "serve", str(words.bundle), "--port", "0"]
            process = subprocess.Popen(command, stderr=file)
        try:
            port = wait_for(log, process)
            load(port, jpegs, 2, 2.0)
            document["served"] = [load(port, jpegs, clients, words.seconds) for clients in CLIENTS]
            document["memory"] = memory(port, jpegs, words.requests, process.pid)
        finally:
            process.terminate()
            document["exit_code"] = process.wait(30)
    print(json.dumps(document, indent=1))


def images(height: int = 720, width: int = 1280) -> list[bytes]:
    """Eight street frames as JPEG."""
    street = Street(5, height, width)
    return [cv2.imencode(".jpg", street.frame(i)[0])[1].tobytes() for i in range(8)]


def direct(bundle: Path, jpegs: list[bytes], seconds: float) -> dict[str, object]:
    frames = [decode_image(jpeg, Path("x")) for jpeg in jpegs]

    def endless(decoding: bool) -> Iterator[Frame]:
        end, i = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            yield Frame(decode_image(jpegs[i % 8], Path("x")) if decoding else frames[i % 8])
            i += 1

    found: dict[str, object] = {}
    with open_segmenter(bundle, mode="throughput") as segmenter:
        for name, decoding in (("alone", False), ("decoding", True)):
            began = time.monotonic()
            count = sum(1 for _ in segmenter.stream(endless(decoding)))
            found[name] = round(count / (time.monotonic() - began), 1)
        times = []
        for frame in endless(False):
            began = time.perf_counter()
            segmenter(decode_image(jpegs[frame.index], Path("x")))
            times.append(time.perf_counter() - began)
    return {**found, "latency": quantiles(times)}


def load(port: int, jpegs: list[bytes], clients: int, seconds: float) -> dict[str, object]:
    times: list[float] = []
    refused = [0]
    end = time.monotonic() + seconds

    def work(start: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        i = start
        while time.monotonic() < end:
            began = time.perf_counter()
            connection.request("POST", PATH, jpegs[i % len(jpegs)])
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                times.append(time.perf_counter() - began)
            else:
                assert response.status == 429, response.status
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
    return {"clients": clients, "per_second": rate, "refused": refused[0], **quantiles(times)}


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


def resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)


def wait_for(log: Path, process: subprocess.Popen[bytes]) -> int:
    while not (found := re.search(r"at http://\S+:(\d+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    return int(found[1])


if __name__ == "__main__":
    main()

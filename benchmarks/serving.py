"""What serving costs: requests a second and their times against the Segmenter alone, on the same machine.

    python benchmarks/serving.py models/street/street-int8 [--rounds 5] [--seconds 2] [--requests 2000]

Prints JSON, medians over rounds that measure everything in turn. `alone`: frames in memory through Segmenter.stream
(throughput mode), a second; `decoding`: JPEGs decoded in the same thread and then so; `latency`: one at a time,
decoded, and its class map encoded. `N_...`: N clients, each with one connection that asks again at once; they share the
machine with the server. `cpu_ms`: of all threads of the server, or of this process, for an image; other work on the
machine changes it little. `memory`: MiB of the server before and after each tenth of --requests.
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

from edgeseg import Frame, Segmenter, Street, open_segmenter
from edgeseg.images import decode_image, palette_png

CLIENTS = (1, 2, 8, 64)
PATH = "/v1/segment?format=png&size=model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--size", default="1280x720", help="of the images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement of a round")
    parser.add_argument("--requests", type=int, default=2000)
    words = parser.parse_args()
    width, height = map(int, words.size.split("x"))
    jpegs = images(height, width)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as file:
            command = [sys.executable, "-m", "edgeseg", "serve", str(words.bundle), "--port", "0"]
            process = subprocess.Popen(command, stderr=file)
        try:
            port = wait_for(log, process)
            with open_segmenter(words.bundle, mode="throughput") as segmenter:
                one_round(segmenter, port, process.pid, jpegs, words.seconds)  # to warm up
                rounds = [one_round(segmenter, port, process.pid, jpegs, words.seconds) for _ in range(words.rounds)]
            resident_mib = memory(port, jpegs, words.requests, process.pid)
        finally:
            process.terminate()
            ended = process.wait(30)
    document = {"cpus": os.cpu_count(), "bundle": words.bundle.name, "exit_code": ended, "memory": resident_mib}
    print(json.dumps({**document, **medians(rounds)}, indent=1))


def one_round(segmenter: Segmenter, port: int, pid: int, jpegs: list[bytes], seconds: float) -> dict[str, float]:
    """Every measurement once; ratios are of this round's own."""
    found = direct(segmenter, jpegs, seconds)
    for clients in CLIENTS:
        served = load(port, jpegs, clients, seconds, pid)
        found.update({f"{clients}_{key}": value for key, value in served.items()})
        found[f"{clients}_over_decoding"] = served["per_second"] / found["decoding"]
    found["added_p50_ms"] = found["1_p50_ms"] - found["latency_p50_ms"]
    return found


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(float(np.median([each[key] for each in rounds])), 2) for key in rounds[0]}


def images(height: int, width: int) -> list[bytes]:
    """Eight street frames as JPEG."""
    street = Street(5, height, width)
    return [cv2.imencode(".jpg", street.frame(i)[0])[1].tobytes() for i in range(8)]


def direct(segmenter: Segmenter, jpegs: list[bytes], seconds: float) -> dict[str, float]:
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
        palette_png(segmenter(decode_image(jpegs[frame.index % 8], Path("x"))).classmap, segmenter.spec.palette)
        times.append(time.perf_counter() - began)
    return {**found, **{f"latency_{key}": value for key, value in quantiles(times).items()}}


def load(port: int, jpegs: list[bytes], clients: int, seconds: float, pid: int) -> dict[str, float]:
    cpu = cpu_seconds(pid)
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
    spent = 1e3 * (cpu_seconds(pid) - cpu) / max(1, len(times))
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


def wait_for(log: Path, process: subprocess.Popen[bytes]) -> int:
    while not (found := re.search(r"at http://\S+:(\d+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    return int(found[1])


if __name__ == "__main__":
    main()

"""Draw docs/images/dashboard.png: python docs/dashboard_image.py [SECONDS] (needs Debian's prometheus)

Real Prometheus scrapes a live run of three streams, at day, dusk and night, and a server that is asked. Every panel of
deploy/grafana/edgeseg.json is then drawn from the answers to its own expressions, in its own place. It shows that the
panels have something to show, not what Grafana makes of it.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "models" / "street" / "street-int8"
UNIT, TALL = 50, 26  # pixels of one step of Grafana's grid, across and down
COLORS = [(180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214), (189, 103, 148), (75, 86, 140),
          (194, 119, 227), (127, 127, 127), (34, 189, 188), (207, 190, 23)]  # fmt: skip
SUFFIXES = {"s": " s", "bytes": " B", "celsius": " C", "watt": " W", "percentunit": ""}
LEGEND = 5  # series that a panel names


@dataclass(frozen=True)
class Series:
    """`times` in Unix seconds."""

    name: str
    times: list[float]
    values: list[float]


def ask(port: int, page: str, **query: object) -> Any:
    url = f"http://127.0.0.1:{port}/api/v1/{page}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def series(port: int, panel: dict[str, Any], start: float, end: float) -> Iterator[Series]:
    """The answers to the expressions of a panel."""
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "15s").replace("$instance", ".*")
        found = ask(port, "query_range", query=expression.replace("$stream", ".*"), start=start, end=end, step=1)
        for row in found["result"]:
            name = target.get("legendFormat", "")
            for key, value in row["metric"].items():
                name = name.replace(f"{{{{{key}}}}}", value)
            points = [(float(t), float(v)) for t, v in row["values"] if np.isfinite(float(v))]
            if points:
                yield Series(re.sub(r"{{\w+}}", "", name).strip(), *map(list, zip(*points)))


def draw(canvas: Any, panel: dict[str, Any], rows: Sequence[Series], span: tuple[float, float]) -> None:
    """One panel in its place on the grid: title, lines between its smallest and largest value, and a legend of the
    highest."""
    place = panel["gridPos"]
    x, y, width, height = place["x"] * UNIT, place["y"] * TALL, place["w"] * UNIT, place["h"] * TALL
    if panel["type"] == "row":
        write(canvas, panel["title"], x + 8, y + 18, 0.55, (90, 90, 90))
        return
    cv2.rectangle(canvas, (x + 4, y + 4), (x + width - 4, y + height - 4), (255, 255, 255), -1)
    write(canvas, panel["title"], x + 12, y + 22, 0.48, (40, 40, 40))
    top, bottom, left, right = y + 34, y + height - 24 - 13 * min(len(rows), LEGEND), x + 70, x + width - 16
    if not rows:
        write(canvas, "no such sensor or event here", x + 90, y + height // 2, 0.42, (150, 150, 150))
        return
    values = [value for row in rows for value in row.values]
    low, high = min(0.0, *values), max(values) or 1.0
    suffix = SUFFIXES.get(panel["fieldConfig"]["defaults"].get("unit", ""), "")
    for share in (0.0, 0.5, 1.0):
        level = round(bottom - share * (bottom - top))
        cv2.line(canvas, (left, level), (right, level), (230, 230, 230), 1)
        write(canvas, f"{number(low + share * (high - low))}{suffix}", x + 8, level + 4, 0.36, (120, 120, 120))
    for index, row in enumerate(rows):
        color = COLORS[index % len(COLORS)]
        across = [left + (t - span[0]) / (span[1] - span[0]) * (right - left) for t in row.times]
        down = [bottom - (v - low) / (high - low) * (bottom - top) for v in row.values]
        line = np.round(np.stack([across, down], 1) * 16).astype(np.int32)
        cv2.polylines(canvas, [line[:, None]], False, color, 2, cv2.LINE_AA, shift=4)
        if index < LEGEND:
            more = f"  and {len(rows) - LEGEND} more" if index == LEGEND - 1 and len(rows) > LEGEND else ""
            write(canvas, (row.name + more)[:58], left, bottom + 16 + 13 * index, 0.36, color)


def write(canvas: Any, text: str, x: int, y: int, size: float, color: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, color, 1, cv2.LINE_AA)


def number(value: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


@contextmanager
def running(folder: Path, ports: Sequence[int]) -> Iterator[None]:
    """A run of three streams, at day, dusk and night; a server; and Prometheus that scrapes both."""
    run, serve, own = ports
    targets = [f"127.0.0.1:{run}", f"127.0.0.1:{serve}"]
    job = {"job_name": "edgeseg", "static_configs": [{"targets": targets}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    day = "synthetic://street?fps=10&size=384x224"
    streams = [("day", day), ("dusk", f"{day}&seed=4&night=0.5"), ("night", f"{day}&seed=5&night=1")]
    lines = [f'bundle = "{BUNDLE}"', f'metrics = "127.0.0.1:{run}"', "deadline_ms = 500"]
    for name, uri in streams:
        lines += ["[[stream]]", f'name = "{name}"', f'source = "{uri}"', f'sinks = ["drift://{folder}/{name}/"]']
    (folder / "stream.toml").write_text("\n".join(lines))
    edgeseg = [sys.executable, "-m", "edgeseg"]
    commands = [
        [*edgeseg, "run", "--config", folder / "stream.toml"],
        [*edgeseg, "serve", BUNDLE, "--port", serve],
        ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
         f"--web.listen-address=127.0.0.1:{own}"],
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        processes = [subprocess.Popen([*map(str, words)], stdout=log, stderr=log) for words in commands]
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(30)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def main(seconds: float) -> None:
    if not shutil.which("prometheus"):
        sys.exit("Needs prometheus: apt install prometheus")
    panels = json.loads((ROOT / "deploy" / "grafana" / "edgeseg.json").read_text())["panels"]
    ports = [free_port() for _ in range(3)]
    image = (BUNDLE / "golden" / "0.png").read_bytes()
    with tempfile.TemporaryDirectory() as name, running(Path(name), ports):
        begin = time.time()
        while time.time() < begin + seconds:
            time.sleep(0.5)
            with suppress(OSError):  # it starts
                urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}/v1/segment", image, timeout=30).close()
        span = (begin + min(20, seconds / 4), time.time())
        places = [panel["gridPos"] for panel in panels]
        size = (max(p["y"] + p["h"] for p in places) * TALL, max(p["x"] + p["w"] for p in places) * UNIT, 3)
        canvas = np.full(size, 238, np.uint8)
        for panel in panels:
            found = series(ports[2], panel, *span) if panel.get("targets") else ()
            rows = sorted(found, key=lambda row: -max(row.values))
            print(f"{panel['title']}: {len(rows)} series")
            draw(canvas, panel, rows, span)
    cv2.imwrite(str(ROOT / "docs" / "images" / "dashboard.png"), canvas)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 150)

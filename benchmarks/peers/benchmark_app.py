"""OpenVINO's own benchmark_app on a model file, with the precision and the hint that the bundle uses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def available() -> bool:
    return _program() is not None


def _program() -> str | None:
    beside = Path(sys.executable).with_name("benchmark_app")
    return str(beside) if beside.is_file() else shutil.which("benchmark_app")


def measure(model: Path, hint: str, seconds: int, requests: int, compute: str = "f32") -> dict[str, float]:
    """{fps, latency_p50_ms} of the network alone; `hint` latency or throughput, `requests` in flight."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["-m", str(model), "-d", "CPU", "-hint", hint, "-t", str(seconds)]
        options += ["-infer_precision", compute, "-nireq", str(requests)]
        options += ["-report_type", "no_counters", "-report_folder", folder, "-json_stats"]
        subprocess.run([str(_program()), *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        results = json.loads((Path(folder) / "benchmark_report.json").read_text())["execution_results"]
    return {"fps": float(results["throughput"]), "latency_p50_ms": float(results["latency (ms)"])}

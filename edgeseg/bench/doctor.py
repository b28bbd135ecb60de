"""doctor: what this machine can run, what is missing and how to get it, what is misconfigured, and a short self-test.

Every check is a function here that returns Findings; `levels` are ok, note (works, but could be better) and problem.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

import numpy as np

from edgeseg import backends, mask
from edgeseg.bench.precision_gains import precision_gains
from edgeseg.bench.sensors import Sensors
from edgeseg.cpus import dot_products
from edgeseg.errors import EdgesegError
from edgeseg.machine import fingerprint, read
from edgeseg.target import Target, names

ROOT = Path("/")
SELF_TEST = (
    "selftest.onnx"  # a deploy graph of 3 classes at 32x48, random weights, made by tests/bench/make_selftest.py
)
WORTHWHILE = 1.2  # times as fast as fp32


@dataclass(frozen=True)
class Finding:
    """`about` one thing, `level` ok | note | problem, what was `found`, what to `do` ("" for nothing)."""

    about: str
    level: str
    found: str
    do: str = ""


def examine(root: Path = ROOT) -> list[Finding]:
    """Everything that can be found out without running a network; `root` is "/" but for tests."""
    return [*_program(), *_backends(), *_processor(root), *_memory(root), *_power(root), *_cameras(root)]


def _program() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    rows = [Finding("edgeseg", "ok", f"{_version()} on Python {version}, {platform.machine()}")]
    if not mask.compiled():
        do = "Install a C compiler (apt install gcc python3-dev), then: pip install --force-reinstall --no-deps edgeseg"
        rows.append(Finding("class-map kernel", "problem", "not built: masks take 15 to 300 times longer", do))
    else:
        rows.append(Finding("class-map kernel", "ok", "built"))
    return rows


def _version() -> str:
    try:
        return metadata.version("edgeseg")
    except metadata.PackageNotFoundError:  # sent here by `edgeseg bench --host`
        return "not installed"


def _backends() -> list[Finding]:
    """One row a backend, naming the targets it serves."""
    rows = []
    usable = 0
    for name in backends.names():
        reason = backends.get(name).probe()
        served = [t.name for t in map(Target.load, names()) if t.backend == name and not backends.missing(t)]
        usable += not reason
        state = reason or f"runs {', '.join(served)}"
        rows.append(Finding(f"backend {name}", "note" if reason else "ok", state))
    if not usable:
        do = "pip install 'edgeseg[openvino]' (or onnxruntime, tflite; TensorRT comes with JetPack)"
        rows.append(Finding("backends", "problem", "no backend can run here, so no bundle can", do))
    return rows


def _processor(root: Path) -> list[Finding]:
    machine = fingerprint(root)
    arm = set(_line(root, "Features").split())
    rows = [Finding("processor", "ok", f"{machine.cpu}, {machine.cores} cores")]
    if platform.machine() == "x86_64" and (fast := dot_products(root)) is not None:
        rows.append(Finding("INT8 instructions", "ok", ", ".join(fast) or "no VNNI or AMX: INT8 in 16-bit steps"))
    if platform.machine() == "aarch64" and arm and "asimddp" not in arm:
        rows.append(Finding("INT8 instructions", "note", "no dot product: see the self-test for what INT8 gains"))
    governor = machine.governor
    if governor and governor != "performance":
        do = "For steady latency: echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        rows.append(Finding("governor", "note", f"{governor}: clocks rise only under load", do))
    return rows


def _memory(root: Path) -> list[Finding]:
    rows = []
    text = read(root / "proc/meminfo")
    total, free, swap, swap_free = (
        int(match[1]) // 1024 if (match := re.search(rf"^{key}:\s+(\d+)", text, re.M)) else 0
        for key in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
    )
    if total:
        low = free < 512
        do = "Stop what else runs here; a stream needs about 200 MB and the network's activations." if low else ""
        rows.append(Finding("memory", "problem" if low else "ok", f"{free} of {total} MB free", do))
    if swap - swap_free > 64:
        do = "Frames stall while pages come back: find what uses the memory (ps aux --sort -rss)."
        rows.append(Finding("swap", "note", f"{swap - swap_free} MB in use", do))
    try:
        space = shutil.disk_usage(tempfile.gettempdir()).free >> 20
    except FileNotFoundError:  # a read-only root
        return rows
    if space < 512:
        rows.append(Finding("disk", "problem", f"{space} MB free for temporary files", "Free some disk space."))
    return rows


def _power(root: Path) -> list[Finding]:
    rows = []
    machine = fingerprint(root)
    if machine.jetpack or "jetson" in machine.board.lower():
        mode = machine.power_mode or "unknown"
        rows.append(Finding("board", "ok", f"{machine.board or 'Jetson'}, {machine.jetpack or 'no L4T release'}"))
        best = re.search(r"pmode:0+\b", mode)
        do = "" if best else "The fastest mode: sudo nvpmodel -m 0 && sudo jetson_clocks (see jetson/)."
        rows.append(Finding("power mode", "ok" if best else "note", mode, do))
    heat = Sensors(root).sample().celsius
    if heat is not None:
        hot = heat >= 80
        do = "Cool it: hot devices lower their clocks, and latency follows." if hot else ""
        rows.append(Finding("temperature", "note" if hot else "ok", f"{heat:.0f} degrees Celsius", do))
    return rows


def _cameras(root: Path) -> list[Finding]:
    rows = []
    devices = sorted(p.name for p in root.glob("dev/video[0-9]*"))
    if devices:
        rows.append(Finding("cameras", "ok", ", ".join(f"/dev/{name}" for name in devices)))
    try:
        import av

        rows.append(Finding("network cameras", "ok", f"PyAV {av.__version__}"))
    except ImportError:
        rows.append(Finding("network cameras", "note", "no PyAV: rtsp, udp and mjpeg sources are closed",
                            "pip install 'edgeseg[camera]'"))  # fmt: skip
    return rows


def self_test() -> list[Finding]:
    """Compile a tiny network with every backend that runs here, and compare their class maps pixel by pixel; then
    measure what lower precisions gain."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return [Finding("self-test", "note", "no folder for temporary files", "Set TMPDIR to one that can be written.")]
    return [*_compared(), *_precisions()]


def _precisions() -> list[Finding]:
    try:
        gains = precision_gains()
    except ImportError:
        return []
    fastest = max(gains, key=lambda precision: gains[precision])
    found = ", ".join(f"{precision} {times:.1f}" for precision, times in gains.items())
    found += " times as fast as fp32 (convolutions in OpenVINO, measured)"
    if gains[fastest] < WORTHWHILE:
        return [Finding("precisions", "note", found, "fp32 is nearly as fast here, and loses nothing.")]
    if not fastest.is_int8:
        return [Finding("precisions", "note", found, f"{fastest} is the fastest here: --precision {fastest}.")]
    return [Finding("precisions", "ok", found)]


def _compared() -> list[Finding]:
    rows = []
    first: tuple[str, np.ndarray] | None = None
    for name in backends.names():
        if backends.get(name).probe():
            continue
        target = next((t for t in map(Target.load, names()) if t.backend == name and not t.proxy), None)
        if target is None:
            continue
        begin = time.perf_counter()
        try:
            classmap = _segment(target)
        except EdgesegError as error:
            rows.append(Finding(f"self-test {name}", "problem", error.what, error.hint))
            continue
        duration = f"{1000 * (time.perf_counter() - begin):.0f} ms from graph to mask"
        first = first or (name, classmap)
        same = float((classmap == first[1]).mean())
        if same < 0.999:
            agreement = f"{same:.1%} of pixels agree with {first[0]}"
            rows.append(
                Finding(f"self-test {name}", "problem", agreement, "Reinstall both runtimes; one computes wrongly.")
            )
        else:
            agrees = "" if name == first[0] else f", agrees with {first[0]}"
            rows.append(Finding(f"self-test {name}", "ok", duration + agrees))
    return rows


def _segment(target: Target) -> np.ndarray:
    from edgeseg.bundle import Manifest, seal
    from edgeseg.precision import Precision
    from edgeseg.runtime import open_segmenter
    from edgeseg.spec import Spec

    spec = Spec(32, 48, ("a", "b", "c"))
    with (
        tempfile.TemporaryDirectory() as folder,
        resources.as_file(resources.files("edgeseg.bench") / SELF_TEST) as graph,
    ):
        work = Path(folder)
        backends.get(target.backend).compile(graph, work, target, Precision.FP32)
        seal(work, Manifest(name="self-test", spec=spec, target=target.name, backend=target.backend,
                            precision=Precision.FP32, upsample="half_pixel", files={}))  # fmt: skip
        frame = np.random.default_rng(0).integers(0, 256, (96, 144, 3)).astype(np.uint8)
        with open_segmenter(work) as segmenter:
            return np.array(segmenter(frame).classmap)


def _line(root: Path, key: str) -> str:
    match = re.search(rf"^{key}\s*:\s*(.+)$", read(root / "proc/cpuinfo"), re.M)
    return match[1] if match else ""

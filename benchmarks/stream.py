"""The stream against the network alone: python benchmarks/stream.py [--json FILE|-] [--rounds N]

For each network, interleaved in one run: our stream (720p frames in, class maps at the network's full resolution out;
also stretched to 720p, as Model API gives them), pure inference of the exported INT8 network, the naive loop, and
OpenVINO Model API. Ratios are medians over rounds of pairs. The stream computes what is not INT8 in float32, so `pure`
does too; `default precision` is OpenVINO's own choice (bf16 where there is hardware for it, whose upsampled masks
differ), and Model API runs in that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import networks
import numpy as np
import peers
from peers import model_api, naive

from edgeseg import mask
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.cli.common import emit
from edgeseg.compile import compile_model, spec_of
from edgeseg.heads import semantic
from edgeseg.images import Image, write_image
from edgeseg.machine import fingerprint
from edgeseg.result import Frame
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter
from edgeseg.synth.street import Street
from edgeseg.target import Target

FRAMES = 60
NETWORKS: dict[str, Callable[[], Path]] = {"street": networks.street, "mobilenetv3-fpn": networks.mobilenetv3_fpn}


def measure(model: Path, frames: list[Image], rounds: int, work: Path) -> dict[str, Any]:
    """Ratios and frames per second for one network."""
    spec, _ = spec_of(model, {})
    for i, frame in enumerate(frames[:32]):
        write_image(work / "calibration" / f"{i:02}.png", frame)
    calibration = CalibrationSet.choose(work / "calibration", 32)
    bundle = work / "bundle"
    compile_model(
        model, bundle, Target.load("openvino-cpu"), "int8", spec=spec, frames=frames[:8], calibration=calibration
    )
    exported = peers.exported_int8(model, spec, frames[:32], work / "exported.xml")
    alone, by_default = peers.pure(exported, "f32"), peers.pure(exported)
    with open_segmenter(bundle, "throughput") as segmenter:
        runs: dict[str, Callable[[], int]] = {
            "pure": lambda: alone(len(frames)),
            "pure, default precision": lambda: by_default(len(frames)),
            "stream": lambda: _count(segmenter.stream(_numbered(frames))),
            "stream, masks at frame size": lambda: _count(_stretched(segmenter, frames)),
        }
        rivals = {"naive": naive.naive(exported, spec), **model_api.model_api(exported, spec, work)}
        runs |= {name: lambda peer=peer: _count(peer(frames)) for name, peer in rivals.items()}  # type: ignore[misc]
        rates = _interleaved(runs, rounds)
        equality = _equality(segmenter, frames)
    ratio = {name: statistics.median(s / o for s, o in zip(rates["stream"], row)) for name, row in rates.items()}
    at_frame_size = rates["stream, masks at frame size"]
    best = max(
        (row for name, row in rates.items() if name.startswith("model api")), key=statistics.median, default=None
    )
    return {
        "fps": {name: statistics.median(row) for name, row in rates.items()},
        "stream_over_pure": ratio["pure"],
        "stream_over_pure_default_precision": ratio["pure, default precision"],
        "stream_over_model_api": best and statistics.median(s / o for s, o in zip(at_frame_size, best)),
        "stream_over_naive": ratio["naive"],
        "mask_equality": equality,
        "input": [spec.height, spec.width],
    }


def _numbered(frames: list[Image]) -> Iterable[Frame]:
    return (Frame(image, i) for i, image in enumerate(frames))


def _stretched(segmenter: Segmenter, frames: list[Image]) -> Iterable[Image]:
    """Class maps at the size of the frames, as Model API gives them."""
    for result in segmenter.stream(_numbered(frames)):
        yield result.at_frame_size()


def _interleaved(runs: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Frames per second of every run, `rounds` times interleaved after one warm-up."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            count = run()
            if number:
                rates[name].append(count / (time.perf_counter() - begin))
    return rates


def _equality(segmenter: Segmenter, frames: list[Image]) -> float:
    """The share of pixels where the stream's class map equals a dense float32 upsample + argmax of the same logits."""
    spec, engine, head = segmenter.spec, segmenter.engine, semantic.of(segmenter.head)
    shares = []
    for frame in islice(frames, 12):
        classmap = segmenter(frame).classmap
        slot = segmenter._free[-1]  # the one just used: its logits are still there
        logits = np.array(engine.wait(slot)[semantic.LOGITS])
        shares.append((mask.dense(logits, spec.height, spec.width, head.upsample) == classmap).mean())
    return float(np.mean(shares))


def _count(items: Iterable[Any]) -> int:
    return sum(1 for _ in items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="FILE or - for standard output")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    options = parser.parse_args()
    street = Street(3, height=720, width=1280)
    frames = [street.frame(t)[0] for t in range(FRAMES)]
    results = {}
    for name in options.networks:
        with tempfile.TemporaryDirectory() as work:
            results[name] = measure(NETWORKS[name](), frames, options.rounds, Path(work))
        print(f"{name}: {json.dumps(results[name], indent=1)}", file=sys.stderr)
    document = {"kind": "stream benchmark", "machine": asdict(fingerprint()), "frames": "1280x720", "networks": results}
    for key in ("stream_over_pure", "stream_over_model_api", "mask_equality"):
        document[key] = {name: row[key] for name, row in results.items()}
    emit(document, options.json)


if __name__ == "__main__":
    main()

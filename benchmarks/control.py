"""Accuracy control beside NNCF's own, on a network that plain INT8 ruins: python benchmarks/control.py [--frames N]

Each in a process of its own: time, peak memory, drop, layers excluded. The network is the street student with every
second channel in front of some convolutions 1000 times larger and the weights behind them as much smaller: the same
float network, but one scale for all channels leaves nothing of the small ones.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeseg import onnx_graph
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import spec_of
from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.metrics import Counts
from edgeseg.fit import unfit
from edgeseg.images import resize
from edgeseg.mask import class_map
from edgeseg.onnx_graph.index import attribute
from edgeseg.search.control import control
from edgeseg.search.trials import Budget, Trials
from edgeseg.synth.files import write_dataset
from edgeseg.target import Target

MODEL = Path(__file__).parent.parent / "models" / "street" / "street.onnx"
SPREAD = 1000.0
SIDES = ("edgeseg", "nncf")


def ruin(source: Path, out: Path, count: int) -> list[str]:
    """Rescale the channels between Conv-ReLU-Conv chains that nothing else reads; returns the second convolutions."""
    model = onnx.load(str(source))
    weights = {w.name: w for w in model.graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    chains = []
    for conv in (n for n in model.graph.node if n.op_type == "Conv" and len(n.input) == 3):
        (relu,) = readers[conv.output[0]] if len(readers[conv.output[0]]) == 1 else (None,)
        after = readers.get(relu.output[0], []) if relu is not None and relu.op_type == "Relu" else []
        if len(after) == 1 and after[0].op_type == "Conv" and attribute(after[0], "group", 1) == 1:
            chains.append((conv, after[0]))
    chosen = [chains[i] for i in np.linspace(0, len(chains) - 1, count).round().astype(int)]
    for first, second in chosen:
        channels = weights[first.input[1]].dims[0]
        scale = np.where(np.arange(channels) % 2, SPREAD, 1.0).astype(np.float32)
        for name, factor in (
            (first.input[1], scale[:, None, None, None]),
            (first.input[2], scale),
            (second.input[1], 1 / scale[None, :, None, None]),
        ):
            weights[name].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights[name]) * factor, name))
    onnx.save(model, str(out))
    return [second.name for _, second in chosen]


def nncf_control(
    model: Path, spec: Any, calibration: CalibrationSet, dataset: Dataset, max_drop: float
) -> dict[str, Any]:
    """nncf.quantize_with_accuracy_control with the same frames and the same mIoU."""
    import nncf
    import openvino as ov

    deploy = onnx_graph.deploy_graph(onnx_graph.load(model), spec)
    network = ov.Core().read_model(deploy.model.SerializeToString())

    def score(compiled: Any, indices: Any) -> float:
        counts = Counts(len(spec.classes), spec.ignore_index)
        for i in indices:
            frame, label = dataset[i]
            logits = compiled(resize(frame, spec.height, spec.width)[None])[0][0]
            counts.add(label, unfit(class_map(logits, spec.height, spec.width, deploy.upsample), spec, *label.shape))
        return counts.metrics(spec.classes).miou or 0.0

    begin = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):
        quantized = nncf.quantize_with_accuracy_control(
            network,
            calibration_dataset=nncf.Dataset([f[None] for f in calibration.images(spec)]),
            validation_dataset=nncf.Dataset(list(range(len(dataset)))),
            validation_fn=score,
            max_drop=max_drop / 100,
            drop_type=nncf.DropType.ABSOLUTE,
            subset_size=len(calibration.frames),
        )
    seconds = time.monotonic() - begin
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    before, after = (score(ov.Core().compile_model(m, "CPU", hint), range(len(dataset))) for m in (network, quantized))
    convolutions = [op for op in quantized.get_ops() if op.get_type_name() in ("Convolution", "GroupConvolution")]
    excluded = [op.get_friendly_name() for op in convolutions if not _is_quantized(op)]
    return {"seconds": round(seconds, 1), "drop": round(100 * (before - after), 3), "kept": excluded}


def _is_quantized(op: Any) -> bool:
    return bool(op.input_value(0).get_node().get_type_name() == "FakeQuantize")


def ours(
    model: Path, spec: Any, calibration: CalibrationSet, dataset: Dataset, max_drop: float, work: Path
) -> dict[str, Any]:
    """edgeseg control; what follows the search (measuring speeds, writing the bundle) is timed separately."""
    begin = time.monotonic()
    searched = begin

    def log(text: str) -> None:
        nonlocal searched
        if "points lost" in text:
            searched = time.monotonic()

    trials = Trials(work / "trials", Target.load("openvino-cpu"), calibration, dataset, Budget(10.0), log)
    result = control(trials, model, spec, max_drop, work / "out")
    rows = [(row.k, round(row.drop.value or 0.0, 2), row.latency_ms.p50) for row in result.rows]
    return {
        "seconds": round(searched - begin, 1),
        "seconds_with_speeds": round(time.monotonic() - begin, 1),
        "drop": round(result.drop.value or 0.0, 3),
        "kept": result.kept,
        "k_drop_p50": rows,
        "noisiest": [asdict(noise) for noise in result.noise[:5]],
    }


def side(name: str, work: Path, max_drop: float) -> None:
    """One of the two, in a process of its own; prints JSON."""
    model = work / "fragile.onnx"
    spec, _ = spec_of(model, {})
    calibration, dataset = CalibrationSet.choose(work / "data", 32), Dataset.open(work / "data", "val")
    before = _peak()
    if name == "edgeseg":
        result = ours(model, spec, calibration, dataset, max_drop, work)
    else:
        result = nncf_control(model, spec, calibration, dataset, max_drop)
    print(json.dumps({**result, "peak_mb": _peak(), "peak_mb_before": before}))


def _peak() -> float:
    """Megabytes of memory that this process has used at most (Linux counts in kB)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=16, help="to evaluate on")
    parser.add_argument("--convolutions", type=int, default=2, help="how many to ruin")
    parser.add_argument("--max-drop", type=float, default=0.5)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        return side(options.side, options.work, options.max_drop)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_dataset(work / "data", train=32, val=options.frames, test=1, height=224, width=384)
        result = {"ruined": ruin(MODEL, work / "fragile.onnx", options.convolutions)}
        result |= {"max_drop": options.max_drop, "frames": options.frames}
        for name in SIDES:
            command = [sys.executable, __file__, "--side", name, "--work", folder, "--max-drop", str(options.max_drop)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            result[name] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

"""Accuracy control beside NNCF's own, on a network that plain INT8 ruins: python benchmarks/control.py [--frames N]

Each in a process of its own: time, peak memory, drop, layers kept. The street student, every second channel in front of
some convolutions 1000 times larger and the weights behind them as much smaller: the same float network, but one scale
for all channels leaves nothing of the small ones.
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
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeseg import onnx_graph
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import spec_of
from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.evaluate import fit
from edgeseg.evaluation.metrics import Counts
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


def ruin(source: Path, out: Path, places: int) -> list[str]:
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
    chosen = [chains[i] for i in np.linspace(0, len(chains) - 1, places).round().astype(int)]
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


def nncf_control(model: Path, spec: Any, calibration: CalibrationSet, dataset: Dataset, max_drop: float) -> dict[str, Any]:
    """nncf.quantize_with_accuracy_control with the same frames, judged by the same mIoU."""
    import nncf
    import openvino as ov

    deploy = onnx_graph.deploy_graph(onnx_graph.load(model), spec)
    network = ov.Core().read_model(deploy.model.SerializeToString())

    def score(compiled: Any, indices: Any) -> float:
        counts = Counts(len(spec.classes), spec.ignore_index)
        for i in indices:
            frame, label = dataset[i]
            logits = compiled(resize(frame, spec.height, spec.width)[None])[0][0]
            counts.add(label, fit(class_map(logits, spec.height, spec.width, deploy.upsample), *label.shape))
        return float(counts.metrics(spec.classes)["miou"])

    begin = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):
        made = nncf.quantize_with_accuracy_control(
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
    before, after = (score(ov.Core().compile_model(m, "CPU", hint), range(len(dataset))) for m in (network, made))
    convolutions = [op for op in made.get_ops() if op.get_type_name() in ("Convolution", "GroupConvolution")]
    kept = [op.get_friendly_name() for op in convolutions if not _quantized(op)]
    return {"seconds": round(seconds, 1), "drop": round(100 * (before - after), 3), "kept": kept}


def _quantized(op: Any) -> bool:
    return op.input_value(0).get_node().get_type_name() == "FakeQuantize"


def ours(
    model: Path, spec: Any, calibration: CalibrationSet, dataset: Dataset, max_drop: float, work: Path
) -> dict[str, Any]:
    """edgeseg control; what follows the search (measuring speeds, writing the bundle) is timed by itself."""
    begin = time.monotonic()
    searched = begin

    def said(text: str) -> None:
        nonlocal searched
        if "points lost" in text:
            searched = time.monotonic()

    trials = Trials(work / "trials", Target.load("openvino-cpu"), calibration, dataset, Budget(10.0), said)
    found = control(trials, model, spec, max_drop, work / "out")
    rows = [(row["k"], round(row["drop"]["value"], 2), row["latency_ms"]["p50"]) for row in found["rows"]]
    return {
        "seconds": round(searched - begin, 1),
        "seconds_with_speeds": round(time.monotonic() - begin, 1),
        "drop": round(found["drop"]["value"], 3),
        "kept": found["kept"],
        "k_drop_p50": rows,
        "noisiest": found["noise"][:5],
    }


def side(name: str, work: Path, max_drop: float) -> None:
    """One of the two, in a process of its own; prints JSON."""
    model = work / "fragile.onnx"
    spec, _ = spec_of(model, {})
    chosen, frames = CalibrationSet.choose(work / "data", 32), Dataset.open(work / "data", "val")
    before = _peak()
    if name == "edgeseg":
        found = ours(model, spec, chosen, frames, max_drop, work)
    else:
        found = nncf_control(model, spec, chosen, frames, max_drop)
    print(json.dumps({**found, "peak_mb": _peak(), "peak_mb_before": before}))


def _peak() -> float:
    """Megabytes of memory that this process has had at most (Linux counts in kB)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=16, help="to judge on")
    parser.add_argument("--places", type=int, default=2, help="convolutions to ruin")
    parser.add_argument("--max-drop", type=float, default=0.5)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        return side(asked.side, asked.work, asked.max_drop)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_dataset(work / "data", train=32, val=asked.frames, test=1, height=224, width=384)
        result = {"ruined": ruin(MODEL, work / "fragile.onnx", asked.places)}
        result |= {"max_drop": asked.max_drop, "frames": asked.frames}
        for name in SIDES:
            again = [sys.executable, __file__, "--side", name, "--work", folder, "--max-drop", str(asked.max_drop)]
            done = subprocess.run(again, stdout=subprocess.PIPE, text=True, check=True)
            result[name] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

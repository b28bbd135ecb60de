"""Compile an ONNX model, verify the bundle and evaluate it: python examples/compile_and_evaluate.py [--out FOLDER]"""

from __future__ import annotations

import argparse
from pathlib import Path

import edgeseg
from edgeseg.synth.files import write_dataset

parser = argparse.ArgumentParser(description="Compile the street student for this CPU, verify and evaluate it.")
parser.add_argument("--model", type=Path, default=Path("models/street/street.onnx"))
parser.add_argument("--out", type=Path, default=Path("street-example"))
options = parser.parse_args()

if not (data := options.out / "data").is_dir():
    write_dataset(data, train=2, val=1, test=6)
test = edgeseg.Dataset.open(data, "test")

# The Spec says what goes in and comes out: size, classes, normalization, color order. Here it is a shipped bundle's.
spec = edgeseg.Bundle.load(Path("models/street/street-fp32")).spec
bundle = edgeseg.compile_model(
    options.model,
    options.out / "street-fp32",
    edgeseg.Target.load("openvino-cpu"),
    "fp32",
    spec=spec,
    frames=[test[i][0] for i in range(len(test))],
)
assert bundle.manifest.parity is not None
print(f"{bundle.size / 1e6:.2f} MB, {bundle.manifest.parity.agreement:.2%} of the pixels as in {options.model}")

with edgeseg.open_segmenter(bundle.path) as segmenter:
    agreement = [(segmenter(frame).classmap == expected).mean() for frame, expected in bundle.golden()]
    print(f"golden frames: {min(agreement):.2%} of the pixels as when it was compiled")
    result = edgeseg.evaluate(segmenter, test)
print(f"mIoU {result.miou:.1%} on {len(test)} frames")

"""Networks of other libraries: how far bundles agree with them, by a reference that shares no code with edgeseg.

    python benchmarks/foreign_networks.py [--model FILE.onnx --frames DIR]... [--json FILE|-]

Each network of foreign_nets.py is written as ONNX, run untouched in ONNX Runtime, and its class maps are computed in
numpy from the raw outputs. Then it is compiled for OpenVINO and ONNX Runtime in float32 and INT8, and its bundles'
class maps are compared with those, on frames that did not calibrate. Its weights are random, so that figures of INT8
are lower than those of a trained network, and no search helps: ranges are minmax. `--model` adds trained ones, with
the default options. Refusals are quoted. Networks that the JSON file has already are left out, so that it can be
interrupted. The cases of torch's newer exporter need the package onnxscript.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from foreign_nets import HEIGHT, NETWORKS, WIDTH, Foreign, write
from numpy.typing import NDArray

from edgeseg.calibration.frames import CalibrationSet
from edgeseg.cli.common import emit
from edgeseg.compile import compile_model, spec_of
from edgeseg.errors import EdgesegError
from edgeseg.images import list_images, read_image
from edgeseg.machine import fingerprint
from edgeseg.recipe import PTQ
from edgeseg.runtime import open_segmenter
from edgeseg.spec import Spec
from edgeseg.synth.files import write_dataset
from edgeseg.target import Target

Array = NDArray[Any]
TARGETS = ("openvino-cpu", "onnxruntime-cpu")
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
JUDGED, FRAMES = 8, 16  # frames that are compared, and that calibrate


def measure(
    name: str,
    model: Path,
    spec: Spec,
    reading: str,
    frames: Path,
    judged: list[Array],
    output: str,
    ptq: PTQ,
    int8: tuple[str, ...] = TARGETS,
) -> dict[str, Any]:
    """Agreement of each bundle with the reference, or the refusal's words."""
    expected = [reference(model, frame, spec, reading, output) for frame in judged]
    row: dict[str, Any] = {"name": name, "classes_seen": len(np.unique(np.stack(expected)))}
    for target in TARGETS:
        for precision in ("fp32", "int8") if target in int8 else ("fp32",):
            chosen = CalibrationSet.choose(frames, FRAMES) if precision == "int8" else None
            with tempfile.TemporaryDirectory() as folder:
                try:
                    bundle = compile_model(
                        model, Path(folder) / "bundle", Target.load(target), precision, spec=spec, frames=judged[:4],
                        choosing=judged[:4], calibration=chosen, output=output, allow_loss=True,
                        ptq=ptq if chosen else PTQ(),
                    )  # fmt: skip
                except EdgesegError as error:
                    row[f"{target} {precision}"] = error.what
                    continue
                with open_segmenter(bundle.path) as segmenter:
                    found = [segmenter(frame).classmap for frame in judged]
                    same = [float((a == b).mean()) for a, b in zip(found, expected)]
                row[f"{target} {precision}"] = round(float(np.mean(same)), 6)
    return row


def reference(model: Path, frame: Array, spec: Spec, reading: str, output: str) -> Array:
    """The class map [H, W] of an ONNX file for a frame of its input's size: ONNX Runtime and numpy."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    x = ((frame[..., ::-1] / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)[None]
    x = np.ascontiguousarray(x, np.float16 if "float16" in entry.type else np.float32)
    name = output or session.get_outputs()[0].name
    out = np.asarray(session.run([name], {entry.name: x})[0])
    if reading == "ids":
        return out.reshape(out.shape[-2:] if out.shape[-1] != 1 else out.shape[1:3])
    scores = out[0].transpose(2, 0, 1) if reading == "last" else out[0]
    full = upsampled(scores.astype(np.float32), spec.height, spec.width)
    if reading in ("logit", "probability"):
        return np.asarray(full[0] > (0 if reading == "logit" else 0.5))
    return np.asarray(full.argmax(0))


def upsampled(scores: Array, height: int, width: int) -> Array:
    """[C, h, w] -> [C, height, width], bilinear with half-pixel centers, as torch's interpolate has it."""

    def axis(size: int, small: int) -> tuple[Array, Array, Array]:
        at = np.clip((np.arange(size) + 0.5) * small / size - 0.5, 0, small - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, small - 1), (at - low).astype(np.float32)

    if scores.shape[1:] == (height, width):
        return scores
    (y0, y1, wy), (x0, x1, wx) = axis(height, scores.shape[1]), axis(width, scores.shape[2])
    rows = scores[:, y0] * (1 - wy)[:, None] + scores[:, y1] * wy[:, None]
    return np.asarray(rows[..., x0] * (1 - wx) + rows[..., x1] * wx)


def foreign_row(
    foreign: Foreign, folder: Path, frames: Path, judged: list[Array], int8: tuple[str, ...]
) -> dict[str, Any]:
    settled = np.stack([((f[..., ::-1] / np.float32(255) - MEAN) / STD).transpose(2, 0, 1) for f in judged])
    model = write(foreign, folder / "net.onnx", settled.astype(np.float32))
    head = {"head": "threshold", "classes": ("rest", "object")} if foreign.classes == 2 else {}
    names = {} if foreign.classes == 2 else {"classes": tuple(f"class{i}" for i in range(foreign.classes))}
    output = ""
    if "auxiliary" in foreign.what:
        import onnx

        output = onnx.load(str(model)).graph.output[1].name
    spec, _ = spec_of(model, {"height": HEIGHT, "width": WIDTH, **head, **names}, output)
    row = measure(title(foreign), model, spec, foreign.reading, frames, judged, output, PTQ(ranges="minmax"), int8)
    return {**row, "megabytes": round(model.stat().st_size / 1e6, 1)}


def title(foreign: Foreign) -> str:
    opset = f"{foreign.opset} → {foreign.convert}" if foreign.convert else str(foreign.opset)
    return (
        f"{foreign.library} {foreign.name}: {foreign.what}; {'dynamo' if foreign.dynamo else 'legacy'}, opset {opset}"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    keys = [f"{target} {precision}" for target in TARGETS for precision in ("fp32", "int8")]
    heads = [key.replace("openvino-cpu", "OpenVINO").replace("onnxruntime-cpu", "ONNX Runtime") for key in keys]
    lines = [f"| network | classes seen | {' | '.join(heads)} |", f"|---|--:|{'--:|' * len(keys)}"]
    for row in rows:
        found = [row.get(key, "not measured") for key in keys]
        cells = [f"{100 * cell:.3f}" if isinstance(cell, float) else cell for cell in found]
        if "refused" in row:
            cells = [f"refused: {row['refused']}", *[""] * (len(keys) - 1)]
        lines.append(f"| {row['name']} | {row.get('classes_seen', '')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", default=[], help="a trained ONNX that carries its Spec")
    parser.add_argument("--frames", type=Path, action="append", default=[], help="frames for it, in the same order")
    parser.add_argument("--int8", default=",".join(TARGETS), help="targets whose INT8 is measured, comma separated")
    parser.add_argument("--only", default="", help="networks whose name has this text")
    parser.add_argument("--json", help="FILE or - for standard output")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    known = Path(options.json) if options.json and options.json != "-" else None
    rows: list[dict[str, Any]] = json.loads(known.read_text())["rows"] if known and known.is_file() else []
    done = {row["name"] for row in rows}

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)
        emit({"kind": "foreign networks", "machine": vars(fingerprint()), "rows": rows}, options.json)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_dataset(folder / "data", train=32, val=1, test=JUDGED, height=HEIGHT, width=WIDTH)
        judged = [read_image(path) for path in list_images(folder / "data/test/images")]
        for model, own in zip(options.model, options.frames):
            if model.stem not in done and options.only in model.stem:
                spec, _ = spec_of(model, {})
                files = list_images(own)
                sized = [
                    np.asarray(cv2.resize(read_image(f), (spec.width, spec.height)), np.uint8)
                    for f in files[::-1][:JUDGED]
                ]
                add(measure(model.stem, model, spec, "argmax", own, sized, "", PTQ()))
        for foreign in NETWORKS:
            if title(foreign) in done or options.only not in title(foreign):
                continue
            try:
                add(foreign_row(foreign, folder, folder / "data/train/images", judged, tuple(options.int8.split(","))))
            except EdgesegError as error:
                add({"name": title(foreign), "refused": error.what})
            except Exception as error:  # of a library or an exporter: not edgeseg's
                add(
                    {
                        "name": title(foreign),
                        "refused": f"not made: {type(error).__name__}: {str(error).splitlines()[0]}",
                    }
                )
    print(table(rows))


if __name__ == "__main__":
    main()

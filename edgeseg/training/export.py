"""Checkpoint -> pth, TorchScript, ONNX, OpenVINO or TFLite, each with its Spec; the size of a model.

Every format but pth takes a normalized image in the Spec's color order and gives logits at full size; the Spec's JSON
is stored under `edgeseg.spec`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeseg.errors import EdgesegError, MissingPackage, OptionError, unknown
from edgeseg.files import write_bytes
from edgeseg.recipe import NetConfig
from edgeseg.spec import ONNX_KEY, Spec
from edgeseg.training import checkpoint
from edgeseg.training.fusion import branched, fuse
from edgeseg.training.loader import STRIDE

OPSET = 17
TOLERANCE = 1e-4
Size = tuple[int, int]
ROUNDED = 0.1  # where the net rounds to 8 bits: one value that falls on the other side moves those behind it


def export(ckpt: Path | str, path: Path | str, kind: str, size: Size | None = None) -> Path:
    """Write a checkpoint in the format `kind`, for its own input size or another (height, width); returns the file.

    OptionError for a format that does not exist, or a size that is not made of multiples of 32.
    """
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    return FORMATS[kind](ckpt, path, size)


def export_pth(ckpt: Path | str, path: Path | str, size: Size | None = None) -> Path:
    """A file for torch.load(weights_only=True): `state_dict`, and as JSON `edgeseg.spec` and `edgeseg.net`."""
    model, net, spec = _loaded(ckpt, size)
    about = {"net": dataclasses.asdict(net), "spec": spec.to_dict()}
    texts = {f"edgeseg.{key}": json.dumps(value) for key, value in about.items()}
    checkpoint.write(Path(path), {"state_dict": model.state_dict(), **texts})
    return Path(path)


def export_torchscript(ckpt: Path | str, path: Path | str, size: Size | None = None) -> Path:
    """A traced module for torch.jit.load: float32 [1, 3, H, W] -> [1, C, H, W]. The Spec is an extra file of it."""
    model, _, spec = _loaded(ckpt, size)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        untyped: Any = torch.jit
        traced = untyped.trace(model.eval(), torch.zeros(1, 3, spec.height, spec.width), check_trace=False)
        untyped.save(traced, buffer, _extra_files={ONNX_KEY: json.dumps(spec.to_dict())})
    write_bytes(Path(path), buffer.getvalue())
    return Path(path)


def export_onnx(ckpt: Path | str, path: Path | str, size: Size | None = None) -> Path:
    """Write ONNX: `image` float32 [1, 3, H, W] -> `logits` [1, C, H, W]. The Spec is in its metadata.

    Raises EdgesegError where onnxruntime, if installed, does not agree with torch to 1e-4 (a net that rounds: 0.1).
    A net trained for INT8 has Q/DQ pairs.
    """
    write_bytes(Path(path), _proven_onnx(ckpt, size)[0])
    return Path(path)


def export_openvino(ckpt: Path | str, path: Path | str, size: Size | None = None) -> Path:
    """Write OpenVINO's IR (FILE.xml and FILE.bin, float32), of the ONNX. The Spec is in its rt_info."""
    try:
        import openvino as ov
    except ImportError as error:
        raise MissingPackage("openvino", "Exporting OpenVINO IR", "openvino") from error
    path = Path(path)
    if path.suffix != ".xml":
        raise OptionError(f"OpenVINO IR as {path}.", "Expected a name that ends in .xml; the weights go beside it.")
    data, spec = _proven_onnx(ckpt, size)
    model = ov.Core().read_model(data)
    model.set_rt_info(json.dumps(spec.to_dict()), [ONNX_KEY])
    with tempfile.TemporaryDirectory() as folder:
        ov.save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            write_bytes(path.with_suffix(suffix), (Path(folder) / f"model{suffix}").read_bytes())
    return path


def export_tflite(ckpt: Path | str, path: Path | str, size: Size | None = None) -> Path:
    """Write TFLite: `image` float32 [1, H, W, 3] -> `logits` [1, H, W, C], of the ONNX. The Spec is in its metadata."""
    import onnx

    from edgeseg.onnx_graph.loading import simplify
    from edgeseg.tflite.convert import convert

    data, spec = _proven_onnx(ckpt, size)
    model = simplify(onnx.load_from_string(data), spec.height, spec.width)
    write_bytes(Path(path), convert(model, {ONNX_KEY: json.dumps(spec.to_dict())}))
    return Path(path)


FORMATS: dict[str, Callable[[Path | str, Path | str, Size | None], Path]] = {
    "pth": export_pth,
    "torchscript": export_torchscript,
    "onnx": export_onnx,
    "openvino": export_openvino,
    "tflite": export_tflite,
}


def outputs(ckpt: Path, images: Iterable[Any]) -> tuple[Iterator[Any], str]:
    """What torch itself says: for each [1, H, W, 3] normalized image the logits [1, C, H, W], and who said it."""
    model, *_ = checkpoint.load(ckpt)

    def run() -> Iterator[Any]:
        for image in images:
            with torch.inference_mode():
                yield model(torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))).numpy()

    return run(), f"torch {torch.__version__}"


def _loaded(ckpt: Path | str, size: Size | None) -> tuple[nn.Module, NetConfig, Spec]:
    """A checkpoint's model, its net, and its Spec, for another input size if one is asked for."""
    model, net, spec, _ = checkpoint.load(ckpt)
    if size is None:
        return model, net, spec
    if any(side < STRIDE or side % STRIDE for side in size):
        raise OptionError(
            f"Input size {size[1]}x{size[0]}.", f"Expected multiples of {STRIDE}, the stride of the deepest stage."
        )
    return model, net, dataclasses.replace(spec, height=size[0], width=size[1])


def _proven_onnx(ckpt: Path | str, size: Size | None) -> tuple[bytes, Spec]:
    model, _, spec = _loaded(ckpt, size)
    # Branches that are there for training alone become one layer, which a net that rounds has already. Batch norms the
    # exporter folds by itself.
    split = branched(model) and not hasattr(model, "roundings")
    single = fuse(model, (spec.height, spec.width)).model if split else model
    data = to_onnx(single, spec)
    if importlib.util.find_spec("onnxruntime"):
        worst = parity(model, data, spec)
        allowed = ROUNDED if hasattr(model, "roundings") else TOLERANCE
        if worst > allowed:
            raise EdgesegError(
                f"The ONNX of {ckpt} differs from torch by {worst:.2g}.",
                f"Expected at most {allowed:g} of the largest logit; report this net's architecture.",
            )
    return data, spec


def to_onnx(model: nn.Module, spec: Spec) -> bytes:
    """The serialized ONNX model, Spec inside. The legacy exporter: the newer one cannot write opset 17."""
    import onnx

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (torch.zeros(1, 3, spec.height, spec.width),),
            buffer,  # type: ignore[arg-type]  # the legacy exporter takes a file object
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamo=False,
        )
    graph = onnx.load_from_string(buffer.getvalue())
    # Fixed by the input, but the exporter loses track of it where a net computes sizes while it runs.
    for dimension, size in zip(graph.graph.output[0].type.tensor_type.shape.dim, _output(model, spec)):
        dimension.dim_value = size
    entry = graph.metadata_props.add()
    entry.key, entry.value = ONNX_KEY, json.dumps(spec.to_dict())
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString())


def _output(model: nn.Module, spec: Spec) -> tuple[int, ...]:
    with torch.inference_mode():
        return tuple(model(torch.zeros(1, 3, spec.height, spec.width)).shape)


def parity(model: nn.Module, data: bytes, spec: Spec) -> float:
    """Largest difference between onnxruntime and torch on noise, as a share of the largest logit (at least 1)."""
    import onnxruntime

    image = torch.randn(1, 3, spec.height, spec.width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.eval()(image).numpy()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    got = session.run(None, {"image": image.numpy()})[0]
    return float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))


def macs_params(model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Multiply-accumulates of one frame of `size` (height, width), and the number of parameters."""
    training = model.training
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, *size))
    model.train(training)
    return counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters())

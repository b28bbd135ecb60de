"""Checkpoint -> pth, TorchScript, ONNX, OpenVINO or TFLite, each with its Spec.

Every format but pth maps a normalized image in the Spec's color order to logits at full size; the Spec's JSON is
stored under `edgeseg.spec`.
"""

from __future__ import annotations

import dataclasses
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

from edgeseg.errors import MissingPackage, OptionError, unknown
from edgeseg.files import write_bytes
from edgeseg.recipe import NetConfig
from edgeseg.spec import ONNX_KEY, Spec
from edgeseg.training import checkpoint
from edgeseg.training.loader import STRIDE
from edgeseg.training.onnx_export import verified_onnx

Size = tuple[int, int]


def export(ckpt: Path | str, path: Path | str, kind: str, size: Size | None = None) -> Path:
    """Write a checkpoint in the format `kind`, for its own input size or another (height, width); returns the file.

    OptionError for a format that does not exist, or a size that is not a multiple of 32.
    """
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    return FORMATS[kind](ckpt, path, size)


def export_pth(ckpt: Path | str, path: Path | str, size: Size | None = None) -> Path:
    """A file for torch.load(weights_only=True): `state_dict`, and as JSON `edgeseg.spec` and `edgeseg.net`."""
    model, net, spec = _load(ckpt, size)
    metadata = {"edgeseg.net": json.dumps(dataclasses.asdict(net)), ONNX_KEY: json.dumps(spec.to_dict())}
    checkpoint.write(Path(path), {"state_dict": model.state_dict(), **metadata})
    return Path(path)


def export_torchscript(ckpt: Path | str, path: Path | str, size: Size | None = None) -> Path:
    """A traced module for torch.jit.load: float32 [1, 3, H, W] -> [1, C, H, W]. The Spec is an extra file of it."""
    model, _, spec = _load(ckpt, size)
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

    A net trained for INT8 has Q/DQ pairs. EdgesegError where the ONNX differs from torch, see verified_onnx.
    """
    write_bytes(Path(path), _onnx_and_spec(ckpt, size)[0])
    return Path(path)


def export_openvino(ckpt: Path | str, path: Path | str, size: Size | None = None) -> Path:
    """Write OpenVINO IR (FILE.xml and FILE.bin, float32), converted from the ONNX. The Spec is in its rt_info."""
    try:
        import openvino as ov
    except ImportError as error:
        raise MissingPackage("openvino", "Exporting OpenVINO IR", "openvino") from error
    path = Path(path)
    if path.suffix != ".xml":
        raise OptionError(f"OpenVINO IR as {path}.", "Expected a name that ends in .xml; the weights go beside it.")
    data, spec = _onnx_and_spec(ckpt, size)
    model = ov.Core().read_model(data)
    model.set_rt_info(json.dumps(spec.to_dict()), [ONNX_KEY])
    with tempfile.TemporaryDirectory() as folder:
        ov.save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            write_bytes(path.with_suffix(suffix), (Path(folder) / f"model{suffix}").read_bytes())
    return path


def export_tflite(ckpt: Path | str, path: Path | str, size: Size | None = None) -> Path:
    """Write TFLite: `image` float32 [1, H, W, 3] -> `logits` [1, H, W, C], converted from the ONNX."""
    import onnx

    from edgeseg.onnx_graph.loading import simplify
    from edgeseg.tflite.convert import convert

    data, spec = _onnx_and_spec(ckpt, size)
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
    """torch's own logits [1, C, H, W] for each normalized image [1, H, W, 3], and the name of this runtime."""
    model, *_ = checkpoint.load(ckpt)

    def run() -> Iterator[Any]:
        for image in images:
            with torch.inference_mode():
                yield model(torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))).numpy()

    return run(), f"torch {torch.__version__}"


def _load(ckpt: Path | str, size: Size | None) -> tuple[nn.Module, NetConfig, Spec]:
    """A checkpoint's model, its net, and its Spec, for another input size where `size` is given."""
    model, net, spec, _ = checkpoint.load(ckpt)
    if size is None:
        return model, net, spec
    if any(side < STRIDE or side % STRIDE for side in size):
        raise OptionError(
            f"Input size {size[1]}x{size[0]}.", f"Expected multiples of {STRIDE}, the stride of the deepest stage."
        )
    return model, net, dataclasses.replace(spec, height=size[0], width=size[1])


def _onnx_and_spec(ckpt: Path | str, size: Size | None) -> tuple[bytes, Spec]:
    model, _, spec = _load(ckpt, size)
    return verified_onnx(model, spec, str(ckpt)), spec

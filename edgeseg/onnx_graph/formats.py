"""Files and folders that are not ONNX: which format they are in, and how an ONNX file is made of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from edgeseg.errors import FileError
from edgeseg.onnx_graph import model_info, tflite_metadata

_HEAD = 64  # bytes that are enough to tell the formats apart
_TORCH = "torch.onnx.export(model, example, 'model.onnx')"
FROM_TORCH = "torch.onnx.export(model.eval(), torch.zeros(1, 3, H, W), 'model.onnx', dynamo=False)"
_TF2ONNX = "python -m tf2onnx.convert"
# Converters that need other releases of our own packages, or TensorFlow: in an environment of their own.
_VENV = "python -m venv convert && convert/bin/pip install"
_FROM_IR = f"{_VENV} openvino2onnx==1.1.0 onnx==1.17.0 && convert/bin/openvino2onnx {{0}} {{1}}"
_FROM_TFLITE = f"{_VENV} tf2onnx tensorflow-cpu && convert/bin/python -m tf2onnx.convert --tflite {{0}} --output {{1}}"
_SUFFIXES = {
    ".pb": ("a TensorFlow graph", f"Convert it: {_TF2ONNX} --graphdef FILE --inputs X:0 --outputs Y:0 --output M"),
    ".engine": ("a TensorRT engine", "It runs on one GPU and cannot be read back; give the ONNX behind it."),
    ".xml": ("an OpenVINO IR", "Give the ONNX that it was converted from, or convert it back: " + _FROM_IR),
    ".mlmodel": ("a Core ML model", "Give the model it was converted from, exported to ONNX."),
    ".pdmodel": ("a PaddlePaddle model", "Convert it: paddle2onnx --model_dir FOLDER --save_file model.onnx"),
    ".caffemodel": ("a Caffe model", "Give the network exported to ONNX."),
    ".onnx_data": ("the external data of an ONNX model", "Give the .onnx file beside it."),
}  # fmt: skip
_SUFFIXES |= {
    ".plan": _SUFFIXES[".engine"],
    ".trt": _SUFFIXES[".engine"],
    ".bin": ("a file of weights", "Give the ONNX model; weights alone do not say what the network computes."),
}
_MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Fetch it: git lfs pull"),
    (b"\x89HDF\r\n", "a Keras model (HDF5)", "Convert it: in Keras, model.export('model.onnx', format='onnx')"),
    (b"ptrt", *_SUFFIXES[".engine"]),
    (b"ftrt", *_SUFFIXES[".engine"]),
    (b"PK\x03\x04", "a zip archive (TorchScript, .pt2, .keras)", f"Export the model to ONNX: {_TORCH}"),
    (b"\x80\x02", "a Python pickle", f"Load it in torch and export it: {_TORCH}"),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it: gunzip FILE"),
    (b"<?xml", *_SUFFIXES[".xml"]),
    (b"<net", *_SUFFIXES[".xml"]),
    (b"<!doctype html", "a web page, not the file behind it", "Download the file itself (its raw or direct link)."),
    (b"<html", "a web page, not the file behind it", "Download the file itself (its raw or direct link)."),
)  # fmt: skip
_FOLDERS = (
    ("saved_model.pb", "a TensorFlow SavedModel", f"Convert it: {_TF2ONNX} --saved-model FOLDER --output M"),
    ("bundle.json", "a bundle that was compiled already", "Run it (edgeseg run), or give the model it was made from."),
    ("config.json", "a Hugging Face model", "Export it: optimum-cli export onnx --model FOLDER OUT"),
    ("*.xml", *_SUFFIXES[".xml"]),
    ("Manifest.json", "a Core ML package", _SUFFIXES[".mlmodel"][1]),
)  # fmt: skip


def torch_program(path: Path) -> str:
    """What of torch a file holds: "exported" for an ExportedProgram (.pt2), "scripted" for TorchScript, else ""."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        return "exported"
    return "scripted" if any("/code/" in name for name in names) else ""


def require_onnx(path: Path) -> None:
    """FileError with the format's name for a folder or for a file that is in another format, as far as that is known.

    A file of an unknown format passes: whether it is ONNX shows when it is parsed.
    """
    if path.is_dir():
        found = _folder(path)
        if found is None:
            inside = sorted(p.name for p in path.glob("*.onnx"))[:3]
            hint = f"Give a file: {', '.join(inside)}." if inside else "Give an ONNX file."
            raise FileError(f"ONNX model {path} is a folder.", hint)
    else:
        found = _format(path)
    if found is not None:
        hint = found[1].replace("{0}", str(path)).replace("{1}", str(path.with_suffix(".onnx")))
        raise FileError(f"{path} is {found[0]}, not an ONNX model.", hint + _said(path))


def _said(path: Path) -> str:
    """What an IR or a TFLite file says about its network, to be given with the ONNX or left beside it."""
    readers = {".xml": model_info.of_ir, ".tflite": tflite_metadata.of_tflite}
    try:
        read = readers.get(path.suffix.lower())
        found = read(path) if read else None
    except FileError:
        return ""  # that it cannot be used is said already
    if found is None or not found.flags():
        return ""
    return f". It says: {found.flags()}; that is read from it where it lies beside the ONNX, under the same name."


def _folder(path: Path) -> tuple[str, str] | None:
    return next(((what, hint) for pattern, what, hint in _FOLDERS if any(path.glob(pattern))), None)


def _format(path: Path) -> tuple[str, str] | None:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[4:8] == b"TFL3":
        return "a TFLite model", f"Convert it: {_FROM_TFLITE}"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 30:
        return "a file of weights (safetensors)", "Load them into their network and export that to ONNX."
    for magic, what, hint in _MAGIC:
        if head.lower().startswith(magic.lower()):
            return what, hint
    return _SUFFIXES.get(path.suffix.lower())

"""Exit 70 is a bug: full disks, damaged state, names and numbers of any kind are the user's to know of, with exit 2."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.files import write_bytes
from edgeseg.ledger import Ledger
from edgeseg.runtime import open_segmenter

Command = Callable[..., Any]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process grows beyond that: writes fail as they do on a full disk (EFBIG in place of ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


TARGETS = [
    ("openvino-cpu", "fp32"), ("openvino-cpu", "int8"), ("openvino-gpu", "fp16"), ("onnxruntime-cpu", "fp32"),
    ("onnxruntime-cpu", "fp16"), ("onnxruntime-cpu", "int8"), ("tflite-cpu", "fp32"), ("tflite-cpu", "int8"),
    ("tflite-cpu", "dynamic"), ("jetson-orin", "fp16"), ("jetson-orin", "int8"), ("jetson-nano", "fp16"),
]  # fmt: skip
QUICK = [TARGETS[0], TARGETS[3], TARGETS[6], TARGETS[9]]


@pytest.mark.parametrize(
    "target",
    [t if t in QUICK else pytest.param(t, marks=pytest.mark.slow) for t in TARGETS],
    ids=lambda target: ":".join(target),
)
def test_a_full_disk_in_compile(
    target: tuple[str, str], network: Path, street: Path, tmp_path: Path, edgeseg: Command
) -> None:
    """At the first file, in the model, in the golden frames and the manifest."""
    words = ["compile", network, "-t", target[0], "-p", target[1], "-o", tmp_path / "out", "--allow-loss"]
    words += ["--calibration", street] if target[1] == "int8" else []
    for size in (100, 5000):
        with largest_file(size):
            result = edgeseg(*words)
        if result.code:
            assert result.code == 2, result.err
            assert "Cannot write" in result.err and "Free some space" in result.err, result.err
            assert not list(tmp_path.iterdir()), "nothing half-written stays"
        else:
            shutil.rmtree(tmp_path / "out")


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("target", QUICK, ids=":".join)
def test_a_disk_that_fills_up_in_compile(
    target: tuple[str, str], network: Path, tmp_path: Path, edgeseg: Command
) -> None:
    for kib in (16, 40):
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", tmp_path], capture_output=True
        ).returncode:
            pytest.skip("nothing can be mounted here")
        try:
            result = edgeseg("compile", network, "-t", target[0], "-p", target[1], "-o", tmp_path / "out")
            assert result.code in (0, 2)
            assert result.code == 0 or "Free some space" in result.err, result.err
            assert result.code == 0 or not list(tmp_path.iterdir())
        finally:
            subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("words", [("targets", "--json", "-"), ("targets",), ("doctor", "--quick", "--json", "-")])
def test_standard_output_on_a_full_device(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "edgeseg", *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.count("Error") == 1, done.stderr
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr


def test_a_result_on_a_full_device(tmp_path: Path, edgeseg: Command) -> None:
    (tmp_path / "out.json").symlink_to("/dev/full")
    with largest_file(10):
        result = edgeseg("targets", "--json", tmp_path / "more.json")
    assert result.code == 2 and "Cannot write" in result.err and "Free some space" in result.err
    assert not list(tmp_path.glob("*more*"))


def test_a_ledger_that_was_cut_short(tmp_path: Path) -> None:
    Ledger(tmp_path, lambda text: None).stage("one", {"a": 1}, [], dict, lambda: {"b": 2})
    whole = (tmp_path / "ledger.json").read_bytes()
    for size in range(len(whole) - 2):
        (tmp_path / "ledger.json").write_bytes(whole[:size])
        with pytest.raises(FileError, match=r"ledger\.json"):
            Ledger(tmp_path, lambda text: None)


@pytest.mark.parametrize("name", ["[/x]", "[bold]a", ":car:", "a[link=x]", "\x1b[31mred", "a" * 200])
def test_names_with_markup(
    name: str, bundle: Path, network: Path, street: Path, tmp_path: Path, edgeseg: Command
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / name.replace("/", "_")))
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["name"] = name
    (copy / "bundle.json").write_text(json.dumps(manifest))
    result = edgeseg("eval", copy, "--data", street)
    assert result.code == 0, result.err
    assert name in result.out or len(name) > 100
    classes = ",".join(f"{name} {i}" for i in range(8))
    result = edgeseg("compile", network, "--classes", classes, "-o", tmp_path / "out" / f"[x]{name}".replace("/", "_"))
    if "\x1b" in name:
        assert result.code == 2 and "control characters" in result.err
    else:
        assert result.code == 0, result.err


WITH_NAMES = [
    ("verify", "{}"), ("verify", "bundle", "--json", "{}"), ("compile", "{}"), ("eval", "bundle", "--data", "{}"),
    ("run", "bundle", "--source", "{}"), ("run", "bundle", "--source", "bundle/golden", "--sink", "{}.mp4"),
    ("run", "--config", "{}"), ("report", "{}", "--out", "r.html"), ("model-card", "{}", "x.json"), ("train", "{}"),
    ("gate", "bundle", "--data", "d", "--baseline", "{}"), ("data", "import", "{}", "--out", "o"),
    ("compile", "net.onnx", "--classes", "{}"), ("compile", "net.onnx", "-t", "{}"),
    ("verify", "bundle", "--key", "{}"), ("bench", "bundle", "--size", "{}"),
]  # fmt: skip
NAMES = {"long": "a" * 300, "deep": "b/" * 3000, "bytes": "\udcff\udcfe", "markup": "[/x]", "wide": "\u00e9" * 200}


@pytest.mark.parametrize("words", WITH_NAMES, ids=" ".join)
@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_file_has(
    words: tuple[str, ...],
    name: str,
    bundle: Path,
    network: Path,
    tmp_path: Path,
    edgeseg: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").symlink_to(bundle)
    shutil.copy(network, tmp_path / "net.onnx")
    result = edgeseg(*(word.format(NAMES[name]) for word in words))
    assert result.code in (0, 2), result.err[-500:]
    assert result.code == 0 or result.err.count("Error") == 1, result.err[-500:]


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "0x" + "f" * 5000, "1" * 19 + "0"])
def test_integers_of_more_than_64_bits(number: str, tmp_path: Path, edgeseg: Command, bundle: Path) -> None:
    (tmp_path / "r.toml").write_text(f'name = "a"\n[data]\nroot = "x"\nsize = [{number}, 64]\n')
    result = edgeseg("pipeline", tmp_path / "r.toml")
    assert result.code == 2 and "is not valid TOML" in result.err
    (tmp_path / "s.toml").write_text(f"deadline_ms = {number}\n")
    result = edgeseg("run", bundle, "--config", tmp_path / "s.toml")
    assert result.code == 2 and "is not valid TOML" in result.err
    if not number.startswith("0x"):
        (tmp_path / "e.json").write_text(f'{{"kind": "eval", "schema": 1, "frames": {number}0}}')
        result = edgeseg("report", tmp_path / "e.json", "--out", tmp_path / "r.html")
        assert result.code == 2 and "is not JSON of edgeseg" in result.err


def test_a_table_that_is_nested_too_deeply(tmp_path: Path, edgeseg: Command) -> None:
    (tmp_path / "r.toml").write_text("a = " + "[" * 100_000)
    result = edgeseg("pipeline", tmp_path / "r.toml")
    assert result.code == 2 and ("nested too deeply" in result.err or "is not valid TOML" in result.err)


def test_half_a_character_in_json(tmp_path: Path, edgeseg: Command, bundle: Path) -> None:
    for text in ('"\\ud800"', '"\\uDBFF x"'):
        (tmp_path / "e.json").write_text(f'{{"kind": "eval", "schema": 1, "note": {text}}}')
        result = edgeseg("report", tmp_path / "e.json", "--out", tmp_path / "r.html")
        assert result.code == 2 and "surrogates not allowed" in result.err
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "bundle.json").write_text((copy / "bundle.json").read_text().replace('"road"', '"\\ud800"'))
    result = edgeseg("verify", copy)
    assert result.code == 2 and "cannot be read" in result.err


def test_a_baseline_without_a_digest(tmp_path: Path, bundle: Path, street: Path, edgeseg: Command) -> None:
    assert edgeseg("baseline", bundle, "--data", street, "--out", tmp_path / "b.json").code == 0
    document = json.loads((tmp_path / "b.json").read_text())
    for key in document:
        less = {name: value for name, value in document.items() if name != key}
        (tmp_path / "b.json").write_text(json.dumps(less))
        for words in (
            ("gate", bundle, "--data", street, "--baseline", tmp_path / "b.json"),
            ("report", tmp_path / "b.json", "--out", tmp_path / "r.html"),
        ):
            result = edgeseg(*words)
            assert result.code in (0, 1, 2, 3) and "Internal" not in result.err, (key, result.err)


def failing(path: Path, to: Path) -> Path:
    """A bundle for ONNX Runtime whose model loads, and fails at every frame: it asks for a shape that does not fit."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    copy = Path(shutil.copytree(path, to))
    size = numpy_helper.from_array(np.array([1], np.int64), "size")
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["float"], ["most"], keepdims=0),  # 0 to 255, so no shape is known before
        helper.make_node("Cast", ["most"], ["number"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["number", "size"], ["count"]),
        helper.make_node("Reshape", ["float", "count"], ["logits"]),
    ]
    entry = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, tiny.HEIGHT, tiny.WIDTH, 3])
    end = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [entry], [end], [size])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(copy / "model.onnx")
    )
    tiny.reseal(copy)
    return copy


def test_a_runtime_that_fails_at_the_first_frame(
    bundle_of: Callable[[str, str], Path], street: Path, tmp_path: Path, edgeseg: Command
) -> None:
    broken = failing(bundle_of("onnxruntime-cpu", "fp32"), tmp_path / "broken")
    source = street / "test" / "images"
    for words in (("verify",), ("eval", "--data", street), ("run", "--source", source)):
        result = edgeseg(words[0], broken, *words[1:])
        assert result.code == 2 and "ONNX Runtime failed at a frame" in result.err, (words, result.err)
        assert result.err.count("Error: ") == 1


def test_outputs_that_the_spec_does_not_describe(bundle_of: Callable[[str, str], Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle_of("onnxruntime-cpu", "fp32"), tmp_path / "copy"))
    manifest = json.loads((copy / "bundle.json").read_text())
    for key in ("classes", "palette"):
        manifest["spec"][key] = manifest["spec"][key][:3]
    (copy / "bundle.json").write_text(json.dumps(manifest))
    with open_segmenter(copy) as segmenter, pytest.raises(EdgesegError, match=r"Expected logits with 3 channels"):
        segmenter(tiny.frames(1)[0])


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "a\0", "\x1b[31m"])
def test_class_names_are_text(name: str) -> None:
    from edgeseg.spec import Spec

    with pytest.raises(OptionError, match="control characters"):
        Spec(8, 8, ("a", name))


def test_writes_are_on_the_disk_before_they_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(tmp_path / "a", b"x")
    assert synced == [str(tmp_path / f".a.{os.getpid()}.tmp"), str(tmp_path)]
    synced.clear()
    write_bytes(tmp_path / "a", b"x", durable=False)
    assert not synced

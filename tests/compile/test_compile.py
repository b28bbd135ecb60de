"""compile_model on every target and precision: what is in the bundle, and that a failure leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgeseg import backends
from edgeseg.bundle import Bundle, CalibrationDigest
from edgeseg.compile import compile_model, golden_frames, rendered, spec_of
from edgeseg.data.dataset import Dataset
from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.evaluation.evaluate import evaluate
from edgeseg.images import write_image
from edgeseg.mask import agreement
from edgeseg.precision import Precision
from edgeseg.runtime import open_segmenter
from edgeseg.spec import Spec
from edgeseg.target import Target, names

pytest.importorskip("onnx")

PAIRS = [(name, precision) for name in names() for precision in Target.load(name).precisions]
BundleOf = Callable[[str, str], Path]


def compiled(model: Path, out: Path, target: str = "openvino-cpu", precision: str = "fp32", **more: Any) -> Bundle:
    return compile_model(
        model, out, Target.load(target), precision, spec=tiny.SPEC, frames=tiny.frames(2, seed=1), **more
    )


@pytest.mark.parametrize(("target", "precision"), PAIRS)
def test_a_bundle_of_every_target_and_precision(
    bundle_of: BundleOf, network: Path, target: str, precision: str
) -> None:
    import onnx

    loaded = Bundle.load(bundle_of(target, precision))
    m = loaded.manifest
    assert (loaded.target, loaded.precision, loaded.spec) == (target, precision, tiny.SPEC)
    assert m.graph.batchnorm_before == 2
    assert m.graph.batchnorm_after == 0
    assert m.parent.file == "tiny.onnx"
    assert (m.calibration is None) == (not Precision(precision).is_int8)
    parent = onnx.load(str(network))
    with open_segmenter(loaded.path, threads=1, backend=m.proved_by) as segmenter:
        shares = [
            agreement(segmenter(frame).classmap, tiny.parent_says(parent, frame, tiny.SPEC))
            for frame in tiny.frames(4, seed=1)
        ]
    floor = {"fp32": 0.999, "fp16": 0.99, "bf16": 0.95, "dynamic": 0.9, "int8": 0.9, "int8-bf16": 0.9}[precision]
    assert np.mean(shares) >= floor
    assert m.parity.agreement == pytest.approx(np.mean(shares), abs=1e-3)
    assert m.parity.worst == pytest.approx(min(shares), abs=1e-3)
    assert m.parity.reference.startswith("onnxruntime")


def weights(bundle: Path) -> dict[str, int]:
    """Bytes of constants by element type, in the file as it is stored."""
    if (bundle / "model.xml").exists():
        import openvino as ov

        result: dict[str, int] = {}
        for op in ov.Core().read_model(bundle / "model.xml").get_ops():
            if op.get_type_name() == "Constant":
                kind = op.get_element_type().get_type_name()
                result[kind] = result.get(kind, 0) + op.get_byte_size()
        return result
    import onnx
    from onnx import numpy_helper

    arrays = [numpy_helper.to_array(i) for i in onnx.load(str(bundle / "model.onnx")).graph.initializer]
    return {str(k): sum(a.nbytes for a in arrays if a.dtype == k) for k in {a.dtype for a in arrays}}


@pytest.mark.parametrize(
    ("target", "full", "half"), [("openvino-cpu", "f32", "f16"), ("onnxruntime-cpu", "float32", "float16")]
)
def test_half_precision_halves_the_model_size(bundle_of: BundleOf, target: str, full: str, half: str) -> None:
    a, b = weights(bundle_of(target, "fp32")), weights(bundle_of(target, "fp16"))
    assert half not in a
    assert b[half] >= 0.45 * a[full]
    assert b.get(full, 0) < 0.1 * a[full]


@pytest.mark.parametrize(("target", "kind"), [("openvino-cpu", "i8"), ("onnxruntime-cpu", "int8")])
def test_int8_stores_weights_in_one_byte_each(bundle_of: BundleOf, target: str, kind: str) -> None:
    convolutions = 8 * 27 + 16 * 72 + 8 * 16
    assert weights(bundle_of(target, "int8")).get(kind, 0) >= convolutions


@pytest.mark.parametrize(("target", "precision"), PAIRS)
def test_nothing_but_the_bundle_is_written(bundle_of: BundleOf, target: str, precision: str) -> None:
    path = bundle_of(target, precision)
    model = {
        "openvino": {"model.xml", "model.bin"},
        "onnxruntime": {"model.onnx"},
        "tensorrt": {"model.onnx", "plan.json"},
        "tflite": {"model.tflite"},
    }[Target.load(target).backend]
    runner = {"build.sh", "runner.py"} if Target.load(target).build_mode == "runner" else set()
    assert {p.name for p in path.iterdir()} == {*model, *runner, "bundle.json", "bom.cdx.json", "golden"}
    assert sorted(p.name for p in (path / "golden").iterdir()) == [
        f"{i}{kind}.png" for i in range(3) for kind in (".mask", "")
    ]
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("target", names())
def test_the_same_model_twice_gives_the_same_class_maps(network: Path, tmp_path: Path, target: str) -> None:
    paths = [compiled(network, tmp_path / name, target, Target.load(target).precisions[0]).path for name in "ab"]
    frames = tiny.frames(3, seed=8)
    maps = []
    for path in paths:
        with open_segmenter(path, threads=1, backend=Bundle.load(path).manifest.proved_by) as segmenter:
            maps.append([segmenter(frame).classmap for frame in frames])
    np.testing.assert_array_equal(maps[0], maps[1])
    a, b = ({k: v.sha256 for k, v in Bundle.load(p).manifest.files.items()} for p in paths)
    assert {k: v for k, v in a.items() if k.startswith("golden")} == {
        k: v for k, v in b.items() if k.startswith("golden")
    }


@pytest.mark.parametrize("target", [name for name in names() if "int8" in Target.load(name).precisions])
def test_the_same_calibration_frames_give_the_same_int8_class_maps(
    network: Path, street: Path, tmp_path: Path, target: str
) -> None:
    from edgeseg.calibration.frames import CalibrationSet

    chosen = CalibrationSet.choose(street, 8)
    frames = tiny.frames(2, seed=8)
    maps = []
    for name in "ab":
        bundle = compiled(network, tmp_path / name, target, "int8", calibration=chosen)
        assert bundle.manifest.calibration == CalibrationDigest(8, chosen.digest)
        with open_segmenter(bundle.path, threads=1, backend=bundle.manifest.proved_by) as segmenter:
            maps.append([segmenter(frame).classmap for frame in frames])
    np.testing.assert_array_equal(maps[0], maps[1])


def test_accuracy_on_a_dataset_is_stored(network: Path, street: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(street, "test")
    bundle = compiled(network, tmp_path / "out", dataset=dataset)
    stored = bundle.manifest.metrics
    with open_segmenter(bundle.path) as segmenter:
        result = evaluate(segmenter, dataset)
    assert (stored.data, stored.split, stored.frames) == ("street", "test", 4)
    for key in ("miou", "pixel_accuracy", "mean_accuracy", "dice", "boundary_f1", "per_class"):
        assert getattr(stored, key) == getattr(result, key)


def test_the_recipe_is_stored_in_the_manifest(network: Path, tmp_path: Path) -> None:
    bundle = compiled(network, tmp_path / "out", recipe={"name": "x"})
    assert bundle.manifest.recipe == {"name": "x"}


@pytest.mark.parametrize("source", ["synthetic", "folder"])
def test_golden_frames_may_come_from_another_folder(network: Path, tmp_path: Path, source: str) -> None:
    """Where the calibration frames may not be passed on."""
    stored = tiny.frames(4, seed=77)
    for i, frame in enumerate(stored):
        write_image(tmp_path / "folder" / f"{i}.png", frame)
    expected = rendered(tiny.SPEC, 3) if source == "synthetic" else stored[:3]
    bundle = compiled(network, tmp_path / "out", golden=golden_frames(source, tiny.SPEC, tmp_path))
    frames = [frame for frame, _ in bundle.golden()]
    assert len(frames) == 3 and all((a == b).all() for a, b in zip(frames, expected))
    plain = compiled(network, tmp_path / "plain", golden=golden_frames("", tiny.SPEC))
    assert (next(plain.golden())[0] == tiny.frames(2, seed=1)[0]).all()
    assert bundle.manifest.parity == plain.manifest.parity  # measured on `frames`, not on the golden ones


def test_golden_frames_of_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(FileError, match="none"):
        golden_frames("none", tiny.SPEC, tmp_path)


# Failures leave nothing behind


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("error", [RuntimeError("the compiler broke"), KeyboardInterrupt(), OSError(28, "disk full")])
def test_a_failed_compile_leaves_the_previous_bundle(
    network: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    shutil.copytree(bundle, tmp_path / "out")
    before = snapshot(tmp_path)
    backend = backends.get("openvino")

    def half_way(graph: Path, out: Path, *_: object) -> list[str]:
        (out / "model.xml").write_text("half")
        raise error

    monkeypatch.setattr(backend, "compile", half_way)
    with pytest.raises(FileError if isinstance(error, OSError) else type(error)):
        compiled(network, tmp_path / "out")
    assert snapshot(tmp_path) == before
    monkeypatch.undo()
    assert compiled(network, tmp_path / "out").name == "out"  # and the next run replaces it


def test_a_float_bundle_that_disagrees_with_its_model_is_rejected(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that compiles the wrong network."""
    other = tiny.network(tmp_path / "other.onnx", seed=5)
    backend = backends.get("onnxruntime")
    real = backend.compile

    def wrong(graph: Path, out: Path, target: Target, precision: str) -> Any:
        import onnx

        from edgeseg.onnx_graph.deploy import deploy_graph

        onnx.save(deploy_graph(onnx.load(str(other)), tiny.SPEC).model, str(out / "wrong.onnx"))
        files = real(out / "wrong.onnx", out, target, precision)
        (out / "wrong.onnx").unlink()
        return files

    monkeypatch.setattr(backend, "compile", wrong)
    with pytest.raises(EdgesegError, match="no bundle was written"):
        compiled(network, tmp_path / "out", "onnxruntime-cpu")
    assert not (tmp_path / "out").exists()


def file_in_the_way(path: Path) -> Path:
    path.write_text("x")
    return path


def folder_of_somebody(path: Path) -> Path:
    path.mkdir()
    (path / "thesis.txt").write_text("ten years")
    return path


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (file_in_the_way, "exists and holds something else"),
        (lambda p: file_in_the_way(p) / "inner", "Cannot write"),
        (folder_of_somebody, "exists and holds something else"),
    ],
)
def test_an_output_folder_of_something_else_is_not_replaced(
    network: Path, tmp_path: Path, place: Callable[[Path], Path], message: str
) -> None:
    out = place(tmp_path / "out")
    before = snapshot(tmp_path)
    with pytest.raises(FileError, match=message):
        compiled(network, out)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("target", "precision", "message"),
    [
        ("openvino-cpu", "int8", "INT8 needs calibration frames"),
        ("onnxruntime-cpu", "bf16", "has no precision 'bf16'"),
        ("openvino-cpu", "FP32", "Unknown precision 'FP32'"),
    ],
)
def test_invalid_options_are_rejected_before_anything_is_written(
    network: Path, tmp_path: Path, target: str, precision: str, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        compiled(network, tmp_path / "out", target, precision)
    assert not any(tmp_path.iterdir())


# The Spec of a file


def test_flags_override_the_spec_inside_the_file(network: Path) -> None:
    spec, assumed = spec_of(network, {})
    assert (spec, assumed) == (tiny.SPEC, [])
    changed, _ = spec_of(network, {"color": "BGR"})
    assert changed == Spec(**{**tiny.SPEC.to_dict(), "color": "BGR"})


def test_without_a_spec_it_is_read_from_the_graph_and_every_assumption_is_listed(tmp_path: Path) -> None:
    path = tiny.network(tmp_path / "foreign.onnx", spec=None)
    spec, assumed = spec_of(path, {})
    assert (spec.height, spec.width, spec.head) == (tiny.HEIGHT, tiny.WIDTH, "argmax")
    assert spec.classes == tuple(f"class{i}" for i in range(8))
    assert [line.split()[0] for line in assumed] == ["8", "color", "mean", "std"]
    _, assumed = spec_of(path, {"classes": tuple("abcdefgh"), "mean": (0, 0, 0), "std": (1, 1, 1), "color": "BGR"})
    assert assumed == []


def test_one_channel_means_threshold(tmp_path: Path) -> None:
    import onnx

    net = tiny.Net()
    onnx.save(net.model(net.resize(net.head("image", 1)), shape=("n", 3, "h", "w")), str(tmp_path / "one.onnx"))
    spec, assumed = spec_of(tmp_path / "one.onnx", {"height": 64, "width": 96})
    assert (spec.head, spec.classes) == ("threshold", ("class0", "class1"))
    assert "one output channel: logit > 0 is class 1" in assumed
    spec, assumed = spec_of(tmp_path / "one.onnx", {})
    assert (spec.height, spec.width) == (512, 512)
    assert "size 512x512 (the graph's is dynamic)" in assumed


def test_classes_of_a_graph_with_argmax_are_counted(tmp_path: Path) -> None:
    import onnx

    net = tiny.Net()
    x = net.add("Cast", net.add("ArgMax", net.resize(net.head("image", 5)), axis=1), to=7)
    onnx.save(net.model(x), str(tmp_path / "ids.onnx"))
    spec, assumed = spec_of(tmp_path / "ids.onnx", {})
    assert len(spec.classes) == 5
    assert "5 classes called class0.. (the channels behind ArgMax)" in assumed


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 50_000, '{"height": 64}', '{"height": 64, "wdith": 96}'])
def test_a_broken_spec_inside_the_file_is_an_error(tmp_path: Path, text: str) -> None:
    import onnx

    path = tiny.network(tmp_path / "model.onnx")
    model = onnx.load(str(path))
    model.metadata_props[0].value = text
    onnx.save(model, str(path))
    with pytest.raises(OptionError, match="Spec"):
        spec_of(path, {})


def test_an_exported_checkpoint_compiles(tmp_path: Path) -> None:
    """A student as training exports it: from torch through ONNX to class maps equal to torch's."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    from edgeseg.recipe import NetConfig
    from edgeseg.training.nets import build
    from edgeseg.training.onnx_export import to_onnx

    torch.manual_seed(0)
    net = build(NetConfig(width=0.5), len(tiny.SPEC.classes)).eval()
    (tmp_path / "student.onnx").write_bytes(to_onnx(net, tiny.SPEC))
    spec, assumed = spec_of(tmp_path / "student.onnx", {})
    assert (spec, assumed) == (tiny.SPEC, [])
    bundle = compiled(tmp_path / "student.onnx", tmp_path / "out")
    assert bundle.manifest.graph.batchnorm_after == 0
    assert any("cut from the end: Resize" in note for note in bundle.manifest.graph.notes)
    frame = tiny.frames(1, seed=6)[0]
    batch = ((frame[..., ::-1] / 255.0 - spec.mean) / spec.std).astype(np.float32).transpose(2, 0, 1)[None]
    with torch.inference_mode():
        expected = net(torch.from_numpy(np.ascontiguousarray(batch)))[0].argmax(0).numpy()
    with open_segmenter(bundle.path) as segmenter:
        assert agreement(segmenter(frame).classmap, expected) >= 0.999

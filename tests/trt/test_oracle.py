"""The static check against TensorRT's own parser and builder: TensorRT-RTX, which builds without a GPU.

Run by `make test-trt`; needs the package tensorrt-rtx (proprietary, not a dependency). Each graph is read in a process
of its own, because one of them crashes the parser.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import qdq_corpus
import tiny

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, EdgesegError
from edgeseg.target import Target
from edgeseg.tensorrt import builder as tensorrt_build
from edgeseg.tensorrt.legality import check
from edgeseg.tensorrt.plan import FILE, Plan

pytest.importorskip("tensorrt_rtx")
onnx = pytest.importorskip("onnx")

ORACLE = """
import json, sys
import tensorrt_rtx as trt
class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
    def log(self, severity, text):
        pass
log = Log()
builder = trt.Builder(log)
network = builder.create_network(0)
parser = trt.OnnxParser(network, log)
if not parser.parse(open(sys.argv[1], "rb").read()):
    error = parser.get_error(0)
    print(json.dumps(f"parser, {error.node_name()}: {error.desc()}"))
else:
    made = builder.build_serialized_network(network, builder.create_builder_config())
    assert made is None or len(bytes(made)) == made.nbytes
    print(json.dumps("builder" if made is None else ""))
"""
# Where the two differ, and why the static check is right to be stricter.
STRICTER = {
    "uint8, zero point 0": "parsed, then read as INT8: values over 127 become negative",
    "uint8 weights": "parsed, then read as INT8",
    "no zero points (uint8)": "uint8 by ONNX's default; parsed, then read as INT8",
    "scale infinite": "not looked at; every value would be 0 or NaN",
    "wrong axis": "documented for INT8 weights: output channels only; RTX chooses its kernels later, on the device",
    "per-channel activation": "documented for INT8: activations have one scale",
    "dangling Q": "documented: a Q is followed by its DQ; TensorRT up to 10 finds no kernel for INT8 elsewhere",
    "dangling DQ": "the same",
    "an operator inside a pair": "the same",
}


def asked(model: object, tmp_path: Path) -> str:
    """Why TensorRT-RTX refuses a graph, "crash", or "" when it builds."""
    onnx.save(model, str(tmp_path / "model.onnx"))
    words = [sys.executable, "-c", ORACLE, str(tmp_path / "model.onnx")]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=300)
    return "crash" if ran.returncode < 0 else str(json.loads(ran.stdout.splitlines()[-1]))


def test_there_are_enough_graphs() -> None:
    assert len(qdq_corpus.CASES) >= 40
    assert sum(not rules for _, rules, _ in qdq_corpus.CASES) >= 15


@pytest.mark.parametrize(("name", "rules", "make"), qdq_corpus.CASES, ids=[case[0] for case in qdq_corpus.CASES])
def test_the_oracle_agrees(
    name: str,
    rules: set[str],
    make: Callable[[], object],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Equal verdicts, but for those that are explained; nothing that we pass is refused."""
    model = make()
    refused = any(finding.fatal for finding in check(model, (8, 6)))
    said = asked(model, tmp_path)
    record_property("verdict", f"{name}: static {'refuses' if refused else 'passes'}, oracle {said or 'builds'}")
    assert bool(said) == (refused and name not in STRICTER), said


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("target", ["jetson-orin", "jetson-thor"])
def test_our_bundles_build(bundle_of: Callable[[str, str], Path], tmp_path: Path, target: str, precision: str) -> None:
    assert Target.load(target).build_mode == "native"
    assert asked(onnx.load(str(bundle_of(target, precision) / "model.onnx")), tmp_path) == ""


def test_the_shipped_student_as_int8_for_orin(tmp_path: Path) -> None:
    from edgeseg.calibration.frames import CalibrationSet
    from edgeseg.compile import compile_model, spec_of
    from edgeseg.synth.files import write_dataset
    from edgeseg.synth.street import Street

    student = Path(__file__).parents[2] / "models" / "street" / "street.onnx"
    spec, _ = spec_of(student, {})
    write_dataset(tmp_path / "data", train=16, val=1, test=1, height=spec.height, width=spec.width)
    made = compile_model(
        student,
        tmp_path / "out",
        Target.load("jetson-orin"),
        "int8",
        spec=spec,
        frames=[Street(seed, height=spec.height, width=spec.width).frame(0)[0] for seed in range(4)],
        calibration=CalibrationSet.choose(tmp_path / "data", 16),
    )
    assert made.manifest.parity.agreement > 0.99
    assert asked(onnx.load_from_string(made.read("model.onnx")), tmp_path) == ""


# Our builder on the real library: every call but those that need a GPU


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> str:
    import tensorrt_rtx

    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_rtx)
    return str(tensorrt_rtx.__version__)


def built(path: Path, folder: Path, release: str, **fields: object) -> bytes:
    bundle = Bundle.load(path)
    plan = dataclasses.replace(Plan.parse(bundle.read(FILE), bundle.path / FILE), **fields)  # type: ignore[arg-type]
    key = {"tensorrt": release, "compute_capability": "8.7", "graph": "0" * 64}
    return tensorrt_build.build(bundle, plan, folder, key, lambda text: None)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_our_builder_builds_and_caches_timings(
    bundle_of: Callable[[str, str], Path], tmp_path: Path, real: str, precision: str
) -> None:
    assert tensorrt_build.unavailable_reason() == ""
    path = bundle_of("jetson-orin", precision)
    assert len(built(path, tmp_path, real)) > 10_000
    [timing] = tmp_path.iterdir()
    assert timing.stat().st_size > 0
    for spoilt in (b"\0" * 200, b"", timing.read_bytes()[:-7]):
        timing.write_bytes(spoilt)
        assert len(built(path, tmp_path, real)) > 10_000


def test_our_builder_gives_an_open_size_one_profile(
    bundle_of: Callable[[str, str], Path], tmp_path: Path, real: str
) -> None:
    copy = Path(shutil.copytree(bundle_of("jetson-orin", "fp32"), tmp_path / "copy"))
    model = onnx.load(str(copy / "model.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, str(copy / "model.onnx"))
    seal_again(copy)
    assert len(built(copy, tmp_path / "cache", real)) > 10_000


def test_our_builder_reports_the_error_of_the_real_parser(
    bundle_of: Callable[[str, str], Path], tmp_path: Path, real: str
) -> None:
    copy = Path(shutil.copytree(bundle_of("jetson-orin", "int8"), tmp_path / "copy"))
    onnx.save(qdq_corpus.with_scale(-1), str(copy / "model.onnx"))
    seal_again(copy)
    with pytest.raises(BundleError, match=r"cannot load .*model.onnx: .*Scale coefficients must all be positive"):
        built(copy, tmp_path / "cache", real)
    (copy / "model.onnx").write_bytes(b"garbage" * 100)
    seal_again(copy)
    with pytest.raises(BundleError, match=r"cannot load .*model.onnx"):
        built(copy, tmp_path / "cache", real)


def test_what_this_release_lacks_is_refused(bundle_of: Callable[[str, str], Path], tmp_path: Path, real: str) -> None:
    path = bundle_of("jetson-orin", "int8")
    with pytest.raises(EdgesegError, match="has no entropy calibrator"):
        built(path, tmp_path, real, int8="entropy")
    with pytest.raises(EdgesegError, match="sees 0 DLA cores; the bundle needs core 0"):
        built(path, tmp_path, real, dla=0)


def seal_again(folder: Path) -> None:
    tiny.reseal(folder)

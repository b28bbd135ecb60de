"""The TensorRT backend on fake boards with the bindings of each release: see fake_tensorrt."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
import tiny
from fake_tensorrt import RELEASES, Board

from edgeseg.backends import tensorrt
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, EdgesegError, MissingPackage
from edgeseg.result import Frame
from edgeseg.runtime import open_segmenter
from edgeseg.target import Target
from edgeseg.tensorrt import cuda
from edgeseg.tensorrt.plan import FILE

pytest.importorskip("onnx")
BundleOf = Callable[[str, str], Path]


@pytest.fixture
def make_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Board]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return lambda *release: Board(*release).install(monkeypatch)


@pytest.fixture
def board(make_board: Callable[..., Board]) -> Board:
    return make_board()


def changed(path: Path, to: Path, change: Callable[[Path], Any]) -> Path:
    """A copy with another file and a manifest that matches it."""
    copy = Path(shutil.copytree(path, to))
    change(copy)
    tiny.reseal(copy)
    return copy


def replan(path: Path, to: Path, **fields: Any) -> Path:
    def change(copy: Path) -> None:
        plan = json.loads((copy / FILE).read_text())
        (copy / FILE).write_text(json.dumps({**plan, **fields}))

    return changed(path, to, change)


def engines(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "home").rglob("*.engine"))


# What is asked of each TensorRT


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("unified", [True, False], ids=["shared memory", "own memory"])
def test_every_release_computes_what_the_proxy_computes(
    bundle_of: BundleOf, make_board: Callable[..., Board], release: str, precision: str, unified: bool
) -> None:
    path = bundle_of("jetson-orin", precision)
    made = make_board(release)
    made.unified = unified
    images = tiny.frames(6, seed=4)
    with open_segmenter(path, backend="onnxruntime") as proxy:
        expected = [proxy(image).classmap for image in images]
    with open_segmenter(path, "throughput") as segmenter:
        assert segmenter.slots == 2
        found = [r.classmap for r in segmenter.stream(Frame(image, i) for i, image in enumerate(images))]
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b)
    assert made.launched >= len(images)  # through CUDA graphs
    assert not (made.host or made.device or made.streams)  # everything was given back
    flagged = "INT8" in fake_tensorrt.API["tensorrt"][release]["BuilderFlag"]
    typed = not flagged or (precision != "int8" and release != "8.6.1")
    flags = {"fp32": set(), "fp16": {"FP16"}, "int8": {"INT8", "FP16"}}[precision] if not typed else set()
    [build] = made.builds
    assert (build["typed"], build["flags"]) == (typed, flags)
    assert (build["workspace"], build["dla"], build["profiles"]) == (4096 << 20, -1, 0)


def test_memory_is_shared_where_the_board_shares_it(bundle_of: BundleOf, board: Board) -> None:
    loaded = Bundle.load(bundle_of("jetson-orin", "fp32"))
    for unified in (True, False):
        board.unified = unified
        engine = tensorrt.open(loaded, "latency")
        assert len(board.host) == 2  # pinned: a frame and logits
        assert len(board.device) == (2 if unified else 4)
        assert np.shares_memory(engine.inputs(0)["frame"], next(iter(board.host.values())))
        engine.close()


def test_logits_come_when_they_are_waited_for(bundle_of: BundleOf, board: Board) -> None:
    engine = tensorrt.open(Bundle.load(bundle_of("jetson-orin", "fp32")), "latency")
    engine.inputs(0)["frame"][:] = 0
    engine.start(0)
    black = np.array(engine.wait(0)["logits"])
    engine.inputs(0)["frame"][:] = tiny.frames(1)[0]
    engine.start(0)
    np.testing.assert_array_equal(engine._slots[0].logits, black)
    assert np.abs(engine.wait(0)["logits"] - black).max() > 0.1
    engine.close()


def test_what_cannot_be_captured_is_launched_call_by_call(bundle_of: BundleOf, board: Board) -> None:
    board.captures = False
    path = bundle_of("jetson-orin", "int8")
    told = tensorrt.build(Bundle.load(path))
    assert told.cuda_graph is False
    with open_segmenter(path) as segmenter, open_segmenter(path, backend="onnxruntime") as proxy:
        image = tiny.frames(1)[0]
        np.testing.assert_array_equal(segmenter(image).classmap, proxy(image).classmap)
    assert board.launched == 0


def test_a_graph_that_leaves_its_size_open_gets_one_profile(bundle_of: BundleOf, board: Board, tmp_path: Path) -> None:
    import onnx

    def open_size(copy: Path) -> None:
        model = onnx.load(str(copy / "model.onnx"))
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
        onnx.save(model, str(copy / "model.onnx"))

    copy = changed(bundle_of("jetson-orin", "fp32"), tmp_path / "open", open_size)
    with open_segmenter(copy) as segmenter:
        assert segmenter(tiny.frames(1)[0]).classmap.shape == (tiny.HEIGHT, tiny.WIDTH)
    assert [build["profiles"] for build in board.builds] == [1]


# Kept engines


def test_the_second_start_builds_nothing(
    bundle_of: BundleOf, board: Board, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = bundle_of("jetson-orin", "int8")
    for mode in ("latency", "throughput", "latency"):
        open_segmenter(path, mode).close()
    assert len(board.builds) == 1 and len(engines(tmp_path)) == 1
    assert caplog.messages == ["building the engine with TensorRT 10.3.0: minutes on a small board"]


@pytest.mark.parametrize(
    "change",
    [
        lambda b, p: setattr(b, "gpu", "Thor"),
        lambda b, p: setattr(b, "capability", (11, 0)),
        lambda b, p: setattr(b, "driver", 13000),
        lambda b, p: setattr(sys.modules["tensorrt"], "__version__", "10.3.1"),
        lambda b, p: p.write_text("pmode:0002"),
    ],
    ids=["gpu", "compute capability", "driver", "TensorRT", "power mode"],
)
def test_another_device_builds_its_own(
    bundle_of: BundleOf, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    monkeypatch.setattr(tensorrt, "POWER_MODE", tmp_path / "pmode")
    path = bundle_of("jetson-orin", "fp16")
    open_segmenter(path).close()
    change(board, tmp_path / "pmode")
    open_segmenter(path).close()
    open_segmenter(path).close()
    assert len(board.builds) == 2 and len(engines(tmp_path)) == 2


def test_timings_are_cached_for_the_next_build_and_damaged_ones_are_ignored(
    bundle_of: BundleOf, board: Board, tmp_path: Path
) -> None:
    tensorrt.build(Bundle.load(bundle_of("jetson-orin", "fp32")))
    tensorrt.build(Bundle.load(bundle_of("jetson-orin", "fp16")))
    assert [build["timing"] for build in board.builds] == [b"", b"timings of Orin"]
    [timing] = (tmp_path / "home").rglob("*timing.cache")
    timing.write_bytes(b"\0" * 100)
    tensorrt.build(Bundle.load(bundle_of("jetson-orin", "int8")))
    timing.write_bytes(b"timings of Xavier")
    engines(tmp_path)[0].unlink()
    for precision in ("fp32", "fp16", "int8"):
        tensorrt.build(Bundle.load(bundle_of("jetson-orin", precision)))
    assert [build["timing"] for build in board.builds[2:]] == [b"", b""]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.write_bytes(p.read_bytes()[:-50]),
        lambda p: p.write_bytes(b"\0" * 1000),
        lambda p: p.chmod(0o622),
    ],
    ids=["cut short", "noise", "writable by others"],
)
def test_a_tampered_engine_is_refused_and_built_again(
    bundle_of: BundleOf, board: Board, tmp_path: Path, change: Callable[[Path], Any]
) -> None:
    loaded = Bundle.load(bundle_of("jetson-orin", "fp32"))
    tensorrt.build(loaded)
    change(engines(tmp_path)[0])
    said: list[str] = []
    tensorrt.build(loaded, log=said.append)
    assert len(board.builds) == 2
    assert said[0].startswith("refused ") and said[1].startswith("building the engine")


def test_an_engine_that_tensorrt_itself_refuses_is_built_again(
    bundle_of: BundleOf, board: Board, tmp_path: Path
) -> None:
    """With our own key and a true digest: only the deserializer can detect it."""
    from edgeseg.tensorrt import cache as enginecache

    loaded = Bundle.load(bundle_of("jetson-orin", "fp32"))
    told = tensorrt.build(loaded)
    enginecache.write(Path(told.engine), told.key, b"an engine of another TensorRT")
    said: list[str] = []
    tensorrt.build(loaded, log=said.append)
    assert "TensorRT cannot load the engine: serialization assertion failed" in said[0]
    assert len(board.builds) == 2


# Golden frames


def test_an_engine_that_computes_something_else_never_sees_a_camera(
    bundle_of: BundleOf, board: Board, tmp_path: Path
) -> None:
    board.wrong = True
    with pytest.raises(
        BundleError, match=r"agrees with golden frames of .* on [0-9.]+% of pixels only.\nExpected 97.0%"
    ):
        open_segmenter(bundle_of("jetson-orin", "int8"))
    assert engines(tmp_path) == []
    assert not (board.host or board.device or board.streams)
    board.wrong = False
    open_segmenter(bundle_of("jetson-orin", "int8")).close()
    assert len(engines(tmp_path)) == 1


def test_a_cached_engine_is_verified_at_every_start(bundle_of: BundleOf, board: Board) -> None:
    path = bundle_of("jetson-orin", "fp32")
    open_segmenter(path).close()
    board.wrong = True
    with pytest.raises(BundleError, match="golden frames"):
        open_segmenter(path)
    assert len(board.builds) == 2  # it was built again, and failed again


def test_a_bundle_without_golden_frames_is_refused(bundle_of: BundleOf, board: Board, tmp_path: Path) -> None:
    copy = changed(bundle_of("jetson-orin", "fp32"), tmp_path / "copy", lambda p: shutil.rmtree(p / "golden"))
    with pytest.raises(BundleError, match=r"on 0.00% of pixels only"):
        open_segmenter(copy)


# DLA, calibrator, and what a device lacks


def test_a_dla_core_with_the_gpu_behind_it(bundle_of: BundleOf, board: Board, tmp_path: Path) -> None:
    copy = replan(bundle_of("jetson-orin", "fp16"), tmp_path / "dla", dla=1, gpu_fallback=True)
    open_segmenter(copy).close()
    assert (board.builds[0]["dla"], board.builds[0]["flags"]) == (1, {"GPU_FALLBACK"})
    board.dla_cores, board.driver = 0, 13000
    with pytest.raises(EdgesegError, match=r"TensorRT 10.3.0 sees 0 DLA cores; the bundle needs core 1"):
        open_segmenter(copy)


def entropy_bundle(network: Path, street: Path, out: Path) -> Path:
    from edgeseg.calibration.frames import CalibrationSet
    from edgeseg.compile import compile_model

    target = Target.load("jetson-orin").calibrated_on_device()
    frames = tiny.frames(3, seed=1)
    chosen = CalibrationSet.choose(street, 9)
    return compile_model(network, out, target, "int8", spec=tiny.SPEC, frames=frames, calibration=chosen).path


@pytest.mark.parametrize("release", RELEASES)
def test_the_entropy_calibrator_where_tensorrt_has_one(
    network: Path, street: Path, tmp_path: Path, make_board: Callable[..., Board], release: str
) -> None:
    path = entropy_bundle(network, street, tmp_path / "entropy")
    board = make_board(release)
    if release.startswith("11"):
        with pytest.raises(EdgesegError, match=r"has no entropy calibrator.*\nCompile it without --entropy"):
            open_segmenter(path)
        return
    open_segmenter(path).close()
    [ranges] = (tmp_path / "home").rglob("*calibration.cache")
    assert ranges.read_bytes() == b"ranges of 9 frames"
    assert board.builds[0]["flags"] == {"INT8", "FP16"} and not board.builds[0]["typed"]
    assert not (board.host or board.device)
    board.driver = 13000  # another engine, from the ranges that were kept
    ranges.write_bytes(b"ranges of somebody")
    open_segmenter(path).close()
    assert ranges.read_bytes() == b"ranges of somebody" and len(board.builds) == 2
    assert not (board.host or board.device)


def test_a_device_without_int8_units(bundle_of: BundleOf, board: Board, tmp_path: Path) -> None:
    board.fast_int8 = False
    with pytest.raises(EdgesegError, match=r"no INT8 units.\nCompile the bundle with --precision fp16"):
        open_segmenter(bundle_of("jetson-orin", "int8"))
    assert engines(tmp_path) == []


def test_a_bundle_for_the_runner_is_not_opened_here(bundle_of: BundleOf, board: Board) -> None:
    with pytest.raises(BundleError, match=r"not a uint8 frame and logits.\nBundles of boards that the runner serves"):
        open_segmenter(bundle_of("jetson-nano", "fp16"))
    assert not (board.host or board.device or board.streams)


def test_a_failing_build_says_why_and_leaves_nothing(bundle_of: BundleOf, board: Board, tmp_path: Path) -> None:
    copy = replan(bundle_of("jetson-orin", "int8"), tmp_path / "copy", flags=["FP16"])
    with pytest.raises(EdgesegError, match="cannot build the engine: Q/DQ layers need the INT8 flag"):
        open_segmenter(copy)
    assert [p.suffix for p in (tmp_path / "home").rglob("*") if p.is_file()] == [".lock"]


def test_without_tensorrt(bundle_of: BundleOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EdgesegError, match=r"cannot run here: TensorRT is not installed.*\nOn a Jetson it comes with"):
        open_segmenter(bundle_of("jetson-orin", "fp32"))


@pytest.mark.parametrize("name", ["UINT8", "execute_async_v3"])
def test_a_tensorrt_that_is_too_old(
    bundle_of: BundleOf, board: Board, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    owner = "DataType" if name == "UINT8" else "IExecutionContext"
    monkeypatch.setattr(sys.modules["tensorrt"], owner, type(owner, (), {}))
    assert tensorrt.probe() == f"TensorRT 10.3.0 is too old: it has no {name}, which came with 8.5"
    with pytest.raises(EdgesegError, match=f"is too old: it has no {name}"):
        open_segmenter(bundle_of("jetson-orin", "fp32"))


def test_without_cuda_bindings(bundle_of: BundleOf, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(MissingPackage, match=r"cuda-python \(or pycuda\).*\n.*edgeseg\[tensorrt\]"):
        open_segmenter(bundle_of("jetson-orin", "fp32"))


def test_a_cuda_call_that_fails_is_named(bundle_of: BundleOf, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = sys.modules["cuda.bindings.runtime"]

    def cudaHostAlloc(size: int, flags: int) -> Any:
        return fake_tensorrt.Status.cudaErrorMemoryAllocation, None

    monkeypatch.setattr(runtime, "cudaHostAlloc", cudaHostAlloc)
    with pytest.raises(
        EdgesegError, match=r"CUDA failed in cudaHostAlloc: cudaErrorMemoryAllocation.\nCheck the driver"
    ):
        open_segmenter(bundle_of("jetson-orin", "fp32"))
    assert not (board.host or board.device or board.streams)


def test_the_command_line_builds_ahead_of_time(
    bundle_of: BundleOf, board: Board, tmp_path: Path, edgeseg: Callable[..., Any]
) -> None:
    path = bundle_of("jetson-orin", "int8")
    ran = edgeseg("build", path, "--cache", tmp_path / "kept", "--json", "-")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert Path(told["engine"]).is_file() and told["key"]["gpu"] == "Orin"
    assert told["layers"] == {"Int8 NC/32HW32": 2, "FP16 NCHW": 1}
    assert "golden frames agree" in ran.err and "2 Int8 NC/32HW32, 1 FP16 NCHW" in ran.err
    with open_segmenter(path, cache=tmp_path / "kept"):
        assert len(board.builds) == 1
    ran = edgeseg("build", bundle_of("onnxruntime-cpu", "fp32"))
    assert ran.code == 2 and "has no engine to build" in ran.err
    told = json.loads(edgeseg("targets", "--json", "-").out)
    assert told["jetson-orin"] == {
        **{"title": "Jetson AGX Orin, JetPack 6 and 7", "precisions": ["fp32", "fp16", "int8"]},
        **{"build_mode": "native", "missing": ""},
    }


# The fake itself


@pytest.mark.parametrize(
    "wrong",
    [
        lambda trt, b: b.create_network(0, 1),
        lambda trt, b: b.create_network("0"),
        lambda trt, b: b.create_builder_config().set_flag(),
        lambda trt, b: b.create_builder_config().set_memory_pool_limit(1 << 20),
        lambda trt, b: trt.OnnxParser(b.create_network(0)),
        lambda trt, b: trt.IBuilderConfig(),
        lambda trt, b: trt.Runtime(b.logger),
    ],
)
def test_the_fake_refuses_wrong_arguments(board: Board, wrong: Callable[..., Any]) -> None:
    import tensorrt as trt

    builder = trt.Builder(trt.ILogger())
    with pytest.raises((TypeError, AttributeError)):
        wrong(trt, builder)


def test_the_fake_refuses_wrong_names(make_board: Callable[..., Board]) -> None:
    make_board("11.4.0")
    import tensorrt as trt

    builder = trt.Builder(trt.ILogger())
    config = builder.create_builder_config()
    assert not hasattr(trt.BuilderFlag, "INT8") and not hasattr(trt, "IInt8EntropyCalibrator2")
    assert not hasattr(builder, "build_engine")
    with pytest.raises(AttributeError):
        config.max_workspace_size = 1
    with pytest.raises(AttributeError):
        config.int8_calibrator = None
    with pytest.raises(TypeError, match="takes 2 arguments, not 1"):
        sys.modules["cuda.bindings.runtime"].cudaHostAlloc(5)


# pycuda


def test_pycuda_is_the_fallback(bundle_of: BundleOf, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written from pycuda's documentation; the real package has never run here."""
    opened: list[Any] = []

    class Driver(PyCudaDriver):
        def __init__(self) -> None:
            super().__init__(board)
            opened.append(self)

    package, driver = type(sys)("pycuda"), Driver()
    package.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)  # type: ignore[arg-type]
    path, image = bundle_of("jetson-orin", "fp32"), tiny.frames(1)[0]
    for unified in (True, False):
        board.unified = unified
        with open_segmenter(path) as segmenter, open_segmenter(path, backend="onnxruntime") as proxy:
            assert isinstance(segmenter.engine._device, cuda.PyCuda)  # type: ignore[attr-defined]
            np.testing.assert_array_equal(segmenter(image).classmap, proxy(image).classmap)
    assert driver.depth == 0 and board.launched == 0


class PyCudaDriver:
    """As much of pycuda.driver as cuda.PyCuda calls, on the fake board."""

    class Error(Exception):
        pass

    class host_alloc_flags:
        DEVICEMAP = 2

    class device_attribute:
        INTEGRATED = 18

    def __init__(self, board: Board):
        self.board, self.depth, self.cuda = board, 0, fake_tensorrt.Cuda(board)

    def init(self) -> None:
        pass

    def get_driver_version(self) -> int:
        return self.board.driver

    def Device(self, index: int) -> Any:
        return self

    def name(self) -> str:
        return self.board.gpu

    def compute_capability(self) -> tuple[int, int]:
        return self.board.capability

    def get_attribute(self, attribute: int) -> int:
        return int(self.board.unified)

    def retain_primary_context(self) -> Any:
        return self

    def push(self) -> None:
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1

    def pagelocked_empty(self, size: int, kind: str, mem_flags: int = 0) -> Any:
        assert self.depth and mem_flags == 2
        _, host = self.cuda.cudaHostAlloc(size, mem_flags)
        owner = self.board.host[host].view(Pinned)
        owner.device = self.cuda.cudaHostGetDevicePointer(host, 0)[1]
        return owner[:]

    def mem_alloc(self, size: int) -> int:
        assert self.depth
        return int(self.cuda.cudaMalloc(size)[1])

    def Stream(self) -> Any:
        stream, driver = self.cuda.cudaStreamCreateWithFlags(0)[1], self

        class Made:
            handle = stream

            def synchronize(self) -> None:
                driver.cuda.cudaStreamSynchronize(stream)

        return Made()

    def memcpy_htod_async(self, to: int, source: np.ndarray, stream: Any) -> None:
        self.cuda.cudaMemcpyAsync(to, source.ctypes.data, source.nbytes, 1, stream.handle)

    def memcpy_dtoh_async(self, to: np.ndarray, source: int, stream: Any) -> None:
        self.cuda.cudaMemcpyAsync(to.ctypes.data, source, to.nbytes, 2, stream.handle)


class Pinned(np.ndarray):  # type: ignore[type-arg]
    device = 0

    def get_device_pointer(self) -> int:
        return self.device

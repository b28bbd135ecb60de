"""One contract for every backend and precision: what segmenter.Engine promises, on real bundles."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
import tiny

from edgeseg import backends
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, OptionError
from edgeseg.result import Frame
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter
from edgeseg.target import Target, names

MODES = ("latency", "throughput")


def different() -> list[tuple[str, str]]:
    """Every target and precision, one of each group of boards with the same profile."""
    result = {}
    for name in names():
        t = Target.load(name)
        for precision in t.precisions:
            kind = (t.backend, t.device, t.quantizer, t.build_mode, t.opset, t.frame, precision)
            result.setdefault(kind, (name, precision))
    return list(result.values())


@pytest.fixture(params=different(), ids=":".join, scope="module")
def path(
    request: pytest.FixtureRequest, bundle_of: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The tiny network's bundle; a board that builds its own engine is replaced by a fake (see fake_tensorrt)."""
    bundle = bundle_of(*request.param)
    with pytest.MonkeyPatch.context() as patch:
        if Target.load(request.param[0]).build_mode == "native":
            fake_tensorrt.Board().install(patch)
            patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield bundle


def runner(path: Path) -> str:
    """The backend that runs a bundle here: its own, else the one that verified it."""
    loaded = Bundle.load(path)
    profile = Target.load(loaded.target)
    foreign = profile.build_mode == "runner" or backends.missing(profile)
    return str(loaded.manifest.proved_by) if foreign else loaded.backend


def opened(path: Path, mode: str = "latency", **options: Any) -> Segmenter:
    return open_segmenter(path, mode, backend=runner(path), **options)


@pytest.fixture(params=MODES)
def engine(request: pytest.FixtureRequest, path: Path) -> Any:
    """An open engine in each mode."""
    engine = opened(path, request.param).engine
    yield engine
    engine.close()


def infer(engine: Any, slot: int, image: np.ndarray) -> np.ndarray:
    engine.inputs(slot)["frame"][:] = image
    engine.start(slot)
    return np.array(engine.wait(slot)["logits"])


def test_every_slot_has_its_own_writable_frame(engine: Any) -> None:
    assert engine.slots >= 1
    views = [engine.inputs(slot)["frame"] for slot in range(engine.slots)]
    for slot, view in enumerate(views):
        assert (view.shape, view.dtype) == ((tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)
        view[:] = slot + 1
    assert [int(view.max()) for view in views] == [int(view.min()) for view in views] == [*range(1, engine.slots + 1)]
    assert all(np.shares_memory(view, engine.inputs(slot)["frame"]) for slot, view in enumerate(views))


def test_logits_are_float32_at_the_stride_of_the_head(engine: Any) -> None:
    logits = infer(engine, 0, tiny.frames(1)[0])
    assert (logits.shape, logits.dtype) == ((len(tiny.SPEC.classes), 16, 24), np.float32)
    assert np.isfinite(logits).all()
    assert logits.std() > 0.1


def test_the_same_frame_gives_the_same_logits_in_every_slot(engine: Any) -> None:
    image = tiny.frames(1)[0]
    first = infer(engine, 0, image)
    for slot in (*range(engine.slots), 0):
        np.testing.assert_array_equal(infer(engine, slot, image), first)


def test_another_frame_gives_other_logits(engine: Any) -> None:
    a, b = (infer(engine, 0, image) for image in tiny.frames(2))
    assert np.abs(a - b).max() > 0.1


def test_slots_may_be_waited_for_in_any_order(engine: Any) -> None:
    images = tiny.frames(engine.slots, seed=7)
    alone = [infer(engine, 0, image) for image in images]
    for slot, image in enumerate(images):
        engine.inputs(slot)["frame"][:] = image
        engine.start(slot)
    for slot in reversed(range(engine.slots)):
        np.testing.assert_array_equal(engine.wait(slot)["logits"], alone[slot])


def test_closing_twice_is_harmless(path: Path) -> None:
    for mode in MODES:
        engine = opened(path, mode).engine
        infer(engine, 0, tiny.frames(1)[0])
        engine.close()
        engine.close()


def test_latency_mode_has_one_slot(path: Path) -> None:
    with opened(path, "latency") as one, opened(path, "throughput") as many:
        assert one.engine.slots == 1
        assert many.engine.slots >= 1


def test_results_do_not_depend_on_their_neighbors(path: Path) -> None:
    """48 different frames, several in flight, against the same frames one by one."""
    images = tiny.frames(48, seed=11)
    with opened(path, "latency") as single:
        expected = [single(image).classmap for image in images]
    assert len({m.tobytes() for m in expected}) == 48
    with opened(path, "throughput") as many:
        results = list(many.stream(Frame(image, i) for i, image in enumerate(images)))
    assert [r.frame.index for r in results] == list(range(48))
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result.classmap, expected[i], err_msg=f"frame {i}")


@pytest.mark.parametrize("mode", MODES)
def test_submitting_when_full_raises_and_collecting_frees(path: Path, mode: str) -> None:
    images = tiny.frames(3)
    with opened(path, mode) as segmenter:
        for i in range(segmenter.engine.slots):
            assert not segmenter.full
            segmenter.submit(Frame(images[i % 3], i))
        assert segmenter.full and segmenter.in_flight == segmenter.engine.slots
        with pytest.raises(RuntimeError, match="collect"):
            segmenter.submit(Frame(images[0], 99))
        assert segmenter.collect().frame.index == 0
        assert not segmenter.full
        segmenter.submit(Frame(images[0], 100))
        left = [segmenter.collect().frame.index for _ in range(segmenter.in_flight)]
    assert left == [*range(1, len(left)), 100]


@pytest.mark.parametrize("mode", MODES)
def test_closing_with_frames_in_flight(path: Path, mode: str) -> None:
    segmenter = opened(path, mode)
    while not segmenter.full:
        segmenter.submit(Frame(tiny.frames(1)[0]))
    segmenter.close()
    assert segmenter.in_flight == 0


@pytest.mark.parametrize("mode", MODES)
def test_an_abandoned_stream_can_be_resumed(path: Path, mode: str) -> None:
    images = tiny.frames(6)
    with opened(path, mode) as segmenter:
        stream = segmenter.stream(Frame(image, i) for i, image in enumerate(images))
        assert next(stream).frame.index == 0
        stream.close()
        results = list(segmenter.stream(Frame(image, 10 + i) for i, image in enumerate(images)))
    assert [r.frame.index for r in results][-6:] == list(range(10, 16))


def test_threads_do_not_change_the_class_map(path: Path) -> None:
    image = tiny.frames(1, seed=3)[0]
    maps = []
    for threads in (0, 1, 2):
        with opened(path, threads=threads) as segmenter:
            maps.append(segmenter(image).classmap)
    assert np.mean(maps[0] == maps[1]) > 0.999 < np.mean(maps[0] == maps[2])


def resealed(path: Path, change: Callable[[Path], Any]) -> None:
    """Change model files and write a manifest with their digests."""
    change(path)
    tiny.reseal(path)


def main_file(path: Path) -> Path:
    return next(path / name for name in ("model.xml", "model.onnx", "model.tflite") if (path / name).exists())


@pytest.mark.parametrize(
    "change",
    [
        lambda p: main_file(p).write_bytes(b""),
        lambda p: main_file(p).write_bytes(b"garbage" * 100),
        lambda p: main_file(p).write_bytes(main_file(p).read_bytes()[:-200]),
    ],
    ids=["empty", "garbage", "cut short"],
)
def test_a_broken_engine_file_is_a_bundle_error(path: Path, tmp_path: Path, change: Callable[[Path], Any]) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    resealed(copy, change)
    with pytest.raises(BundleError, match="cannot load"):
        opened(copy)


def test_a_missing_engine_file_is_a_bundle_error(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    resealed(copy, lambda p: main_file(p).unlink())
    with pytest.raises(BundleError, match="no digest of model"):
        opened(copy)


def test_an_unknown_mode_is_refused(bundle: Path) -> None:
    with pytest.raises(OptionError, match="Did you mean 'throughput'"):
        open_segmenter(bundle, "troughput")


def test_openvino_caches_compiled_models(bundle: Path, tmp_path: Path) -> None:
    image = tiny.frames(1)[0]
    maps = []
    for _ in range(2):
        with open_segmenter(bundle, cache=tmp_path / "cache") as segmenter:
            maps.append(segmenter(image).classmap)
    assert list((tmp_path / "cache").rglob("*.blob"))
    np.testing.assert_array_equal(*maps)


def test_weights_of_the_wrong_length_are_rejected(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    resealed(copy, lambda p: (p / "model.bin").write_bytes((p / "model.bin").read_bytes()[:50]))
    with pytest.raises(BundleError, match="cannot load"):
        open_segmenter(copy)


SIGNAL = """
import gc, os, signal, sys, threading
from pathlib import Path
from edgeseg.runtime import open_segmenter

opened = [open_segmenter(Path(sys.argv[1]))]


def close():
    opened.pop().close()
    gc.collect()


closing = threading.Thread(target=close)
closing.start()
closing.join()
signal.signal(signal.SIGHUP, lambda *_: None)
os.kill(os.getpid(), signal.SIGHUP)
print("alive")
"""


@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu", "tflite-cpu"])
def test_a_signal_after_another_thread_closed_the_engine(target: str, bundle_of: Callable[[str, str], Path]) -> None:
    words = [sys.executable, "-c", SIGNAL, str(bundle_of(target, "fp32"))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "alive" in done.stdout, done.stderr

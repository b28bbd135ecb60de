"""Real parts to run streams with: a numpy engine, rendered clips, colors with known classes; and a clock to move."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from edgeseg.heads import semantic
from edgeseg.segmenter import Segmenter
from edgeseg.spec import Spec
from edgeseg.stream.clock import SYSTEM_CLOCK, Clock

COLORS = np.array([(40, 40, 40), (200, 60, 60), (60, 200, 60), (60, 60, 200)], np.uint8)  # BGR, one per class
SPEC = Spec(height=64, width=96, classes=("road", "sky", "tree", "car"))
HEAD = semantic.open(SPEC, "half_pixel")
WAIT = 20.0  # real seconds until a wait between threads counts as a deadlock


class FakeClock(Clock):
    """Time that moves when advance() or sleep() is called, and at once."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += max(seconds, 0.0)


class ColorEngine:
    """Logits from the distance to each class's color, at a quarter of the size, in worker threads.

    An inference waits for `gate` and then for `seconds` of `clock`; `fail_at` raises there, `hang_at` waits until the
    engine is closed. `started` and `collected` count inferences.
    """

    def __init__(
        self,
        slots: int = 2,
        seconds: float = 0.0,
        fail_at: int = -1,
        hang_at: int = -1,
        gate: threading.Event | threading.Barrier | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ):
        self.slots = slots
        self.started = 0
        self.collected = 0
        self.hanging = threading.Event()
        self.closed = threading.Event()
        self._seconds, self._fail_at, self._hang_at, self._gate, self._clock = seconds, fail_at, hang_at, gate, clock
        self._frames = [np.zeros((SPEC.height, SPEC.width, 3), np.uint8) for _ in range(slots)]
        self._running: dict[int, Future] = {}
        self._pool = ThreadPoolExecutor(slots)

    def inputs(self, slot):
        return {"frame": self._frames[slot]}

    def start(self, slot):
        self._running[slot] = self._pool.submit(self._infer, slot, self.started)
        self.started += 1

    def wait(self, slot):
        logits = self._running.pop(slot).result()
        self.collected += 1
        return {"logits": logits}

    def _infer(self, slot, number):
        if number == self._fail_at:
            raise RuntimeError("the accelerator went away")
        if number == self._hang_at:
            self.hanging.set()
            self.closed.wait(WAIT)
        if self._gate:
            self._gate.wait(WAIT)
        if self._seconds:
            self._clock.sleep(self._seconds)
        small = cv2.resize(self._frames[slot], None, fx=0.25, fy=0.25, interpolation=cv2.INTER_NEAREST)
        return -np.abs(small[None].astype(np.float32) - COLORS[:, None, None]).sum(-1)

    def close(self):
        self.closed.set()
        self._pool.shutdown(wait=False)


def segmenter(**options) -> Segmenter:
    return Segmenter(SPEC, ColorEngine(**options), HEAD)


def frame_image(i: int, height: int = 128, width: int = 192):
    """Frame `i`: four bands of the classes' colors, which move with i."""
    bands = np.arange(width) * 4 // width
    return np.ascontiguousarray(np.broadcast_to(COLORS[(bands + i) % 4], (height, width, 3)))


def clip(path: Path, frames: int = 20, fps: float = 25, codec: str = "MJPG", size=(128, 192)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size[::-1])
    assert writer.isOpened()
    for i in range(frames):
        writer.write(frame_image(i, *size))
    writer.release()
    return path


def read_back(path: Path) -> list:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1])
    return frames


def bundle(path: Path) -> Path:
    """A real OpenVINO bundle of the same model: one 4x4-stride convolution, nearest color wins."""
    import openvino as ov
    from openvino import opset13 as op

    from edgeseg.bundle import Manifest, seal

    frame = op.parameter([1, SPEC.height, SPEC.width, 3], np.uint8, name="frame")
    x = op.transpose(op.convert(frame, "f32"), np.array([0, 3, 1, 2]))
    kernel = (2 * COLORS.astype(np.float32))[:, :, None, None].repeat(4, 2).repeat(4, 3) / 16  # 2 c.x - c.c
    x = op.convolution(x, kernel, strides=[4, 4], pads_begin=[0, 0], pads_end=[0, 0], dilations=[1, 1])
    x = op.add(x, -(COLORS.astype(np.float32) ** 2).sum(1)[None, :, None, None])
    frame.output(0).get_tensor().set_names({"frame"})
    x.output(0).get_tensor().set_names({"logits"})
    path.mkdir()
    ov.save_model(ov.Model([x], [frame], "colors"), path / "model.xml", compress_to_fp16=False)
    what = {
        "target": "openvino-cpu",
        "backend": "openvino",
        "precision": "fp32",
        "upsample": "half_pixel",
    }
    seal(path, Manifest(name=path.name, spec=SPEC, files={}, **what))
    return path

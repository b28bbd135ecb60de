"""A real camera on loopback, in a process of its own, that misbehaves on demand. For the soak and for tests.

/stream is MJPEG, /h264 is H.264 in MPEG-TS (needs PyAV) whose key frames are GOP frames apart. Every image carries the
time it was taken (see stamp), so that a sink can measure its true age. Words on standard input set the mode: `normal`,
`freeze` (connected, silent), `still` (the same image), `corrupt` (no JPEGs), `resize` (another size). It prints its
port when it listens.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from edgeseg.errors import StreamError
from edgeseg.images import Image

MODES = ("normal", "freeze", "still", "corrupt", "resize")
BITS, BLOCK = 40, 8
GOP = 250
SIZES = {False: (360, 640), True: (240, 480)}  # resized or not -> height, width


def stamp(image: Image, milliseconds: int) -> None:
    """Write a number into the top left corner, one 8x8 block per bit, which survives JPEG and H.264."""
    bits = np.array([milliseconds >> i & 1 for i in range(BITS)], np.uint8) * 255
    image[:BLOCK, : BITS * BLOCK] = np.repeat(bits, BLOCK)[None, :, None]


def read_stamp(image: Image) -> int:
    blocks = image[:BLOCK, : BITS * BLOCK].reshape(BLOCK, BITS, BLOCK, 3).mean((0, 2, 3))
    return sum(1 << i for i in range(BITS) if blocks[i] > 127)


class LoopbackCamera:
    """The camera's process, from the outside. `port` stays the same over restarts; `path`: what its URI asks for."""

    def __init__(self, fps: float = 25.0, port: int = 0):
        self.port = port
        self.path = "/stream"
        self._fps = fps
        self._process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def start(self) -> None:
        words = [sys.executable, "-m", "edgeseg.stream.soak.loopback", str(self.port), str(self._fps)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        try:
            line = self._process.stdout.readline()
        except BaseException:  # interrupted while it starts
            self.kill()
            raise
        if not line.strip().isdigit():
            raise StreamError(f"The loopback camera did not start on port {self.port}.", "Is the port in use?")
        self.port = int(line)

    def set_mode(self, mode: str) -> None:
        assert self._process and self._process.stdin
        self._process.stdin.write(mode + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.communicate()

    def __enter__(self) -> LoopbackCamera:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


class Scene:
    """Moving bands with some noise; cheap, and never twice the same."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._noise = rng.integers(0, 24, (720, 1280, 3), np.uint8)
        self._number = 0
        self.mode = "normal"
        self._last: Image | None = None

    def image(self, resizes: bool = True) -> Image | None:
        """The next image; None while frozen."""
        if self.mode == "freeze":
            return None
        if self.mode == "still" and self._last is not None:
            return self._last
        height, width = SIZES[self.mode == "resize" and resizes]
        self._number += 1
        dy, dx = self._number * 7 % 300, self._number * 13 % 600
        image = self._noise[dy : dy + height, dx : dx + width].copy()
        image[:, (np.arange(width) + 4 * self._number) // 80 % 2 == 0] += np.array((90, 60, 30), np.uint8)
        stamp(image, int(time.monotonic() * 1e3))
        self._last = image
        return image

    def jpeg(self) -> bytes:
        """The next part of the MJPEG stream; empty while frozen."""
        if self.mode == "corrupt":
            return b"\xff\xd8" + bytes(500) + b"\xff\xd9"
        image = self.image()
        return b"" if image is None else cv2.imencode(".jpg", image)[1].tobytes()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        h264 = self.path == "/h264"
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t" if h264 else "multipart/x-mixed-replace; boundary=b")
        self.end_headers()
        send = _h264_sender(self.wfile, self.server) if h264 else self._send_jpeg
        period = 1 / self.server.fps
        due = time.monotonic()
        with contextlib.suppress(OSError):
            while True:
                send()
                due = max(due + period, time.monotonic() - period)
                time.sleep(max(0.0, due - time.monotonic()))

    def _send_jpeg(self) -> None:
        if part := self.server.scene.jpeg():
            head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
            self.wfile.write(head.encode() + part + b"\r\n")

    def log_message(self, *_: Any) -> None:
        pass


def _h264_sender(file: Any, server: _Server) -> Callable[[], None]:
    """A function that sends the next image; a connection begins with a key frame."""
    import av

    height, width = SIZES[False]
    container = av.open(file, "w", format="mpegts", options={"flush_packets": "1"})
    stream: Any = container.add_stream("libx264", rate=round(server.fps))
    context = stream.codec_context
    context.width, context.height, context.pix_fmt, context.gop_size = width, height, "yuv420p", GOP
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "sc_threshold": "0", "crf": "23"}
    started = time.monotonic()
    context.time_base = Fraction(1, 90_000)
    latest = -1

    def send() -> None:
        nonlocal latest
        image = server.scene.image(resizes=False)
        if image is not None:
            frame = av.VideoFrame.from_ndarray(image, "bgr24").reformat(format="yuv420p")
            latest = max(round((time.monotonic() - started) * 90_000), latest + 1)
            frame.pts, frame.time_base = latest, Fraction(1, 90_000)
            container.mux(stream.encode(frame))

    return send


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    scene: Scene
    fps: float


def main(port: int, fps: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes our standard input
    cv2.setNumThreads(1)
    server = _Server(("127.0.0.1", port), _Handler)
    server.scene, server.fps = Scene(), fps
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        os.write(sys.stdout.fileno(), f"{server.server_address[1]}\n".encode())
    except BrokenPipeError:  # the parent was interrupted while it started us
        return
    for line in sys.stdin:  # ends when the parent does
        if line.strip() in MODES:
            server.scene.mode = line.strip()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))

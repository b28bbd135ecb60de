"""CSI cameras of a Jetson: `csi://0?width=1280&height=720&fps=30`, through GStreamer's nvarguscamerasrc."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from edgeseg.errors import OptionError, StreamError
from edgeseg.result import Frame
from edgeseg.stream.sources import EndOfStream, Source
from edgeseg.stream.uri import Uri, whole

FORMS = "csi://0"
CAMERA = True
OPTIONS = {"width": whole(64, 8192), "height": whole(64, 8192), "fps": whole(1, 240)}


def claims(uri: Uri) -> bool:
    return uri.scheme == "csi"


def open(uri: Uri) -> Source:
    sensor, options = uri.split(OPTIONS)
    if not sensor.isdigit():
        raise OptionError(f"{uri} has no sensor.", "Expected its number: csi://0")
    gst = _gstreamer()
    if gst.ElementFactory.find("nvarguscamerasrc") is None:
        raise OptionError(
            f"{uri} needs GStreamer's nvarguscamerasrc, which is not here.",
            "It comes with JetPack (nvidia-l4t-gstreamer). For other cameras use /dev/video0 or rtsp://.",
        )
    return Csi(int(sensor), **options)


def _gstreamer() -> Any:
    try:
        import gi  # type: ignore[import-untyped,import-not-found,unused-ignore]

        gi.require_version("Gst", "1.0")
        gi.require_version("GstApp", "1.0")
        from gi.repository import Gst, GstApp  # type: ignore[import-untyped,import-not-found,unused-ignore] # noqa: F401
    except (ImportError, ValueError) as error:
        raise OptionError(
            "csi:// needs GStreamer's Python bindings (gi), which are not here.",
            "On a Jetson: apt install python3-gi gir1.2-gstreamer-1.0, and a virtualenv with --system-site-packages.",
        ) from error
    Gst.init(None)
    return Gst


def pipeline(sensor: int, width: int, height: int, fps: int) -> str:
    """The newest frame as BGRx in ordinary memory; `drop` and `max-buffers` keep the delay at one frame."""
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1 ! "
        "nvvidconv ! video/x-raw,format=BGRx ! appsink name=out max-buffers=1 drop=true sync=false"
    )


class Csi(Source):
    live = True

    def __init__(self, sensor: int, width: int = 1280, height: int = 720, fps: int = 30):
        super().__init__()
        self.fps = float(fps)
        self._text = pipeline(sensor, width, height, fps)
        self._name = f"csi://{sensor}"
        self._index = 0
        self._pipeline: Any = None
        self._out: Any = None

    def read(self, timeout: float) -> Frame | None:
        gst = _gstreamer()
        if self._pipeline is None:
            self._pipeline = gst.parse_launch(self._text)
            self._out = self._pipeline.get_by_name("out")
            self._pipeline.set_state(gst.State.PLAYING)
        sample = self._out.try_pull_sample(int(timeout * gst.SECOND))
        if sample is None:
            self._check(gst)
            return None
        return self._frame(gst, sample)

    def _check(self, gst: Any) -> None:
        message = self._pipeline.get_bus().pop_filtered(gst.MessageType.ERROR | gst.MessageType.EOS)
        if message is None:
            return
        if message.type == gst.MessageType.EOS:
            raise EndOfStream
        error, _ = message.parse_error()
        raise StreamError(f"{self._name} failed: {error.message}", "Is the ribbon cable in? Restart nvargus-daemon.")

    def _frame(self, gst: Any, sample: Any) -> Frame:
        shape = sample.get_caps().get_structure(0)
        width, height = shape.get_value("width"), shape.get_value("height")
        ok, data = sample.get_buffer().map(gst.MapFlags.READ)
        if not ok:
            raise StreamError(f"{self._name}: a frame cannot be mapped into memory.")
        try:
            rows = np.frombuffer(data.data, np.uint8).reshape(height, -1)
            image = np.ascontiguousarray(rows[:, : 4 * width].reshape(height, width, 4)[:, :, :3])
        finally:
            sample.get_buffer().unmap(data)
        self._index += 1
        return Frame(image, self._index - 1, time.monotonic(), age_from="arrival")

    def close(self) -> None:
        if self._pipeline is not None:
            self._pipeline.set_state(_gstreamer().State.NULL)
            self._pipeline = None

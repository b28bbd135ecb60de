"""`rtsp://server:8554/live` publishes the frames with their overlay as H.264 to an RTSP server, for many viewers.

The server must accept publishing (ANNOUNCE and RECORD), as mediamtx does; a camera's run waits for one that does not
answer yet. Options follow `#`: `bitrate_kbps`,
`transport` tcp (default) or udp, `timeout` in seconds to connect and for every answer. Encoding is PyAV's.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from edgeseg.errors import MissingPackage, StreamError
from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.stream.rtsp import Publisher, Unreachable, check
from edgeseg.stream.sinks import Info, Sink
from edgeseg.stream.uri import Convert, Uri, choice, number, whole

log = logging.getLogger(__name__)
FORMS = "rtsp://SERVER/PATH"
OPTIONS: dict[str, Convert] = {
    "bitrate_kbps": whole(50, 100_000),
    "transport": choice("tcp", "udp"),
    "timeout": number(0.1, 60),
}
CLOCK = 90_000  # ticks per second: RTP's clock for video
DEFAULT_FPS = 25.0
HIGHEST_FPS = 120.0  # some sources give nonsense, such as their clock
KEY_SECONDS = 2.0  # a viewer who joins waits no longer than this for an image
PACKET_BYTES = "1400"  # fits an Ethernet frame, over UDP too
PROBE_SIZE = (360, 640)
FAST = {"preset": "ultrafast", "tune": "zerolatency"}
SDP = """v=0
o=- 0 0 IN IP4 0.0.0.0
s=edgeseg
c=IN IP4 0.0.0.0
t=0 0
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1{parameters}
a=control:streamid=0
"""


def claims(uri: Uri) -> bool:
    return uri.scheme == "rtsp"


def open(uri: Uri, info: Info) -> Sink:
    _, options = uri.split(OPTIONS, mark="#")
    check(uri)
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingPackage("av", f"Publishing to {uri}", "camera") from error
    sink = Rtsp(uri, min(max(info.fps or DEFAULT_FPS, 1.0), HIGHEST_FPS), **options)
    if not info.part:  # opened again mid-run: the next write() finds out as well, and one announcement is enough
        try:
            sink.probe()
        except Unreachable as error:
            if not info.live:
                raise
            log.warning("%s It is waited for.", error.what, extra={"hint": error.hint})
    return sink


class Rtsp(Sink):
    """A session starts with the first frame, and again when the frame size changes: H.264 announces its size."""

    needs_image = True

    def __init__(self, uri: Uri, fps: float, bitrate_kbps: int = 2000, transport: str = "tcp", timeout: float = 5.0):
        super().__init__()
        self._uri = uri
        self._fps = fps
        self._kbps = bitrate_kbps
        self._network = (transport, timeout)
        self._encoder: Encoder | None = None
        self._publisher: Publisher | None = None

    def probe(self) -> None:
        """StreamError unless the server would take a stream like ours: it is announced, but not begun."""
        height, width = PROBE_SIZE
        encoder = Encoder(self._uri, height, width, self._fps, self._kbps)
        packets = encoder.encode(np.zeros((height, width, 3), np.uint8), 0.0)
        publisher = Publisher(self._uri, *self._network)
        try:
            publisher.announce(describe(packets))
        finally:
            publisher.close()

    def write(self, result: Result, image: Image | None) -> None:
        assert image is not None
        image = image[: image.shape[0] & ~1, : image.shape[1] & ~1]  # yuv420p has no odd sizes
        height, width = image.shape[:2]
        if self._encoder is None or self._encoder.size != (height, width):
            self.close()
            self._encoder = Encoder(self._uri, height, width, self._fps, self._kbps)
        packets = self._encoder.encode(image, result.frame.captured)
        if not packets:  # an encoder other than libx264 may look ahead
            return
        if self._publisher is None:
            self._publisher = Publisher(self._uri, *self._network)
            self._publisher.announce(describe(packets))
            self._publisher.record()
        self._publisher.send(self._encoder.pack(packets))

    def close(self) -> None:
        publisher, self._publisher = self._publisher, None
        self._encoder = None
        if publisher is not None:
            publisher.close()


class Encoder:
    """Images of `size` (height, width) in, H.264 packets out, and those in RTP packets."""

    def __init__(self, uri: Uri, height: int, width: int, fps: float, kbps: int):
        import av

        self.size = (height, width)
        self._uri = uri
        self._started: float | None = None
        self._pts = -1
        self._key_at = 0
        self._packed = PacketBuffer()
        self._container = av.open(
            self._packed,  # anything with write() will do
            "w",
            format="rtp",
            container_options={"packetsize": PACKET_BYTES},
        )
        try:
            self._stream = self._open(fps, kbps)
        except (av.error.FFmpegError, ValueError) as error:
            raise StreamError(
                f"{uri}: no H.264 video of {width}x{height} can be encoded ({type(error).__name__}).",
                "PyAV's own wheels have libx264; the size may be too small or too large.",
            ) from None

    def _open(self, fps: float, kbps: int) -> Any:
        """The encoder, opened now. It spends at most `kbps`, averaged over a second, whatever the image shows."""
        import av

        name = "libx264" if "libx264" in av.codecs_available else "h264"
        rate = Fraction(fps).limit_denominator(1001)
        stream: Any = self._container.add_stream(name, rate=rate)
        context = stream.codec_context
        context.height, context.width = self.size
        context.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, CLOCK)
        context.bit_rate = kbps * 1000
        context.gop_size = max(1, round(fps * KEY_SECONDS))
        limits = {"maxrate": str(kbps * 1000), "bufsize": str(kbps * 1000)}
        context.options = {**limits, **(FAST if name == "libx264" else {})}
        context.open()
        return stream

    def encode(self, image: Image, captured: float) -> list[Any]:
        """Packets of a BGR image that was captured at `captured` seconds of any steady clock."""
        import av

        if self._started is None:
            self._started = captured
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "bgr24").reformat(format="yuv420p")
        # Encoders want rising times; two frames of one instant are a tick apart.
        self._pts = max(round((captured - self._started) * CLOCK), self._pts + 1)
        frame.pts, frame.time_base = self._pts, Fraction(1, CLOCK)
        if self._pts >= self._key_at:
            frame.pict_type = av.video.frame.PictureType.I
            self._key_at = self._pts + round(KEY_SECONDS * CLOCK)
        try:
            return list(self._stream.encode(frame))
        except av.error.FFmpegError as error:
            raise StreamError(f"{self._uri}: the encoder failed: {error.strerror}.") from None

    def pack(self, packets: Sequence[Any]) -> list[bytes]:
        """The same in RTP packets, with RTCP's sender reports between them."""
        self._container.mux(packets)
        packed, self._packed.packets = self._packed.packets, []
        return packed


class PacketBuffer:
    """What FFmpeg's RTP muxer writes to, one call per packet."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.packets.append(bytes(data))
        return len(data)


def describe(packets: Sequence[Any]) -> str:
    """The SDP of a stream that starts with these packets, with its parameter sets for servers that look no further."""
    sets = [unit for packet in packets for unit in units(bytes(packet)) if unit and unit[0] & 31 in (7, 8)]
    parameters = ""
    if sets:
        level = next((unit[1:4].hex().upper() for unit in sets if unit[0] & 31 == 7), "42C01F")
        coded = ",".join(base64.b64encode(unit).decode() for unit in sets)
        parameters = f"; sprop-parameter-sets={coded}; profile-level-id={level}"
    return SDP.format(parameters=parameters).replace("\n", "\r\n")


def units(data: bytes) -> Iterator[bytes]:
    """The NAL units of an Annex B byte stream."""
    for unit in re.split(b"\0\0\1", data)[1:]:
        yield unit.rstrip(b"\0")

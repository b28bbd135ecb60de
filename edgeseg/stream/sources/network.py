"""Network cameras through PyAV: RTSP, MJPEG or any video over HTTP, MPEG-TS over UDP.

The address keeps its own query; our options follow `#`:
    rtsp://user:password@camera/live?channel=1#transport=udp&timeout=5
`transport` tcp (default) or udp, for RTSP; `timeout` seconds to connect and between packets; `max_megapixels`;
`format` names FFmpeg's input format where it cannot guess. Credentials never appear in a message.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgeseg.errors import MissingPackage, OptionError, StreamError
from edgeseg.images import Image
from edgeseg.segmenter import Frame
from edgeseg.stream.sources import MAX_MEGAPIXELS, EndOfStream, Refused, Source, check_size
from edgeseg.stream.uri import Convert, Uri, choice, number

if TYPE_CHECKING:
    import av

FORMS = "rtsp://CAMERA/PATH, rtsps://CAMERA/PATH, http://CAMERA/PATH, https://CAMERA/PATH, udp://HOST:PORT"
CAMERA = True
SCHEMES = ("rtsp", "rtsps", "http", "https", "udp")
OPTIONS: dict[str, Convert] = {
    "transport": choice("tcp", "udp"),
    "timeout": number(0.1, 600),
    "max_megapixels": number(0.001, 10_000),
    "format": str,
}
BAD_PACKETS = 100  # so many in a row that nothing decodes: the stream is broken, not merely damaged


def claims(uri: Uri) -> bool:
    return uri.scheme in SCHEMES


def open(uri: Uri) -> Source:
    _, options = uri.split(OPTIONS, mark="#")
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingPackage("av", f"Reading {uri}", "camera") from error
    if "transport" in options and not uri.scheme.startswith("rtsp"):
        raise OptionError(f"Option transport of {uri} is for rtsp:// only.", "Leave it out.")
    return Network(uri, **options)


class Network(Source):
    live = True

    def __init__(
        self,
        uri: Uri,
        transport: str = "tcp",
        timeout: float = 5.0,
        max_megapixels: float = MAX_MEGAPIXELS,
        format: str | None = None,
    ):
        super().__init__()
        self.uri = uri
        self._timeout = timeout
        self._limit = max_megapixels
        self._format = format
        self._url = uri.text.split("#", maxsplit=1)[0]
        self._options = {"rtsp_transport": transport} if uri.scheme.startswith("rtsp") else {}
        self._container: av.container.InputContainer | None = None
        self._frames: Iterator[Frame | None] | None = None
        self._index = 0
        self._bad_in_a_row = 0

    def read(self, timeout: float) -> Frame | None:
        import av

        try:
            if self._frames is None:
                self._frames = self._decode(self._connect())
            until = time.monotonic() + timeout
            while (frame := next(self._frames)) is None and time.monotonic() < until:
                pass
            return frame
        except StopIteration:
            raise EndOfStream from None
        except av.error.FFmpegError as error:
            raise self._explain(error) from None

    def _connect(self) -> av.container.InputContainer:
        import av

        options = {"fflags": "nobuffer", "probesize": "500000", "analyzeduration": "1000000", **self._options}
        self._container = av.open(self._url, format=self._format, options=options, timeout=self._timeout)
        if not self._container.streams.video:
            raise StreamError(f"{self.uri} carries no video.", "Check the address: it may be an audio or data stream.")
        return self._container

    def _decode(self, container: av.container.InputContainer) -> Iterator[Frame | None]:
        """Frames; None for a packet without one, so that the reader can look whether to stop while only audio comes."""
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else None
        stream.codec_context.thread_type = "SLICE"  # frame threads would add a frame of delay each
        stream.codec_context.options = {"max_pixels": str(int(self._limit * 1e6))}
        check_size(stream.width, stream.height, self.uri, self._limit)
        latest = time.monotonic()
        for packet in container.demux():
            arrived = time.monotonic()
            for video_frame in self._video_frames(packet) if packet.stream_index == stream.index else ():
                check_size(video_frame.width, video_frame.height, self.uri, self._limit)
                image: Image = video_frame.to_ndarray(format="bgr24")  # type: ignore[assignment]
                latest = arrived
                self._index += 1
                yield Frame(image, self._index - 1, arrived)
            if arrived - latest > self._timeout:
                raise StreamError(
                    f"{self.uri} sends data, but for {self._timeout:g} s no image in it.",
                    "Its codec may have changed.",
                )
            yield None

    def _video_frames(self, packet: Any) -> list[av.VideoFrame]:
        """What a packet decodes to; damaged ones are counted, and too many in a row are an error."""
        import av

        try:
            decoded = [f for f in packet.decode() if isinstance(f, av.VideoFrame)]
        except av.error.ArgumentError:  # what FFmpeg says of max_pixels
            raise StreamError(
                f"{self.uri} sends an image over the limit of {self._limit:g} megapixels.",
                "If that size is meant, raise the limit with the option max_megapixels=N.",
            ) from None
        except av.error.InvalidDataError:
            self.damaged += 1
            self._bad_in_a_row += 1
            if self._bad_in_a_row >= BAD_PACKETS:
                raise StreamError(f"{self.uri}: {BAD_PACKETS} packets in a row cannot be decoded.") from None
            return []
        self._bad_in_a_row = 0
        whole = [f for f in decoded if not f.is_corrupt]
        self.damaged += len(decoded) - len(whole)
        return whole

    def _explain(self, error: Any) -> StreamError:
        import av

        kinds = av.error
        if isinstance(error, (kinds.HTTPUnauthorizedError, kinds.HTTPForbiddenError, kinds.PermissionError)):
            return Refused(f"{self.uri} refuses these credentials.", "Check user and password; encode @ as %40.")
        if isinstance(error, kinds.HTTPNotFoundError):
            return StreamError(f"{self.uri} does not exist on that camera (404).", "Check the path of the address.")
        if isinstance(error, (kinds.ExitError, kinds.TimeoutError)):
            return StreamError(f"{self.uri} sent nothing for {self._timeout:g} s.", "Is it on, and reachable?")
        if isinstance(error, kinds.DecoderNotFoundError):
            return StreamError(f"The codec of {self.uri} is not supported.", "Set the camera to H.264 or MJPEG.")
        broken_off = error.errno == errno.EIO
        if broken_off and self._index:
            return StreamError(f"{self.uri} broke off.", "Is it on, and reachable?")
        if broken_off or isinstance(error, (kinds.InvalidDataError, kinds.EOFError)):
            return StreamError(f"{self.uri} sends no video that can be read.", "Check the address and its #format.")
        return StreamError(f"{self.uri} cannot be read: {error.strerror}.", "Check address, port and network.")

    def close(self) -> None:
        container, self._container = self._container, None
        self._frames = None
        if container is not None:
            container.close()

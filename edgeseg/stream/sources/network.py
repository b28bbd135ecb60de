"""Network cameras through PyAV: RTSP, MJPEG or any video over HTTP, MPEG-TS over UDP.

The address keeps its own query; our options follow `#`:
    rtsp://user:password@camera/live?channel=1#transport=udp&timeout=5
`transport` tcp (default) or udp, for RTSP; `timeout` seconds to connect and between packets; `max_megapixels`;
`clock=camera` counts the age of a frame from the time that an RTSP camera gives it (RTCP), which is right where the
camera's clock is (NTP); else it is counted from the arrival of the packet. `format` names FFmpeg's input format where
it cannot guess. A URL of a single image (a snapshot) is fetched again and again, `every` so many seconds. Credentials
never appear in a message.

A video stream can be entered at a key frame only, and some cameras send one in 30 s. Until it comes `waiting` is true,
and nothing is wrong.
"""

from __future__ import annotations

import errno
import logging
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgeseg.errors import MissingPackage, OptionError, StreamError, unknown
from edgeseg.motion import Motion, vectors
from edgeseg.result import Frame
from edgeseg.stream.frame_numbers import FrameNumbers
from edgeseg.stream.pictures import Pictures, quarter_turns
from edgeseg.stream.sources import MAX_MEGAPIXELS, EndOfStream, Refused, Source, check_size
from edgeseg.stream.uri import Convert, Uri, choice, number

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)
FORMS = "rtsp://CAMERA/PATH, rtsps://CAMERA/PATH, http://CAMERA/PATH, https://CAMERA/PATH, udp://HOST:PORT"
CAMERA = True
SCHEMES = ("rtsp", "rtsps", "http", "https", "udp")
OPTIONS: dict[str, Convert] = {
    "transport": choice("tcp", "udp"),
    "timeout": number(0.1, 600),
    "max_megapixels": number(0.001, 10_000),
    "format": str,
    "every": number(0.05, 86400),
    "clock": choice("camera", "arrival"),
}
CAMERA_TIMES = 64
CLOCK_SECONDS = 5.0  # a camera's clock that is off by more is not synchronized
SLOPPY_JPEGS = 10  # so many at the start that are not flawless: it is how this camera writes them
BAD_PACKETS = 100  # so many key frames in a row that do not decode: the stream is broken, not merely damaged
KEY_FRAME_SECONDS = 120.0  # the longest wait for a key frame while packets arrive
# Codecs whose decoders make gray or broken images of what comes before a key frame.
ENTERED_AT_KEY_FRAMES = ("h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video", "vp8", "vp9", "av1")
# What a camera sent while its stream was being opened comes at once, and is old: it is decoded, but not shown.
SENDS_IN_REAL_TIME = ("rtsp", "rtsps", "udp")
WAITED_SECONDS = 0.005  # a packet that had to be waited for is new
BACKLOG_SECONDS = 1.5  # the longest that a machine which decodes too slowly shows nothing
# Not `nobuffer`: it throws away what is read to find out the codec, the first key frame among it. The frame rate is not
# measured, since that takes 20 frames, which would then come late.
OPEN_OPTIONS = {"probesize": "500000", "analyzeduration": "1000000", "fpsprobesize": "0"}
# RTSP says at the start what it carries, so that nothing has to be found out of packets. Sound is not asked for: some
# servers hold the images back until the sound that belongs to them.
RTSP_OPTIONS = {"probesize": "32", "allowed_media_types": "video"}


def claims(uri: Uri) -> bool:
    return uri.scheme in SCHEMES


def open(uri: Uri) -> Source:
    _, options = uri.split(OPTIONS, mark="#")
    try:
        import av
    except ImportError as error:
        raise MissingPackage("av", f"Reading {uri}", "camera") from error
    if options.get("format", "") not in ("", *av.formats_available):
        raise unknown(f"format of {uri}", options["format"], av.formats_available)
    if "transport" in options and not uri.scheme.startswith("rtsp"):
        raise OptionError(f"Option transport of {uri} is for rtsp:// only.", "Leave it out.")
    if options.get("clock") == "camera":
        if not uri.scheme.startswith("rtsp"):
            raise OptionError(f"Option clock=camera of {uri} is for rtsp:// only.", "Leave it out.")
        if not hasattr(av.Packet, "get_sidedata"):
            raise OptionError(f"Option clock=camera of {uri} needs a newer PyAV.", "pip install --upgrade av")
    return Network(uri, **options)


class _SloppyJpegs(Exception):
    """Every JPEG of this connection has an error."""


class Network(Source):
    live = True

    def __init__(
        self,
        uri: Uri,
        transport: str = "tcp",
        timeout: float = 5.0,
        max_megapixels: float = MAX_MEGAPIXELS,
        format: str | None = None,
        every: float = 1.0,
        clock: str = "arrival",
    ):
        super().__init__()
        self.uri = uri
        self._every = every
        self._timeout = timeout
        self._limit = max_megapixels
        self._format = format
        self._url = uri.url()
        self._options = {**RTSP_OPTIONS, "rtsp_transport": transport} if uri.scheme.startswith("rtsp") else {}
        self._container: av.container.InputContainer | None = None
        self._frames: Iterator[Frame | None] | None = None
        self._index = 0
        self._in_connection = 0  # images since it was opened
        self._connected_at = 0.0
        self._fetch_at = 0.0  # of a snapshot
        self._bad_in_a_row = 0
        self._camera_clock = clock == "camera"
        self._taken: dict[int, float] = {}  # pts of the latest packets -> Unix seconds, by the camera's clock
        self._strict = True  # a JPEG that is cut off or holds an error is damaged, though most of it can be shown
        self._pictures = Pictures(uri, self.warnings)
        self._image_at = self._packet_at = 0.0  # when the latest image and the latest packet of the video came
        self._key_frames = 0  # since the latest image
        self._motion = False  # whether frames get what the decoder knows of it
        self._gap = True  # a frame before the next one is missing
        self._numbers: FrameNumbers | None = None  # of H.264

    @property
    def waiting(self) -> bool:  # type: ignore[override]
        """Packets arrive, but a key frame is still due."""
        return self._key_frames == 0 and self._image_at < self._packet_at > time.monotonic() - self._timeout

    def use_motion(self) -> None:
        self._motion = True

    def read(self, timeout: float) -> Frame | None:
        import av

        until = time.monotonic() + timeout
        if self._fetch_at > time.monotonic():
            time.sleep(max(0.0, min(self._fetch_at, until) - time.monotonic()))
            return None
        try:
            if self._frames is None:
                self._connected_at = time.monotonic()
                self._frames = self._decode(self._connect())
            while (frame := next(self._frames)) is None and time.monotonic() < until:
                pass
            return frame
        except _SloppyJpegs:
            self._strict = False
            self.warnings.append(f"{self.uri}: its JPEGs have errors; they are shown as they are.")
            self.close()
            return None
        except StopIteration:
            if not self._is_snapshot():
                raise EndOfStream from None
            self.close()
            self.interval, self.fps = self._every, 1 / self._every
            self._fetch_at = self._connected_at + self._every
            return None
        except av.error.FFmpegError as error:
            if self._may_be_jpegs(error):
                self._format = "mjpeg"
                self.close()
                return None
            raise self._explain(error) from None

    def _may_be_jpegs(self, error: Exception) -> bool:
        """Whether to look for JPEGs in the bytes: cameras leave out the first boundary, or call a part image/jpg."""
        import av

        unread = isinstance(error, av.error.InvalidDataError) and not self._index
        return unread and not self._format and self.uri.scheme.startswith("http")

    def _connect(self) -> av.container.InputContainer:
        self._container = self._open_container()
        self._in_connection = 0
        self._gap = True
        self._key_frames = 0
        self._image_at = self._packet_at = time.monotonic()
        if not self._container.streams.video:
            raise StreamError(f"{self.uri} carries no video.", "Check the address: it may be an audio or data stream.")
        return self._container

    def _open_container(self) -> av.container.InputContainer:
        import av

        options = {**OPEN_OPTIONS, **self._options}
        return av.open(self._url, format=self._format, options=options, timeout=self._timeout)

    def _is_snapshot(self) -> bool:
        """Whether the connection that has ended gave a single image, from a file that is one."""
        name = self._container.format.name if self._container else ""
        return self._in_connection == 1 and (name.endswith("_pipe") or name in ("image2", "mjpeg"))

    def _decode(self, container: av.container.InputContainer) -> Iterator[Frame | None]:
        """Frames; None for a packet without one, so that the reader can look whether to stop while only audio comes."""
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        if not self.interval:
            self.fps = float(rate) if rate and 0.1 <= rate <= 1000 else None
        stream.codec_context.thread_type = "SLICE"  # frame threads would add a frame of delay each
        options = {"max_pixels": str(int(self._limit * 1e6))}
        if self._strict and stream.codec_context.name == "mjpeg":
            options["err_detect"] = "explode"
        if self._motion and stream.codec_context.name in vectors.CODECS:
            options.update(vectors.OPTIONS)
        stream.codec_context.options = options
        check_size(stream.width, stream.height, self.uri, self._limit)
        self._numbers = FrameNumbers(stream.codec_context.extradata) if stream.codec_context.name == "h264" else None
        entered = stream.codec_context.name not in ENTERED_AT_KEY_FRAMES
        behind = self.uri.scheme in SENDS_IN_REAL_TIME
        opened = asked = time.monotonic()
        for packet in container.demux():
            arrived = time.monotonic()
            behind = behind and arrived - asked < WAITED_SECONDS and arrived - opened < BACKLOG_SECONDS
            if packet.stream_index == stream.index:
                self._packet_at = arrived
                self._note_camera_time(packet)
                self._key_frames += packet.is_keyframe
                entered = entered or packet.is_keyframe
                for video_frame in self._video_frames(packet) if entered else ():
                    check_size(video_frame.width, video_frame.height, self.uri, self._limit)
                    self._image_at, self._key_frames = arrived, 0
                    if not behind:
                        self._in_connection += 1
                        self._index += 1
                        captured, origin = self._captured(video_frame, arrived)
                        image, motion = self._pictures.of(video_frame), self._motion_of(video_frame, packet.stream)
                        yield Frame(image, self._index - 1, captured, "", video_frame.time, origin, motion)
            self._check_progress(arrived)
            yield None
            asked = time.monotonic()

    def _motion_of(self, frame: av.VideoFrame, stream: Any) -> tuple[Motion, ...] | None:
        """None where the frame before it is not the one that the decoder means, and for a picture that is turned."""
        gap, self._gap = self._gap, False
        known = self._motion and stream.codec_context.name in vectors.CODECS and not quarter_turns(frame)
        return (vectors.of_frame(frame),) if known and not gap else None

    def _note_camera_time(self, packet: Any) -> None:
        """Keep what RTCP says of when this packet's picture was taken; cameras begin to say it after some seconds."""
        if self._camera_clock and packet.pts is not None and packet.has_sidedata("prft"):
            microseconds = int.from_bytes(bytes(packet.get_sidedata("prft"))[:8], sys.byteorder, signed=True)
            self._taken[packet.pts] = microseconds / 1e6
            if len(self._taken) > CAMERA_TIMES:
                del self._taken[next(iter(self._taken))]

    def _captured(self, frame: av.VideoFrame, arrived: float) -> tuple[float, str]:
        """(seconds of time.monotonic, what they are) of a decoded frame."""
        taken = self._taken.pop(frame.pts, None) if frame.pts is not None else None
        if taken is None:
            return arrived, "arrival"
        age = time.time() - taken
        if -CLOCK_SECONDS <= age <= CLOCK_SECONDS:
            return time.monotonic() - max(age, 0.0), "capture"
        text = f"{self.uri}: its clock differs from ours by about {age:.0f} s; ages are counted from the arrival."
        if not any("its clock differs" in warning for warning in self.warnings):
            self.warnings.append(text)
            log.warning("%s", text)
        return arrived, "arrival"

    def _check_progress(self, now: float) -> None:
        """StreamError if data arrives, but too long no image that could be expected."""
        silent = now - self._image_at
        if silent <= self._timeout:
            return
        if not self.waiting:
            raise StreamError(
                f"{self.uri} sends data, but for {self._timeout:g} s no image in it.", "Its codec may have changed."
            )
        if silent > KEY_FRAME_SECONDS:
            raise StreamError(
                f"{self.uri} has sent no key frame for {KEY_FRAME_SECONDS:g} s.",
                "Set the camera's key frame interval (GOP, I-frame interval) to a few seconds.",
            )

    def _video_frames(self, packet: Any) -> list[av.VideoFrame]:
        """What a packet decodes to. Damaged ones and those that are missing before it are counted, and too many key
        frames in a row that do not decode are an error.
        """
        import av

        if self._numbers and packet.size and (missing := self._numbers.missing(memoryview(packet))):
            self.damaged += missing
            self._gap = True
        try:
            decoded = [f for f in packet.decode() if isinstance(f, av.VideoFrame)]
        except av.error.ArgumentError:  # what FFmpeg says of max_pixels
            raise StreamError(
                f"{self.uri} sends an image over the limit of {self._limit:g} megapixels.",
                "If that size is meant, raise the limit with the option max_megapixels=N.",
            ) from None
        except av.error.InvalidDataError:
            self.damaged += 1
            self._gap = True
            self._bad_in_a_row += packet.is_keyframe
            if self._strict and packet.stream.codec_context.name == "mjpeg" and not self._in_connection:
                if self._bad_in_a_row >= SLOPPY_JPEGS:
                    raise _SloppyJpegs from None
            elif self._bad_in_a_row >= BAD_PACKETS:
                raise StreamError(f"{self.uri}: {BAD_PACKETS} key frames in a row cannot be decoded.") from None
            return []
        self._bad_in_a_row = 0
        whole = [f for f in decoded if not f.is_corrupt]
        self._gap = self._gap or len(whole) < len(decoded)
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
        if isinstance(error, kinds.HTTPOtherClientError) and self.uri.scheme.startswith("rtsp"):
            return StreamError(
                f"{self.uri} gives no video ({error.strerror}).",
                "It may be an audio or data stream, or the camera may serve no more viewers.",
            )
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

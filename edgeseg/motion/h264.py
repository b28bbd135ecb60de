"""Pictures as a camera would send them: coded as H.264 in memory and decoded again, with their motion. Needs PyAV."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import numpy as np

from edgeseg.images import Image
from edgeseg.motion import Motion, vectors

# Without B-frames and with one reference, as cameras code. CRF 23 is x264's own default.
CAMERA = {"crf": "23", "preset": "fast", "tune": "zerolatency", "bf": "0", "refs": "1"}


def available() -> bool:
    """Whether there is PyAV with an H.264 encoder."""
    try:
        import av
    except ImportError:
        return False
    return "libx264" in av.codecs_available


def encode(images: Iterable[Image], fps: int, key_frame_every: int) -> bytes:
    """[H, W, 3] uint8 BGR images of one size, which is even, as an H.264 stream in Matroska."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = None
        for image in images:
            if stream is None:
                stream = container.add_stream("libx264", rate=fps, options={**CAMERA, "g": str(key_frame_every)})
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        if stream is not None:
            container.mux(stream.encode())
    return buffer.getvalue()


def decode(data: bytes) -> Iterator[tuple[Image, Motion]]:
    """The pictures of encode()."""
    import av

    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.options = vectors.OPTIONS
        for frame in container.decode(stream):
            yield np.asarray(frame.to_ndarray(format="bgr24"), np.uint8), vectors.of_frame(frame)

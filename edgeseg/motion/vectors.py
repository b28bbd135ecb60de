"""Motion vectors of FFmpeg's decoders (PyAV). H.264 and MPEG-1, -2 and -4 have them; HEVC, VP9 and AV1 give none."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeseg.motion import Blocks, Motion

CODECS = ("h264", "mpeg4", "mpeg2video", "mpeg1video")
OPTIONS = {"flags2": "+export_mvs"}  # of the codec context, before the first packet
LONGEST = 1 << 15  # pixels
NO_BLOCKS: Blocks = np.zeros((0, 6), np.float32)
B_FRAME = 3  # AVPictureType


def of_frame(frame: Any) -> Motion:
    """The Motion of an av.VideoFrame whose decoder was opened with OPTIONS and has one of CODECS."""
    side_data = frame.side_data.get("MOTION_VECTORS")
    blocks = NO_BLOCKS if side_data is None else blocks_of(side_data.to_ndarray())
    return Motion(blocks, int(frame.pict_type) != B_FRAME)


def blocks_of(vectors: Any) -> Blocks:
    """A structured array of AVMotionVector as Blocks: those that refer to the past, without what no stream can mean."""
    usable = (vectors["source"] < 0) & (vectors["motion_scale"] > 0)
    past = vectors if usable.all() else vectors[usable]
    blocks: Blocks = np.empty((len(past), 6), np.float32)
    for axis, (middle, side, moved) in enumerate((("dst_x", "w", "motion_x"), ("dst_y", "h", "motion_y"))):
        half = past[side] * np.float32(0.5)
        blocks[:, axis] = past[middle] - half
        blocks[:, 2 + axis] = past[middle] + half
        blocks[:, 4 + axis] = past[moved] / past["motion_scale"]
    if len(blocks) and not np.abs(blocks).max() <= LONGEST:
        blocks = blocks[np.abs(blocks).max(axis=1) <= LONGEST]
    return blocks

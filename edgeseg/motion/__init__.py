"""How pictures of a video move: what the codec knows of it, or optical flow where it knows nothing.

vectors.py reads a decoder's motion vectors, field.py makes a grid of them, flow.py finds one by optical flow, warp.py
moves class maps and logits along it. Idea: Jain and Gonzalez, "Inter-BMV: Interpolation with Block Motion Vectors for
Fast Semantic Segmentation on Video", 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Blocks = NDArray[np.float32]
"""[N, 6]: left, top, right, bottom of a block in the picture, and (dx, dy) from it to where its content was in an
earlier one; pixels."""


@dataclass(frozen=True)
class Motion:
    """What a decoder knows of how one picture moved since the picture that it refers to.

    `reference`: later pictures may refer to this one (it is no B-frame). No `blocks`: it was coded by itself (an
    I-frame).
    """

    blocks: Blocks
    reference: bool = True

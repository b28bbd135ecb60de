"""The teacher's answers, asked once and kept: FOLDER/KEY/NUMBER.npy, one a training frame.

A random crop is another picture in every epoch, so its answer cannot be kept. What is kept is the answer for the whole
frame, at a quarter of its size in float16, and it goes through the same zoom, crop, mirroring, rotation and bending as
the labels. The teacher thus sees the whole frame and no change of color: not what it would say to the crop, but about
what it knows of the place. KEY names the teacher, the frames and the Spec.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgeseg.files import write_bytes
from edgeseg.training.cached_logits import path_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from edgeseg.training.loader import SegmentationDataset

log = logging.getLogger(__name__)
SMALLER = 4


def fill(
    teacher: nn.Module,
    frames: SegmentationDataset,
    folder: Path,
    fabric: Fabric,
    progress: Callable[[int, int], None] = lambda i, n: None,
) -> Path:
    """Ask `teacher` about every frame that is not in `folder` yet, shared among the processes; the folder to read from.

    Every file is written whole: what was killed goes on.
    """
    home = folder / _key(teacher, frames)
    plain = copy.copy(frames)
    plain.settings = None
    wanted = [i for i in range(len(frames)) if not path_of(home, i).is_file()]
    for i in wanted[fabric.global_rank :: fabric.world_size]:
        with torch.no_grad():
            logits = teacher(fabric.to_device(plain[i][0][None])).float()
        small = F.interpolate(logits, scale_factor=1 / SMALLER, mode="bilinear", align_corners=False)
        data = io.BytesIO()
        np.save(data, small[0].permute(1, 2, 0).half().cpu().numpy())
        write_bytes(path_of(home, i), data.getvalue())
        progress(i + 1, len(frames))
    fabric.barrier()
    log.info("the teacher's answers for %d frames are in %s", len(frames), home)
    return home


def _key(teacher: nn.Module, frames: SegmentationDataset) -> str:
    total = hashlib.sha256(json.dumps(frames.spec.to_dict(), sort_keys=True).encode())
    total.update(frames.dataset.digest().encode())
    for name, tensor in teacher.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]

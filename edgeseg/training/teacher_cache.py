"""The teacher cache: the teacher's logits of every training frame, computed once. FOLDER/KEY/INDEX.npy.

A random crop differs in every epoch, so logits of crops cannot be cached. What is cached are the logits of the whole
frame, at a quarter of its size in float16; they go through the same zoom, crop, mirroring, rotation and elastic
deformation as the labels. So the teacher sees the whole frame without color augmentation, which approximates what it
would predict for the crop. KEY is a digest of the teacher, the frames and the Spec.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgeseg.files import write_bytes
from edgeseg.training.cached_logits import logits_path
from edgeseg.training.loader import SegmentationDataset
from edgeseg.training.run_identity import weights_digest

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DOWNSCALE = 4


def fill(
    teacher: nn.Module,
    frames: SegmentationDataset,
    folder: Path,
    fabric: Fabric,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Run `teacher` on every frame that is not in `folder` yet, shared among the processes; the folder to read from.

    Every file is written atomically, so an interrupted call continues where it stopped.
    """
    cache = folder / _key(teacher, frames)
    plain = copy.copy(frames)
    plain.settings = None
    missing = [i for i in range(len(frames)) if not logits_path(cache, i).is_file()]
    for i in missing[fabric.global_rank :: fabric.world_size]:
        with torch.no_grad():
            logits = teacher(fabric.to_device(plain[i][0][None])).float()
        small = F.interpolate(logits, scale_factor=1 / DOWNSCALE, mode="bilinear", align_corners=False)
        data = io.BytesIO()
        np.save(data, small[0].permute(1, 2, 0).half().cpu().numpy())
        write_bytes(logits_path(cache, i), data.getvalue())
        progress(i + 1, len(frames))
    fabric.barrier()
    return cache


def _key(teacher: nn.Module, frames: SegmentationDataset) -> str:
    total = hashlib.sha256(json.dumps(frames.spec.to_dict(), sort_keys=True).encode())
    total.update(frames.dataset.digest().encode())
    total.update(weights_digest(teacher))
    return total.hexdigest()[:16]

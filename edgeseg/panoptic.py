"""A panoptic map: a frame divided into segments, each a class (stuff) or one object of a class (a thing)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import OptionError
from edgeseg.images import Image

VOID = 0  # the id of pixels that belong to no segment


@dataclass(frozen=True)
class Segment:
    """`id`: of its pixels, from 1 on. `score`: 0 to 1; 1 for labels. `area`: pixels. `thing`: one object, rather than
    everything of its class. `crowd`: several objects that a label does not tell apart."""

    id: int
    class_id: int
    score: float
    area: int
    thing: bool
    crowd: bool = False


@dataclass(frozen=True, eq=False)
class PanopticMap:
    """`ids`: [H, W] uint16, the segment of each pixel or VOID. `segments`: those that are there, by their ids."""

    ids: NDArray[np.uint16]
    segments: tuple[Segment, ...]

    def classmap(self, void: int = 255) -> Image:
        """[H, W] uint8 class ids; `void` where there is no segment."""
        table = np.full(max((s.id for s in self.segments), default=0) + 1, void, np.uint8)
        for segment in self.segments:
            table[segment.id] = segment.class_id
        return table[self.ids]

    def to_coco(self, image_id: int, file_name: str) -> dict[str, Any]:
        """An annotation of COCO panoptic; `file_name` is that of the PNG with `coco_colors`. `category_id` is the class
        id, `bbox` [x, y, width, height]."""
        segments = [
            {
                "id": segment.id,
                "category_id": segment.class_id,
                "area": segment.area,
                "bbox": list(cv2.boundingRect((self.ids == segment.id).view(np.uint8))),
                "iscrowd": int(segment.crowd),
                "score": round(segment.score, 4),
            }
            for segment in self.segments
        ]
        return {"image_id": image_id, "file_name": file_name, "segments_info": segments}

    def coco_colors(self) -> Image:
        """[H, W, 3] BGR, the picture that COCO keeps ids in: id = R + 256 G + 65536 B."""
        codes = self.ids.astype(np.uint32)
        return np.stack((codes >> 16, codes >> 8 & 255, codes & 255), axis=-1).astype(np.uint8)


def thing_ids(things: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """The ids of the classes called `things`; OptionError for a name that is no class, or that is there twice."""
    for name in things:
        if name not in classes:
            raise OptionError(f"Thing {name!r} is none of the classes.", f"They are: {', '.join(classes)}.")
    if len(set(things)) != len(things):
        raise OptionError(f"Things {', '.join(things)}: one is there twice.", "Name each class once.")
    return tuple(sorted(classes.index(name) for name in things))


def from_labels(
    mask: Image, objects: NDArray[np.uint16] | None, things: Sequence[int], ignore: int | None = None
) -> PanopticMap:
    """The panoptic map of labels: `mask` [H, W] uint8 class ids and `objects` [H, W] uint16, 0 for none.

    Pixels of a thing's class that belong to no object are a crowd; pixels labeled `ignore` are void. OptionError where
    a class that is no thing has objects.
    """
    numbers = np.zeros(mask.shape, np.int64) if objects is None else objects.astype(np.int64)
    is_thing = np.isin(mask, list(things))
    stray = (numbers > 0) & ~is_thing & (mask != (-1 if ignore is None else ignore))
    if stray.any():
        raise OptionError(
            f"Class {int(mask[stray][0])} has objects in the labels, but is not among the things.",
            "Add it to the things, or label it without objects.",
        )
    keys = np.where(is_thing, numbers, 0) << 8 | mask
    values, place, areas = np.unique(keys, return_inverse=True, return_counts=True)
    ids = np.zeros(len(values), np.uint16)
    segments: list[Segment] = []
    for i, (value, area) in enumerate(zip(values.tolist(), areas.tolist())):
        class_id, number = value & 255, value >> 8
        if class_id == ignore:
            continue
        ids[i] = len(segments) + 1
        thing = class_id in things
        segments.append(Segment(int(ids[i]), class_id, 1.0, area, thing, crowd=thing and number == 0))
    return PanopticMap(ids[place].reshape(mask.shape), tuple(segments))

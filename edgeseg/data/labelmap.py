"""What a frame's labels become: a class map and, where objects are told apart, a map of their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import FileError
from edgeseg.geometry.regions import Region
from edgeseg.images import MAX_PIXELS, Image

IGNORE = 255  # class id of pixels that never count
BACKGROUND = "background"  # the class of what no shape covers
IGNORED_LABELS = ("__ignore__", "ignore")  # of shapes whose pixels never count
MOST_CLASSES = 255
MOST_OBJECTS = 65535
Instances = NDArray[np.uint16]


class _Own:
    """The object of a shape that belongs to no group."""


OWN = _Own()


@dataclass(frozen=True)
class LabelMap:
    """`classes`: [H, W] uint8. `instances`: [H, W] uint16, 0 where there is no object. `losses`: how often the frame
    holds something that these cannot, by what it is."""

    classes: Image
    instances: Instances | None = None
    losses: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Object:
    """A part of a label map: `instance` 0 is everything of a class that belongs to no object."""

    class_id: int
    instance: int
    region: Region


class Canvas:
    """Shapes are painted in their order; later ones cover earlier ones."""

    def __init__(self, height: int, width: int, ids: Mapping[str, int], uncovered: int = 0):
        if not 0 < height * width <= MAX_PIXELS or min(height, width) < 0:
            raise FileError(f"The labels are for an image of {width}x{height}.", "Export them again.")
        self.height, self.width = height, width
        self._ids = ids
        self._classes = np.full((height, width), uncovered, np.uint8)
        self._instances: Instances | None = None
        self._objects: dict[Hashable, int] = {}
        self._painted: NDArray[np.bool_] | None = None
        self._losses = Counter[str]()

    def lose(self, what: str) -> None:
        self._losses[what] += 1

    def paint(self, label: str, region: Region, owner: Hashable | None = OWN, number: int | None = None) -> None:
        """`owner`: shapes of one label and owner are one object; None: they are no object. `number`: its id.

        FileError for a label without a class.
        """
        if label not in self._ids:
            raise FileError(f"A shape has the label {label!r}.", f"The classes are: {', '.join(self._ids)[:200]}.")
        if not region.mask.any():
            self.lose("shapes without a pixel in the image")
            return
        if region.cut:
            self.lose("shapes that reach out of the image are cut")
        if self._painted is None:
            self._painted = np.zeros((self.height, self.width), bool)
        below = self._painted[region.window]
        if (below & region.mask).any():
            self.lose("shapes that lie over others hide what is below")
        below |= region.mask
        class_id = self._ids[label]
        self._classes[region.window][region.mask] = class_id
        objects = 0 if owner is None or class_id == IGNORE else self._number(label, owner, number)
        if objects and self._instances is None:
            self._instances = np.zeros((self.height, self.width), np.uint16)
        if self._instances is not None:
            self._instances[region.window][region.mask] = objects

    def _number(self, label: str, owner: Hashable, number: int | None) -> int:
        key = (label, owner) if owner is not OWN else len(self._objects)
        found = self._objects.setdefault(key, number or len(self._objects) + 1)
        if found > MOST_OBJECTS:
            raise FileError(f"A frame has more than {MOST_OBJECTS} objects.", "Split it.")
        return found

    def finished(self) -> LabelMap:
        return LabelMap(self._classes, self._instances, self._losses)


def objects(labels: LabelMap) -> Iterator[Object]:
    """Every object and every rest of a class, by class, then by id; pixels to ignore are class IGNORE."""
    keys = labels.classes.astype(np.uint32).ravel()
    numbers = np.uint32(0) if labels.instances is None else labels.instances.ravel()
    keys = keys << np.uint32(16) | numbers
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    width = labels.classes.shape[1]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    for start, end in zip(starts, [*starts[1:], len(order)]):
        y, x = np.divmod(order[start:end], width)
        key = int(ordered[start])
        mask = np.zeros((y[-1] - y[0] + 1, x.max() - x.min() + 1), bool)
        mask[y - y[0], x - x.min()] = True
        yield Object(key >> 16, key & 0xFFFF, Region(int(x.min()), int(y[0]), mask))

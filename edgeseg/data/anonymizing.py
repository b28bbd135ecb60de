"""Anonymizing: classes and faces are blurred in the images that an import writes.

Classes are hidden where the labels have them, faces where a detector finds them: what neither knows stays visible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgeseg.blur import hide
from edgeseg.data.dataset import Classes
from edgeseg.data.faces import FaceDetector
from edgeseg.errors import unknown
from edgeseg.images import Image

MARGIN = 1 / 100  # of the frame's shorter side, around a class: labels are drawn tightly
FACE_MARGIN = 0.15  # of a face's box, on each side
FACES = "faces"


@dataclass(frozen=True)
class Anonymizer:
    """`hidden`: name and id of each class that is blurred."""

    hidden: tuple[tuple[str, int], ...]
    faces: FaceDetector | None = None

    @classmethod
    def of(cls, classes: Classes, blur: Sequence[str], face_model: Path | None) -> Anonymizer | None:
        """None where nothing is to be hidden; OptionError for a class that the labels do not have."""
        for name in blur:
            if name not in classes.names:
                raise unknown("class", name, classes.names)
        faces = FaceDetector(face_model) if face_model else None
        hidden = tuple((name, classes.names.index(name)) for name in blur)
        return cls(hidden, faces) if hidden or faces else None

    def apply(self, image: Image, labels: Image) -> tuple[Image | None, Counter[str]]:
        """The image [H, W, 3] with everything hidden, None where nothing was; which classes, and how many FACES.

        `labels` [H, W]: class ids of the same frame.
        """
        found: Counter[str] = Counter()
        mask = np.zeros(labels.shape, np.uint8)
        for name, class_id in self.hidden:
            own = labels == class_id
            if own.any():
                found[name] += 1
                mask |= own
        if found:
            reach = 2 * max(2, round(MARGIN * min(labels.shape))) + 1
            mask = np.asarray(cv2.dilate(mask, np.ones((reach, reach), np.uint8)), np.uint8)
        for x, y, width, height in self.faces.boxes(image) if self.faces else ():
            found[FACES] += 1
            beside, above = round(FACE_MARGIN * width), round(FACE_MARGIN * height)
            mask[max(0, y - above) : y + height + above, max(0, x - beside) : x + width + beside] = 1
        if not found:
            return None, found
        hidden = image.copy()
        hide(hidden, mask)
        return hidden, found

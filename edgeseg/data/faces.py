"""Faces: boxes that a YuNet model (Wu et al. 2023) finds, run by OpenCV. edgeseg ships none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgeseg.errors import FileError, first_line
from edgeseg.files import require_file
from edgeseg.images import Image

SCORE = 0.5  # lower than usual: a face that stays visible is worse than a blurred sign
REDUCED = 640  # pixels of the longer side, at which faces that fill the frame are found
Box = tuple[int, int, int, int]  # x, y, width, height in pixels


class FaceDetector:
    """The faces of one frame after another. FileError for a `model` that is no YuNet in ONNX."""

    def __init__(self, model: Path):
        self._path = require_file(model, "Face model")
        try:
            self._detector = cv2.FaceDetectorYN.create(str(model), "", (320, 320), SCORE)
        except cv2.error as error:
            raise self._unusable(error) from None
        self.boxes(np.zeros((64, 64, 3), np.uint8))  # another network fails when it runs

    def __reduce__(self) -> tuple[type[FaceDetector], tuple[Path]]:
        """In another process the model is opened again."""
        return FaceDetector, (self._path,)

    def boxes(self, image: Image) -> list[Box]:
        """Of each face in `image` [H, W, 3] uint8 BGR, at its own size and reduced; some may be found twice."""
        found = self._detect(image, 1.0)
        scale = REDUCED / max(image.shape[:2])
        return found + self._detect(image, scale) if scale < 0.75 else found

    def _detect(self, image: Image, scale: float) -> list[Box]:
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        small = image if scale == 1 else cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        try:
            self._detector.setInputSize((width, height))
            rows = self._detector.detect(small)[1]
        except cv2.error as error:
            raise self._unusable(error) from None
        boxes = []
        for x, y, w, h in np.zeros((0, 4)) if rows is None else np.asarray(rows)[:, :4] / scale:
            left, top = max(0, int(x)), max(0, int(y))
            right, bottom = min(image.shape[1], int(np.ceil(x + w))), min(image.shape[0], int(np.ceil(y + h)))
            if right > left and bottom > top:
                boxes.append((left, top, right - left, bottom - top))
        return boxes

    def _unusable(self, error: cv2.error) -> FileError:
        return FileError(
            f"Face model {self._path} cannot be used: {first_line(error)}.",
            "Expected YuNet as ONNX, like face_detection_yunet_2023mar.onnx of the OpenCV Zoo.",
        )

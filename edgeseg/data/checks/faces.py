"""Faces: what a detector sees of people, for whoever must know before the data is passed on."""

from __future__ import annotations

from threading import Lock

from edgeseg.data.checks import CannotCheck, Check, Context, Sample
from edgeseg.data.faces import FaceDetector
from edgeseg.results.check import Finding

ERRORS = ()


class Faces(Check):
    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector
        self.alone = Lock()  # the detector takes one frame at a time

    def look(self, sample: Sample) -> list[Finding]:
        if sample.pixels is None:
            return []
        with self.alone:
            boxes = self.detector.boxes(sample.pixels)
        if not boxes:
            return []
        largest = max(boxes, key=lambda box: box[2] * box[3])
        return [
            Finding(
                kind="face", file=sample.name, what=f"A face can be seen, {largest[2]}x{largest[3]} pixels.",
                split=sample.split, score=min(1.0, largest[3] / sample.pixels.shape[0]), box=largest,
            )
        ]  # fmt: skip


def open(context: Context) -> Check:
    if context.face_model is None:
        raise CannotCheck("no face model was given")
    return Faces(FaceDetector(context.face_model))

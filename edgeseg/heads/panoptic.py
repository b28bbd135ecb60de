"""Panoptic segmentation: a class and a mask for each query -> segments and a class map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg import mask
from edgeseg.errors import BundleError
from edgeseg.heads import Outputs, Prediction
from edgeseg.panoptic import PanopticMap, Segment, thing_ids
from edgeseg.spec import Spec

CLASSES = "class_logits"  # [Q, C + 1] float32, the last is "no object"
MASKS = "mask_logits"  # [Q, h, w] float32
SMALLEST = 1e-3  # added to scores before their logarithm, as in training
SCORE, OVERLAP = 0.5, 0.8  # least score of a query, and share of its mask that others may not win (Cheng et al. 2021)


@dataclass(frozen=True)
class PanopticHead:
    """`things`: the class ids of which each query is an object by itself. `upsample`: one of mask.UPSAMPLES."""

    height: int
    width: int
    upsample: str
    classes: int
    things: tuple[int, ...]
    score: float = SCORE
    overlap: float = OVERLAP
    outputs: tuple[str, ...] = (CLASSES, MASKS)

    def decode(self, outputs: Outputs, margin: bool = False) -> Prediction:
        """The class map is that of all queries, so it has no void; the margin is of its log-scores."""
        classes, masks = self._queries(outputs)
        probabilities = _softmax(classes)
        scores = np.tensordot(probabilities[:, :-1].T, _sigmoid(masks), 1)
        logits = np.log(scores + np.float32(SMALLEST)).astype(np.float32)
        size = self.height, self.width, self.upsample
        panoptic = self._segments(probabilities, masks)
        if margin:
            return Prediction(*mask.class_map_margin(logits, *size), panoptic=panoptic)
        return Prediction(mask.class_map(logits, *size), panoptic=panoptic)

    def _segments(self, probabilities: NDArray[np.float32], masks: NDArray[np.float32]) -> PanopticMap:
        """Each pixel goes to the query with the highest P(class) x P(mask); a query that wins too little of its own
        mask is dropped, and queries of one class of stuff are one segment (Cheng et al. 2021, section 3.4)."""
        best, found = probabilities.max(1), probabilities.argmax(1)
        kept = np.flatnonzero((found < self.classes) & (best > self.score))
        ids = np.zeros((self.height, self.width), np.uint16)
        if not len(kept):
            return PanopticMap(ids, ())
        inside = _sigmoid(mask.upsampled(masks[kept], self.height, self.width, self.upsample))
        winner = (inside * best[kept, None, None]).argmax(0)
        segments: list[Segment] = []
        stuff: dict[int, int] = {}
        for place, query in enumerate(kept.tolist()):
            own = inside[place] >= 0.5
            won = own & (winner == place)
            area, class_id = int(won.sum()), int(found[query])
            if not area or area < self.overlap * int(own.sum()):
                continue
            score = float(best[query] * inside[place][won].mean())
            if class_id in stuff:
                index = stuff[class_id]
                segments[index] = _joined(segments[index], score, area)
                ids[won] = index + 1
                continue
            thing = class_id in self.things
            if not thing:
                stuff[class_id] = len(segments)
            segments.append(Segment(len(segments) + 1, class_id, score, area, thing))
            ids[won] = len(segments)
        return PanopticMap(ids, tuple(segments))

    def _queries(self, outputs: Outputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """BundleError for outputs that the Spec does not describe."""
        classes, masks = outputs.get(CLASSES), outputs.get(MASKS)
        if (
            classes is None or masks is None or classes.ndim != 2 or masks.ndim != 3
            or classes.shape != (len(masks), self.classes + 1) or min(masks.shape) == 0
        ):  # fmt: skip
            shown = {name: list(out.shape) for name, out in outputs.items()}
            raise BundleError(
                f"The model's outputs are {shown}.",
                f"Expected {CLASSES} [Q, {self.classes + 1}] and {MASKS} [Q, h, w], as the bundle says.",
            )
        return classes, masks


def open(spec: Spec, upsample: str) -> PanopticHead:
    if not spec.things:
        raise BundleError("Task 'panoptic' without things.", "Expected in the Spec which classes have objects.")
    return PanopticHead(spec.height, spec.width, upsample, len(spec.classes), thing_ids(spec.things, spec.classes))


def _joined(segment: Segment, score: float, area: int) -> Segment:
    """A segment of stuff with the pixels of another query."""
    total = segment.area + area
    mean = (segment.score * segment.area + score * area) / total
    return Segment(segment.id, segment.class_id, mean, total, segment.thing)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """By tanh, which cannot overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), np.float32)

"""ReviewPolicy: which results a person has to look at, because the model is not sure enough of them.

What is compared with the limits is a mean of Result.confidence: for each pixel tanh(margin / 2), by how much more
likely its best class is than its second best one, of these two alone: 0 where they tie, 1 where the model is sure. The
confidence of a frame is the mean over all pixels that the network saw; that of a class, over the pixels that have it. A
class is there if it has more than PRESENT of these pixels. It is the model's own confidence: a model can be sure and
wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.errors import OptionError, unknown
from edgeseg.fit import place
from edgeseg.result import Decision, Result
from edgeseg.spec import Spec

PRESENT = 0.001  # of the pixels, as in rules
CONFIDENCE, CLASS = "confidence", "class "  # reasons
ALWAYS = 2.0  # no confidence is as high


@dataclass(frozen=True)
class ReviewPolicy:
    """`min_confidence`: of a frame, None for any. `classes`: id -> confidence below which a class needs review; ALWAYS
    where it does at any. `names`: of all classes."""

    min_confidence: float | None
    classes: Mapping[int, float]
    names: tuple[str, ...]

    @classmethod
    def of(cls, spec: Spec, min_confidence: float | None, classes: Sequence[str]) -> ReviewPolicy | None:
        """`classes`: `CLASS` or `CLASS:CONFIDENCE`. None where nothing is to be reviewed; OptionError for a class that
        the model does not have, and for a confidence that is not from 0 to 1."""
        if min_confidence is None and not classes:
            return None
        if min_confidence is not None and not 0 <= min_confidence <= 1:
            raise _not_a_confidence("min_confidence", min_confidence)
        limits: dict[int, float] = {}
        for text in classes:
            name, limit = _parsed(text, spec.classes)
            if name not in spec.classes:
                raise unknown("class", name, spec.classes)
            if spec.classes.index(name) in limits:
                raise OptionError(f"The class {name!r} is to be reviewed twice.", "Name each class once.")
            limits[spec.classes.index(name)] = limit
        return cls(min_confidence, limits, spec.classes)

    def reasons(self) -> tuple[str, ...]:
        """All that it may give."""
        frame = () if self.min_confidence is None else (CONFIDENCE,)
        return (*frame, *(CLASS + self.names[class_id] for class_id in self.classes))

    def decide(self, result: Result, before: Decision | None = None) -> Decision:
        """Of a result with its margin; `before`, the latest one, holds on for a result that has none, such as one that
        was moved along with the motion of a video."""
        if result.margin is None or result.spec is None:
            return before or Decision(None)
        seen = place(result.spec, *result.frame.image.shape[:2]).filled
        certain, classmap = np.tanh(seen.of(result.margin) / 2), seen.of(result.classmap)
        confidence = float(certain.mean())
        low = self.min_confidence is not None and confidence < self.min_confidence
        levels = {CONFIDENCE: confidence} if low else {}
        for class_id, limit in self.classes.items():
            pixels = classmap == class_id
            if pixels.mean() > PRESENT and (level := float(certain[pixels].mean())) < limit:
                levels[CLASS + self.names[class_id]] = level
        return Decision(round(confidence, 4), tuple(levels), tuple(round(level, 4) for level in levels.values()))


def _parsed(text: str, known: Sequence[str]) -> tuple[str, float]:
    """The class and its limit; a name may hold a colon itself."""
    name, colon, number = text.rpartition(":")
    if not colon or text in known:
        return text, ALWAYS
    try:
        limit = float(number)
    except ValueError:
        return text, ALWAYS  # and unknown
    if not 0 <= limit <= 1:
        raise _not_a_confidence(f"review_class {text!r}", limit)
    return name, limit


def _not_a_confidence(what: str, value: float) -> OptionError:
    return OptionError(f"{what} is {value:g}.", "Expected a confidence from 0 (a tie) to 1 (sure).")

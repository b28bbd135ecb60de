"""Semantic segmentation: logits at the head's stride -> one class for each pixel."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg import mask
from edgeseg.errors import BundleError, OptionError
from edgeseg.fit import Detail
from edgeseg.heads import Head, Outputs, Prediction
from edgeseg.spec import Spec

LOGITS = "logits"  # [C, h, w] float32


@dataclass(frozen=True)
class SemanticHead:
    """`upsample`: one of mask.UPSAMPLES, the convention of the bilinear upsampling that was cut off the network."""

    height: int
    width: int
    upsample: str
    classes: int
    outputs: tuple[str, ...] = (LOGITS,)

    def decode(self, outputs: Outputs, margin: bool = False) -> Prediction:
        logits = self.logits(outputs)
        if margin:
            return Prediction(*mask.class_map_margin(logits, self.height, self.width, self.upsample))
        return Prediction(mask.class_map(logits, self.height, self.width, self.upsample))

    def detail(self, outputs: Outputs) -> Detail:
        logits = self.logits(outputs).copy()
        return lambda placed: mask.frame_map(logits, self.height, self.width, self.upsample, placed)

    def full_logits(self, outputs: Outputs) -> mask.Logits:
        """[C, height, width] float32: every logit upsampled, for those who average or compare logits."""
        return mask.upsampled(self.logits(outputs), self.height, self.width, self.upsample)

    def logits(self, outputs: Outputs) -> mask.Logits:
        """[C, h, w]; BundleError for outputs that the Spec does not describe."""
        logits = outputs.get(LOGITS)
        shape = logits.shape if logits is not None else ()
        fits = len(shape) == 3 and shape[0] == self.classes and min(shape) > 0
        if logits is None or not fits or (self.upsample == "none" and shape[1:] != (self.height, self.width)):
            shown = {name: list(out.shape) for name, out in outputs.items()}
            raise BundleError(
                f"The model's outputs are {shown}.",
                f"Expected {LOGITS} with {self.classes} channels, as the bundle says: compile it again.",
            )
        return logits


def of(head: Head) -> SemanticHead:
    """`head` if it is a semantic one; OptionError for another task's, which gives no logits for every class."""
    if not isinstance(head, SemanticHead):
        raise OptionError(
            "The bundle's task is not semantic segmentation.",
            "Expected a semantic bundle: only those have class logits.",
        )
    return head


def open(spec: Spec, upsample: str) -> SemanticHead:
    return SemanticHead(spec.height, spec.width, upsample, len(spec.classes))

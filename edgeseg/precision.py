"""Precision: what a network computes in."""

from __future__ import annotations

from enum import Enum

from edgeseg.errors import unknown


class Precision(str, Enum):
    """A precision by the name that users, recipes, targets and manifests write. It equals that string."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    DYNAMIC = "dynamic"
    INT8 = "int8"
    INT8_BF16 = "int8-bf16"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def parse(cls, text: str) -> Precision:
        """OptionError, naming the valid ones, for any other text."""
        try:
            return cls(text)
        except ValueError:
            raise unknown("precision", str(text), [p.value for p in cls]) from None

    @property
    def is_int8(self) -> bool:
        """Whether it needs calibration: weights and activations are 8-bit integers."""
        return self in (Precision.INT8, Precision.INT8_BF16)

    @property
    def least_agreement(self) -> float:
        """The smallest share of pixels that agree with the float parent and need no explanation."""
        return 0.98 if self.is_int8 or self is Precision.DYNAMIC else 0.995

    @property
    def about(self) -> str:
        """One line for help texts."""
        return _TITLES[self]


_TITLES = {
    Precision.FP32: "32-bit floating point",
    Precision.FP16: "weights stored as 16-bit floating point",
    Precision.BF16: "computed in bfloat16, where the CPU has it",
    Precision.DYNAMIC: "8-bit weights, activations quantized at run time; no calibration",
    Precision.INT8: "8-bit weights and activations, calibrated",
    Precision.INT8_BF16: "int8, and bfloat16 for the layers that are not quantized",
}

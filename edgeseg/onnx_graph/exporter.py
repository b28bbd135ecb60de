"""ExporterMetadata: what the program that exported a network says about it."""

from __future__ import annotations

from dataclasses import dataclass

BYTE = 255


@dataclass(frozen=True)
class ExporterMetadata:
    """`classes`: their names in the order of their ids; `size`: (height, width) in pixels; `fit`, `color`, `mean` and
    `std`: see Spec, whose networks take (pixel / 255 - mean) / std. None: it does not say."""

    classes: tuple[str, ...] | None
    size: tuple[int, int] | None
    fit: str | None = "stretch"
    mean: tuple[float, ...] | None = (0.0, 0.0, 0.0)
    std: tuple[float, ...] | None = (1.0, 1.0, 1.0)
    color: str | None = "RGB"

    def to_spec(self) -> dict[str, object]:
        """The keys of the Spec that are known, but for the size."""
        said = {"color": self.color, "mean": self.mean, "std": self.std, "fit": self.fit, "classes": self.classes}
        return {key: value for key, value in said.items() if value is not None}

    def flags(self) -> str:
        """As options of `edgeseg compile`."""
        words = [f"--{key} {value}" for key, value in (("color", self.color), ("fit", self.fit)) if value]
        for key, values in (("mean", self.mean), ("std", self.std)):
            words += [f"--{key} {','.join(f'{value:.6g}' for value in values)}"] if values else []
        return " ".join([*words, f"--classes '{','.join(self.classes)}'"] if self.classes else words)

"""Target: a device profile, one TOML table in edgeseg/targets/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg import toml
from edgeseg.errors import OptionError, unknown

FOLDER = Path(__file__).parent / "targets"


@dataclass(frozen=True)
class Target:
    """`backend` is a module of edgeseg.backends, `quantizer` a function of edgeseg.compression.quantize.

    `preset`: what that function may choose by device (NNCF: mixed or performance). `proxy`: the backend that proves a
    bundle where the target's own cannot run, on the same files; "" where a bundle is only made on the device itself.
    """

    name: str
    title: str
    backend: str
    device: str
    precisions: tuple[str, ...]
    quantizer: str
    preset: str = ""
    proxy: str = ""

    @classmethod
    def load(cls, name: str) -> Target:
        """OptionError for a name that has no table."""
        if name not in names():
            raise unknown("target", name, names())
        table = toml.read(FOLDER / f"{name}.toml", "Target")
        return cls(name=name, **{**table, "precisions": tuple(table["precisions"])})

    def require(self, precision: str) -> str:
        """`precision` if this target has it; OptionError otherwise. Precision is never changed silently."""
        if precision not in self.precisions:
            raise OptionError(
                f"Target {self.name} has no precision {precision!r}.", f"It has: {', '.join(self.precisions)}."
            )
        return precision


def names() -> list[str]:
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def split(text: str) -> tuple[Target, str]:
    """`openvino-cpu:int8`, as recipes write it -> (Target, precision)."""
    name, _, precision = text.partition(":")
    target = Target.load(name)
    return target, target.require(precision or "fp32")

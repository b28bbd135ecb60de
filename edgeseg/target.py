"""Target: a device profile, one TOML table in edgeseg/targets/."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from edgeseg import toml
from edgeseg.errors import OptionError, unknown
from edgeseg.precision import Precision
from edgeseg.records import convert

FOLDERS = [Path(__file__).parent / "targets"]
Version = tuple[int, ...]
# How a bundle becomes an engine: as it is; built by edgeseg on the device; or by trtexec and the runner there.
BUILD_MODES = {
    "": "runs as it is",
    "native": "builds its engine on the device",
    "runner": "builds its engine on the device, by the runner",
}


@dataclass(frozen=True)
class Target:
    """A device profile. `backend`: a module of edgeseg.backends; `quantizer`: one of edgeseg.quantization.schemes.

    `preset`: for NNCF, mixed or performance. `proxy`: the backend that verifies a bundle, from the same files, where
    the target's own cannot run; "" if bundles are compiled on the device only.

    For boards whose engine is built on the device: `build_mode` (a key of BUILD_MODES), `tensorrt` and `jetpack`
    (oldest and newest release), `compute_capability`, `memory_mb` (of the smallest module of that name; 0 = not known)
    and `unified_memory` (shared by CPU and GPU), `workspace_mb` for the builder, `dla_cores`, `opset` and `frame` (the
    newest ONNX opset and the input type that the oldest TensorRT reads) and the `power_modes` of the board. `dla`: the
    core to use, -1 = the GPU.
    """

    name: str
    title: str
    backend: str
    device: str
    precisions: tuple[Precision, ...]
    quantizer: str
    preset: str = ""
    proxy: str = ""
    build_mode: str = ""
    tensorrt: tuple[str, ...] = ()
    jetpack: tuple[str, ...] = ()
    compute_capability: str = ""
    memory_mb: int = 0
    unified_memory: bool = False
    workspace_mb: int = 0
    dla_cores: int = 0
    opset: int = 0
    frame: str = "uint8"
    power_modes: tuple[str, ...] = ()
    dla: int = -1

    @classmethod
    def load(cls, name: str) -> Target:
        """OptionError for a name that has no table."""
        if name not in _files():
            raise unknown("target", name, names())
        path = _files()[name]
        table = toml.read(path, "Target")
        keys = [f.name for f in fields(cls) if f.name != "name"]
        if other := next((key for key in table if key not in keys), None):
            raise unknown(f"key of {path}", other, keys)
        return convert({**table, "name": name}, cls, f"Target {path} cannot be used", f"Its keys: {', '.join(keys)}.")

    def require(self, precision: str) -> Precision:
        """`precision` if this target has it; OptionError otherwise. Precision is never changed silently."""
        parsed = Precision.parse(precision)
        if parsed not in self.precisions:
            raise OptionError(
                f"Target {self.name} has no precision {precision!r}.", f"It has: {', '.join(self.precisions)}."
            )
        return parsed

    def on_dla(self, core: int) -> Target:
        """This target with its network on a deep-learning accelerator; layers that it does not support run on the GPU.

        OptionError for a core that the board does not have.
        """
        if not 0 <= core < self.dla_cores:
            available = f"{self.dla_cores} DLA cores, 0 to {self.dla_cores - 1}" if self.dla_cores else "no DLA"
            raise OptionError(f"Target {self.name} has no DLA core {core}.", f"It has {available}.")
        return replace(self, dla=core)

    def calibrated_on_device(self) -> Target:
        """This target with INT8 ranges from TensorRT's entropy calibrator, on the device, instead of Q/DQ pairs.

        OptionError for a target that has no such calibrator.
        """
        if self.build_mode != "native" or self.oldest_tensorrt >= (11,):
            raise OptionError(
                f"Target {self.name} has no entropy calibrator.",
                "Expected a board that builds with TensorRT up to 10. Leave out --entropy: Q/DQ pairs need none.",
            )
        return replace(self, quantizer="entropy")

    @property
    def oldest_tensorrt(self) -> Version:
        return version(self.tensorrt[0])


def names() -> list[str]:
    return sorted(_files())


def _files() -> dict[str, Path]:
    return {path.stem: path for folder in FOLDERS for path in folder.glob("*.toml")}


def split(text: str) -> tuple[Target, Precision]:
    """`openvino-cpu:int8`, as recipes write it -> (Target, Precision)."""
    name, _, precision = text.partition(":")
    target = Target.load(name)
    return target, target.require(precision or "fp32")


def version(text: str) -> Version:
    """`8.6` -> (8, 6)."""
    return tuple(int(part) for part in text.split("."))

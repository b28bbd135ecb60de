"""Plan: how the board builds the engine of a bundle (plan.json). Written off the device, read on it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgeseg.errors import BundleError
from edgeseg.files import write_bytes
from edgeseg.records import parse_json
from edgeseg.target import Target

FILE = "plan.json"
FORMAT = 1
# Share of pixels on which a golden frame's class map must agree with the one computed off the device, by precision.
GOLDEN = {"fp32": 0.995, "fp16": 0.99, "int8": 0.97}
# Ranges that are chosen on the device are only compared with the float network.
GOLDEN_ENTROPY = 0.9


@dataclass(frozen=True)
class Plan:
    """`int8`: `qdq` (the graph holds the ranges), `entropy` (TensorRT calibrates them on the device) or "".

    `flags`: precision flags for TensorRT up to 10; a strongly typed TensorRT takes the types of the graph. `dla`: a
    core, or -1 for the GPU. `frame`: type of the input, [1, H, W, 3]. `notes`: what will not run as meant, and why.
    """

    target: str
    precision: str
    int8: str
    flags: tuple[str, ...]
    tensorrt: tuple[str, ...]
    way: str
    workspace_mb: int
    dla: int
    gpu_fallback: bool
    opset: int
    frame: str
    shape: tuple[int, ...]
    timing_cache: str
    golden_agreement: float
    notes: tuple[str, ...] = ()
    format: int = FORMAT

    @classmethod
    def make(cls, target: Target, precision: str, opset: int, shape: tuple[int, ...], notes: tuple[str, ...]) -> Plan:
        entropy = precision == "int8" and target.quantizer == "entropy"
        return cls(
            target=target.name,
            precision=precision,
            int8="" if precision != "int8" else "entropy" if entropy else "qdq",
            flags={"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}[precision],
            tensorrt=target.tensorrt,
            way=target.build_mode,
            workspace_mb=target.workspace_mb,
            dla=target.dla,
            gpu_fallback=target.dla >= 0,
            opset=opset,
            frame=target.frame,
            shape=shape,
            timing_cache="timing.cache",
            golden_agreement=GOLDEN_ENTROPY if entropy else GOLDEN[precision],
            notes=notes,
        )

    def write(self, folder: Path) -> None:
        write_bytes(folder / FILE, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def parse(cls, data: bytes, path: Path) -> Plan:
        """The plan in `data`, the content of `path`; BundleError where it is not one of this format."""
        try:
            table: dict[str, Any] = parse_json(data)
            if table["format"] != FORMAT:
                raise ValueError(f"format {table['format']}")
            lists = {f.name: tuple(table[f.name]) for f in fields(cls) if str(f.type).startswith("tuple")}
            plan = cls(**{**table, **lists})
            for field in fields(cls):
                kind = {"str": str, "int": int, "float": float, "bool": bool}.get(str(field.type), tuple)
                if type(getattr(plan, field.name)) is not kind:
                    raise ValueError(f"{field.name} {getattr(plan, field.name)!r}")
            return plan
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(
                f"{path} cannot be read: {type(error).__name__} {error}.", "Copy or compile the bundle again."
            ) from error

"""Opening a bundle: its files, its backend, and the Segmenter that frames go through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeseg import backends, heads, signature
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, unknown
from edgeseg.segmenter import FRAME, MODES, Segmenter
from edgeseg.signature import Required


def open_segmenter(
    bundle: Bundle | Path | str,
    mode: str = "latency",
    margin: bool = False,
    backend: str = "",
    required: Required | None = None,
    **options: Any,
) -> Segmenter:
    """Open a bundle: its files are read once, checked against their digests, and these bytes are what runs.

    `mode`: `latency` (one frame at a time, the fastest result) or `throughput` (several frames in flight). `margin`:
    also compute by how much each pixel's best logit beats the second. `backend`: a backend other than the bundle's own
    that can load its files, as BACKEND or BACKEND:DEVICE; used to verify a bundle on a machine that is not its target.
    `required`: the signature that it must have. `options` go to the backend (`threads=N`).

    Raises BundleError for a bundle that is damaged or does not fit its Spec, MissingPackage without its runtime.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(Path(bundle))
    if required:
        signature.require(loaded, required)
    name, _, device = (backend or loaded.backend).partition(":")
    if device:
        options["device"] = device
    head = heads.get(loaded.spec.task).open(loaded.spec, loaded.upsample)
    engine = backends.get(name).open(loaded, mode, **options)
    inputs = engine.inputs(0)
    if FRAME not in inputs:
        engine.close()
        raise BundleError(
            f"Bundle {loaded.path} holds a model with the inputs {', '.join(sorted(inputs)) or 'none'}.",
            f"Expected {FRAME}, as edgeseg compile writes it.",
        )
    shape = inputs[FRAME].shape
    if shape != (loaded.spec.height, loaded.spec.width, 3):
        raise BundleError(
            f"Bundle {loaded.path} holds a model for frames of {shape}.",
            f"Its Spec says {loaded.spec.width}x{loaded.spec.height}; compile it again.",
        )
    return Segmenter(loaded.spec, engine, head, margin, loaded.identity)

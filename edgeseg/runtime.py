"""Opening a bundle: its files, its backend, and the Segmenter that frames go through."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from edgeseg import backends, heads, signature, target
from edgeseg.bundle import Bundle
from edgeseg.cpus import adds_in_16_bits
from edgeseg.errors import BundleError, OptionError, unknown
from edgeseg.mask import agreement
from edgeseg.segmenter import FRAME, MODES, Segmenter
from edgeseg.signature import Required

log = logging.getLogger(__name__)
PROXY = "proxy"
ON_DEVICE = "entropy"  # the only ranges of TensorRT's calibrator, which no other target of that backend takes
SATURATES = "it has no VNNI, where INT8 of edgeseg before 0.2 saturates. Compile the bundle again."


def saturates(bundle: Bundle, backend: str = "") -> bool:
    """Whether its INT8 computes something else on this CPU than where it was compiled (Manifest.any_cpu)."""
    module = backends.get(backend or bundle.backend)
    exposed = bundle.precision.is_int8 and not bundle.manifest.any_cpu
    return exposed and getattr(module, "ADDS_IN_16_BITS", False) and adds_in_16_bits()


def open_segmenter(
    bundle: Bundle | Path | str,
    mode: str = "latency",
    margin: int = False,
    backend: str = "",
    required: Required | None = None,
    **options: Any,
) -> Segmenter:
    """Open a bundle: its files are read once, checked against their digests, and these bytes are what runs.

    `mode`: `latency` (one frame at a time, the fastest result) or `throughput` (several frames in flight). `margin`:
    also compute by how much each pixel's best logit beats the second; a number n: of every n-th frame. `backend`: a
    backend other than the bundle's own that can load its files, as BACKEND or BACKEND:DEVICE; PROXY: its target's proxy
    where its own cannot run here. It measures accuracy on a machine that is not the target, and says so in
    `Segmenter.backend`.
    `required`: the signature that it must have. `options` go to the backend (`threads=N`).

    Raises BundleError for a bundle that is damaged or does not fit its Spec, MissingPackage without its runtime.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(Path(bundle))
    if required:
        signature.require(loaded, required)
    chosen = backend_here(loaded) if backend == PROXY else backend or loaded.backend
    name, _, device = chosen.partition(":")
    if device:
        options["device"] = device
    head = heads.get(loaded.spec.task).open(loaded.spec, loaded.upsample)
    if saturates(loaded, name):
        log.warning("bundle %s loses accuracy on this CPU: %s", loaded.name, SATURATES)
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
    measured_by = name if name == loaded.backend and not device else f"through {chosen}"
    return Segmenter(loaded.spec, engine, head, margin, loaded.identity, measured_by)


def golden_agreement(segmenter: Segmenter, bundle: Bundle) -> list[float]:
    """For each golden frame, the share of pixels on which this machine's class map agrees with the bundle's own."""
    return [agreement(segmenter(frame).classmap, truth) for frame, truth in bundle.golden()]


def backend_here(bundle: Bundle) -> str:
    """The backend for measuring a bundle's accuracy here: its own, or its target's proxy where that cannot run."""
    own = bundle.backend
    if bundle.target not in target.names():
        return own
    profile = target.Target.load(bundle.target)
    if not backends.missing(profile):
        return own
    proxy = bundle.manifest.proved_by or profile.proxy
    if not proxy or backends.get(proxy.partition(":")[0]).probe():
        return own  # which says what is missing
    if bundle.precision.is_int8 and bundle.manifest.ptq is not None and bundle.manifest.ptq.ranges == ON_DEVICE:
        raise BundleError(
            f"Bundle {bundle.path} gets its INT8 on the device, by TensorRT's own calibrator.",
            "Its accuracy can only be measured there; compile without --entropy for INT8 that every machine can check.",
        )
    return proxy


def require_own_backend(bundle: Bundle, hint: str) -> None:
    """OptionError for a bundle whose speed cannot be measured here, since only its target's proxy runs here."""
    if backend_here(bundle) != bundle.backend:
        what = f"The speed of {bundle.name} can only be measured on its device ({bundle.target})."
        raise OptionError(what, hint)

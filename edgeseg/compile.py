"""compile: an ONNX segmentation model + Spec -> a Bundle for one target and precision."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg import __version__, backends, onnx_graph
from edgeseg.bundle import GOLDEN, MANIFEST, Bundle, GraphNotes, Manifest, StoredMetrics, seal
from edgeseg.data.dataset import Dataset
from edgeseg.errors import EdgesegError, OptionError
from edgeseg.evaluation import parity
from edgeseg.evaluation.evaluate import evaluate
from edgeseg.files import replacing, sha256
from edgeseg.images import Image, list_images, read_image, resize, write_image
from edgeseg.precision import Precision
from edgeseg.recipe import PTQ
from edgeseg.results.common import Parent, Parity
from edgeseg.results.evaluation import Metrics
from edgeseg.runtime import open_segmenter
from edgeseg.spec import ONNX_KEY, Spec
from edgeseg.target import Target

if TYPE_CHECKING:
    from edgeseg.calibration.frames import CalibrationSet

GOLDEN_FRAMES = 3
PARITY_FRAMES = 12
# Below this a float32 bundle is not the model it came from: the surgery is wrong, and no bundle is written.
FLOAT_AGREEMENT = 0.995
MAX_LISTED = 8  # outputs that a message names


def compile_model(
    model: Path,
    out: Path,
    target: Target,
    precision: Precision | str,
    *,
    spec: Spec,
    frames: list[Image],
    calibration: CalibrationSet | None = None,
    output: str = "",
    excluded: Sequence[str] = (),
    ptq: PTQ = PTQ(),  # noqa: B008  # frozen
    dataset: Dataset | None = None,
    golden: Sequence[Image] = (),
    recipe: dict[str, Any] | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Bundle:
    """Write the bundle `out` and return it; nothing is left behind when a step fails.

    `frames` ([H, W, 3] uint8 BGR, any size) are what parity is measured on. The first of `golden`, else of `frames`,
    are stored as the golden frames: everyone who gets the bundle gets them.
    INT8 is found from `calibration` as `ptq` says, without the `excluded` layers (nodes of the deploy graph). A
    model that came quantized (with Q/DQ pairs, as `edgeseg qat` trains it) takes none of the three. With a `dataset`
    the bundle's accuracy on it is measured and stored. `recipe`: what it was made by, for the manifest.
    """
    precision = target.require(precision)
    backend = backends.get(target.backend)
    prover = _prover(target)
    runtime = prover.partition(":")[0]
    loaded = onnx_graph.load(model)
    trained = onnx_graph.is_quantized(loaded)
    _check_int8(model, trained, precision, calibration, excluded, ptq)
    with replacing(out, MANIFEST) as work:
        log("deploy graph")
        deploy = onnx_graph.deploy_graph(loaded, spec, output)
        onnx_graph.require_layers(deploy.model, excluded)
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            source = Path(scratch) / "deploy.onnx"
            source.write_bytes(deploy.model.SerializeToString())
            asked = None
            if precision.is_int8:
                source, asked = _int8(source, target, spec, calibration, excluded, ptq, log)
            backend.compile(source, work, target, precision)
        manifest = Manifest(
            name=out.name,
            spec=spec,
            target=target.name,
            backend=target.backend,
            precision=precision,
            upsample=deploy.upsample,
            files={},
            parent=Parent(model.name, sha256(model)),
            graph=GraphNotes(deploy.batchnorm_before, deploy.batchnorm_after, tuple(deploy.notes)),
            calibration=calibration.identity if calibration else None,
            kept=tuple(excluded),
            ptq=PTQ(*(getattr(asked, f.name) for f in fields(PTQ))) if asked else None,
            proved_by=prover,
            versions={"edgeseg": __version__, runtime: backends.version(runtime)},
            recipe=recipe,
        )
        log("parity and golden frames")
        small = [resize(frame, spec.height, spec.width) for frame in frames[:PARITY_FRAMES]]
        kept = [resize(frame, spec.height, spec.width) for frame in (golden or frames)[:GOLDEN_FRAMES]]
        manifest = replace(manifest, parity=_prove(work, manifest, model, spec, small, kept, output))
        if dataset is not None:
            log(f"accuracy on {len(dataset)} frames")
            seal(work, manifest)
            manifest = replace(manifest, metrics=_measure(work, dataset, prover))
        seal(work, manifest)
    return Bundle.load(out)


def _int8(
    graph: Path,
    target: Target,
    spec: Spec,
    calibration: CalibrationSet | None,
    excluded: Sequence[str],
    ptq: PTQ,
    log: Callable[[str], None],
) -> tuple[Path, PTQ | None]:
    """A deploy graph in INT8, beside it, and how it was found; None where the model came quantized."""
    from edgeseg.quantization.quantize import from_trained, quantize, resolve_ranges

    if calibration is None:
        return from_trained(graph, target.quantizer, graph.parent), None
    log(f"INT8 from {len(calibration.frames)} frames")
    asked = resolve_ranges(ptq, target.quantizer)
    images = calibration.images(spec)
    return quantize(graph, images, target.quantizer, graph.parent, target.preset, excluded, asked), asked


def _check_int8(
    model: Path,
    trained: bool,
    precision: Precision,
    calibration: CalibrationSet | None,
    excluded: Sequence[str],
    ptq: PTQ,
) -> None:
    """OptionError for what INT8 lacks, and for what only INT8 or only a float model can have."""
    chosen = any(getattr(ptq, f.name) != f.default for f in fields(PTQ))
    if trained:
        what = f"{model} is quantized already"
        if not precision.is_int8:
            raise OptionError(f"{what} and has no {precision}.", "Use --precision int8, or the float model.")
        if calibration is not None:
            raise OptionError(f"{what} and takes no calibration frames.", "Leave out --calibration.")
        if excluded or chosen:
            why = "no layer of it can be excluded" if excluded else "its ranges and biases are what they are"
            raise OptionError(f"{what}: {why}.", "Leave that option out, or give the float model.")
    elif precision.is_int8 and calibration is None:
        raise OptionError(
            "INT8 needs calibration frames.", "Give some: --calibration FOLDER (images like the camera's)."
        )
    elif not precision.is_int8 and (excluded or chosen):
        what = "Layers to exclude" if excluded else "Ranges, biases or equalization"
        raise OptionError(f"{what} were given for {precision}.", "Only INT8 has any: --precision int8.")


def _prove(
    work: Path,
    manifest: Manifest,
    model: Path,
    spec: Spec,
    frames: list[Image],
    golden: list[Image],
    output: str,
) -> Parity:
    """Compare the bundle with its parent, store golden frames, and refuse a float32 bundle that differs."""
    seal(work, manifest)
    expected, runtime = parity.reference(model, spec, frames, output)
    with open_segmenter(work, backend=manifest.proved_by) as segmenter:
        found = parity.compare(segmenter, expected, frames, runtime)
        for i, frame in enumerate(golden):
            write_image(work / GOLDEN / f"{i}.png", frame)
            write_image(work / GOLDEN / f"{i}.mask.png", segmenter(frame).classmap)
    if manifest.precision is Precision.FP32 and found.agreement < FLOAT_AGREEMENT:
        raise EdgesegError(
            f"The float32 bundle agrees with {model} on {found.agreement:.2%} of pixels only.",
            "This network is not handled right; no bundle was written. Please report it with the model.",
        )
    return found


def golden_frames(source: str, spec: Spec, folder: Path = Path()) -> list[Image]:
    """Frames for the bundle to excluded where those of `frames` may not be passed on: those of a folder of images,
    relative to `folder`, or for "synthetic" rendered streets; none for ""."""
    if not source:
        return []
    if source == "synthetic":
        return rendered(spec, GOLDEN_FRAMES)
    return [read_image(path) for path in list_images(folder / source)[:GOLDEN_FRAMES]]


def rendered(spec: Spec, count: int) -> list[Image]:
    """Rendered streets at the Spec's size."""
    from edgeseg.synth.street import Street

    return [Street(seed, height=spec.height, width=spec.width).frame(0)[0] for seed in range(900, 900 + count)]


def _prover(target: Target) -> str:
    """The backend (BACKEND or BACKEND:DEVICE) that runs the new bundle here: the target's own, else its proxy."""
    # A bundle whose engine is built on its board is proven before there is one, on the board, too.
    reason = "its engine is built on the device" if target.build_mode else backends.missing(target)
    if not reason:
        return target.backend
    if target.proxy and not backends.get(target.proxy.partition(":")[0]).probe():
        return target.proxy
    raise EdgesegError(f"Cannot compile for {target.name}: {reason}.", "edgeseg targets lists what runs here.")


def _measure(work: Path, dataset: Dataset, prover: str) -> StoredMetrics:
    with open_segmenter(work, "throughput", backend=prover) as segmenter:
        found = evaluate(segmenter, dataset)
    metrics = {f.name: getattr(found, f.name) for f in fields(Metrics)}
    return StoredMetrics(**metrics, data=dataset.root.name, split=dataset.split, frames=found.frames)


def spec_of(model: Path, given: Mapping[str, object], output: str = "") -> tuple[Spec, list[str]]:
    """The Spec of an ONNX file: what it carries, else what its graph tells at `output`, with `given` keys on top.

    Also returns what was assumed, one line each, so that the user can correct it.
    """
    loaded = onnx_graph.load(model)
    stored = next((p.value for p in loaded.metadata_props if p.key == ONNX_KEY), None)
    if stored is not None:
        try:
            carried = dict(json.loads(stored))
            classes: Any = given.get("classes", carried.get("classes", ()))
            if len(classes) != len(carried.get("palette", ())):
                carried.pop("palette", None)  # the colors of other classes
            return Spec.from_dict({**carried, **given}), []
        except (ValueError, TypeError, RecursionError) as error:
            raise OptionError(f"{model} carries a Spec that cannot be read: {error}.", "Export it again.") from error
    _, _, height, width = onnx_graph.image_input(loaded)
    spec: dict[str, Any] = {"height": height or 512, "width": width or 512, **given}
    assumed = [] if height and width else [f"size {spec['width']}x{spec['height']} (the graph's is dynamic)"]
    kind = onnx_graph.output_kind(loaded, int(spec["height"]), int(spec["width"]), output)
    if len(loaded.graph.output) > 1 and not output:
        names = ", ".join(o.name for o in loaded.graph.output[:MAX_LISTED])
        assumed.append(f"output {kind.name} (the largest of {names})")
    if "classes" not in given:
        if not kind.classes:
            raise OptionError(
                f"The model's output {kind.name} holds class ids, of how many classes it does not say.",
                "Give their names: --classes NAME,NAME,...",
            )
        spec["classes"] = tuple(f"class{i}" for i in range(kind.classes))
        assumed.append(f"{kind.classes} classes called class0.. ({kind.source})")
    if kind.one_channel and "head" not in given:
        spec["head"] = "threshold"
        border = given.get("border", kind.border)
        assumed.append(f"one output channel: {'probability' if kind.border else 'logit'} > {border:g} is class 1")
    for key in ("color", "mean", "std"):
        if key not in given:
            assumed.append(f"{key} {getattr(Spec, key)} (ImageNet's)")
    return Spec.from_dict(spec), assumed

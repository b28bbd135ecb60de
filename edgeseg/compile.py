"""compile: an ONNX segmentation model + Spec -> a Bundle for one target and precision."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg import __version__, backends, bom, heads, onnx_graph
from edgeseg.bundle import GOLDEN, MANIFEST, REFERENCE, Bundle, GraphNotes, Manifest, StoredMetrics, seal
from edgeseg.data import provenance
from edgeseg.data.dataset import Dataset
from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.evaluation import parity, reuse_calibration
from edgeseg.evaluation.evaluate import evaluate
from edgeseg.files import replacing, sha256
from edgeseg.fit import fit_frame
from edgeseg.images import Image, list_images, read_image, write_image
from edgeseg.mask import agreement
from edgeseg.monitoring.ranges import MIN_FRAMES
from edgeseg.monitoring.reference import collect_reference
from edgeseg.packages import Package, find, loaded
from edgeseg.precision import Precision
from edgeseg.recipe import PTQ
from edgeseg.records import parse_json
from edgeseg.results.common import Parent, Parity
from edgeseg.results.evaluation import Metrics
from edgeseg.runtime import open_segmenter
from edgeseg.spec import ONNX_KEY, Spec
from edgeseg.target import Target

if TYPE_CHECKING:
    from edgeseg.calibration.frames import CalibrationSet
    from edgeseg.quantization.int8_search import Int8Search

logger = logging.getLogger(__name__)
GOLDEN_FRAMES = 3
PARITY_FRAMES = 12
REFERENCE_FRAMES = 128  # whose statistics are stored, at most
# Below this a float32 bundle is not the model it came from: the surgery is wrong, and no bundle is written.
FLOAT_AGREEMENT = 0.995
# Below this a bundle of lower precision is of no use: it is refused. The shipped INT8 bundles agree on 98 % and more,
# bfloat16 on 94 % and more; networks that lost their accuracy were at 13 to 87 %.
LEAST_AGREEMENT = 0.90
HELD_OUT = 4  # fewer frames beside the calibration frames say too little
NOISIEST = 3  # layers that a refusal names
MAX_LISTED = 8  # outputs that a message names
MAKERS = ("numpy", "opencv-python-headless", "onnx", "nncf", "torch")  # packages that make bundles, besides backends


class AccuracyLoss(EdgesegError):
    """A bundle whose precision costs too much agreement with its float parent."""

    exit_code = 1


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
    clip: Dataset | None = None,
    golden: Sequence[Image] = (),
    choosing: Sequence[Image] = (),
    recipe: dict[str, Any] | None = None,
    trained_on: Path | None = None,
    allow_loss: bool = False,
    log: Callable[[str], None] = lambda text: None,
) -> Bundle:
    """Write the bundle `out` and return it; nothing is left behind when a step fails.

    `frames` ([H, W, 3] uint8 BGR, any size): parity is measured on the first PARITY_FRAMES. For INT8 they should not be
    calibration frames (held_out). The first of `golden`, else of `frames`, are stored as the golden frames: everyone
    who gets the bundle gets them. INT8 is found from `calibration` as `ptq` says, without the `excluded` layers (nodes
    of the deploy graph); ranges "auto" are chosen by measurement (quantization/variants.py) on the frames `choosing`,
    by default on those of parity. A model that came quantized (with Q/DQ pairs, as `edgeseg qat` trains it) takes none
    of the three. With a `dataset` the bundle's accuracy on it is measured and stored, with a `clip` what reuse between
    key frames loses (evaluation/reuse_calibration.py). `recipe`: the recipe it comes from, for the manifest.
    `trained_on`: the folder of the data that the model was trained on, for the bill of materials (bom.py).

    EdgesegError for a deploy graph that is not the model in float32, whatever the precision; AccuracyLoss for a bundle
    of a lower precision whose agreement is below LEAST_AGREEMENT, unless `allow_loss`.
    """
    from edgeseg.quantization import schemes  # these need onnx, for which onnx_graph.load asks politely
    from edgeseg.quantization.quantize import from_trained

    precision = target.require(precision)
    backend = backends.get(target.backend)
    verifier = _verifier(target)
    runtime = verifier.partition(":")[0]
    loaded = onnx_graph.load(model)
    trained = onnx_graph.is_quantized(loaded)
    _check_int8(model, trained, precision, calibration, excluded, ptq)
    data = _used_data(trained_on, calibration, dataset)
    with replacing(out, MANIFEST) as work:
        log("deploy graph")
        deploy = onnx_graph.deploy_graph(loaded, spec, output)
        onnx_graph.require_layers(deploy.model, excluded)
        parity_frames = _sized(frames[:PARITY_FRAMES], spec)
        reference = parity.reference(model, spec, parity_frames, output)
        if precision is not Precision.FP32 and not trained:
            log("float parity of the deploy graph")
            _verify_graph(deploy, model, spec, parity_frames, reference[0])
        manifest = Manifest(
            name=out.name,
            spec=spec,
            target=target.name,
            backend=target.backend,
            precision=precision,
            upsample=deploy.upsample,
            files={},
            parent=Parent(model.name, onnx_graph.digest(model)),
            graph=GraphNotes(deploy.batchnorm_before, deploy.batchnorm_after, tuple(deploy.notes)),
            calibration=calibration.identity if calibration else None,
            any_cpu=precision.is_int8 and schemes.get(target.quantizer).safe_scales,
            proved_by=verifier,
            versions={"edgeseg": __version__, runtime: backends.version(runtime)},
            recipe=recipe,
        )
        search = None
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            if calibration is not None and precision.is_int8:
                from edgeseg.onnx_graph.attention_masks import masked_layers
                from edgeseg.quantization.int8_search import Int8Search

                log(f"INT8 from {len(calibration.frames)} frames")
                others = _sized(choosing, spec) if ptq.ranges == "auto" else []
                truth = parity.reference(model, spec, others, output) if others else reference
                judged = (others or parity_frames, truth[0])
                images = calibration.images(spec)
                search = Int8Search(deploy.model, Path(scratch), target, manifest, images, *judged, log)
                masked = masked_layers(deploy.model)
                source, variant = search.run(ptq, tuple(dict.fromkeys((*excluded, *masked))))
                manifest = replace(manifest, ptq=variant.ptq, kept=variant.excluded)
            else:
                source = Path(scratch) / "deploy.onnx"
                source.write_bytes(deploy.model.SerializeToString())
                source = from_trained(source, target.quantizer, source.parent) if precision.is_int8 else source
            backend.compile(source, work, target, precision)
        log("parity and golden frames")
        stored = _sized((golden or frames)[:GOLDEN_FRAMES], spec)
        result = _parity(work, manifest, reference, parity_frames, stored, _watched(calibration, dataset, spec))
        _require_agreement(result, manifest, model, allow_loss, search)
        manifest = replace(manifest, parity=result)
        if dataset is not None:
            log(f"accuracy on {len(dataset)} frames")
            seal(work, manifest)
            manifest = replace(manifest, metrics=_measure(work, dataset, verifier))
        if clip is not None:
            log(f"reuse on the {len(clip)} frames of {clip.split}")
            seal(work, manifest)
            with open_segmenter(work, backend=verifier) as segmenter:
                manifest = replace(manifest, reuse=reuse_calibration.calibrate(segmenter, clip))
        bom.write(work, seal(work, manifest), data, _makers())
        seal(work, manifest)
    return Bundle.load(out)


def _used_data(
    trained_on: Path | None, calibration: CalibrationSet | None, dataset: Dataset | None
) -> list[bom.UsedData]:
    """The data of a bundle; read before the work begins, so that a faulty datasheet is an error at once."""
    data = [provenance.used(trained_on, "training")] if trained_on else []
    if calibration is not None:
        frames, digest = len(calibration.frames), calibration.digest
        data += [provenance.used(root, "calibration", frames, digest) for root in provenance.roots(calibration.frames)]
    if dataset is not None:
        data.append(provenance.used(dataset.root, f"evaluation ({dataset.split})", len(dataset)))
    return data


def _makers() -> list[Package]:
    """The packages of this process that a bundle depends on, edgeseg first."""
    own = find("edgeseg") or Package("edgeseg", __version__)
    return [own, *loaded((*MAKERS, *backends.packages()))]


def _sized(frames: Sequence[Image], spec: Spec) -> list[Image]:
    return [fit_frame(frame, spec) for frame in frames]


def _check_int8(
    model: Path,
    trained: bool,
    precision: Precision,
    calibration: CalibrationSet | None,
    excluded: Sequence[str],
    ptq: PTQ,
) -> None:
    """OptionError for INT8 without its inputs, and for options that only INT8 or only a float model can have."""
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


def _verify_graph(
    deploy: onnx_graph.DeployGraph, model: Path, spec: Spec, frames: list[Image], expected: list[Image]
) -> None:
    """Refuse a deploy graph that, in float32, is not the model: no lower precision can be judged from it."""
    from edgeseg.quantization.tensors import run_graph

    head = heads.get(spec.task).open(spec, deploy.upsample)
    logits = (outputs[0][0] for outputs in run_graph(deploy.model, frames))
    shares = [agreement(head.decode({"logits": out}).classmap, truth) for out, truth in zip(logits, expected)]
    _require_float(sum(shares) / len(shares), model)


def _require_float(share: float, model: Path) -> None:
    if share >= FLOAT_AGREEMENT:
        return
    hint = "This network is not handled right; no bundle was written. Please report it with the model."
    if onnx_graph.has_half_weights(onnx_graph.load(model)):
        hint = (
            "It computes in float16, whose rounding alone may be the difference where a network is unsure; no bundle "
            "was written. Export it in float32: edgeseg chooses the precision."
        )
    raise EdgesegError(f"The float32 bundle agrees with {model} on {share:.2%} of pixels only.", hint)


def _parity(
    work: Path,
    manifest: Manifest,
    reference: tuple[list[Image], str],
    frames: list[Image],
    golden: list[Image],
    watched: list[Image],
) -> Parity:
    """Compare the bundle with its parent; store golden frames, and statistics of the `watched` ones."""
    seal(work, manifest)
    with open_segmenter(work, backend=manifest.proved_by) as segmenter:
        result = parity.compare(segmenter, reference[0], frames, reference[1])
        for i, frame in enumerate(golden):
            write_image(work / GOLDEN / f"{i}.png", frame)
            write_image(work / GOLDEN / f"{i}.mask.png", segmenter(frame).classmap)
        if len(watched) >= MIN_FRAMES:
            segmenter.margin = True
            results = (segmenter(frame) for frame in watched)
            # Without a picture: the golden frames are those that may be passed on.
            collect_reference(results, manifest.spec.classes, picture=False).save(work / REFERENCE)
    return result


def _watched(calibration: CalibrationSet | None, dataset: Dataset | None, spec: Spec) -> list[Image]:
    """The frames whose statistics are the reference for drift: those of calibration, else of the dataset."""
    if calibration is not None:
        return list(islice(calibration.images(spec), REFERENCE_FRAMES))
    if dataset is None:
        return []
    chosen = np.linspace(0, len(dataset) - 1, min(len(dataset), REFERENCE_FRAMES)).astype(int)
    return [fit_frame(dataset[i][0], spec) for i in chosen]


def _require_agreement(
    result: Parity,
    manifest: Manifest,
    model: Path,
    allow_loss: bool,
    search: Int8Search | None,
) -> None:
    """Refuse a float32 bundle that differs from its parent, and others that lose too much (`search`: to say where)."""
    precision = manifest.precision
    if precision is Precision.FP32:
        _require_float(result.agreement, model)
    elif result.agreement < LEAST_AGREEMENT and not allow_loss:
        noisy = [f"{row.layer} ({row.sqnr_db:g} dB)" for row in search.ranking[:NOISIEST]] if search else []
        hint = f"The noisiest layers: {', '.join(noisy)}; leave them out with --exclude. " if noisy else ""
        raise AccuracyLoss(
            f"The {precision} bundle agrees with {model} on {result.agreement:.1%} of pixels only "
            f"({result.frames} frames); at least {LEAST_AGREEMENT:.0%} is expected. No bundle was written.",
            f"{hint}Try other --ranges, edgeseg control, or another precision; --allow-loss writes it as it is.",
        )
    elif result.agreement < precision.least_agreement:
        logger.warning("the %s bundle agrees with %s on %.1f %% of pixels", precision, model, 100 * result.agreement)


def held_out(calibration: CalibrationSet, spec: Spec, count: int = PARITY_FRAMES) -> list[Image]:
    """Up to `count` frames of the Spec's size from the folders of the calibration frames that are not among them.

    Where there are too few, the calibration frames mirrored left to right, with a warning.
    """
    taken = {path.resolve() for path in calibration.frames}
    folders = sorted({path.parent for path in calibration.frames})
    others = [path for folder in folders for path in list_images(folder) if path.resolve() not in taken]
    images: list[Image] = []
    for path in (others[i] for i in np.random.default_rng(0).permutation(len(others))):
        if len(images) == count:
            break
        if sha256(path) not in calibration.hashes:
            with suppress(FileError):  # a broken picture that nobody asked for
                images.append(fit_frame(read_image(path), spec))
    if len(images) >= min(HELD_OUT, count):
        return images
    logger.warning("no frames beside the calibration frames: agreement is measured on their mirror images")
    return [np.ascontiguousarray(image[:, ::-1]) for image in islice(calibration.images(spec), count)]


def golden_frames(source: str, spec: Spec, folder: Path = Path()) -> list[Image]:
    """Golden frames to store in the bundle where those of `frames` may not be passed on: the images of a folder,
    relative to `folder`, or rendered streets for "synthetic"; none for ""."""
    if not source:
        return []
    if source == "synthetic":
        return rendered(spec, GOLDEN_FRAMES)
    return [read_image(path) for path in list_images(folder / source)[:GOLDEN_FRAMES]]


def rendered(spec: Spec, count: int) -> list[Image]:
    """Rendered streets at the Spec's size."""
    from edgeseg.synth.street import Street

    return [Street(seed, height=spec.height, width=spec.width).frame(0)[0] for seed in range(900, 900 + count)]


def _verifier(target: Target) -> str:
    """The backend (BACKEND or BACKEND:DEVICE) that runs the new bundle here: the target's own, else its proxy."""
    # A bundle whose engine is built on its board is verified before there is one, and again on the board.
    reason = "its engine is built on the device" if target.build_mode else backends.missing(target)
    if not reason:
        return target.backend
    if target.proxy and not backends.get(target.proxy.partition(":")[0]).probe():
        return target.proxy
    raise EdgesegError(f"Cannot compile for {target.name}: {reason}.", "edgeseg targets lists what runs here.")


def _measure(work: Path, dataset: Dataset, verifier: str) -> StoredMetrics:
    with open_segmenter(work, "throughput", backend=verifier) as segmenter:
        result = evaluate(segmenter, dataset)
    metrics = {f.name: getattr(result, f.name) for f in fields(Metrics)}
    return StoredMetrics(**metrics, data=dataset.root.name, split=dataset.split, frames=result.frames)


def spec_of(model: Path, overrides: Mapping[str, object], output: str = "") -> tuple[Spec, list[str]]:
    """The Spec of an ONNX file: what it carries, else what its graph shows at `output`, with `overrides` on top.

    Also returns the assumptions, one line each, so that the user can correct them.
    """
    loaded = onnx_graph.load(model)
    stored = next((p.value for p in loaded.metadata_props if p.key == ONNX_KEY), None)
    if stored is not None:
        try:
            carried = dict(parse_json(stored if isinstance(stored, bytes) else stored.encode()))
            classes: Any = overrides.get("classes", carried.get("classes", ()))
            if len(classes) != len(carried.get("palette", ())):
                carried.pop("palette", None)  # the colors of other classes
            return Spec.from_dict({**carried, **overrides}), []
        except (ValueError, TypeError, RecursionError) as error:
            raise OptionError(f"{model} carries a Spec that cannot be read: {error}.", "Export it again.") from error
    image = onnx_graph.image_input(loaded)
    height, width = image.height, image.width
    described = onnx_graph.exporter_metadata(loaded) or onnx_graph.metadata_beside(model)
    if described and described.size and not (height and width):
        height, width = described.size
    given = {**(described.to_spec() if described else {}), **overrides}
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
    if image.channels == 1:  # what else could it be
        given.setdefault("color", "GRAY")
        spec.setdefault("color", "GRAY")
    for key in ("color", "mean", "std"):
        if key not in given:
            assumed.append(f"{key} {getattr(Spec, key)} (ImageNet's)")
    return Spec.from_dict(spec), assumed

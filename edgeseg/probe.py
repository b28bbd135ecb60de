"""Which normalization was a network trained with? The common ones are tried on a few frames.

With the right one, masks are confident, varied and stable: a network is trained on mirrored and recolored frames, so
that their masks agree. A wrong one can look sure of itself (values of 0 to 255 where 0 to 1 are expected saturate a
softmax), but then paints one class, or another one as soon as the frame changes. So neither counts alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg import heads, onnx_graph
from edgeseg.data.dataset import Classes
from edgeseg.errors import OptionError
from edgeseg.fit import fit_frame
from edgeseg.images import Image
from edgeseg.quantization.tensors import run_graph
from edgeseg.report.labeled_sheet import Tile, labeled_sheet
from edgeseg.results.probe import ProbeResult, ProbeRow
from edgeseg.spec import Spec

Three = tuple[float, float, float]
IMAGENET = Spec.mean
ZERO, ONE, HALF, BYTE = (0.0,) * 3, (1.0,) * 3, (0.5,) * 3, (1 / 255,) * 3
# What networks take, in the terms of the Spec: (pixel / 255 - mean) / std.
SCALES: dict[str, tuple[Three, Three]] = {
    "ImageNet's": (IMAGENET, Spec.std),
    "0 to 1": (ZERO, ONE),
    "-1 to 1": (HALF, HALF),
    "0 to 255": (ZERO, BYTE),
    "0 to 255, mean taken off": (IMAGENET, BYTE),
}
COLORS = (("RGB", "BGR"), ("RGBA", "BGRA"), ("GRAY",))
DARKER, OFFSET = 0.8, 10.0  # the changed frame: pixel * DARKER + OFFSET
SHOWN = 4  # frames in the picture


@dataclass(frozen=True)
class Probed:
    """`maps`: for each row of the result the class maps of the first frames."""

    result: ProbeResult
    maps: tuple[tuple[Image, ...], ...]


@dataclass(frozen=True)
class _Measured:
    """Of one normalization, frame by frame; `counts`: pixels of each class over all frames."""

    confidence: NDArray[np.float64]
    stability: NDArray[np.float64]
    counts: NDArray[np.int64]
    maps: tuple[Image, ...]

    @property
    def scores(self) -> NDArray[np.float64]:
        return self.confidence * self.stability


def probe(
    model: Path,
    spec: Spec,
    frames: Sequence[Image],
    output: str = "",
    any_color: bool = True,
    log: Callable[[str], None] = lambda text: None,
) -> Probed:
    """Try every normalization on `frames` ([H, W, 3] uint8 BGR, any size), and that of `spec` if it is another one.

    `any_color`: also the other order of the channels. OptionError for a network that normalizes pixels itself.
    """
    loaded = onnx_graph.load(model)
    image = next(i for i in loaded.graph.input if i.name == onnx_graph.image_input(loaded).name)
    if image.type.tensor_type.elem_type == onnx.TensorProto.UINT8 and not any_color:
        raise OptionError(f"{model} takes uint8 and normalizes it itself.", "Compile it: no normalization is missing.")
    tried = candidates(spec, any_color, image.type.tensor_type.elem_type != onnx.TensorProto.UINT8)
    sized = [fit_frame(frame, spec) for frame in frames]
    rows = []
    for i, (name, candidate) in enumerate(tried):
        log(f"{name}, {candidate.color} ({i + 1} of {len(tried)})")
        rows.append((name, candidate, _measure(loaded, candidate, sized, output)))
    rows.sort(key=lambda row: -row[2].scores.mean())
    ahead = int((rows[0][2].scores > rows[1][2].scores).sum()) if len(rows) > 1 else len(frames)
    found = tuple(_row(name, candidate, measured) for name, candidate, measured in rows)
    result = ProbeResult(model=model.name, frames=len(frames), ahead=ahead, rows=found)
    return Probed(result, tuple(measured.maps for _, _, measured in rows))


def candidates(spec: Spec, any_color: bool = True, any_scale: bool = True) -> list[tuple[str, Spec]]:
    """The normalizations to try by name, each as the Spec with it."""
    colors = next(row for row in COLORS if spec.color in row) if any_color else (spec.color,)
    scales = dict(SCALES) if any_scale else {}
    if (spec.mean, spec.std) not in scales.values():
        scales["as given" if any_scale else "the network's own"] = (spec.mean, spec.std)
    return [
        (name, replace(spec, color=color, mean=mean, std=std))
        for name, (mean, std) in scales.items()
        for color in colors
    ]


def sheet(probed: Probed, spec: Spec, frames: Sequence[Image]) -> Image:
    """[H, W, 3] uint8 BGR: a line for each normalization, best first, with its class maps over the first frames."""
    sized = [fit_frame(frame, spec) for frame in frames[:SHOWN]]
    tiles = []
    for row, maps in zip(probed.result.rows, probed.maps):
        captions = [f"{row.color}, {row.name}", f"score {100 * row.score:.1f}", *[""] * SHOWN]
        tiles += [Tile(*tile) for tile in zip(captions, sized, maps)]
    return labeled_sheet(tiles, Classes(spec.classes, spec.palette, None), width=240, columns=len(sized))


def _measure(model: onnx.ModelProto, spec: Spec, frames: Sequence[Image], output: str) -> _Measured:
    deploy = onnx_graph.deploy_graph(model, spec, output)
    head = heads.get(spec.task).open(spec, deploy.upsample)
    views = [view for frame in frames for view in (frame, _mirrored(frame), _darker(frame))]
    confidence, stability = [], []
    maps: list[Image] = []
    counts = np.zeros(len(spec.classes), np.int64)
    computed = run_graph(deploy.model, views)
    for _ in frames:
        logits, mirrored, darker = (next(computed)[0][0] for _ in range(3))
        seen = logits.argmax(0)
        confidence.append(_confidence(logits))
        others = (mirrored.argmax(0)[:, ::-1], darker.argmax(0))
        stability.append(sum(kappa(seen, other, len(counts)) for other in others) / len(others))
        counts += np.bincount(seen.ravel(), minlength=len(counts))
        if len(maps) < SHOWN:
            maps.append(head.decode({"logits": logits}).classmap)
    return _Measured(np.array(confidence), np.array(stability), counts, tuple(maps))


def _row(name: str, spec: Spec, measured: _Measured) -> ProbeRow:
    shares = measured.counts[measured.counts > 0] / measured.counts.sum()
    return ProbeRow(
        name=name,
        color=spec.color,
        mean=spec.mean,
        std=spec.std,
        confidence=round(float(measured.confidence.mean()), 4),
        stability=round(float(measured.stability.mean()), 4),
        classes=round(float(np.exp(-(shares * np.log(shares)).sum())), 2),
        score=round(float(measured.scores.mean()), 4),
    )


def _confidence(logits: NDArray[np.float32]) -> float:
    """The mean over the pixels of the largest softmax probability."""
    shifted = np.exp(logits - logits.max(0))
    return float((1 / shifted.sum(0)).mean())


def kappa(a: NDArray[np.integer], b: NDArray[np.integer], classes: int) -> float:
    """Cohen's kappa (1960) of two class maps: agreement beyond what their class shares alone give; 0 for maps of the
    same single class."""
    shares = [np.bincount(maps.ravel(), minlength=classes) / maps.size for maps in (a, b)]
    chance = float(shares[0] @ shares[1])
    return 0.0 if chance >= 1 else (float((a == b).mean()) - chance) / (1 - chance)


def _mirrored(frame: Image) -> Image:
    return np.ascontiguousarray(frame[:, ::-1])


def _darker(frame: Image) -> Image:
    return np.asarray(np.rint(frame * DARKER + OFFSET), np.uint8)

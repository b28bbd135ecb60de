"""Do the calibration frames suffice? INT8 from resamples of the source, their accuracies compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bundle import MANIFEST, Bundle
from edgeseg.calibration import coverage
from edgeseg.calibration.features import FrameFeatures
from edgeseg.calibration.frames import MIN_FRAMES, CalibrationSet
from edgeseg.calibration.selection import Selection, calibration_set
from edgeseg.compile import PARITY_FRAMES, compile_model
from edgeseg.data.dataset import Dataset
from edgeseg.errors import OptionError
from edgeseg.files import sha256
from edgeseg.images import read_image
from edgeseg.ledger import Ledger
from edgeseg.precision import Precision
from edgeseg.quantization.quantize import resolve_ranges
from edgeseg.recipe import PTQ
from edgeseg.results.calibration import ReferenceScore, ResampleRow, Resamples
from edgeseg.search.trials import reference_precision
from edgeseg.spec import Spec
from edgeseg.target import Target

Log = Callable[[str], None]


def resample(
    selection: Selection,
    model: tuple[Path, Spec, str],
    target: Target,
    times: int,
    folder: Path,
    dataset: Dataset | None = None,
    log: Log = lambda text: None,
) -> Resamples:
    """Accuracy of INT8 of `model` (ONNX file, Spec, name of the output) with `times` other choices of as many frames.

    A resample draws the source's frames with replacement (Efron 1979) and chooses from them in the same way, as if the
    source had been collected again. Measured is the mIoU on `dataset`, or, without one, the agreement with the float
    model on frames held out of all resamples. `folder` gets every bundle and a ledger: the same call continues there.
    OptionError if there are too few frames to hold some out.
    """
    features, count = selection.features, len(selection.chosen)
    random = np.random.default_rng(selection.report.chosen.seed)
    pool, held_out = _hold_out(features, random) if dataset is None else (np.arange(len(features)), ())
    measurement = Measurement(*model, target, folder, dataset, held_out, Ledger(folder, log), log)
    precision = reference_precision(target)
    reference = measurement.accuracy(precision, precision, None)
    rows, values = [], []
    for number in range(times):
        drawn = features.subset(np.unique(random.choice(pool, len(pool))).tolist())
        chosen = coverage.k_center(coverage.standardize(drawn.groups), count, number)
        frames = calibration_set(drawn, chosen)
        values.append(measurement.accuracy(f"resample-{number}", Precision.INT8, frames))
        rows.append(ResampleRow(len(frames.frames), frames.digest, **{measurement.name: values[-1]}))
    return Resamples(
        target=target.name,
        model=sha256(model[0]),
        measure=measurement.name,
        on=f"{dataset.root.name} {dataset.split}" if dataset else f"{len(held_out)} frames held out",
        reference=ReferenceScore(precision, **{measurement.name: reference}),
        mean=float(np.mean(values)),
        deviation=float(np.std(values, ddof=1)) if times > 1 else None,
        lowest=min(values),
        highest=max(values),
        rows=tuple(rows),
    )


def _hold_out(features: FrameFeatures, random: np.random.Generator) -> tuple[np.ndarray[Any, Any], tuple[Path, ...]]:
    """Indices of the frames to resample from, and the files held out of them to measure agreement on."""
    everything = np.arange(len(features))
    held_out = random.choice(len(features), min(PARITY_FRAMES, len(features)), replace=False)
    pool = np.setdiff1d(everything, held_out)
    if len(pool) < MIN_FRAMES:
        raise OptionError(
            f"{len(features)} frames are too few to resample without labels: {PARITY_FRAMES} of them are held out.",
            f"Give at least {PARITY_FRAMES + MIN_FRAMES} frames, or labeled ones to evaluate on: --data.",
        )
    return pool, tuple(features.files[i] for i in np.setdiff1d(everything, pool))


@dataclass(frozen=True)
class Measurement:
    """How the accuracy of one model's bundles is measured: mIoU on `dataset`, or agreement with the float model on
    `held_out` frames where there is none. Bundles lie in `folder`, finished ones are in the ledger."""

    file: Path
    spec: Spec
    output: str
    target: Target
    folder: Path
    dataset: Dataset | None
    held_out: tuple[Path, ...]
    ledger: Ledger
    log: Log

    @property
    def name(self) -> str:
        return "miou" if self.dataset else "agreement"

    def _parity_files(self) -> list[Path]:
        if self.dataset is None:
            return list(self.held_out)
        return [self.dataset.image_file(i) for i in range(min(PARITY_FRAMES, len(self.dataset)))]

    def accuracy(self, name: str, precision: Precision, frames: CalibrationSet | None) -> float:
        """The accuracy of a bundle called `name`, as a share of 1; measured now or by an earlier call."""
        parity_files = self._parity_files()

        def work() -> float:
            bundle = compile_model(
                self.file, self.folder / name, self.target, precision, spec=self.spec,
                frames=[read_image(file) for file in parity_files], calibration=frames, output=self.output,
                ptq=resolve_ranges(PTQ(), self.target.quantizer) if frames else PTQ(),
                dataset=self.dataset, allow_loss=True, log=lambda text: self.log(f"{name}: {text}"),
            )  # fmt: skip
            return self._read(bundle)

        inputs: list[Any] = [sha256(self.file), self.spec.to_dict(), self.output, asdict(self.target), precision]
        inputs.append(frames.digest if frames else None)
        inputs.append(self.dataset.digest() if self.dataset else [sha256(file) for file in parity_files])
        return self.ledger.stage(name, inputs, [self.folder / name / MANIFEST], float, work)

    def _read(self, bundle: Bundle) -> float:
        metrics, parity = bundle.manifest.metrics, bundle.manifest.parity
        if self.dataset:
            return (metrics.miou if metrics else None) or 0.0
        return parity.agreement if parity else 0.0

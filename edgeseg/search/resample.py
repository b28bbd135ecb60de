"""Are these enough frames? INT8 made again from resamples of the source, and how far its accuracy moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bundle import MANIFEST
from edgeseg.calibration import coverage
from edgeseg.calibration.frames import MINIMUM, CalibrationSet
from edgeseg.calibration.selection import Selection, calibration_of
from edgeseg.compile import PARITY_FRAMES, compile_model
from edgeseg.data.dataset import Dataset
from edgeseg.errors import OptionError
from edgeseg.files import sha256
from edgeseg.images import read_image
from edgeseg.ledger import Ledger
from edgeseg.precision import Precision
from edgeseg.search.trials import reference_precision
from edgeseg.spec import Spec
from edgeseg.target import Target


def resample(
    chosen: Selection,
    model: tuple[Path, Spec, str],
    target: Target,
    times: int,
    folder: Path,
    dataset: Dataset | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """What INT8 of `model` reaches with `times` other choices of as many frames; JSON friendly.

    A resample draws the source's frames with replacement (Efron 1979) and chooses from them in the same way, as if the
    source had been collected again. Measured is the mIoU on `dataset`, or without one the agreement with the float
    model on frames held out of all resamples. In FOLDER lies every bundle and a ledger: the same call continues there.
    """
    views, count = chosen.views, len(chosen.taken)
    rest = np.arange(len(views))
    random = np.random.default_rng(chosen.about["chosen"]["seed"])
    if dataset is None:
        rest = np.setdiff1d(rest, random.choice(len(views), min(PARITY_FRAMES, len(views)), replace=False))
        if len(rest) < MINIMUM:
            raise OptionError(
                f"{len(views)} frames are too few to resample without labels: {PARITY_FRAMES} of them are held out.",
                f"Give at least {PARITY_FRAMES + MINIMUM}, or labeled frames to judge on: --data.",
            )
    held = np.setdiff1d(np.arange(len(views)), rest)
    judged = dataset.images[:PARITY_FRAMES] if dataset else [views.files[i] for i in held]
    key = "miou" if dataset else "agreement"
    ledger = Ledger(folder, log)

    def measure(name: str, precision: Precision, frames: CalibrationSet | None) -> float:
        path, (file, spec, output) = folder / name, model

        def work() -> float:
            made = compile_model(
                file, path, target, precision, spec=spec, frames=[read_image(f) for f in judged], calibration=frames,
                output=output, dataset=dataset, log=lambda text: log(f"{name}: {text}"),
            )  # fmt: skip
            metrics, parity = made.manifest.metrics, made.manifest.parity
            return float((metrics.miou if metrics else None) or 0.0) if dataset else parity.agreement if parity else 0.0

        inputs: list[Any] = [sha256(file), spec.to_dict(), output, asdict(target), precision]
        inputs += [frames.digest if frames else None, dataset.digest() if dataset else [sha256(f) for f in judged]]
        return ledger.stage(name, inputs, [path / MANIFEST], float, work)

    precision = reference_precision(target)
    reference = measure(precision, precision, None)
    rows = []
    for number in range(times):
        drawn = views.take(np.unique(random.choice(rest, len(rest))).tolist())
        frames = calibration_of(drawn, coverage.spread(coverage.points(drawn.groups), count, number))
        value = measure(f"resample-{number}", Precision.INT8, frames)
        rows.append({"frames": len(frames.frames), "digest": frames.digest, key: value})
    values = np.array([row[key] for row in rows])
    return {
        "target": target.name,
        "model": sha256(model[0]),
        "measure": key,
        "on": f"{dataset.root.name} {dataset.split}" if dataset else f"{len(judged)} frames held out",
        "reference": {"precision": precision, key: reference},
        "mean": float(values.mean()),
        "deviation": float(values.std(ddof=1)) if times > 1 else None,
        "lowest": float(values.min()),
        "highest": float(values.max()),
        "rows": rows,
    }

"""Trials: bundles compiled and measured one by one, each only once, within a budget of time and memory.

FOLDER/NAME/         a bundle;  FOLDER/NAME.npy  its count tables [N, C, 7] on the data
FOLDER/ledger.json   the inputs of each: a search that was killed continues where it was

Accuracy is measured as each is compiled; the speed of all at the end, interleaved.
"""

from __future__ import annotations

import io
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg import bom
from edgeseg.bench.interleaved import interleaved
from edgeseg.bundle import MANIFEST, Bundle, seal
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import PARITY_FRAMES, compile_model
from edgeseg.data.dataset import Dataset
from edgeseg.errors import OptionError
from edgeseg.evaluation.evaluate import count
from edgeseg.evaluation.metrics import Table
from edgeseg.evaluation.statistics import Estimate, difference, miou
from edgeseg.files import replacing, sha256, write_bytes
from edgeseg.images import resize
from edgeseg.ledger import Ledger
from edgeseg.precision import Precision
from edgeseg.quantization import sensitivity
from edgeseg.quantization.quantize import resolve_ranges
from edgeseg.recipe import PTQ
from edgeseg.results.bench import Speed
from edgeseg.results.search import LayerNoise
from edgeseg.runtime import open_segmenter
from edgeseg.spec import Spec
from edgeseg.target import Target

BENCH_SECONDS = 1.0
FRAMES = 16  # for speed
Log = Callable[[str], None]


class Budget:
    """Minutes and peak megabytes (of this process) that a search may take; 0 = no limit.

    It ends before a step that would not fit, estimated by the longest step so far. `later`: seconds reserved for the
    end of the search.
    """

    def __init__(self, minutes: float = 0, megabytes: float = 0):
        self.minutes, self.megabytes = minutes, megabytes
        self.begin, self.later = time.monotonic(), 0.0
        self.steps: list[float] = []  # seconds of each, those of an earlier run included

    def spent(self) -> str:
        """Which budget has run out, in words, or ""."""
        used = time.monotonic() - self.begin
        if self.minutes and used + self.later + max(self.steps, default=0) > 60 * self.minutes:
            return f"the next step would go beyond {self.minutes:g} minutes ({used / 60:.1f} used)"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if self.megabytes and peak > self.megabytes:
            return f"memory reached {peak:.0f} MB of {self.megabytes:g}"
        return ""

    def eta(self, left: int) -> str:
        """How long `left` more steps take if they are like the latest."""
        return f"about {left * self.steps[-1]:.0f} s left" if self.steps else "first step"


@dataclass(frozen=True)
class Trial:
    """What to compile: a model in a precision, INT8 found as `ptq` says, without the `excluded` layers. A model that
    came quantized has neither."""

    name: str
    model: Path
    spec: Spec
    precision: Precision
    excluded: tuple[str, ...] = ()
    ptq: PTQ = PTQ()  # noqa: RUF009  # frozen


@dataclass(frozen=True)
class Measurement:
    """What the ledger stores of a trial. `bytes`: of the model files; `seconds`: to compile and measure it."""

    bytes: int
    measured_by: str
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What was measured of a trial, through the backend `measured_by`."""

    trial: Trial
    path: Path
    tables: Table
    bytes: int
    measured_by: str
    seconds: float

    @property
    def miou(self) -> float:
        return float(miou(self.tables.sum(0)))


class Trials:
    """A folder of trials for one target, measured on one dataset."""

    def __init__(
        self, folder: Path, target: Target, calibration: CalibrationSet, dataset: Dataset, budget: Budget, log: Log,
        bench_seconds: float = BENCH_SECONDS, output: str = "",
    ):  # fmt: skip
        require_disjoint(calibration, dataset)
        for stale in folder.glob(".*.tmp"):  # of a run that was killed
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        self.ledger = Ledger(folder, log)
        self.folder, self.target, self.calibration, self.dataset = folder, target, calibration, dataset
        self.budget, self.log, self.bench_seconds, self.output = budget, log, bench_seconds, output
        self._data = dataset.digest()

    def measure(self, trial: Trial) -> Outcome:
        """Compile and measure it, or return what an earlier call measured."""
        path, tables = self.folder / trial.name, self.folder / f"{trial.name}.npy"
        inputs: list[Any] = [
            sha256(trial.model),
            trial.spec.to_dict(),
            asdict(self.target),
            trial.precision,
            trial.excluded,
            asdict(resolve_ranges(trial.ptq, self.target.quantizer)),
        ]
        inputs += [self.calibration.digest, self._data, self.output]

        def work() -> Measurement:
            begin = time.monotonic()
            self._compile(trial, path)
            bundle = self._count(path, tables)
            return Measurement(bundle.size, bundle.manifest.proved_by, round(time.monotonic() - begin, 1))

        measured = self.ledger.stage(trial.name, inputs, [path / MANIFEST, tables], Measurement, work)
        self.budget.steps.append(measured.seconds)
        self.budget.later += self.bench_seconds
        return Outcome(trial, path, np.load(tables), **vars(measured))

    def speeds(self, outcomes: Sequence[Outcome]) -> dict[str, Speed]:
        """The speed of each by its trial's name, on this machine, interleaved."""
        spec_of = {o.trial.name: o.trial.spec for o in outcomes}
        sizes = {(spec.height, spec.width) for spec in spec_of.values()}
        images = [self.dataset[i][0] for i in range(min(FRAMES, len(self.dataset)))]
        frames = {shape: [resize(image, *shape) for image in images] for shape in sizes}

        def work() -> dict[str, Speed]:
            speeds = interleaved(
                [o.path for o in outcomes],
                [frames[spec.height, spec.width] for spec in spec_of.values()],
                self.bench_seconds,
                progress=lambda i, n: self.log(f"speed, measurement {i} of {n}"),
                backend=outcomes[0].measured_by,
            )
            return dict(zip(spec_of, speeds))

        inputs = [[o.trial.name, sha256(o.path / MANIFEST)] for o in outcomes]
        return self.ledger.stage("speed", [inputs, self.bench_seconds], [], dict[str, Speed], work)

    def noise(self, model: Path, spec: Spec) -> tuple[list[LayerNoise], str]:
        """The layers, the noisiest first, and which budget ran out ("" where none did)."""
        from edgeseg import onnx_graph

        source = self.folder / "deploy.onnx"
        deploy = onnx_graph.deploy_graph(onnx_graph.load(model), spec, self.output)
        write_bytes(source, deploy.model.SerializeToString())
        frames = list(islice(self.calibration.images(spec), sensitivity.FRAMES))
        inputs = [sha256(source), self.target.quantizer, self.calibration.digest]
        stopped = ""

        def each(index: int, count: int, measure: Callable[[], float]) -> float | None:
            nonlocal stopped
            stopped = stopped or self.budget.spent()
            if stopped:
                return None
            begin = time.monotonic()
            # Not the layer's name: it comes from the model, and a stage's name is a path.
            sqnr = self.ledger.stage(f"noise-{inputs[0][:8]}-{index:03d}", [*inputs, index], [], float, measure)
            seconds = time.monotonic() - begin
            self.log(f"noise of layer {index + 1} of {count}, about {(count - index - 1) * seconds:.0f} s left")
            return sqnr

        return sensitivity.rank(source, frames, self.target.quantizer, each), stopped

    def publish(self, chosen: Outcome, out: Path, **more: dict[str, Any]) -> None:
        """Copy a trial's bundle to `out` under that name; `more`: fields of its manifest."""
        with replacing(out, MANIFEST) as work:
            bundle = Bundle.load(chosen.path)
            for name, data in bundle.files.items():
                write_bytes(work / name, data)
            manifest = seal(work, replace(bundle.manifest, name=out.name, **more))  # type: ignore[arg-type]
            bom.renew(work, manifest)
            seal(work, manifest)

    def _compile(self, trial: Trial, path: Path) -> None:
        chosen = trial.precision.is_int8 and not came_quantized(trial.model)
        compile_model(
            trial.model,
            path,
            self.target,
            trial.precision,
            spec=trial.spec,
            frames=list(islice(self.calibration.images(trial.spec), PARITY_FRAMES)),
            calibration=self.calibration if chosen else None,
            output=self.output,
            excluded=trial.excluded,
            ptq=resolve_ranges(trial.ptq, self.target.quantizer) if chosen else PTQ(),
            allow_loss=True,
            log=lambda text: self.log(f"{trial.name}: {text}"),
        )

    def _count(self, path: Path, tables: Path) -> Bundle:
        """Write the count tables of a bundle on the data; the bundle."""
        bundle = Bundle.load(path)
        with open_segmenter(bundle, "throughput", backend=bundle.manifest.proved_by) as segmenter:
            counts, _ = count(
                segmenter, self.dataset, lambda i, n: self.log(f"{path.name}: accuracy, frame {i} of {n}")
            )
        data = io.BytesIO()
        np.save(data, counts.tables())
        write_bytes(tables, data.getvalue())
        return bundle


def came_quantized(model: Path) -> bool:
    """Whether an ONNX file has Q/DQ pairs already, as `edgeseg qat` trains them."""
    from edgeseg import onnx_graph

    return onnx_graph.is_quantized(onnx_graph.load(model))


def points_lost(before: Outcome, after: Outcome) -> Estimate:
    """Points of mIoU lost, with its 95 % interval over the same frames."""
    lost = difference(before.tables, after.tables, miou)
    return Estimate(100 * lost.value, 100 * lost.low, 100 * lost.high)


def reference_precision(target: Target) -> Precision:
    """The precision of a target that represents the float model: drops are counted from it."""
    return Precision.FP32 if Precision.FP32 in target.precisions else Precision.FP16


def require_disjoint(calibration: CalibrationSet, dataset: Dataset) -> None:
    """OptionError where INT8 would be evaluated on a frame that it is calibrated with."""
    calibrated = set(calibration.hashes)
    both = [image.name for i, image in enumerate(dataset.images) if dataset.sha256("images", i).hex() in calibrated]
    if both:
        raise OptionError(
            f"{len(both)} of the {len(dataset)} frames of {dataset.root.name} {dataset.split} are also calibration "
            f"frames ({both[0]}).",
            "Calibrate with other frames, like the dataset's train split, or evaluate on another split.",
        )

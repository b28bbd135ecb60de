"""A design of a student measured: its latency on the target first, then trained and compiled, its accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from edgeseg.bench.interleaved import interleaved, slowdown
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model
from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.evaluate import evaluate
from edgeseg.files import write_bytes
from edgeseg.fit import fit_frame
from edgeseg.images import Image
from edgeseg.quantization import schemes
from edgeseg.recipe import PTQ, Recipe
from edgeseg.runtime import open_segmenter
from edgeseg.search.designs import Design, Measured
from edgeseg.target import Target
from edgeseg.training import checkpoint, stages
from edgeseg.training.export import export_onnx
from edgeseg.training.stage_models import initial_model, spec_of

SECONDS = 2.0
FRAMES = 8
CALIBRATION_FRAMES = 32


class CandidateMeter:
    """Measures designs of one recipe's student on one target; FOLDER/NAME/ keeps what was found of each."""

    def __init__(
        self,
        recipe: Recipe,
        root: Path,
        folder: Path,
        target: Target,
        epochs: int,
        limit_ms: float | None,
        log: Callable[[str], None],
    ):
        self.recipe = replace(recipe, student=replace(recipe.student, epochs=epochs, patience=0))
        self.root, self.folder, self.target = root, folder, target
        self.limit_ms, self.log = limit_ms, log

    def measure(self, design: Design) -> Measured:
        """Compiled untrained for its latency; if that is within the limit, trained, compiled, and measured on val."""
        folder = self.folder / design.name
        result = folder / "measured.json"
        if result.is_file():  # also of another process, or before a kill
            return msgspec.json.decode(result.read_bytes(), type=Measured)
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        ms = self._latency(design, folder)
        miou = None
        if self.limit_ms is None or ms <= self.limit_ms:
            trained = stages.train_student(design.applied_to(self.recipe), self.root, folder)
            miou = self._accuracy(self._compiled(design, trained, folder / "bundle"))
        found = Measured(ms, miou, time.monotonic() - begin)
        self.log(f"{design.name}: {ms:.2f} ms" + ("" if miou is None else f", val mIoU {100 * miou:.2f}"))
        write_bytes(result, msgspec.json.encode(found))
        return found

    def speedup(self, of: Design, over: Design) -> float:
        """How many times as fast `of` is as `over`, measured interleaved."""
        if of == over:
            return 1.0
        bundles = [self._bundle(design) for design in (over, of)]
        slow, fast = interleaved(bundles, [self._frames(over), self._frames(of)], 2 * SECONDS)
        return slowdown(slow, fast)

    def _bundle(self, design: Design) -> Path:
        folder = self.folder / design.name
        trained = folder / "bundle"
        return trained if trained.is_dir() else folder / "untrained"

    def _latency(self, design: Design, folder: Path) -> float:
        """Milliseconds of one frame, the median; weights do not matter for it."""
        recipe = design.applied_to(self.recipe)
        spec = spec_of(recipe, self.root)
        start = folder / "untrained.pt"
        checkpoint.save(start, initial_model(recipe, recipe.student, spec), recipe.student.net, spec)
        bundle = self._compiled(design, start, folder / "untrained")
        return float(interleaved([bundle], [self._frames(design)], SECONDS, rounds=2)[0].latency_ms.p50)

    def _compiled(self, design: Design, trained: Path, out: Path) -> Path:
        source = export_onnx(trained, trained.with_suffix(".onnx"))
        int8 = design.precision.is_int8
        chosen = CalibrationSet.choose(self.root, CALIBRATION_FRAMES) if int8 else None
        ranges = PTQ(schemes.get(self.target.quantizer).ranges[0]) if int8 else PTQ()
        recipe = design.applied_to(self.recipe)
        bundle = compile_model(
            source, out, self.target, design.precision, spec=spec_of(recipe, self.root),
            frames=self._frames(design), calibration=chosen, ptq=ranges, allow_loss=True,
        )  # fmt: skip
        return bundle.path

    def _frames(self, design: Design) -> list[Image]:
        spec = spec_of(design.applied_to(self.recipe), self.root)
        val = Dataset.open(self.root, "val")
        return [fit_frame(val[i][0], spec) for i in range(min(FRAMES, len(val)))]

    def _accuracy(self, bundle: Path) -> float:
        with open_segmenter(bundle, "throughput") as segmenter:
            return float(evaluate(segmenter, Dataset.open(self.root, "val")).miou or 0.0)

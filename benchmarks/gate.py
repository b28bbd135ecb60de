"""Does the gate let noise decide? python benchmarks/gate.py [--json FILE|-] [--builds N]

Simulated builds with a known true drop, checked on samples of frames by our gate and by a plain difference. The parent
is the shipped student on rendered street frames. The loss is real as well: what the same network loses on frames that
were shrunk to a third and enlarged again, mixed in frame by frame until the whole population lost the true drop.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.cli.common import emit
from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.gate import Limits, Measured, check_accuracy, verdict
from edgeseg.evaluation.metrics import Counts, Table
from edgeseg.evaluation.statistics import miou
from edgeseg.fit import unfit
from edgeseg.machine import fingerprint
from edgeseg.results.common import DataIdentity
from edgeseg.runtime import open_segmenter
from edgeseg.synth.files import write_dataset

BUNDLE = Path(__file__).parent.parent / "models" / "street" / "street-int8"
POPULATION = 1000
DROPS = (0.0, 0.3, 0.6, 1.5)
FRAMES = (100, 400)
LIMIT = 0.5
MACHINE = fingerprint()


def population(folder: Path) -> tuple[Table, Table]:
    """Count tables [N, C, 7] of every frame as it is, and shrunk to a third and back."""
    write_dataset(folder, train=1, val=1, test=POPULATION, seed=5, height=224, width=384)
    dataset = Dataset.open(folder, "test")
    sharp, blurred = (Counts(len(dataset.classes.names)) for _ in range(2))
    with open_segmenter(BUNDLE) as segmenter:
        for i in range(len(dataset)):
            frame, label = dataset[i]
            small = cv2.resize(frame, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA)
            for counts, image in ((sharp, frame), (blurred, cv2.resize(small, frame.shape[1::-1]))):
                counts.add(label, unfit(segmenter(np.asarray(image, np.uint8)).classmap, segmenter.spec, *label.shape))
    return sharp.tables(), blurred.tables()


def mixed(sharp: Table, blurred: Table, shares: NDArray[np.float64]) -> Table:
    """Frame by frame, `shares` [N] of what shrinking did to its counts."""
    return np.rint(sharp + shares[:, None, None] * (blurred - sharp)).astype(np.int64)


def build(sharp: Table, blurred: Table, drop: float, random: np.random.Generator) -> Table:
    """The population's tables of one build that truly lost `drop` points: frames differ in how much they lose.

    Around a build's mean loss single frames get better and worse (as under INT8), so a build with no loss is not equal.
    """
    noise = random.normal(0, 0.5, len(sharp))
    low, high = -1.0, 2.0
    for _ in range(40):
        middle = (low + high) / 2
        tables = mixed(sharp, blurred, noise + middle)
        lost = 100 * float(miou(sharp.sum(0)) - miou(tables.sum(0)))
        low, high = (middle, high) if lost < drop else (low, middle)
    return tables


def measured(tables: Table) -> Measured:
    classes = tuple(str(c) for c in range(tables.shape[1]))
    return Measured("simulated", "", DataIdentity("street", "test", len(tables), "", classes), tables, MACHINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="-", help="FILE or - for standard output")
    parser.add_argument("--builds", type=int, default=200, help="for each true drop and number of frames")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sharp, blurred = population(Path(folder))
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for frames in FRAMES:
        for drop in DROPS:
            verdicts = {"pass": 0, "fail": 0, "undecided": 0}
            plain = {"pass": 0, "fail": 0}
            for _ in range(args.builds):
                whole = build(sharp, blurred, drop, random)
                sample = random.choice(POPULATION, frames, replace=False)
                before, after = sharp[sample], whole[sample]
                verdicts[
                    verdict(check_accuracy(measured(after), measured(before), Limits(max_drop=LIMIT, max_gain=None)))
                ] += 1
                lost = 100 * float(miou(before.sum(0)) - miou(after.sum(0)))
                plain["fail" if lost > LIMIT else "pass"] += 1
            rows.append({"frames": frames, "true_drop": drop, "builds": args.builds, "gate": verdicts, "plain": plain})
    whole_drop = 100 * float(miou(sharp.sum(0)) - miou(blurred.sum(0)))
    emit({"kind": "gate-simulation", "limit": LIMIT, "shrinking_costs": whole_drop, "rows": rows}, args.json)


if __name__ == "__main__":
    main()

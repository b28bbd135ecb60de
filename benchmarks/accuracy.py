"""Do intervals of frames drawn at random cover the accuracy of the whole stream? Street frames, many draws.

A stream of scenes, each of some consecutive frames, by day, at night and in fog, is scored as a whole. Then frames are
drawn as `edgeseg collect` does, one of each stretch of time, and the interval of `edgeseg accuracy` is compared with
the mIoU of the stream.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.evaluation.metrics import confusion_of, table_of
from edgeseg.evaluation.statistics import intervals, miou, share_of_few
from edgeseg.images import Image
from edgeseg.result import Frame
from edgeseg.runtime import open_segmenter
from edgeseg.synth.street import Street

HEIGHT, WIDTH, FRAMES = 224, 384, 40
DRAWN = (10, 12, 15, 20, 40, 80, 160)


def stream(scenes: int, seed: int) -> Iterator[tuple[Image, Image]]:
    """Frames and labels."""
    rng = np.random.default_rng(seed)
    for number in range(scenes):
        night = float(rng.random() < 0.3) * float(rng.uniform(0.3, 1))
        fog = float(rng.random() < 0.3) * float(rng.uniform(0.3, 1))
        street = Street(9000 + number, HEIGHT, WIDTH, night, fog)
        begin = int(rng.integers(0, 500))
        yield from (street.frame(begin + 3 * t) for t in range(FRAMES))


def tables(bundle: Path, scenes: int, seed: int) -> NDArray[np.int64]:
    """[N, C, 7]: the count table of every frame."""
    labels: dict[int, Image] = {}

    def frames() -> Iterator[Frame]:
        for number, (image, labels[number]) in enumerate(stream(scenes, seed)):
            yield Frame(image, number)

    found = []
    with open_segmenter(bundle, "throughput") as segmenter:
        classes = len(segmenter.spec.classes)
        for result in segmenter.stream(frames()):
            truth = labels.pop(result.frame.index)
            found.append(table_of(confusion_of(truth.ravel(), result.classmap.ravel(), classes)))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", default=Path("models/street/street-int8"))
    parser.add_argument("--scenes", type=int, default=120, help="of 40 frames each")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    population = tables(options.bundle, options.scenes, options.seed)
    expected = float(miou(population.sum(0)))
    names = tuple(map(str, range(population.shape[1])))
    print(f"{len(population)} frames, mIoU {100 * expected:.2f}")
    rng = np.random.default_rng(0)
    for count in DRAWN:
        edges = np.linspace(0, len(population), count + 1).astype(int)
        covered, widths = 0, []
        for _ in range(options.draws):
            chosen = [int(rng.integers(a, b)) for a, b in pairwise(edges)]
            ends = intervals(population[chosen], names, int(rng.integers(10**9)), share_of_few(count)).miou
            assert ends is not None
            covered += ends[0] <= expected <= ends[1]
            widths.append(100 * (ends[1] - ends[0]))
        print(f"{count:4d} drawn: {100 * covered / options.draws:5.1f} % covered, {np.mean(widths):5.2f} points wide")


if __name__ == "__main__":
    main()

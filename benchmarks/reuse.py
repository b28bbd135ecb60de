"""Reuse between key frames: accuracy, flicker and speed on labeled clips, and the kernels alone.

    python benchmarks/reuse.py clip --bundle models/camvid/camvid-int8 --clip data/camvid/val
    python benchmarks/reuse.py streets --seeds 3 --frames 150     # day, night, fog; exact labels
    python benchmarks/reuse.py static --frames 300                # a camera that does not move
    python benchmarks/reuse.py kernels

Every row runs in turns with the whole network on every frame (evaluation/clip.py). `hold` keeps the latest class map
where it is; `flow` has optical flow in place of the decoder's vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edgeseg import mask
from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.clip import ClipFrames, evaluate_clip, open_clip
from edgeseg.fit import place
from edgeseg.motion import Motion, field, flow, warp
from edgeseg.motion.field import Grid
from edgeseg.motion.vectors import NO_BLOCKS
from edgeseg.result import Frame
from edgeseg.results.clip import ClipResult
from edgeseg.reuse.policy import parse
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter
from edgeseg.spec import Spec
from edgeseg.synth.street import CLASSES, Street

STREET = Path(__file__).parents[1] / "models/street/street-int8"
ROWS = ("2", "3", "4", "5", "auto", "3 hold", "3 flow", "1 stabilized", "3 stabilized")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["clip", "streets", "static", "kernels"])
    parser.add_argument("--bundle", type=Path, default=STREET)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help="K or auto, with hold, flow or stabilized")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--json", type=Path, help="write every result to this file")
    args = parser.parse_args()
    if args.what == "kernels":
        kernels()
        return
    found: dict[str, dict[str, object]] = {}
    with open_segmenter(args.bundle) as segmenter, tempfile.TemporaryDirectory() as scratch:
        for name, clip in clips(args, Path(scratch), segmenter.spec):
            print(f"{name}: {len(clip)} frames", flush=True)
            frames = ClipFrames(clip)
            for row in args.rows:
                result = measured(segmenter, clip, frames, row)
                found[f"{name} {row}"] = result.to_dict()
                show(row, result)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


def clips(args: argparse.Namespace, scratch: Path, spec: Spec) -> Iterator[tuple[str, Dataset]]:
    if args.what == "clip":
        yield str(args.clip.name), open_clip(args.clip, spec)
        return
    kinds = (
        {"day": (0.0, 0.0), "night": (1.0, 0.0), "fog": (0.0, 1.0)} if args.what == "streets" else {"day": (0.0, 0.0)}
    )
    for kind, (night, fog) in kinds.items():
        for seed in range(args.seeds):
            street = Street(1000 + seed, 448, 768, night=night, fog=fog)
            if args.what == "static":
                street.speed = 0.0
            root = scratch / f"{args.what}-{kind}-{seed}"
            for i in range(args.frames):
                image, label = street.frame(i)
                for folder, picture in (("images", image), ("masks", label)):
                    (root / folder).mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(root / folder / f"{i:05d}.png"), picture)
            (root / "classes.txt").write_text(CLASSES.text())
            yield root.name, open_clip(root, spec)


def measured(segmenter: Segmenter, clip: Dataset, frames: ClipFrames, row: str) -> ClipResult:
    reuse, _, how = row.partition(" ")
    change: dict[str, Callable[[Frame], Frame]] = {
        "hold": lambda frame: replace(frame, motion=(Motion(NO_BLOCKS),)),
        "flow": lambda frame: replace(frame, motion=None),
    }
    changed = map(change.get(how, lambda frame: frame), frames)
    result = evaluate_clip(segmenter, clip, changed, parse(reuse), how == "stabilized")
    return replace(result, reuse=row, motion=frames.motion)


def show(row: str, r: ClipResult) -> None:
    estimate = "" if r.estimated_drop is None else f"  estimated {r.estimated_drop:.2f}"
    print(
        f"  {row:14s} mIoU {100 * (r.miou or 0):.2f} of {100 * (r.miou_without_reuse or 0):.2f}  lost {r.drop}  "
        f"agreement {100 * r.agreement:.2f}  key frames {100 * r.keyframes:.1f} %  {r.fps / r.fps_without_reuse:.2f} x "
        f"({1e3 / r.fps:.2f} of {1e3 / r.fps_without_reuse:.2f} ms)  flicker {100 * r.flicker:.2f} of "
        f"{100 * r.flicker_without_reuse:.2f} %{estimate}",
        flush=True,
    )


def kernels() -> None:
    """Microseconds of each step for a 1280x720 frame and an input of 608x448, in C and with numpy or OpenCV."""
    rng = np.random.default_rng(0)
    spec, grid = Spec(448, 608, tuple("abcdefghijk")), Grid(720, 1280)
    corners = np.stack(np.meshgrid(np.arange(0, 1280, 16), np.arange(0, 720, 16)), -1).reshape(-1, 2)
    blocks = np.hstack([corners, corners + 16, rng.normal(6, 2, (len(corners), 2))]).astype(np.float32)
    moved, known = field.of_blocks(blocks, grid)
    holes = known & (rng.random(known.shape) > 0.06)
    before = rng.integers(0, 11, (56, 76), np.uint8).repeat(8, 0).repeat(8, 1)
    logits = rng.normal(size=(11, 112, 152)).astype(np.float32)
    smooth = np.stack([np.asarray(cv2.GaussianBlur(plane, (0, 0), 3), np.float32) for plane in logits])
    axes = [
        warp._axis(448, 0, 720 / 448, grid.cell, grid.shape[0]),
        warp._axis(608, 0, 1280 / 608, grid.cell, grid.shape[1]),
    ]
    scaled = moved * np.array([608 / 1280, 448 / 720], np.float32)
    x, y = np.meshgrid(np.arange(608, dtype=np.float32), np.arange(448, dtype=np.float32))

    def by_opencv() -> object:
        full = cv2.resize(scaled, (608, 448), interpolation=cv2.INTER_LINEAR)
        return cv2.remap(before, x + full[..., 0], y + full[..., 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)

    sums, areas = np.zeros((*grid.shape, 2)), np.zeros(grid.shape)
    placed = place(spec, 720, 1280)
    small = flow.thumbnail(rng.integers(0, 256, (720, 1280, 3), np.uint8))
    steps: dict[str, Callable[[], object]] = {
        "field: 3,600 blocks, C": lambda: field.of_blocks(blocks, grid),
        "field: numpy": lambda: field.add_blocks(blocks, grid.cell, *grid.shape, sums, areas),
        "field: holes": lambda: field.fill_holes(moved, holes),
        "field: compose": lambda: field.compose(moved, moved, grid),
        "class map moves, C": lambda: warp.class_map(before, moved, grid, spec),
        "class map moves, still, C": lambda: warp.class_map(before, grid.still(), grid, spec),
        "class map moves, numpy": lambda: warp.plain(before, scaled, *axes),
        "class map moves, cv2.remap": by_opencv,
        "logits move (11 classes)": lambda: warp.logits(logits, moved, grid, spec),
        "optical flow": lambda: flow.field(small, np.roll(small, 2, 1), grid),
        "class map from logits, input size": lambda: mask.class_map(smooth, 448, 608, "half_pixel"),
        "class map from logits, 1280x720": lambda: mask.frame_map(smooth, 448, 608, "half_pixel", placed),
    }
    best = dict.fromkeys(steps, np.inf)
    for _ in range(15):  # in turns: every step meets the same machine
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            best[name] = min(best[name], time.perf_counter() - begin)
    print(f"microseconds, the best of 15 rounds; load {os.getloadavg()[0]:.1f}")
    for name, seconds in best.items():
        print(f"  {name:36s} {1e6 * seconds:8.0f}")


if __name__ == "__main__":
    main()

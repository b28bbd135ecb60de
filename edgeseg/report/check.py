"""The result of `edgeseg data check` as blocks of a report, and pictures of the worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edgeseg.data.checking import open_context
from edgeseg.data.checks import Context, Sample, load_sample
from edgeseg.data.dataset import Classes
from edgeseg.evaluation.pictures import colors
from edgeseg.images import Image, write_image
from edgeseg.report.blocks import Block, Heading, Table, Text
from edgeseg.results.check import CheckResult, Finding, Group
from edgeseg.results.common import Picture

HEIGHT = 224
WORST = 3  # pictures of each kind
ROWS = 10  # of each kind
RED = (60, 60, 255)


def check(d: CheckResult) -> list[Block]:
    splits = ", ".join(f"{count} {split}" for split, count in d.splits.items())
    return [
        Heading(f"Dataset {d.root}"),
        Text(f"Score {d.score:g} of 100: the share of frames that nothing was found in.", strong=True),
        Text(
            f"{d.frames} frames ({splits}): {len(d.errors)} errors, {len(d.warnings)} warnings, in {d.seconds:.1f} s."
            + "".join(f" Skipped: {reason}." for reason in d.skipped)
        ),
        *_datasheet(d),
        *_counts(d),
        *_findings("Errors", d.errors),
        *_findings("Warnings", d.warnings),
        *_groups(d.groups),
        *_fixed(d),
    ]


def _counts(d: CheckResult) -> list[Block]:
    rows = []
    for severity, findings in (("error", d.errors), ("warning", d.warnings)):
        for kind, count in Counter(finding.kind for finding in findings).most_common():
            per_split = Counter(finding.split for finding in findings if finding.kind == kind)
            rows.append([kind, severity, str(count), *(str(per_split[split]) for split in d.splits)])
    return [Heading("Kinds", 3), Table(["kind", "", "findings", *d.splits], rows)] if rows else []


def _datasheet(d: CheckResult) -> list[Block]:
    rows = [line.split(": ", 1) for line in d.datasheet.lines()] if d.datasheet else []
    return [Heading("Datasheet", 3), Table(["", "stated by the owner"], rows, text=True)] if rows else []


def _fixed(d: CheckResult) -> list[Block]:
    return [Heading("Fixed", 3), Table(["file"], [[line] for line in d.fixed], text=True)] if d.fixed else []


def _findings(title: str, findings: tuple[Finding, ...]) -> list[Block]:
    if not findings:
        return []
    seen = Counter[str]()
    rows = []
    for f in findings:
        seen[f.kind] += 1
        if seen[f.kind] <= ROWS:
            rows.append([f.file or f.split, f.kind, f"{f.score:.2f}", f.what])
    more = [Text(f"Up to {ROWS} of each kind, the worst first; --json has all.")] if len(rows) < len(findings) else []
    return [Heading(title, 3), *more, Table(["file", "kind", "score", "what"], rows, text=True)]


def _groups(groups: tuple[Group, ...]) -> list[Block]:
    if not groups:
        return []
    longest = sorted(groups, key=lambda g: -g.frames)[:20]
    rows = [[g.first, g.last, str(g.frames), ", ".join(g.splits)] for g in longest]
    return [
        Heading("Neighboring frames of videos", 3),
        Text(
            f"{len(groups)} groups of neighbors that look alike. They are no fault; a split must not cut through one."
        ),
        Table(["first", "last", "frames", "splits"], rows, text=True),
    ]


def draw_worst(result: CheckResult, root: Path, folder: Path) -> tuple[Picture, ...]:
    """Pictures of the worst findings of each kind, written into `folder`: frame, labels, both; or copies side by
    side."""
    context = open_context(root)
    images = {context.name(p): (split, i) for split, paths in context.images.items() for i, p in enumerate(paths)}
    shown: Counter[str] = Counter()
    rows = []
    for finding in sorted((*result.errors, *result.warnings), key=lambda f: -f.score):
        if shown[finding.kind] >= WORST or not finding.file:
            continue
        places = [images[name] for name in (finding.file, *finding.others[:2]) if name in images]
        picture = _picture(finding, context, [load_sample(context, *place) for place in places])
        if picture is None:
            continue
        shown[finding.kind] += 1
        file = folder / f"{finding.kind}-{shown[finding.kind]}.jpg"
        write_image(file, picture)
        rows.append(Picture(f"{finding.kind}: {finding.file}. {finding.what}", str(file.resolve())))
    return tuple(sorted(rows, key=lambda row: row.title))


def _picture(finding: Finding, context: Context, samples: Sequence[Sample]) -> Image | None:
    """None where nothing of it can be read."""
    tiles: list[Image] = []
    for sample in samples:
        if sample.pixels is None:
            continue
        tiles.append(_tile(sample.pixels, finding))
        if len(samples) == 1 and sample.labels is not None:
            tiles += _labels(sample.pixels, sample.labels, context.classes, finding)
    if not tiles:
        return None
    gap = np.full((HEIGHT, 4, 3), 255, np.uint8)
    return np.asarray(np.hstack([part for tile in tiles for part in (gap, tile)][1:]), np.uint8)


def _labels(frame: Image, labels: Image, classes: Classes, finding: Finding) -> list[Image]:
    """The labels in color, and laid over the frame where the sizes agree."""
    drawn = colors(labels, classes.palette)
    tiles = [_tile(drawn, finding)]
    if drawn.shape == frame.shape:
        tiles.append(_tile(np.asarray(cv2.addWeighted(frame, 0.5, drawn, 0.5, 0), np.uint8), finding))
    return tiles


def _tile(image: Image, finding: Finding) -> Image:
    scale = HEIGHT / image.shape[0]
    width = min(4 * HEIGHT, max(1, round(image.shape[1] * scale)))
    tile = np.asarray(cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)
    if finding.box:
        x, y, w, h = (round(value * scale) for value in finding.box)
        cv2.rectangle(tile, (x - 2, y - 2), (x + w + 2, y + h + 2), RED, 2)
    return tile

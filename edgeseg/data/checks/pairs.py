"""Images and masks that do not belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from edgeseg.data.checks import Check, Context, Sample
from edgeseg.data.checks._fixing import set_aside
from edgeseg.results.check import Finding

ERRORS = ("no-mask", "name-clash", "size", "empty-split")


class Pairs(Check):
    def __init__(self, context: Context) -> None:
        self.context = context

    def look(self, sample: Sample) -> list[Finding]:
        return list(_findings(sample))

    def end(self) -> Iterable[Finding]:
        for split, images in self.context.images.items():
            if not images:
                yield Finding(kind="empty-split", file="", what=f"The split {split} has no images.", split=split)
            by_stem = defaultdict(list)
            for image in images:
                by_stem[image.stem].append(self.context.name(image))
            for first, *others in (names for names in by_stem.values() if len(names) > 1):
                what = f"{len(others) + 1} images share one mask."
                yield Finding(kind="name-clash", file=first, what=what, split=split, others=tuple(others))
            for mask in (m for m in self.context.masks[split] if m.stem not in by_stem):
                what = "No image has this mask's name."
                yield Finding(kind="no-image", file=self.context.name(mask), what=what, split=split)


def _findings(sample: Sample) -> Iterator[Finding]:
    if sample.labels is None and sample.labels_problem is None:
        yield Finding(
            kind="no-mask", file=sample.name, what=f"It has no mask; expected {sample.mask_name}.",
            split=sample.split,
        )  # fmt: skip
    elif sample.labels is not None and sample.pixels is not None and not sample.fits:
        (height, width), (h, w) = sample.pixels.shape[:2], sample.labels.shape
        yield Finding(
            kind="size", file=sample.mask_name, what=f"The mask is {w}x{h}, its image {width}x{height}.",
            split=sample.split, others=(sample.name,),
        )  # fmt: skip


def open(context: Context) -> Check:
    return Pairs(context)


def fix(finding: Finding, context: Context) -> str:
    path = context.root / finding.file
    if finding.kind not in ("no-image", "no-mask") or not path.exists():
        return ""
    return f"{finding.file}: moved to {set_aside(path, context)}"

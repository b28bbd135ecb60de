"""A first recipe for a dataset: every value with the reason for it, from what the data and this machine are.

The classes' weights are the square roots of median frequency balancing. On 160 rendered streets (a small `lite`, 14
epochs, two seeds) val mIoU was 58.2 and 58.6 with plain cross-entropy, 55.9 and 55.3 with the full weights, 60.0 and
60.0 with their roots, and 60.1 and 60.7 with the roots and the Dice loss.
"""

from __future__ import annotations

import json
import math
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg import backends
from edgeseg.data.input_size import STRETCHED, InputSize, input_size
from edgeseg.data.stats import SplitStats, StatsResult
from edgeseg.errors import OptionError, unknown
from edgeseg.recipe import Quantize, Targets
from edgeseg.records import Record
from edgeseg.target import Target, names, split

MIN_FRAMES = 8  # to train with and to calibrate INT8
LARGEST_WEIGHT = 10.0
SIDES = re.compile(r"(^|[\W_])(left|right)([\W_]|$)", re.IGNORECASE)  # in names of classes
WIDTH = 100  # of comments


@dataclass(frozen=True)
class Preset:
    """`pixels`: at most, of the input. `teacher`, `student`: widths. `steps`: updates of a training, about."""

    pixels: int
    teacher: float
    student: float
    batch: int
    steps: int
    use: str


PRESETS = {
    "small": Preset(320 * 192, 1.5, 0.75, 4, 800, "a first result soon, and small devices"),
    "medium": Preset(512 * 320, 2.0, 1.0, 8, 4000, "most boards"),
    "accurate": Preset(1024 * 512, 3.0, 2.0, 8, 15000, "boards with a fast accelerator; train it on a GPU"),
}


@dataclass(frozen=True)
class Choice:
    """`key`: SECTION.KEY of the recipe. `value`: as TOML."""

    key: str
    value: str
    why: str


@dataclass(frozen=True, kw_only=True)
class InitResult(Record):
    """`warnings`: about the data, where a recipe can be written all the same."""

    KIND = "init"

    recipe: str
    preset: str
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]


def draft(stats: StatsResult, root: Path, out: Path, preset: str) -> InitResult:
    """The choices for the dataset `root`, of which `stats` are. `out`: the recipe that they are for.

    OptionError for an unknown preset and for a dataset that no recipe can use, with the reason.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    _check_usable(stats, root)
    chosen, train = PRESETS[preset], stats.splits["train"]
    size = input_size(_sizes(train), chosen.pixels)
    choices = [
        Choice("name", _text(_name(root)), "of the bundles: the folder's"),
        Choice("seed", "1", "another one gives another run of the same recipe"),
        *_data(root, out, size, train, chosen, preset),
        *_roles(train, chosen),
        *_later(train, chosen),
        _targets(),
    ]
    return InitResult(recipe=str(out), preset=preset, choices=tuple(choices), warnings=tuple(_warnings(stats)))


def recipe_text(result: InitResult) -> str:
    """The recipe (TOML), a comment above every value."""
    use = PRESETS[result.preset].use
    lines = [
        f"# A first recipe, by edgeseg init --preset {result.preset}: for {use}.",
        "# Run it: edgeseg pipeline RECIPE. All keys and their ranges: docs/reference/recipe.md",
        *(f"# Note: {line}" for warning in result.warnings for line in textwrap.wrap(warning, WIDTH)),
        "",
    ]
    section = ""
    for choice in result.choices:
        own, _, key = choice.key.rpartition(".")
        if own != section:
            lines += ["", f"[{own}]"]
            section = own
        lines += [f"# {line}" for part in choice.why.split("\n") for line in textwrap.wrap(part, WIDTH)]
        lines.append(f"{key} = {choice.value}")
    return "\n".join(lines) + "\n"


def _check_usable(stats: StatsResult, root: Path) -> None:
    if missing := [split for split in ("train", "val", "test") if split not in stats.splits]:
        raise OptionError(
            f"Dataset {root} has no {' and no '.join(missing)} split.",
            "A recipe learns from train, chooses by val and reports on test. Divide the frames: "
            f"edgeseg data split {root} --out {root.resolve().name}-split",
        )
    train = stats.splits["train"]
    if train.frames < MIN_FRAMES:
        raise OptionError(
            f"{root}/train has {train.frames} frames.",
            f"At least {MIN_FRAMES} are needed to train and to calibrate INT8, some hundreds for a useful net: label "
            f"more, or give train a larger share: edgeseg data split {root} --out DIR",
        )
    for name, part in stats.splits.items():
        present = [c for c, row in part.classes.items() if row.pixels]
        if not present:
            raise OptionError(
                f"No pixel of {root}/{name} is labeled: every mask is all ignore.",
                "Check the masks and the ignore id in classes.txt.",
            )
        if name == "train" and len(present) < 2:
            raise OptionError(
                f"Only the class {present[0]!r} occurs in {root}/train.",
                "A net needs at least two to tell apart; check the masks: edgeseg data show.",
            )


def _warnings(stats: StatsResult) -> Iterator[str]:
    absent = {name: {c for c, row in part.classes.items() if not row.pixels} for name, part in stats.splits.items()}
    nowhere = set.intersection(*absent.values())
    if nowhere:
        yield (
            f"No frame holds {_list(nowhere)}, which cannot be learned: label some, or leave the class out "
            "(classes.txt, or edgeseg data import --map)."
        )
    for name, missing in absent.items():
        if missing - nowhere:
            effect = "cannot be learned" if name == "train" else f"is not measured on {name}"
            yield f"No frame of {name} holds {_list(missing - nowhere)}, which {effect}: edgeseg data split may help."


def _list(found: set[str]) -> str:
    return ", ".join(sorted(found))


def _sizes(split: SplitStats) -> dict[tuple[int, int], int]:
    pairs = {tuple(map(int, size.split("x"))): count for size, count in split.sizes.items()}
    return {(width, height): count for (width, height), count in pairs.items()}


def _name(root: Path) -> str:
    return re.sub(r"[^\w.-]", "-", root.resolve().name, flags=re.ASCII).strip("-._") or "model"


def _data(
    root: Path, out: Path, size: InputSize, train: SplitStats, preset: Preset, preset_name: str
) -> Iterator[Choice]:
    path = Path(os.path.relpath(root.resolve(), out.resolve().parent)).as_posix()
    yield Choice("data.root", _text(path), "relative to this file")
    (width, height), count = size.frame, len(train.sizes)
    what = (
        f"Frames are {width}x{height}" if count == 1 else f"Frames have {count} sizes, {width}x{height} in the middle"
    )
    bound = f"; {preset_name} takes at most {preset.pixels} pixels" if width * height > preset.pixels else ""
    yield Choice(
        "data.size",
        f"[{size.height}, {size.width}]",
        f"Height, width of the input. {what}{bound}. Sides are multiples of 32. Larger finds smaller things, slower.",
    )
    reason = (
        "The proportions of the frames vary: they are kept, and the rest is padded."
        if size.fit == "letterbox"
        else f"All frames have nearly the input's proportions (within {100 * (STRETCHED - 1):.0f} %)."
    )
    mean, std = (" ".join(f"{v:.3f}" for v in values) for values in (train.mean, train.std))
    yield Choice(
        "data.fit",
        _text(size.fit),
        f"{reason}\nNormalization needs no key: it is ImageNet's (0.485 0.456 0.406, std 0.229 0.224 0.225), which "
        f"pretrained encoders expect and batch norms make harmless; this data has {mean}, std {std}.",
    )


def _roles(train: SplitStats, preset: Preset) -> Iterator[Choice]:
    epochs = _epochs(train.frames, preset)
    batch = min(preset.batch, train.frames // 2)
    yield Choice("teacher.arch", '"lite"', "Only convolutions that every runtime has in INT8; predicts at stride 4.")
    yield Choice(
        "teacher.width",
        f"{preset.teacher}",
        "The teacher is not deployed: it may be larger, and the student learns from it, too.\n"
        "Nothing is downloaded: it starts from random weights. Better, with a network, from ImageNet's (Apache-2.0):\n"
        '  encoder = "tu-tf_efficientnet_lite0"\n  weights = "imagenet"\n  encoder_lr = 0.3',
    )
    yield from _training("teacher", train, epochs, batch, preset)
    yield Choice("student.arch", '"lite"', "What is deployed. Others: docs/families.md")
    yield Choice("student.width", f"{preset.student}", "Channels: half the width is about a quarter of the work.")
    yield from _training("student", train, epochs, batch, preset)


def _epochs(frames: int, preset: Preset) -> int:
    return min(200, max(5, math.ceil(preset.steps * preset.batch / frames)))


def _training(role: str, train: SplitStats, epochs: int, batch: int, preset: Preset) -> Iterator[Choice]:
    same = role == "student"
    about = f"{epochs} x {train.frames} frames in batches of {batch}: about {epochs * train.frames // batch} updates"
    yield Choice(f"{role}.epochs", f"{epochs}", "As the teacher's." if same else f"{about}; more frames need fewer.")
    yield Choice(f"{role}.batch", f"{batch}", "As the teacher's." if same else "Less needs less memory.")
    yield Choice(
        f"{role}.lr", "4e-3", "As the teacher's." if same else "For random weights; 1e-3 with a pretrained encoder."
    )
    yield Choice(
        f"{role}.dice", "1.0", "As the teacher's." if same else "Beside the cross-entropy: small classes count as much."
    )
    weights, rarest = class_weights(train), min(
        (row.share, name) for name, row in train.classes.items() if row.pixels
    )  # fmt: skip
    yield Choice(
        f"{role}.class_weights",
        f"[{', '.join(f'{w:g}' for w in weights)}]",
        "As the teacher's."
        if same
        else f"{', '.join(train.classes)}: square roots of median frequency balancing (Eigen and Fergus 2015), at most "
        f"{LARGEST_WEIGHT:g}. {rarest[1]} is the rarest with {100 * rarest[0]:.2g} % of the pixels.",
    )
    if any(SIDES.search(name) for name in train.classes):
        yield Choice(f"{role}.flip", "false", "Classes are named left or right: mirrored frames would be wrong.")


def class_weights(train: SplitStats) -> list[float]:
    """Of the cross-entropy: see the top of this file."""
    return [round(min(LARGEST_WEIGHT, math.sqrt(row.weight)), 3) for row in train.classes.values()]


def _later(train: SplitStats, preset: Preset) -> Iterator[Choice]:
    epochs = max(2, _epochs(train.frames, preset) // 4)
    yield Choice("distill.channel", "3.0", "Channel-wise distillation: what helped most on small nets.")
    yield Choice("prune.macs", "0.7", "Share of the multiply-accumulates to keep; 1 prunes nothing.")
    yield Choice("prune.epochs", f"{epochs}", "A quarter of the training's, to recover.")
    frames = min(Quantize().frames, train.frames)
    yield Choice("quantize.frames", f"{frames}", "Of train, to calibrate INT8; 32 to 300 work well.")
    yield Choice("quantize.max_drop", "1.0", "Points of mIoU that INT8 may lose before the pipeline says so.")


def _targets() -> Choice:
    """The recipe's default targets where they run here, else the first that does; the others are named."""
    running = [name for name in names() if not backends.missing(Target.load(name))]
    usual = [entry for entry in Targets().compile if entry.split(":")[0] in running]
    if not running:
        first = Targets().compile[0].split(":")[0]
        raise OptionError(
            f"No target runs on this machine: {backends.missing(Target.load(first))}.",
            "edgeseg targets lists all with what each needs.",
        )
    entries = usual or _entries(Target.load(running[0]))
    others = [name for name in running if name not in {split(entry)[0].name for entry in entries}]
    also = f" Here also run: {', '.join(others)}." if others else ""
    value = f"[{', '.join(map(_text, entries))}]"
    return Choice("targets.compile", value, f"Run on this machine.{also} Other boards: edgeseg targets.")


def _entries(target: Target) -> Sequence[str]:
    return [f"{target.name}:{p}" for p in ("fp32", "fp16", "int8") if p in target.precisions]


def _text(value: str) -> str:
    """A basic string of TOML: JSON's escapes are among its own."""
    return json.dumps(value)

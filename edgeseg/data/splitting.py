"""Split: the frames of a dataset divided anew into train, val and test, or into folds.

Frames of one group, and near copies of each other, stay together; groups are placed by what classes they hold. The
source is only read. Beside the splits lies split.csv, which says where every frame went.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data import groups as grouping
from edgeseg.data.dataset import SPLITS, Dataset, open_splits, require_files
from edgeseg.data.shards import PARTS
from edgeseg.data.stats import label_counts
from edgeseg.data.stratify import stratify
from edgeseg.errors import FileError, OptionError
from edgeseg.files import replacing, write_bytes
from edgeseg.records import Record

LIST = "split.csv"
COPIES = ("join", "report", "ignore")
Pairs = list[tuple[int, int]]
Progress = Callable[[int, int], None]
FindCopies = Callable[[Sequence[tuple[Dataset, int]], Progress], Pairs]


@dataclass(frozen=True)
class Frame:
    """A frame of the source, and the name it gets."""

    part: Dataset
    index: int
    name: str

    @property
    def image(self) -> Path:
        return self.part.images[self.index]


@dataclass(frozen=True)
class Plan:
    """How to split. `shares`: of train, val and test, or of train and val, and test stays as it is. `folds`: above 0,
    so many datasets whose val is another part each. `pattern`, `table` and `column`, or `blocks`: what makes a group
    (see groups); otherwise the names do. `copies`: near copies are joined to one group,
    only reported, or not looked for. `link`: hard links instead of copies."""

    shares: tuple[float, ...] = (0.8, 0.1, 0.1)
    folds: int = 0
    pattern: str = ""
    table: Path | None = None
    column: str = ""
    blocks: int = 0
    seed: int = 0
    copies: str = "join"
    link: bool = False

    @property
    def keeps_test(self) -> bool:
        return self.folds > 0 or len(self.shares) == 2


@dataclass(frozen=True)
class ClassContent:
    """`frames` that hold a class, and its `share` of the labeled pixels."""

    frames: int
    share: float


@dataclass(frozen=True)
class SplitContent:
    frames: int
    groups: int
    classes: dict[str, ClassContent]


@dataclass(frozen=True, kw_only=True)
class SplitResult(Record):
    """`grouped_by`: what made the groups. `copies`: pairs of near copies; `leaks`: those that are in two splits all the
    same. `splits`: by name, of folds FOLD/NAME."""

    KIND = "split"

    frames: int
    groups: int
    grouped_by: str
    copies: int
    leaks: tuple[str, ...]
    seed: int
    splits: dict[str, SplitContent]


def check_shares(shares: Sequence[float]) -> tuple[float, ...]:
    """Two or three shares with the sum 1; they may also be percentages."""
    total = sum(shares)
    whole = next((w for w in (1, 100) if abs(total - w) < 1e-6 * w), 0)
    if len(shares) not in (2, 3) or not whole or not all(0 < share < whole for share in shares):
        raise OptionError(
            f"The shares are {', '.join(f'{s:g}' for s in shares)}.",
            "Expected those of train, val and test, or of train and val, with the sum 1, like 0.8,0.1,0.1.",
        )
    return tuple(share / total for share in shares)


def split_dataset(
    root: Path,
    out: Path,
    plan: Plan,
    find_copies: FindCopies | None = None,
    progress: Progress = lambda done, total: None,
) -> SplitResult:
    """Write the dataset `out`, or OUT/fold1 and so on; `out` equal to `root` replaces it when all is written.

    `find_copies`: the pairs of frames that show the same picture; without it none are known. FileError for a dataset
    that cannot be read or written, OptionError for a plan that cannot be followed. Nothing is left when it fails.
    """
    shares = (1 / plan.folds,) * plan.folds if plan.folds else check_shares(plan.shares)
    _check_places(root, out, plan)
    if plan.link or root.resolve() == out.resolve():
        require_files(root, f"data split {'--link' if plan.link else '--in-place'}")
    parts = open_splits(root)
    frames = _named([(part, i) for part in parts for i in range(len(part))])
    kept = [f for f in frames if plan.keeps_test and f.part.split == "test"]
    pool = [f for f in frames if not (kept and f.part.split == "test")]
    passes = 1 + (find_copies is not None) + (plan.folds or 1)
    step = _steps(progress, passes * len(frames))
    pairs = find_copies([(f.part, f.index) for f in pool + kept], lambda done, total: step()) if find_copies else []
    groups, grouped_by = _groups(pool, plan)
    inside = [(a, b) for a, b in pairs if b < len(pool)]
    groups = grouping.join(groups, inside) if plan.copies == "join" else groups
    pixels = _pixels(pool + kept, step)
    assigned = stratify(_content(groups, pixels[: len(pool)]), shares, plan.seed)
    number = dict(zip(dict.fromkeys(groups), assigned))
    layout = _layout([number[group] for group in groups], len(kept), plan)
    leaks = [
        _describe(pool + kept, pair, split) for split in layout for pair in pairs if split[pair[0]] != split[pair[1]]
    ]
    result = SplitResult(
        frames=len(frames),
        groups=len(number),
        grouped_by=grouped_by,
        copies=len(pairs),
        leaks=tuple(dict.fromkeys(leaks)),
        seed=plan.seed,
        splits=_summary(layout, groups, pixels, parts[0].classes.names),
    )
    _write(root, out, pool + kept, layout, [*groups, *("test" for _ in kept)], plan, step)
    return result


def _steps(progress: Progress, total: int) -> Callable[[], None]:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(min(done, total), total)

    return step


def _check_places(root: Path, out: Path, plan: Plan) -> None:
    source, target = root.resolve(), out.resolve()
    if source == target and not plan.folds:
        return
    if source in (target, *target.parents) or target in source.parents:
        raise OptionError(f"{out} is inside of {root}, or the other way round.", "Choose another output folder.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileError(f"{out} exists and is not empty.", "Choose another output folder, or remove it.")


def _named(found: Sequence[tuple[Dataset, int]]) -> list[Frame]:
    """Frames with names that differ, also where case does not count: those of two splits get the split before it."""
    counts = Counter(part.images[i].stem.casefold() for part, i in found)
    used: set[str] = set()
    frames = []
    for part, i in found:
        stem = part.images[i].stem
        plain = stem if counts[stem.casefold()] == 1 else f"{part.split}-{stem}"
        name, number = plain, 1
        while name.casefold() in used:
            number += 1
            name = f"{plain}-{number}"
        used.add(name.casefold())
        frames.append(Frame(part, i, name))
    return frames


def _groups(frames: Sequence[Frame], plan: Plan) -> tuple[list[str], str]:
    """The group of each frame, and what made it."""
    names, unique = [frame.image.stem for frame in frames], [frame.name for frame in frames]
    if plan.pattern:
        return grouping.by_pattern(names, plan.pattern), f"pattern {plan.pattern}"
    if plan.table:
        return grouping.by_table(names, plan.table, plan.column), f"table {plan.table}"
    if plan.blocks:
        return grouping.by_blocks(unique, plan.blocks), f"blocks of {plan.blocks} consecutive frames"
    return grouping.by_names(unique)


def _pixels(frames: Sequence[Frame], step: Callable[[], None]) -> NDArray[np.int64]:
    """[N, C]: the labeled pixels of each class."""
    rows = []
    for frame in frames:
        rows.append(label_counts(frame.part.mask(frame.index), frame.part))
        step()
    return np.array(rows)


def _content(groups: Sequence[str], pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """[groups, 1 + 2 C]: the frames of each group, in the order they come, its frames with each class, and those with
    much of it: a share of the frame above the class's median, for nearly every frame may hold a bit of everything."""
    order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    shares = pixels / np.maximum(1, pixels.sum(1, keepdims=True))
    medians = [np.median(column[column > 0]) if column.any() else 0.0 for column in shares.T]
    labels = np.column_stack([np.ones(len(groups)), shares > 0, shares > medians])
    content = np.zeros((len(order), labels.shape[1]))
    np.add.at(content, [order[group] for group in groups], labels)
    return content


def _layout(placed: Sequence[int], kept: int, plan: Plan) -> list[list[str]]:
    """The split of each frame; of folds, one list each with FOLD/NAME."""
    if not plan.folds:
        return [[SPLITS[i] for i in placed] + ["test"] * kept]
    return [
        [f"fold{k + 1}/{'val' if i == k else 'train'}" for i in placed] + [f"fold{k + 1}/test"] * kept
        for k in range(plan.folds)
    ]


def _describe(frames: Sequence[Frame], pair: tuple[int, int], split: Sequence[str]) -> str:
    a, b = pair
    return f"{frames[a].name} ({split[a]}) looks like {frames[b].name} ({split[b]})"


def _summary(
    layout: Sequence[Sequence[str]], groups: Sequence[str], pixels: NDArray[np.int64], names: Sequence[str]
) -> dict[str, SplitContent]:
    parts = {}
    for split in layout:
        for name in sorted(set(split), key=lambda n: SPLITS.index(n.rpartition("/")[2])):
            rows = [i for i, own in enumerate(split) if own == name]
            counts = pixels[rows].sum(0)
            content = {
                c: ClassContent(int((pixels[rows, k] > 0).sum()), float(counts[k] / max(1, counts.sum())))
                for k, c in enumerate(names)
            }
            members = {groups[i] for i in rows if i < len(groups)}
            parts[name] = SplitContent(len(rows), len(members) or len(rows), content)
    return parts


def _write(
    root: Path,
    out: Path,
    frames: Sequence[Frame],
    layout: Sequence[Sequence[str]],
    groups: Sequence[str],
    plan: Plan,
    step: Callable[[], None],
) -> None:
    in_place = root.resolve() == out.resolve()
    if in_place:
        _check_all_known(root, frames)
    with replacing(out, "classes.txt" if in_place else "no folder has this", durable=in_place) as work:
        for split in layout:
            for frame, name in zip(frames, split):
                _store(frame, work / name, plan.link or in_place)
                step()
            folder = work / split[0].rpartition("/")[0]
            _carry_over(root, folder)
            write_bytes(folder / LIST, _list(frames, split, groups).encode(), durable=False)


def _store(frame: Frame, folder: Path, link: bool) -> None:
    for kind, source in zip(PARTS, frame.part.paths(frame.index)):
        target = folder / kind / f"{frame.name}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if frame.part.shards:
            write_bytes(target, frame.part.read(kind, frame.index), durable=False)
        elif not (link and _linked(source.resolve(), target)):
            shutil.copyfile(source, target)


def _linked(source: Path, target: Path) -> bool:
    """Whether a hard link could be made; not between disks, nor on every file system."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def _carry_over(root: Path, folder: Path) -> None:
    """The class list and whatever else lies beside it: the source, the license."""
    for file in root.iterdir():
        if file.is_file() and file.name != LIST:
            shutil.copyfile(file, folder / file.name)


def _check_all_known(root: Path, frames: Sequence[Frame]) -> None:
    """FileError for anything that replacing `root` would lose."""
    masks = {root / f.part.split / part / f"{f.image.stem}.png" for f in frames for part in PARTS[1:]}
    own = masks | {frame.image for frame in frames}
    other = [p for p in sorted(root.rglob("*")) if not p.is_dir() and p.parent != root and p not in own]
    if other:
        raise FileError(
            f"{root} holds {len(other)} files that belong to no frame, first {other[0]}.",
            "They would be lost: move them elsewhere, or split into another folder with --out.",
        )


def _list(frames: Sequence[Frame], split: Sequence[str], groups: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "group", "split", "source"))
    for frame, name, group in sorted(zip(frames, split, groups), key=lambda row: (row[1], row[0].name)):
        source = frame.image.relative_to(frame.part.root).as_posix()
        writer.writerow((f"{frame.name}{frame.image.suffix}", group, name.rpartition("/")[2], source))
    return text.getvalue()

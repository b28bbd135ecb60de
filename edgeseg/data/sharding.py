"""Sharding: a dataset of files becomes one of tar archives (shards.py), the same bytes each time.

OUT/classes.txt and what else lies beside it, OUT/{train,val,test}/NUMBER.tar and their indexes. Frames come in a random
order that is always the same, so that a shard is a sample of its split. OUT appears when everything is written; an
interrupted run leaves .OUT.sharding beside it, whose whole shards the next run keeps.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.data.dataset import Dataset, open_files
from edgeseg.data.shards import INDEX, PARTS, Member, Shard, ShardContent, ShardFrame, ShardIndex
from edgeseg.data.stats import label_counts
from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.files import alone, cannot_write, sha256, sync_folder, write_bytes
from edgeseg.records import Record

SEED = 0
SMALLEST = 1 << 16  # bytes of a shard
PLAN, LOCK = "plan.json", ".lock"
BLOCK = 512  # bytes, of a tar archive (POSIX.1-2001, pax)
SUFFIXES = {"masks": ".mask.png", "instances": ".instances.png"}


@dataclass(frozen=True, kw_only=True)
class ShardResult(Record):
    """`frames`, `splits`: written. `shards`, `size`: how many archives of how many bytes together. `kept`: of them,
    those that an interrupted run had written."""

    KIND = "sharding"

    frames: int
    splits: dict[str, int]
    classes: tuple[str, ...]
    shards: int
    size: int
    kept: int


def write_shards(
    root: Path, out: Path, size: int = 256 << 20, progress: Callable[[int, int], None] = lambda done, total: None
) -> ShardResult:
    """Write the dataset `root` into `out`, in shards of about `size` bytes.

    FileError for an `out` that exists, a frame that cannot be read or two of one name; OptionError for a dataset that
    is in shards already, a `size` that is too small, and where another run is writing `out`.
    """
    out = out.resolve()
    if size < SMALLEST:
        raise OptionError(f"A shard of {size} bytes is too small.", f"Expected at least {SMALLEST}; 256M is usual.")
    if out.exists():
        raise FileError(f"{out} exists.", "Choose another output folder, or remove it.")
    parts = open_files(root, "data shard")
    planned = {part.split: _divide(part, size) for part in parts}
    work = out.with_name(f".{out.name}.sharding")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with alone(work / LOCK, OptionError(f"Another run is writing {out}.", "Wait until it has ended.")):
            _keep_only_of(work, _plan(root, parts, size))
            result = _write(root, parts, planned, work, progress)
            for name in (PLAN, LOCK):
                (work / name).unlink()
            work.rename(out)
            sync_folder(out.parent)
    except OSError as error:
        raise cannot_write(out, error) from error
    return result


def _divide(part: Dataset, size: int) -> list[list[int]]:
    """The frames of each shard, so that its files have at most `size` bytes if there are several."""
    stems: dict[str, Path] = {}
    for image in part.images:
        if (other := stems.setdefault(image.stem, image)) != image:
            raise FileError(f"{other} and {image.name} share one mask.", "Rename one; edgeseg data check finds all.")
    shards: list[list[int]] = []
    left = 0
    for index in np.random.default_rng(SEED).permutation(len(part)).tolist():
        own = sum(path.stat().st_size + 2 * BLOCK for path in part.paths(index))
        if not shards or own > left:
            shards.append([])
            left = size
        shards[-1].append(index)
        left -= own
    return shards


def _plan(root: Path, parts: list[Dataset], size: int) -> str:
    """What the shards depend on: names, sizes and times of all files, without reading them."""
    total = hashlib.sha256(parts[0].classes.text().encode())
    for part in parts:
        for index in range(len(part)):
            for path in part.paths(index):
                state = path.stat()
                total.update(f"{path.relative_to(root)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return json.dumps({"files": total.hexdigest(), "size": size})


def _keep_only_of(work: Path, plan: str) -> None:
    """Empty `work` unless it is of the same plan."""
    path = work / PLAN
    if path.is_file() and path.read_text() == plan:
        return
    for other in work.iterdir():
        if other.is_dir():
            shutil.rmtree(other)
        elif other.name != LOCK:
            other.unlink()
    write_bytes(path, plan.encode())


def _write(
    root: Path,
    parts: list[Dataset],
    planned: dict[str, list[list[int]]],
    work: Path,
    progress: Callable[[int, int], None],
) -> ShardResult:
    total, done, size, kept = sum(map(len, parts)), 0, 0, 0

    def step(frames: int = 1) -> None:
        nonlocal done
        done += frames
        progress(done, total)

    for part in parts:
        shards = []
        for number, frames in enumerate(planned[part.split]):
            path = work / part.split / f"{number:06}.tar"
            content = _finished(path)
            if content is not None:
                kept += 1
                step(len(frames))
            else:
                content = _write_shard(part, frames, path, step)
            shards.append(Shard(path.name, len(frames), content.size, content.sha256))
            size += content.size
        index = ShardIndex(split=part.split, frames=len(part), classes=part.classes.names, shards=tuple(shards))
        index.save(work / part.split / INDEX)
    for file in root.iterdir():
        if file.is_file():  # the class list, the datasheet, tables of groups
            shutil.copyfile(file, work / file.name)
    return ShardResult(
        frames=total,
        splits={part.split: len(part) for part in parts},
        classes=parts[0].classes.names,
        shards=sum(map(len, planned.values())),
        size=size,
        kept=kept,
    )


def _finished(path: Path) -> ShardContent | None:
    """What a shard holds that an interrupted run had written whole: its index comes last."""
    try:
        content = ShardContent.load(path.with_suffix(".json"))
        return content if content.sha256 == sha256(path) else None
    except (EdgesegError, OSError):
        return None


def _write_shard(part: Dataset, frames: list[int], path: Path, step: Callable[[], None]) -> ShardContent:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    rows = []
    with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
        for index in frames:
            rows.append(_add(archive, part, index))
            step()
    content = ShardContent(size=temporary.stat().st_size, sha256=sha256(temporary), frames=tuple(rows))
    temporary.replace(path)
    sync_folder(path.parent)
    content.save(path.with_suffix(".json"))
    return content


def _add(archive: tarfile.TarFile, part: Dataset, index: int) -> ShardFrame:
    """Append a frame, read and checked as training would."""
    name = part.images[index].name
    _, mask = part[index]
    part.instances(index)
    members = dict(_members(archive, part, index))
    return ShardFrame(
        name=name,
        height=mask.shape[0],
        width=mask.shape[1],
        pixels=tuple(label_counts(mask, part).tolist()),
        image=members["images"],
        mask=members["masks"],
        instances=members.get("instances"),
    )


def _members(archive: tarfile.TarFile, part: Dataset, index: int) -> Iterator[tuple[str, Member]]:
    image = part.images[index]
    key = image.stem.replace("%", "%25").replace(".", "%2E")  # WebDataset takes what follows the first dot as the kind
    for kind in PARTS[: len(part.paths(index))]:
        data = part.read(kind, index)
        entry = tarfile.TarInfo(key + SUFFIXES.get(kind, image.suffix.lower()))
        entry.size, entry.mode = len(data), 0o644  # no time, no owner: the same bytes each time
        archive.addfile(entry, io.BytesIO(data))
        start = archive.offset - -(-len(data) // BLOCK) * BLOCK
        yield kind, Member(start, len(data), hashlib.sha256(data).hexdigest())

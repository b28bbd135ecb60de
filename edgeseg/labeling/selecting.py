"""The frames of a collection that are worth labeling most, as a dataset of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeseg.data.dataset import open_files
from edgeseg.errors import FileError


@contextmanager
def selected(root: Path, count: int | None) -> Iterator[Path]:
    """The dataset `root`, or, with `count`, a temporary copy of its `count` frames of most worth (collected.jsonl)."""
    if count is None:
        yield root
        return
    worth = worths(root)
    frames = [(part.split, image) for part in open_files(root, "label") for image in part.images]
    chosen = sorted(frames, key=lambda frame: (-worth.get(frame[1].stem, 0.0), frame[1].stem))[:count]
    with TemporaryDirectory(dir=root.absolute().parent, prefix=f".{root.name}.") as name:
        copy = Path(name) / root.name
        for split, image in chosen:
            mask = root / split / "masks" / f"{image.stem}.png"
            for path in (image, mask):
                place = copy / path.relative_to(root)
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    shutil.copyfile(path, place)
                except OSError as error:
                    raise FileError(
                        f"{path} cannot be copied: {error.strerror}.", "Was it removed meanwhile?"
                    ) from error
        shutil.copyfile(root / "classes.txt", copy / "classes.txt")
        yield copy


def worths(root: Path) -> dict[str, float]:
    """Frame name -> worth, of a folder that `edgeseg collect` wrote; empty for another dataset."""
    return {name: sum(why.values()) for name, why in reasons(root).items()}


def reasons(root: Path) -> dict[str, dict[str, float]]:
    """Frame name -> why it was kept, of a folder that `edgeseg collect` wrote; empty for another dataset."""
    found: dict[str, dict[str, float]] = {}
    with suppress(FileNotFoundError):
        for line in (root / "collected.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # a line that was left unfinished
                row = json.loads(line)
                found[str(row["name"])] = {str(reason): float(value) for reason, value in row["why"].items()}
    return found

"""The frames of a collection that are worth labeling most, as a dataset of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeseg.data.dataset import open_files
from edgeseg.errors import FileError, OptionError, did_you_mean
from edgeseg.labeling import records


@contextmanager
def selected(root: Path, count: int | None, only: str = "") -> Iterator[Path]:
    """The dataset `root`, or, with `count`, a temporary copy of its `count` frames of most worth (collected.jsonl).

    `only`: those that were kept for this reason; OptionError where there are none.
    """
    if count is None and not only:
        yield root
        return
    worth, why = worths(root), reasons(root)
    frames = [(part.split, image) for part in open_files(root, "label") for image in part.images]
    if only:
        frames = [frame for frame in frames if only in why.get(frame[1].stem, {})]
        if not frames:
            raise OptionError(
                f"No frame of {root} was kept for the reason {only!r}.",
                did_you_mean(only, {reason for reasons in why.values() for reason in reasons}),
            )
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
        records.carry(root, copy)
        yield copy


def worths(root: Path) -> dict[str, float]:
    """Frame name -> worth, of a folder that `edgeseg collect` wrote; empty for another dataset."""
    return {name: sum(why.values()) for name, why in reasons(root).items()}


def reasons(root: Path) -> dict[str, dict[str, float]]:
    """Frame name -> why it was kept, of a folder that `edgeseg collect` wrote; empty for another dataset."""
    return {name: frame.why for name, frame in records.read(root).items()}

"""Import: labels in any known format become a dataset that recipes and `edgeseg eval` read.

OUT/{train,val,test}/{images,masks} and OUT/classes.txt; images are copied as they are, masks become PNGs of class ids.
Where the source tells objects apart, OUT/SPLIT/instances has a PNG of 16 bits with their ids.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgeseg.data import archive, formats
from edgeseg.data.anonymizing import Anonymizer
from edgeseg.data.dataset import SPLITS, Classes, Dataset
from edgeseg.data.datasheet import carry_datasheet
from edgeseg.data.formats import LabeledFrame, Labels
from edgeseg.data.frame_map import each_frame
from edgeseg.data.labelmap import LabelMap
from edgeseg.data.mapping import Mapping, read_mapping
from edgeseg.data.store import check_image, store_image
from edgeseg.errors import EdgesegError, FileError, MissingPackage, OptionError
from edgeseg.files import replacing, write_bytes
from edgeseg.image_header import ImageHeader
from edgeseg.images import IMAGE_SUFFIXES, read_image, turn, write_image
from edgeseg.records import Record
from edgeseg.spec import Rgb

log = logging.getLogger(__name__)
SHARES = (0.8, 0.1, 0.1)  # of frames whose split nobody names
LONGEST_NAME = 180  # bytes
JPEG_SUFFIXES = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Problem:
    """A frame that was left out, and why."""

    file: str
    what: str


@dataclass(frozen=True, kw_only=True)
class ImportResult(Record):
    """`frames`: written, of each split. `losses`: what the format holds and a class map cannot, counted. `colors`: of
    the classes, where they are the colors that the masks use. `instances`: frames that tell objects apart. `blurred`:
    the frames of each class that was hidden, and the number of faces. `datasheet`: whether the source has one."""

    KIND = "import"

    format: str
    classes: tuple[str, ...]
    frames: int
    splits: dict[str, int]
    losses: tuple[str, ...]
    problems: tuple[Problem, ...]
    colors: tuple[Rgb, ...] = ()
    instances: int = 0
    blurred: dict[str, int] = field(default_factory=dict)
    datasheet: bool = False


def import_dataset(
    source: Path,
    out: Path,
    format_name: str = "auto",
    strict: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    class_map: Path | None = None,
    colors: Path | None = None,
    blur: Sequence[str] = (),
    face_model: Path | None = None,
    ray: str = "",
) -> ImportResult:
    """Write the dataset `out`; nothing is left behind when it fails.

    `source`: a file, folder or archive. `class_map`: see mapping. `colors`: a file with the classes' colors, for masks.
    `blur`, `face_model`: classes of the source, and a model of faces, that images are written without (anonymizing).
    `ray`: where the frames are written, see frame_map.
    Frames whose split the format does not say are divided in the order of their names, 80 : 10 : 10, so that
    neighboring frames of a video stay together. A frame that cannot be read is left out and named in the result, or,
    with `strict`, is an error. FileError where nothing can be read or written.
    """
    with archive.opened(source, out) as folder:
        try:
            name, root, labels = _read(folder, format_name, colors)
            labels = replace(labels, classes=_storable(labels.classes))
            mapping = read_mapping(class_map, labels.classes) if class_map else None
            anonymizer = Anonymizer.of(labels.classes, blur, face_model)
            frames = _with_names(_with_splits(sorted(labels.frames, key=lambda frame: (frame.split, frame.name))))
            with replacing(out, "classes.txt", durable=False) as work:
                stated = _carry_datasheet(root, folder, work)
                result = _write_all(name, labels, frames, _Writer(work, mapping, anonymizer), strict, progress, ray)
        except FileError as error:
            inside, named = str(folder), str(source)  # not where an archive was unpacked
            raise FileError(error.what.replace(inside, named), error.hint.replace(inside, named)) from error
        problems = tuple(
            Problem(*(t.replace(str(folder), str(source)) for t in (p.file, p.what))) for p in result.problems
        )
        return replace(result, problems=problems, datasheet=stated)


def _carry_datasheet(root: Path, folder: Path, out: Path) -> bool:
    """Have the datasheet that lies beside the labels in `root`, or above them in `folder`, in `out`, too."""
    outermost = folder if folder.is_dir() else folder.parent
    around = (place for place in (root, *root.parents) if place == outermost or outermost in place.parents)
    return any(carry_datasheet(place, out) for place in around if place.is_dir())


def _read(folder: Path, format_name: str, colors: Path | None) -> tuple[str, Path, Labels]:
    """The name of the format, where the labels begin, and the labels."""
    name, root = formats.detect(folder) if format_name == "auto" else (format_name, folder)
    module = formats.get(name)
    if format_name != "auto" and not module.probe(root):
        root = formats.only_folder(root) or root
    if colors is None:
        return name, root, module.read(root)
    if not hasattr(module, "read_with_colors"):
        takers = [n for n in formats.names() if hasattr(formats.get(n), "read_with_colors")]
        raise OptionError(f"--colors is not for {name}.", f"It is for: {', '.join(takers)}.")
    return name, root, module.read_with_colors(root, colors)


@dataclass(frozen=True)
class _Written:
    """`losses`, `blurred`: of one frame. `instances`: whether it tells objects apart."""

    losses: Counter[str]
    blurred: Counter[str]
    instances: bool


@dataclass(frozen=True)
class _Writer:
    """Writes frames into `out`, one by one, in any order and process."""

    out: Path
    mapping: Mapping | None
    anonymizer: Anonymizer | None

    def attempt(self, frame: LabeledFrame) -> _Written | EdgesegError:
        try:
            return self.write(frame)
        except EdgesegError as error:
            return error

    def write(self, frame: LabeledFrame) -> _Written:
        if frame.data is not None:
            return self._write_embedded(frame)
        folder = self.out / frame.split
        if not frame.image.exists():
            raise FileError(
                f"Image {frame.image} does not exist.",
                "Expected the images where the labels say, beside the labels, or in a folder images/ there.",
            )
        header = check_image(frame.image)
        drawn = frame.mask()
        labels = _fitted(drawn if isinstance(drawn, LabelMap) else LabelMap(drawn), frame, header)
        image = read_image(frame.image)
        hidden, found = self.anonymizer.apply(image, labels.classes) if self.anonymizer else (None, Counter[str]())
        labels = self.mapping.apply(labels) if self.mapping else labels
        place = folder / "images" / frame.name
        if hidden is None:
            store_image(frame.image, place, image)
        else:  # encoded anew: nothing of the file may be left, not even a thumbnail
            suffix = ".jpg" if frame.image.suffix.lower() in JPEG_SUFFIXES else ".png"
            write_image(place.with_name(frame.name + suffix), hidden)
        write_image(folder / "masks" / f"{frame.name}.png", labels.classes)
        if labels.instances is not None:
            write_image(folder / "instances" / f"{frame.name}.png", labels.instances)  # type: ignore[arg-type]
        return _Written(labels.losses, found, labels.instances is not None)

    def _write_embedded(self, frame: LabeledFrame) -> _Written:
        """A frame whose image is part of its labels: it becomes a file first."""
        assert frame.data is not None
        data = frame.data()
        suffix = next((s for s, start in ((".png", b"\x89PNG"), (".jpg", b"\xff\xd8"), (".bmp", b"BM")) if
                       data.startswith(start)), frame.image.suffix.lower())  # fmt: skip
        if suffix not in IMAGE_SUFFIXES:
            raise FileError(
                f"The image in {frame.image} has an unknown format.", f"Expected: {', '.join(IMAGE_SUFFIXES)}."
            )
        place = self.out / frame.split / f".{frame.name}{suffix}"
        try:
            write_bytes(place, data)
            return self.write(replace(frame, image=place, data=None))
        finally:
            place.unlink(missing_ok=True)


def _write_all(
    name: str,
    labels: Labels,
    frames: Sequence[LabeledFrame],
    writer: _Writer,
    strict: bool,
    progress: Callable[[int, int], None],
    ray: str,
) -> ImportResult:
    classes = writer.mapping.classes if writer.mapping else labels.classes
    write_bytes(writer.out / "classes.txt", classes.text().encode())
    problems: list[Problem] = []
    first: EdgesegError | None = None
    counts, losses, blurred, instances = dict.fromkeys(SPLITS, 0), Counter[str](), Counter[str](), 0
    for done, (frame, written) in enumerate(zip(frames, each_frame(writer.attempt, frames, ray)), 1):
        if isinstance(written, _Written):
            counts[frame.split] += 1
            losses += written.losses
            blurred += written.blurred
            instances += written.instances
        elif strict or isinstance(written, MissingPackage):
            raise written
        else:
            problems.append(Problem(str(frame.image), written.what))
            first = first or written
        progress(done, len(frames))
    if not any(counts.values()):
        what, hint = (first.what, first.hint) if first else ("there is none", "Check the path.")
        raise FileError(f"No frame can be imported: {what}", hint or "Fix it and import again.")
    for split in (split for split, count in counts.items() if count):
        Dataset.open(writer.out, split)
    return ImportResult(
        format=name,
        classes=classes.names,
        frames=sum(counts.values()),
        splits=counts,
        losses=(*labels.losses, *(f"{what}: {count}" for what, count in sorted(losses.items()))),
        problems=tuple(problems),
        colors=labels.classes.palette if labels.from_colors and not writer.mapping else (),
        instances=instances,
        blurred=dict(blurred),
    )


def _fitted(labels: LabelMap, frame: LabeledFrame, header: ImageHeader) -> LabelMap:
    """The labels in the upright image's geometry; FileError where their size, or how they are turned, is not its."""
    stored = (header.height, header.width)
    upright = stored[::-1] if header.orientation >= 5 else stored
    shape = labels.classes.shape
    if shape not in (stored, upright):
        raise FileError(
            f"Image {frame.image} is {upright[1]}x{upright[0]}, its labels are for {shape[1]}x{shape[0]}.",
            "Both must have the same size; export the labels again.",
        )
    if header.orientation == 1 or (shape == upright and (frame.upright or stored != upright)):
        return labels
    if stored == upright:
        raise FileError(
            f"Image {frame.image} has EXIF orientation {header.orientation}, and its labels may be turned or not.",
            "Store the image upright (mogrify -auto-orient), or remove the tag if the labels fit the stored pixels.",
        )
    instances = labels.instances
    if instances is not None:
        instances = turn(instances, header.orientation)  # type: ignore[arg-type, assignment]
    return LabelMap(turn(labels.classes, header.orientation), instances, labels.losses)


def _with_splits(frames: Sequence[LabeledFrame]) -> list[LabeledFrame]:
    """Every frame with a split."""
    unnamed = [i for i, frame in enumerate(frames) if not frame.split]
    ends = np.round(np.cumsum(SHARES) * len(unnamed)).astype(int)
    split_of = {i: SPLITS[int(np.searchsorted(ends, place, side="right"))] for place, i in enumerate(unnamed)}
    return [replace(f, split=split_of[i]) if i in split_of else f for i, f in enumerate(frames)]


def _with_names(frames: Sequence[LabeledFrame]) -> list[LabeledFrame]:
    """Every frame with a name that a file can have, and that differs from the others also where case does not count."""
    used: set[tuple[str, str]] = set()
    renamed = []
    for frame in frames:
        plain = re.sub(r"[^\w.-]", "_", unicodedata.normalize("NFC", frame.name))
        plain = plain.encode()[:LONGEST_NAME].decode(errors="ignore").lstrip(".") or "frame"
        name, number = plain, 1
        while (frame.split, name.casefold()) in used:
            number += 1
            name = f"{plain}-{number}"
        used.add((frame.split, name.casefold()))
        renamed.append(replace(frame, name=name))
    return renamed


def _storable(classes: Classes) -> Classes:
    """With names that a line of classes.txt can hold, and that differ."""
    names: list[str] = []
    for name in classes.names:
        plain = " ".join(re.sub(r"[#\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", name).split()) or "class"
        if plain == "(id" or re.fullmatch(r"\(id \d+ = ignore\)", plain):
            plain = "class"
        unique, number = plain, 1
        while unique in names:
            number += 1
            unique = f"{plain} ({number})"
        names.append(unique)
    return replace(classes, names=tuple(names))

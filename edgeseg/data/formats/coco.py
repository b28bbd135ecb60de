"""COCO JSON (https://cocodataset.org/#format-data): instances and stuff, as polygons and both kinds of RLE.

    SRC.json, or a folder with one such file, or one for each split (instances_train2017.json ...), also in
    annotations/; images beside it, in images/, SPLIT/, in the folder above, or in the only folder that holds any

Every category becomes a class in the order of its id, after `background` (0), which is what nothing covers. Later
annotations cover earlier ones. A crowd (iscrowd) counts as its category and is no object; nor is a category with
isthing = 0. Polygons are drawn as pycocotools draws them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from edgeseg.data.dataset import Classes
from edgeseg.data.formats import KEPT, Frame, LabeledFrame, Labels, _coco, _files
from edgeseg.data.labelmap import Canvas, LabelMap
from edgeseg.errors import FileError
from edgeseg.files import require_file
from edgeseg.geometry import rle

TITLE = "COCO JSON"
OBJECTS = KEPT
HINT = "Expected a file with images, annotations and categories."


class CocoImage(msgspec.Struct, gc=False):
    id: int | str
    file_name: str
    height: int
    width: int


class CocoCategory(msgspec.Struct, gc=False):
    id: int | str
    name: str
    isthing: int | bool = 1


class CocoAnnotation(msgspec.Struct, gc=False):
    image_id: int | str
    category_id: int | str
    segmentation: msgspec.Raw = msgspec.Raw(b"null")  # decoded when it is drawn: a slice of the file until then
    iscrowd: int | bool = 0
    keypoints: msgspec.Raw = msgspec.Raw(b"null")


class Coco(msgspec.Struct):
    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[CocoAnnotation] = []


def probe(source: Path) -> bool:
    return bool(_documents(source))


def read(source: Path) -> Labels:
    found = _documents(source)
    if not found:
        raise _files.not_this(source, "COCO JSON", HINT)
    documents = {path: _files.read_document(path, Coco) for path in found}
    things: dict[str, bool] = {}
    for coco in documents.values():
        for category in sorted(coco.categories, key=lambda c: (isinstance(c.id, str), c.id)):
            things.setdefault(category.name, category.isthing != 0)
    classes, ids = _files.classes_of(things, str(found[0]))
    frames = [frame for path, coco in documents.items() for frame in _frames(source, path, coco, ids, things)]
    return Labels(classes, frames, tuple(_losses(list(documents.values()))))


def _documents(source: Path) -> list[Path]:
    """The JSON files of COCO that `source` is or holds: one, or one for each split."""
    found = [path for path in _files.json_files(source, "annotations") if _looks_like_coco(path)]
    if len(found) > 1:
        found = [path for path in found if path.name.startswith("instances")] or found
    splits = {_files.split_of(path.stem) for path in found}
    return found if len(found) == len(splits) else []


def _looks_like_coco(path: Path) -> bool:
    keys = _files.keys(path)
    return {"images", "categories"} <= keys and _files.PANOPTIC not in keys


def _frames(
    source: Path, path: Path, coco: Coco, ids: dict[str, int], things: dict[str, bool]
) -> Iterator[LabeledFrame]:
    names = {category.id: category.name for category in coco.categories}
    of_image: dict[int | str, list[CocoAnnotation]] = defaultdict(list)
    for annotation in coco.annotations:
        of_image[annotation.image_id].append(annotation)
    split, top = _coco.document_split(source, path), path.absolute().parent.parent
    places = _coco.image_folders(path, split)
    for image in coco.images:
        place = _files.find_image(image.file_name, *places, within=top)
        draw = partial(_draw, path, place, image, of_image.get(image.id, ()), names, ids, things)
        yield LabeledFrame(_files.without_split(image.file_name), place, draw, split)


def _draw(
    path: Path,
    place: Path,
    image: CocoImage,
    annotations: Sequence[CocoAnnotation],
    names: dict[int | str, str],
    ids: dict[str, int],
    things: dict[str, bool],
) -> LabelMap:
    require_file(place, "Image")
    canvas = Canvas(image.height, image.width, ids)
    for annotation in annotations:
        name = names.get(annotation.category_id)
        if name is None:
            raise FileError(
                f"{path}: an annotation of {image.file_name} has category {annotation.category_id}.",
                "The file lists no such category.",
            )
        owner = None if annotation.iscrowd or not things[name] else object()
        parts = list(_coco.regions(path, image.file_name, image.height, image.width, annotation.segmentation))
        for region in parts:
            canvas.paint(name, region, owner)
        if not parts:
            canvas.lose("annotations without a segmentation (only a box) are left out")
        elif annotation.iscrowd:
            canvas.lose("crowds count as their class, without objects")
    return canvas.finished()


def _losses(documents: Sequence[Coco]) -> Iterator[str]:
    keypoints = sum(bytes(a.keypoints) != b"null" for coco in documents for a in coco.annotations)
    if keypoints:
        yield f"keypoints are left out: {keypoints}"
    for coco in documents:
        if len({category.name for category in coco.categories}) < len(coco.categories):
            yield "categories of the same name are one class"
        known = {image.id for image in coco.images}
        strangers = sum(annotation.image_id not in known for annotation in coco.annotations)
        if strangers:
            yield f"annotations of images that the file does not list: {strangers}"


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Sequence[str]:
    """annotations/instances_SPLIT.json, with RLE, which holds any region; images/SPLIT."""
    writer = _coco.Writer(out, classes)
    for frame in frames:
        image_id = writer.image(frame)
        for _, item in frame.shapes(classes):
            code = {"size": list(frame.size), "counts": rle.coco_text(rle.coco_runs(item.region, *frame.size))}
            common = writer.segment(frame, item)
            writer.annotation(frame.split, {"image_id": image_id, **common, "segmentation": code})
    writer.save("instances")
    return ()

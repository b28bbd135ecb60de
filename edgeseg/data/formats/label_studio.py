"""Label Studio's JSON export (https://labelstud.io/guide/export): a list of tasks.

    SRC.json, or a folder with one such file and the images, also in images/; label_config.xml gives the order of labels

Brushes (Label Studio's own RLE), polygons, rectangles and ellipses in percent of the image; a pixel is inside if its
center is. Of several annotations of a task the first that was not canceled counts. Later regions cover earlier ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np

from edgeseg.data.dataset import Classes
from edgeseg.data.formats import SHAPES, Frame, LabeledFrame, Labels, _files, _label_studio
from edgeseg.data.labelmap import BACKGROUND, IGNORED_LABELS, Canvas, LabelMap
from edgeseg.data.store import store_image
from edgeseg.files import write_bytes
from edgeseg.geometry import rle

TITLE = "Label Studio"
OBJECTS = SHAPES
CONFIG = "label_config.xml"  # of the project
UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file


def probe(source: Path) -> bool:
    return _document(source) is not None


def _document(source: Path) -> Path | None:
    found = [path for path in _files.json_files(source) if {"[]", "data", "annotations"} <= _files.keys(path)]
    return found[0] if len(found) == 1 else None


def read(source: Path) -> Labels:
    path = _document(source)
    if path is None:
        raise _files.not_this(source, "an export of Label Studio", "Expected JSON: a list of tasks.")
    tasks = _files.read_document(path, list[msgspec.Raw])
    labels, frames, empty = set[str](), list[tuple[_label_studio.Task, msgspec.Raw]](), 0
    for number, raw in enumerate(tasks):
        task = _files.decode(raw, _label_studio.Task, f"{path}: task {number}")
        if not any(not annotation.was_cancelled for annotation in task.annotations):
            empty += 1
            continue
        labels |= {
            label
            for result in task.chosen
            for label in _label_studio.names(_label_studio.value_of(path, result), result.type)
        }
        frames.append((_label_studio.Task(task.data, file_upload=task.file_upload), raw))
    classes, ids = _files.classes_of([*_listed(path.with_name(CONFIG)), *sorted(labels)], str(path))
    losses = (f"tasks without an annotation are left out: {empty}",) if empty else ()
    return Labels(classes, [_frame(path, task, raw, ids) for task, raw in frames], losses)


def _listed(path: Path) -> list[str]:
    """The labels of the project, in order, if its configuration is there."""
    elements = _files.read_xml(path) if path.is_file() else ()
    return [label.get("value", "") for element in elements for label in element.iter("Label")]


def _frame(path: Path, task: _label_studio.Task, raw: msgspec.Raw, ids: dict[str, int]) -> LabeledFrame:
    top = path.absolute().parent
    name = task.image.rpartition("?d=")[2] if "?d=" in task.image else re.sub(r"^\w+://[^/]*/", "", task.image)
    folders = (top, top / "images")
    image = _files.find_image(name, *folders, within=top)
    if not image.is_file():
        image = _files.find_image(UPLOADED.sub("", name.rpartition("/")[2]), *folders, within=top)
    relative = image.relative_to(top).as_posix()
    draw = partial(_draw, path, image, raw, ids)
    return LabeledFrame(_files.without_split(relative), image, draw, _files.folder_split(relative), upright=True)


def _draw(path: Path, image: Path, raw: msgspec.Raw, ids: dict[str, int]) -> LabelMap:
    task = _files.decode(raw, _label_studio.Task, str(path))
    sized = next((r for r in task.chosen if r.original_width > 0 and r.original_height > 0), None)
    height, width = (sized.original_height, sized.original_width) if sized else _files.upright_size(image)
    canvas = Canvas(height, width, ids)
    for result in task.chosen:
        value = _label_studio.value_of(path, result)
        names = _label_studio.names(value, result.type)
        if names:
            canvas.paint(
                names[0],
                _label_studio.region(
                    f"{path}: a region of {image.name}", result.type, value, canvas.height, canvas.width
                ),
            )
        else:
            canvas.lose(f"results of type {result.type[:20]} without an area or a label are left out")
    if sum(not annotation.was_cancelled for annotation in task.annotations) > 1:
        canvas.lose("frames with several annotations, of which the first counts")
    return canvas.finished()


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Sequence[str]:
    """tasks.json with brushes, which hold any region, label_config.xml for the project, and SPLIT/NAME."""
    with (out / "tasks.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for number, frame in enumerate(frames):
            image = store_image(frame.image, out / frame.split / frame.name)
            annotations = [{"id": number + 1, "was_cancelled": False, "result": list(_results(frame, classes))}]
            task = {"id": number + 1, "data": {"image": f"{frame.split}/{image.name}"}, "annotations": annotations}
            file.write((",\n" if number else "\n") + json.dumps(task))
        file.write("\n]\n")
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    brush = ElementTree.SubElement(view, "BrushLabels", name="label", toName="image")
    for name in (*(name for name in classes.names if name != BACKGROUND), IGNORED_LABELS[0]):
        ElementTree.SubElement(brush, "Label", value=name)
    write_bytes(out / CONFIG, ElementTree.tostring(view, encoding="utf-8"))
    return ()


def _results(frame: Frame, classes: Classes) -> Iterator[object]:
    height, width = frame.size
    for number, (label, item) in enumerate(frame.shapes(classes)):
        whole = np.zeros((height, width), bool)
        whole[item.region.window] = item.region.mask
        yield {"id": f"r{number}", "type": "brushlabels", "from_name": "label", "to_name": "image",
               "original_width": width, "original_height": height, "image_rotation": 0,
               "value": {"format": "rle", "rle": rle.label_studio(whole), "brushlabels": [label]}}  # fmt: skip

"""CVAT for images 1.1 (https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/): XML.

    SRC.xml, or a folder or archive with annotations.xml and images/

Polygons (drawn as pycocotools draws them, which CVAT's own exports do), masks, boxes and ellipses, in the order of
z_order. Shapes of one group and label are one object. Classes are CVAT's labels after `background`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from edgeseg.data.coco_polygons import as_coco
from edgeseg.data.dataset import SPLITS, Classes
from edgeseg.data.formats import SHAPES, Frame, LabeledFrame, Labels, _files
from edgeseg.data.labelmap import IGNORED_LABELS, OWN, Canvas, LabelMap
from edgeseg.data.store import store_image
from edgeseg.errors import FileError
from edgeseg.geometry import rle
from edgeseg.geometry.regions import Region, box, by_centers, ellipse, placed, points
from edgeseg.spec import Rgb

TITLE = "CVAT for images 1.1"
OBJECTS = SHAPES
AREAS = ("polygon", "mask", "box", "ellipse")
OTHERS = ("polyline", "points", "cuboid", "skeleton", "tag")


def probe(source: Path) -> bool:
    return _document(source) is not None


def _document(source: Path) -> Path | None:
    files = [source] if source.is_file() else sorted(source.glob("*.xml"))
    found = [p for p in files if p.suffix.lower() == ".xml" and _files.root_tag(p) == "annotations"]
    return found[0] if len(found) == 1 else None


def read(source: Path) -> Labels:
    path = _document(source)
    if path is None:
        raise FileError(f"{source} is not CVAT's XML.", 'Expected annotations.xml of "CVAT for images 1.1".')
    labels: dict[str, Rgb | None] = {}
    images, losses = list[bytes](), list[str]()
    for element in _files.read_xml(path):
        if element.tag == "meta":
            for label in element.iter("label"):
                labels.setdefault(label.findtext("name") or "", _files.hex_color(label.findtext("color") or ""))
        elif element.tag == "image":
            for shape in element:
                labels.setdefault(shape.get("label", ""), None)
            images.append(ElementTree.tostring(element, encoding="utf-8"))
        elif element.tag == "track" and not losses:
            losses.append("tracks of a video are left out")
    if losses and not images:
        raise FileError(f"{path} holds tracks of a video.", 'Export the task as "CVAT for images 1.1".')
    labels.pop("", None)
    classes, ids = _files.classes_of(labels, str(path), {n: c for n, c in labels.items() if c})
    return Labels(classes, [_frame(path, image, ids) for image in images], tuple(losses))


def _frame(path: Path, data: bytes, ids: dict[str, int]) -> LabeledFrame:
    element = ElementTree.fromstring(data)
    name = element.get("name", "")
    top = path.absolute().parent
    folders = [top / "images" / element.get("subset", ""), top / "images", top]
    image = _files.find_image(name, *folders, within=top)
    split = _files.split_of(element.get("subset", "")) or _files.folder_split(name)
    return LabeledFrame(_files.without_split(name), image, partial(_draw, path, data, ids), split, upright=True)


def _draw(path: Path, data: bytes, ids: dict[str, int]) -> LabelMap:
    image = ElementTree.fromstring(data)
    height, width = (int(_number(image, key)) for key in ("height", "width"))
    canvas = Canvas(height, width, ids)
    shapes = [shape for shape in image if shape.tag in AREAS]
    for shape in sorted(shapes, key=lambda shape: _number(shape, "z_order", 0)):
        group = shape.get("group_id")
        owner = OWN if group in (None, "", "0") else group
        canvas.paint(shape.get("label", ""), _region(path, shape, height, width), owner)
        if shape.find("attribute") is not None:
            canvas.lose("shapes with attributes, which are left out")
    for other in image:
        if other.tag not in AREAS:
            canvas.lose(f"shapes of type {other.tag if other.tag in OTHERS else 'unknown'} are left out")
    return canvas.finished()


def _region(path: Path, shape: ElementTree.Element, height: int, width: int) -> Region:
    what = f"{path}: a {shape.tag} of label {shape.get('label')!r}"
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";") if pair]
        try:
            numbers = [[float(x), float(y)] for x, y in pairs]
        except ValueError:
            raise FileError(f"{what} cannot be read.", "Expected points x,y;x,y ...") from None
        return as_coco(points(numbers, what), height, width)
    if shape.tag == "box":
        x0, y0, x1, y1 = (_number(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        corners = box(x0, y0, x1 - x0, y1 - y0, _number(shape, "rotation", 0))
        return by_centers([points(corners.tolist(), what)], height, width)
    if shape.tag == "ellipse":
        cx, cy, rx, ry = (_number(shape, key) for key in ("cx", "cy", "rx", "ry"))
        return ellipse(cx, cy, rx, ry, _number(shape, "rotation", 0), height, width)
    left, top, w, h = (int(_number(shape, key)) for key in ("left", "top", "width", "height"))
    if not (0 < w <= width + 1 and 0 < h <= height + 1):
        raise FileError(f"{what} is {w}x{h} in an image of {width}x{height}.", "Export it again.")
    try:
        counts = [int(run) for run in shape.get("rle", "").split(",")]
    except ValueError:
        raise FileError(f"{what} cannot be read.", "Expected rle: run, run ...") from None
    return placed(rle.from_runs(counts, h, w), left, top, height, width)


def _number(element: ElementTree.Element, key: str, default: float | None = None) -> float:
    text = element.get(key)
    try:
        value = default if text is None and default is not None else float(text or "")
        if not abs(value) <= 1e9:
            raise ValueError
        return value
    except ValueError:
        raise FileError(f"A {element.tag} has {key} {text!r}.", "Expected a number.") from None


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Sequence[str]:
    """annotations.xml with mask shapes, which hold any region, and images/SPLIT."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    named = [*zip(classes.names, classes.palette), (IGNORED_LABELS[0], (0, 0, 0))]
    with (out / "annotations.xml").open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        file.write("<meta><project><labels>\n")
        for name, (r, g, b) in named:
            label = ElementTree.Element("label")
            for key, text in (("name", name), ("color", f"#{r:02x}{g:02x}{b:02x}"), ("type", "any")):
                ElementTree.SubElement(label, key).text = text
            file.write(ElementTree.tostring(label, encoding="unicode") + "\n")
        tasks = "".join(f"<task><subset>{split}</subset></task>" for split in SPLITS)
        file.write(f"</labels><tasks>{tasks}</tasks></project></meta>\n")
        for number, frame in enumerate(frames):
            image = store_image(frame.image, out / "images" / frame.split / frame.name)
            file.writelines(_image_lines(frame, number, image.name, classes))
        file.write("</annotations>\n")
    return ()


def _image_lines(frame: Frame, number: int, name: str, classes: Classes) -> Iterator[str]:
    height, width = frame.size
    yield (
        f'<image id="{number}" name={quoteattr(f"{frame.split}/{name}")} subset="{frame.split}" width="{width}" '
        f'height="{height}">\n'
    )
    for label, item in frame.shapes(classes):
        h, w = item.region.mask.shape
        counts = ", ".join(map(str, rle.runs(item.region.mask)))
        yield (
            f'<mask label={quoteattr(label)} source="manual" occluded="0" rle="{counts}" left="{item.region.x}" '
            f'top="{item.region.y}" width="{w}" height="{h}" z_order="0"/>\n'
        )
    yield "</image>\n"

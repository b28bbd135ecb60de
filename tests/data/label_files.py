"""Label files of every format for tests: written by hand as the tools write them, and by edgeseg."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.data.dataset import Dataset
from edgeseg.images import write_image

H, W = 24, 32


def picture(path: Path, height: int = H, width: int = W) -> Path:
    write_image(path, np.full((height, width, 3), 90, np.uint8))
    return path


def dump(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def box(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    """The polygon around pixels x0..x1-1, y0..y1-1."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def painted(*boxes: tuple[int, int, int, int, int]) -> np.ndarray:
    """[H, W]: each (x0, y0, x1, y1, class) over those before."""
    mask = np.zeros((H, W), np.uint8)
    for x0, y0, x1, y1, class_id in boxes:
        mask[y0:y1, x0:x1] = class_id
    return mask


def only(root: Path, folder: str = "masks") -> np.ndarray:
    (path,) = root.glob(f"*/{folder}/*.png")
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def dataset(
    root: Path, names: tuple[str, ...], objects: bool = True, seed: int = 0, shape: tuple[int, int] = (H, W)
) -> Path:
    """Five frames of random blobs with holes, lone pixels and pixels to ignore; objects of the classes from 2 on."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    lines = [f"{i} {name} {20 * i} {250 - 10 * i} {3 * i}" for i, name in enumerate(names)]
    (root / "classes.txt").write_text("# id name r g b  (id 255 = ignore)\n" + "\n".join(lines) + "\n")
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for i in range(count):
            noise = cv2.blur(rng.random((*shape, len(names))).astype(np.float32), (5, 5))
            mask = noise.argmax(2).astype(np.uint8)
            mask[cv2.blur(rng.random(shape).astype(np.float32), (3, 3)) > 0.7] = 255
            frame = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
            write_image(root / split / "images" / f"{split} {i}é.png", frame)
            write_image(root / split / "masks" / f"{split} {i}é.png", mask)
            if objects:
                cells = 1 + (np.arange(shape[1]) // 12)[None] + np.zeros((shape[0], 1), int)
                found = (10 * cells + mask).astype(np.uint16)  # one object is of one class
                found[(mask < 2) | (mask == 255)] = 0
                write_image(root / split / "instances" / f"{split} {i}é.png", found)
    return root


def difference(first: Path, second: Path, every_object: bool) -> tuple[int, int]:
    """How many pixels differ by the name of their class, and by their object, whatever its number; with `every_object`
    also where the first has none."""
    classes = objects = 0
    for split in ("train", "val", "test"):
        a, b = Dataset.open(first, split), Dataset.open(second, split)
        assert len(a) == len(b)
        names = [*a.classes.names, *["?"] * (256 - len(a.classes.names))]
        others = [*b.classes.names, *["?"] * (256 - len(b.classes.names))]
        for i in range(len(a)):
            np.testing.assert_array_equal(a[i][0], b[i][0])
            classes += int((np.array(names)[a.mask(i)] != np.array(others)[b.mask(i)]).sum())
            x, y = a.instances(i), b.instances(i)
            if x is None and y is None:
                continue
            x = np.zeros_like(y) if x is None else x
            y = np.zeros_like(x) if y is None else y
            if not every_object:
                y = np.where(x > 0, y, 0)
            pairs = np.unique(np.stack((x, y), -1).reshape(-1, 2), axis=0)
            one_to_one = len(pairs) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1]))
            if not one_to_one or ((pairs[:, 0] == 0) != (pairs[:, 1] == 0)).any():
                objects += int((x > 0).sum())
    return classes, objects


def cvat(
    folder: Path, *shapes: str, name: str = "a.png", labels: str = "car dog", size: tuple[int, int] = (H, W)
) -> Path:
    picture(folder / "images" / name, *size)
    listed = "".join(f"<label><name>{label}</name><color>#0a0b0c</color></label>" for label in ("car", "dog"))
    image = f'<image id="0" name="{name}" width="{size[1]}" height="{size[0]}">{"".join(shapes)}</image>'
    dump(
        folder / "annotations.xml",
        f"<annotations><meta><task><labels>{listed}</labels></task></meta>{image}</annotations>",
    )
    return folder


def labelme(folder: Path, *shapes: dict[str, Any], image: str | None = None, **more: Any) -> Path:
    if image is None:
        picture(folder / "a.png")
    dump(folder / "a.json", {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": "a.png",
                             "imageData": image, "imageHeight": H, "imageWidth": W, **more})  # fmt: skip
    return folder


def via2(folder: Path, *regions: dict[str, Any]) -> Path:
    picture(folder / "a.png")
    file = {"filename": "a.png", "size": 1, "regions": list(regions), "file_attributes": {}}
    attributes = {"region": {"kind": {"type": "dropdown", "options": {"car": "", "dog": ""}}}, "file": {}}
    dump(
        folder / "via.json", {"_via_settings": {}, "_via_img_metadata": {"a.png1": file}, "_via_attributes": attributes}
    )
    return folder


def supervisely(folder: Path, *objects: dict[str, Any]) -> Path:
    picture(folder / "ds" / "img" / "a.png")
    classes = [{"title": t, "shape": "any", "color": "#0A0B0C"} for t in ("car", "dog")]
    dump(folder / "meta.json", {"classes": classes, "tags": []})
    dump(folder / "ds/ann/a.png.json", {"description": "", "tags": [], "size": {"height": H, "width": W},
                                        "objects": list(objects)})  # fmt: skip
    return folder


def label_studio(folder: Path, *annotations: dict[str, Any]) -> Path:
    picture(folder / "a.png")
    dump(folder / "export.json", [{"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-a.png"},
                                   "annotations": list(annotations)}])  # fmt: skip
    return folder


def yolo(folder: Path, text: str, names: str = "names: [car, dog]\n") -> Path:
    picture(folder / "images/train/a.png")
    dump(folder / "labels/train/a.txt", text)
    dump(folder / "data.yaml", f"path: .\ntrain: images/train\n{names}")
    return folder

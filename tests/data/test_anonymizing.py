"""Blurring at import: by labels, and by faces of a network with YuNet's inputs and outputs that takes red for a face.

No trained face model ships with edgeseg or its packages, so how many real faces one finds is not tested here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.data.anonymizing import Anonymizer
from edgeseg.data.checking import check_dataset
from edgeseg.data.dataset import Classes
from edgeseg.data.faces import FaceDetector
from edgeseg.data.importing import import_dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.images import read_image, read_mask, write_image

Edgeseg = Callable[..., Any]
CLASSES = Classes(("street", "person", "plate"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)), 255)
HEIGHT, WIDTH = 96, 160
FACE = (slice(32, 48), slice(64, 80))
PERSON = (slice(20, 80), slice(100, 120))


@pytest.fixture(scope="module")
def red_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with the inputs and outputs of YuNet: a cell is a face as far as it is red."""
    weights = {
        "red": np.array([-1, -1, 1], np.float32).reshape(1, 3, 1, 1) / 255,
        "0": np.float32(0),
        "1": np.float32(1),
    }
    nodes = [
        helper.make_node("Conv", ["input", "red"], ["redness"]),
        helper.make_node("Clip", ["redness", "0", "1"], ["clipped"]),
    ]
    channels = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    for stride in (8, 16, 32):
        size = [stride, stride]
        weights[f"shape{stride}"] = np.array([1, -1, 1])
        nodes += [
            helper.make_node("AveragePool", ["clipped"], [f"cells{stride}"], kernel_shape=size, strides=size),
            helper.make_node("Reshape", [f"cells{stride}", f"shape{stride}"], [f"row{stride}"]),
        ]
        for kind, count in channels.items():
            is_score = count == 1
            weights[f"scale_{kind}_{stride}"] = np.full((1, 1, count), float(is_score), np.float32)
            weights[f"bias_{kind}_{stride}"] = np.full((1, 1, count), 0 if is_score else 0.5, np.float32)
            nodes += [
                helper.make_node("Mul", [f"row{stride}", f"scale_{kind}_{stride}"], [f"part_{kind}_{stride}"]),
                helper.make_node("Add", [f"part_{kind}_{stride}", f"bias_{kind}_{stride}"], [f"{kind}_{stride}"]),
            ]
    outputs = [
        helper.make_tensor_value_info(f"{kind}_{stride}", TensorProto.FLOAT, [1, None, count])
        for kind, count in channels.items()
        for stride in (8, 16, 32)
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "yunet", inputs, outputs, initializers)
    path = tmp_path_factory.mktemp("faces") / "red.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def picture(red: bool = True) -> np.ndarray:
    image = np.random.default_rng(0).integers(60, 90, (HEIGHT, WIDTH, 3), np.uint8)
    image[PERSON] = np.random.default_rng(1).integers(0, 60, image[PERSON].shape, np.uint8)
    if red:
        image[FACE] = 0
        image[FACE][..., 2] = np.random.default_rng(2).integers(180, 255, (16, 16))
    return image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Masks and images: a person and a red face, in JPEG and PNG, and a frame of the street alone."""
    root = tmp_path / "source"
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[PERSON] = 1
    for name, own, image in (
        ("a.png", mask, picture()),
        ("b.jpg", mask, picture(red=False)),
        ("c.jpg", mask * 0, picture(red=False)),
    ):
        write_image(root / "train" / "images" / name, image)
        write_image(root / "train" / "masks" / f"{Path(name).stem}.png", own)
    (root / "classes.txt").write_text(CLASSES.text())
    return root


def test_a_class_is_blurred_where_its_labels_are(source: Path, tmp_path: Path) -> None:
    result = import_dataset(source, tmp_path / "out", blur=["person"])
    assert result.blurred == {"person": 2} and result.problems == ()
    before, after = (read_image(root / "train" / "images" / "a.png") for root in (source, tmp_path / "out"))
    assert after[PERSON].astype(float).std((0, 1)).max() < 0.5 * before[PERSON].astype(float).std((0, 1)).min()
    far = np.ones((HEIGHT, WIDTH), bool)
    far[16:84, 96:124] = False
    assert (before == after)[far].all(), "nothing else changes"
    images, masks = tmp_path / "out" / "train" / "images", tmp_path / "out" / "train" / "masks"
    assert (images / "b.jpg").read_bytes() != (source / "train" / "images" / "b.jpg").read_bytes()
    assert (images / "c.jpg").read_bytes() == (source / "train" / "images" / "c.jpg").read_bytes()
    assert (read_mask(masks / "a.png") == read_mask(source / "train" / "masks" / "a.png")).all()


def test_a_class_that_is_ignored_afterwards_is_blurred_too(source: Path, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text('ignore = ["person", "plate"]\n[classes]\nroad = "street"\nnothing = []\n')
    result = import_dataset(source, tmp_path / "out", class_map=tmp_path / "map.toml", blur=["person"])
    assert result.blurred == {"person": 2} and result.classes == ("road", "nothing")


def test_metadata_of_a_blurred_image_is_gone(source: Path, tmp_path: Path) -> None:
    """A thumbnail inside the file would show what was blurred."""
    path = source / "train" / "images" / "b.jpg"
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1\x00\x10Exif\x00\x00SECRET!!" + data[2:])
    import_dataset(source, tmp_path / "out", blur=["person"])
    assert b"SECRET" not in (tmp_path / "out" / "train" / "images" / "b.jpg").read_bytes()


def test_faces_are_found_by_the_model_and_blurred(source: Path, tmp_path: Path, red_faces: Path) -> None:
    boxes = FaceDetector(red_faces).boxes(picture())
    assert boxes and all(0 <= x < x + w <= WIDTH and 0 <= y < y + h <= HEIGHT for x, y, w, h in boxes)
    result = import_dataset(source, tmp_path / "out", face_model=red_faces)
    assert result.blurred == {"faces": len(boxes)}
    after = read_image(tmp_path / "out" / "train" / "images" / "a.png")
    detail = [np.abs(np.diff(image[FACE][..., 2].astype(int))).mean() for image in (picture(), after)]
    assert detail[1] < 0.5 * detail[0]
    assert (after[PERSON] == picture()[PERSON]).all()


def test_large_frames_are_also_searched_reduced(red_faces: Path) -> None:
    large = cv2.resize(picture(), (1600, 960), interpolation=cv2.INTER_NEAREST)
    boxes = FaceDetector(red_faces).boxes(large)
    assert max(w for _, _, w, _ in boxes) > 32, "in the coordinates of the frame, larger than the largest cell"


def test_the_check_names_faces_if_it_is_asked(source: Path, tmp_path: Path, red_faces: Path, edgeseg: Edgeseg) -> None:
    skipped = check_dataset(source)
    assert "faces: no face model was given" in skipped.skipped
    ran = edgeseg("data", "check", source, "--face-model", red_faces, "--json", tmp_path / "r.json")
    assert "face: 1" in ran.out
    (found,) = [row for row in json.loads((tmp_path / "r.json").read_text())["warnings"] if row["kind"] == "face"]
    x, y, w, h = found["box"]
    assert found["file"] == "train/images/a.png" and x < 72 < x + w and y < 40 < y + h


def test_the_command_says_what_was_blurred(source: Path, tmp_path: Path, red_faces: Path, edgeseg: Edgeseg) -> None:
    words = ("--blur", "person", "--blur", "plate", "--face-model", red_faces, "--json", tmp_path / "r.json")
    ran = edgeseg("data", "import", source, "-o", tmp_path / "out", *words)
    assert ran.code == 0 and "blurred: person in 2 frames, " in ran.out and " faces\n" in ran.out
    assert json.loads((tmp_path / "r.json").read_text())["blurred"]["person"] == 2


def test_what_cannot_be_blurred(source: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    with pytest.raises(OptionError, match=r"Unknown class 'persn'\.\nDid you mean 'person'"):
        import_dataset(source, tmp_path / "out", blur=["persn"])
    (tmp_path / "text.onnx").write_text("no model")
    for model, message in (("none.onnx", "does not exist"), ("text.onnx", "cannot be used")):
        with pytest.raises(FileError, match=message):
            import_dataset(source, tmp_path / "out", face_model=tmp_path / model)
    assert not (tmp_path / "out").exists()
    assert Anonymizer.of(CLASSES, (), None) is None


def test_another_network_is_no_face_model(network: Path) -> None:
    with pytest.raises(FileError, match=r"Face model .*tiny\.onnx cannot be used") as caught:
        FaceDetector(network)
    assert "Expected YuNet" in caught.value.hint

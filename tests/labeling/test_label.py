"""Collected frames out to labeling tools and back, with corrections, and with everything that may go wrong between."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tiny
from typer.testing import CliRunner

from edgeseg.cli import app
from edgeseg.data.dataset import Classes, Dataset
from edgeseg.data.exporting import export_dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.images import read_image, read_mask, write_image
from edgeseg.labeling.compare import compare
from edgeseg.labeling.importing import import_labels
from edgeseg.labeling.predicting import predict_labels
from edgeseg.labeling.selecting import selected
from edgeseg.monitoring.ring import Ring
from edgeseg.result import Frame, Result
from edgeseg.runtime import open_segmenter

CLASSES = Classes(tiny.SPEC.classes, tiny.SPEC.palette, 255)
FORMATS = ["cvat", "label_studio", "coco", "masks"]


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Five collected frames; the model says road on the left, and another class on the right."""
    ring = Ring(tmp_path / "collected", tiny.SPEC, 10**8)
    for i, image in enumerate(tiny.frames(5, seed=3)):
        classmap = np.zeros((tiny.HEIGHT, tiny.WIDTH), np.uint8)
        classmap[:, 40:] = i + 1
        result = Result(Frame(image, i), classmap, {"infer": 0.01}, None, tiny.SPEC)
        ring.add(result, "front", {"uncertain": 0.9 + i / 100}, 1.8e9)
    return tmp_path / "collected"


def names(collection: Path) -> list[str]:
    return [image.stem for image in Dataset.open(collection, "train").images]


def masks_of(folder: Path) -> list[Path]:
    return sorted((folder / "train" / "masks").iterdir())


@pytest.mark.parametrize("format_name", FORMATS)
def test_labels_come_back_as_they_went_and_corrections_are_seen(
    format_name: str, collection: Path, tmp_path: Path
) -> None:
    corrected = tmp_path / "corrected"
    shutil.copytree(collection, corrected)
    mask = read_mask(masks_of(corrected)[1])
    mask[:32, :40] = 6
    write_image(masks_of(corrected)[1], mask)
    export_dataset(corrected, format_name, tmp_path / "tool")
    result = import_labels(tmp_path / "tool", collection, tmp_path / "out")
    assert (result.format, result.frames, result.problems, result.missing) == (format_name, 5, (), ())
    back = Dataset.open(tmp_path / "out", "train")
    assert back.classes.names == CLASSES.names
    assert all((back.mask(i) == read_mask(path)).all() for i, path in enumerate(masks_of(corrected)))
    assert (read_image(back.images[0]) == read_image(Dataset.open(collection, "train").images[0])).all()
    found = result.disagreement
    assert [row.frame for row in found.worst] == [names(collection)[1]] and found.worst[0].changed == "road -> car"
    assert found.worst[0].agreement == pytest.approx(1 - 32 * 40 / (64 * 96))
    left = 5 * 64 * 40
    assert found.iou["road"] == pytest.approx((left - 32 * 40) / left) and found.iou["car"] == 0


def test_an_archive_of_cvat_is_read_and_a_frame_that_did_not_come_back_is_named(
    collection: Path, tmp_path: Path
) -> None:
    export_dataset(collection, "cvat", tmp_path / "tool")
    document = ElementTree.parse(tmp_path / "tool" / "annotations.xml")
    root = document.getroot()
    root.remove(root.findall("image")[2])
    document.write(tmp_path / "annotations.xml")
    with zipfile.ZipFile(tmp_path / "job.zip", "w") as file:  # CVAT's export of annotations has no images
        file.write(tmp_path / "annotations.xml", "annotations.xml")
    result = import_labels(tmp_path / "job.zip", collection, tmp_path / "out")
    assert result.frames == 4 and result.missing == (names(collection)[2],)
    assert result.disagreement.agreement == 1


def corrected_masks(collection: Path, folder: Path) -> Path:
    """A copy in the layout of folders of masks, to be spoiled."""
    shutil.copytree(collection, folder)
    return folder


def test_labels_of_another_size_class_or_frame_are_left_out_and_the_rest_imported(
    edgeseg: Callable[..., Any], collection: Path, tmp_path: Path
) -> None:
    spoiled = corrected_masks(collection, tmp_path / "spoiled")
    text = (spoiled / "classes.txt").read_text()
    (spoiled / "classes.txt").write_text(text + "8 bicycle 9 9 9\n")
    masks, images = masks_of(spoiled), sorted((spoiled / "train" / "images").iterdir())
    write_image(masks[0], np.zeros((32, 48), np.uint8))
    write_image(images[0], np.zeros((32, 48, 3), np.uint8))
    write_image(masks[1], np.full((64, 96), 8, np.uint8))
    for path in (masks[2], images[2]):
        path.rename(path.with_name(f"holiday{path.suffix}"))
    removed = sorted((collection / "train" / "images").iterdir())[3]
    shutil.copytree(collection, tmp_path / "whole")
    done = edgeseg("label", "import", spoiled, "--collection", collection, "--out", tmp_path / "out", "--json", "-")
    assert done.code == 1, done.err
    result = json.loads(done.out)
    reasons = {row["frame"]: row["what"] for row in result["problems"]}
    first, second, third = names(collection)[:3]
    assert reasons[first] == "Its labels are for 48x32, the frame is 96x64."
    assert reasons[second] == "It has the class 'bicycle', which the collection does not have."
    assert reasons["holiday"] == "No such frame was collected."
    assert result["frames"] == 2 and result["missing"] == [third] and len(Dataset.open(tmp_path / "out", "train")) == 2
    assert f"left out {first}: Its labels are for 48x32" in done.err and removed.is_file()


def test_a_frame_that_was_deleted_meanwhile_is_named(collection: Path, tmp_path: Path) -> None:
    """By the ring, say, while somebody labeled it: as an image between listing and reading, or altogether."""
    export_dataset(collection, "label_studio", tmp_path / "tool")
    gone = names(collection)[4]
    (collection / "train" / "images" / f"{gone}.jpg").unlink()
    (collection / "train" / "masks" / f"{gone}.png").unlink()
    result = import_labels(tmp_path / "tool", collection, tmp_path / "out")
    assert result.frames == 4 and [problem.frame for problem in result.problems] == [gone]
    assert result.problems[0].what == "No such frame was collected."


def test_labels_of_other_frames_alone_are_an_error_and_leave_nothing(collection: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_image(other / "train" / "images" / "x.png", tiny.frames(1)[0])
    write_image(other / "train" / "masks" / "x.png", np.zeros((64, 96), np.uint8))
    (other / "classes.txt").write_text(CLASSES.text())
    with pytest.raises(FileError, match=r"No corrected frame can be imported: x: No such frame was collected"):
        import_labels(other, collection, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_frames_of_most_worth_are_exported(edgeseg: Callable[..., Any], collection: Path, tmp_path: Path) -> None:
    words = ("label", "export", collection, "--format", "masks", "--out")
    done = edgeseg(*words, tmp_path / "two", "--frames", "2", "--json", "-")
    assert done.code == 0 and json.loads(done.out)["frames"] == 2, done.err
    assert names(tmp_path / "two") == names(collection)[3:]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["collected", "two"]
    assert edgeseg(*words, tmp_path / "two").code == 2
    with selected(collection, None) as root:
        assert root == collection


def test_two_humans(edgeseg: Callable[..., Any], collection: Path, tmp_path: Path) -> None:
    for person, changed in (("anna", 3), ("ben", 20)):
        shutil.copytree(collection, tmp_path / person)
        mask = read_mask(masks_of(tmp_path / person)[0])
        mask[:, 40 : 40 + changed] = 0
        write_image(masks_of(tmp_path / person)[0], mask)
    masks_of(tmp_path / "ben")[4].unlink()
    sorted((tmp_path / "ben/train/images").iterdir())[4].unlink()
    write_image(masks_of(tmp_path / "ben")[3], np.zeros((10, 10), np.uint8))
    done = edgeseg("label", "compare", tmp_path / "anna", tmp_path / "ben", "--json", "-")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["first"], found["second"], found["frames"]) == ("anna", "ben", 3)
    assert found["worst"][0]["changed"] == "pavement -> road" and len(found["worst"]) == 1
    assert found["iou"]["pavement"] == pytest.approx((56 - 20) / (56 - 3))
    assert found["only_first"] == [names(collection)[4]] and "is 96x64 in one and 10x10 in the other" in done.err
    (tmp_path / "ben" / "classes.txt").write_text("a\nb\nc\nd\ne\nf\ng\nh\n")
    with pytest.raises(OptionError, match=r"have other classes: road, .* and a, b"):
        compare(tmp_path / "anna", tmp_path / "ben")


def test_datasets_without_a_common_frame_cannot_be_compared(collection: Path, street: Path) -> None:
    with pytest.raises(OptionError, match=r"have no frame in common\.\nFrames are matched by their file names"):
        compare(collection, street)


def test_a_better_model_writes_the_pre_labels(collection: Path, bundle: Path) -> None:
    result = CliRunner().invoke(app, ["label", "predict", str(collection), "--model", str(bundle), "--json", "-"])

    assert result.exit_code == 0, (result.output, result.exception)
    assert json.loads(result.stdout)["frames"] == 5
    with open_segmenter(bundle) as segmenter:
        segmenter.keep_detail()
        dataset = Dataset.open(collection, "train")
        for i in range(len(dataset)):
            image, mask = dataset[i]
            assert np.array_equal(mask, segmenter(image).at_frame_size())


@pytest.mark.slow
def test_pre_labels_made_on_ray_are_the_same(collection: Path, bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the package ray is not installed")
    other = Path(shutil.copytree(collection, tmp_path / "other"))
    assert predict_labels(collection, bundle) == predict_labels(other, bundle, ray="local") == 5
    assert [path.read_bytes() for path in masks_of(collection)] == [path.read_bytes() for path in masks_of(other)]


def test_masks_of_people_are_not_replaced(collection: Path, bundle: Path) -> None:
    (collection / "collected.jsonl").unlink()
    before = [path.read_bytes() for path in masks_of(collection)]
    result = CliRunner().invoke(app, ["label", "predict", str(collection), "--model", str(bundle)])
    assert isinstance(result.exception, FileError)
    assert "may be the work of people" in str(result.exception)
    assert [path.read_bytes() for path in masks_of(collection)] == before


def test_a_model_of_other_classes_writes_nothing(collection: Path, bundle: Path) -> None:
    (collection / "classes.txt").write_text("road\nsky\nx\ny\nz\nv\nw\n")
    before = [path.read_bytes() for path in masks_of(collection)]
    result = CliRunner().invoke(app, ["label", "predict", str(collection), "--model", str(bundle)])
    assert isinstance(result.exception, OptionError), result.output
    assert [path.read_bytes() for path in masks_of(collection)] == before


def test_collect_hides_classes(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "hidden"
    words = ["collect", str(bundle), "--source", "synthetic://street?frames=90&size=96x64", "--out", str(out)]
    words += [word for name in tiny.SPEC.classes for word in ("--fill", name)]
    found = CliRunner().invoke(app, [*words, "--every", "0s", "--per-day", "100000"])
    assert found.exit_code == 0, (found.output, found.exception)
    images = [dataset[i][0] for dataset in [Dataset.open(out, "train")] for i in range(len(dataset))]
    assert images and all(np.abs(image.astype(int) - 114).max() < 8 for image in images)

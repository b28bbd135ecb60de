"""edgeseg calibrate: frames that cover all others, none that is evaluated on, and whether they suffice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny

from edgeseg.calibration import coverage, leaks
from edgeseg.calibration.features import brightness_histogram
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.calibration.selection import select
from edgeseg.data.perceptual_hash import MAX_DIFFERENT_BITS, perceptual_hash
from edgeseg.errors import FileError, OptionError
from edgeseg.images import read_image, write_image
from edgeseg.results.calibration import CalibrationResult, ClassCoverage

Run = Callable[..., Any]


def folder_of(path: Path, frames: list[np.ndarray]) -> Path:
    for i, frame in enumerate(frames):
        write_image(path / f"{i:02}.png", frame)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """20 bright frames of one kind, and one dark frame in the middle."""
    pictures = [frame // 2 + 120 for frame in tiny.frames(20, seed=5)]
    pictures.insert(10, tiny.frames(1, seed=99)[0] // 8)
    return folder_of(tmp_path / "frames", pictures)


# Coverage


def test_the_farthest_point_is_chosen_next() -> None:
    line = np.array([0.0, 1, 2, 10, 11])[:, None]
    for seed in range(5):
        first, second, third = coverage.k_center(line, 3, seed)
        far = {0: (4, 2), 1: (4, 2), 2: (4, 0), 3: (0, 2), 4: (0, 2)}[first]
        assert (second, third) == far
    assert coverage.nearest_distances(line, [0, 4]).tolist() == [0, 1, 2, 1, 0]


def test_equal_points_are_chosen_once_each() -> None:
    assert sorted(coverage.k_center(np.zeros((5, 2)), 9, 0)) == [0, 1, 2, 3, 4]


def test_groups_weigh_the_same_and_a_rare_class_as_much_as_a_common_one() -> None:
    random = np.random.default_rng(0)
    groups = {
        "brightness_histogram": random.normal(0, 100, (50, 3)),
        "thumbnail": random.normal(5, 0.01, (50, 90)),
        "constant": np.ones((50, 4)),
    }
    points = coverage.standardize(groups)
    assert points.shape == (50, 93) and (points**2).sum(1).mean() == pytest.approx(1)
    assert (points[:, :3] ** 2).sum(1).mean() == pytest.approx(0.5)
    shares = np.stack([random.uniform(0.5, 1, 50), random.uniform(0, 1e-4, 50)], 1)
    common, rare = (coverage.standardize({"classes": shares}) ** 2).mean(0)
    assert common == pytest.approx(rare)


def test_a_brightness_histogram_by_hand() -> None:
    half = np.zeros((2, 2, 3), np.uint8)
    half[0] = (0, 0, 200)
    histogram = brightness_histogram(half)
    assert histogram[:8].tolist() == [0.5, 0, 0.5, 0, 0, 0, 0, 0]  # brightness 0 and 66.7
    assert histogram[8:16].tolist() == [0.5, 0, 0, 0, 0, 0, 0, 0.5]  # gray and pure
    assert histogram[16] == pytest.approx(200 / 3 / 2 / 128)


def test_the_unusual_frame_is_chosen_first(frames: Path) -> None:
    for seed in range(4):
        chosen = select(frames, 8, seed)
        assert frames / "10.png" in chosen.calibration.frames[:2]
        found = chosen.report.coverage
        assert found.brightness[0] == found.brightness_of_all[0] < 30
        assert found.radius < found.radius_random


def test_the_same_seed_chooses_the_same_frames(frames: Path, tmp_path: Path) -> None:
    a, b, other = (select(frames, 8, seed).calibration for seed in (1, 1, 2))
    assert a == b and a.frames[0] != other.frames[0]


def test_a_dataset_is_covered_by_its_classes(tmp_path: Path, street: Path) -> None:
    """One frame of one color per class, all frames alike: only the masks differ."""
    root = tmp_path / "data"
    shutil.copy(street / "classes.txt", (root / "train" / "masks").mkdir(parents=True) or root / "classes.txt")
    classes = 8
    for i, frame in enumerate(tiny.frames(24, seed=6)):
        frame[:] = 90
        frame[0, 0] = i  # not the same file
        write_image(root / "train" / "images" / f"{i:02}.png", frame)
        write_image(root / "train" / "masks" / f"{i:02}.png", np.full(frame.shape[:2], max(0, i - 16), np.uint8))
    chosen = select(root, classes)
    assert {max(0, int(f.stem) - 16) for f in chosen.calibration.frames} == set(range(classes))
    by_class = chosen.report.coverage.classes
    assert by_class is not None
    assert list(by_class.values())[7] == ClassCoverage(0.125, round(1 / 24, 5), 1, 1)


def test_a_model_adds_its_predictions(network: Path, frames: Path) -> None:
    import onnx

    chosen = select(frames, 8, model=(network, tiny.SPEC, ""))
    assert chosen.report.coverage.compared_by == ("brightness_histogram", "thumbnail", "predicted", "logits")
    classmap = tiny.parent_says(onnx.load(str(network)), read_image(chosen.features.files[3]), tiny.SPEC)
    shares = np.bincount(classmap.ravel(), minlength=8) / classmap.size
    np.testing.assert_allclose(chosen.features.groups["predicted"][3], shares, atol=2e-3)
    assert chosen.features.groups["logits"].shape == (21, 32)


# Leaks


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "evaluated", tiny.frames(6, seed=7))


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "jpeg": lambda f: cv2.imdecode(cv2.imencode(".jpg", f, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1),
    "half": lambda f: cv2.resize(f, (48, 32), interpolation=cv2.INTER_AREA),
    "brighter": lambda f: np.clip(f * 1.1 + 5, 0, 255).astype(np.uint8),
    "gamma": lambda f: (255 * (f / 255) ** 0.8).astype(np.uint8),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_is_recognized(frames: Path, evaluated: Path, change: str) -> None:
    write_image(frames / "copy.png", COPIES[change](read_image(evaluated / "04.png")))
    with pytest.raises(OptionError) as caught:
        select(frames, 8, against=[evaluated])
    assert f"1 of the 22 frames of {frames} are also evaluation frames: copy.png looks like" in caught.value.what
    assert "04.png of evaluated." in caught.value.what and "Leave them out: --skip-leaks" in caught.value.hint


def test_an_identical_file_is_recognized_and_left_out(frames: Path, evaluated: Path) -> None:
    for name in ("01", "05"):
        shutil.copy(evaluated / f"{name}.png", frames / f"a{name}.png")
    with pytest.raises(
        OptionError, match=r"2 of the 23 frames .*: a01\.png equals 01\.png of evaluated; a05\.png equals 05"
    ):
        select(frames, 8, against=[evaluated])
    chosen = select(frames, 30, against=[evaluated], skip_leaks=True)
    assert len(chosen.calibration.frames) == 21 and not {f.name for f in chosen.calibration.frames} & {"a01.png"}
    assert chosen.report.checked_against[0].left_out == 2
    assert "2 frames that are also in evaluated were left out" in chosen.notes
    assert "there are only 21 different frames, not 30: all are used" in chosen.notes


def test_other_frames_are_not_refused(frames: Path, evaluated: Path, street: Path) -> None:
    (row,) = select(frames, 8, against=[evaluated]).report.checked_against
    assert (row.name, row.frames, row.left_out) == ("evaluated", 6, 0)
    rows = select(street, 8).report.checked_against
    assert [row.name for row in rows] == ["street val", "street test"]
    assert all(r.nearest is not None and r.nearest > 2 * MAX_DIFFERENT_BITS for r in (row, *rows))


def test_nearly_black_frames_are_compared_by_what_is_lit() -> None:
    def night(x: int) -> np.ndarray:
        frame = np.zeros((64, 96, 3), np.uint8)
        frame[30:34, x : x + 4] = 200
        return frame

    one, other, same = (perceptual_hash(night(x)) for x in (10, 70, 10))
    path = Path("x")
    assert (one.bits != other.bits).sum() <= MAX_DIFFERENT_BITS, "or the correlation is not needed"
    evaluation_set = leaks.EvaluationSet("night", (path,), ("0",), (one,))
    assert not evaluation_set.closest(path, "1", other).is_leak
    assert evaluation_set.closest(path, "1", same).is_leak


def test_a_leak_between_the_splits_of_a_dataset(street: Path, tmp_path: Path, edgeseg: Run) -> None:
    root = tmp_path / "street"
    shutil.copytree(street, root)
    name = sorted(p.name for p in (root / "test" / "images").iterdir())[2]
    image = cv2.resize(read_image(root / "test" / "images" / name), (192, 128))
    write_image(root / "train" / "images" / "zz.png", image)
    write_image(root / "train" / "masks" / "zz.png", np.zeros((128, 192), np.uint8))
    ran = edgeseg("calibrate", root, "--out", tmp_path / "c.json", "--frames", 8)
    assert ran.code == 2 and not (tmp_path / "c.json").exists()
    assert "1 of the 13 frames of" in ran.err and f"{name} of street test." in ran.err and "--skip-leaks" in ran.err
    ran = edgeseg("calibrate", root, "--out", tmp_path / "c.json", "--frames", 8, "--skip-leaks")
    assert ran.code == 0 and "Warning: 1 frames that are also in street test were left out" in ran.err, ran.err


# What is written


def test_a_manifest_reports_the_choice_and_compile_reads_it(
    street: Path, network: Path, tmp_path: Path, edgeseg: Run
) -> None:
    path, sheet = tmp_path / "c.json", tmp_path / "sheet.jpg"
    ran = edgeseg("calibrate", street, "-o", path, "--frames", 9, "--seed", 3, "--pictures", sheet, "--json", "-")
    assert ran.code == 0, ran.err
    found = json.loads(path.read_text())
    assert CalibrationSet.load(path).digest == select(street, 9, 3).calibration.digest
    assert found["chosen"] == {"method": "greedy k-center", "seed": 3, "of_frames": 12}
    assert found["sizes"] == {"96x64": 9} and not any(Path(row["file"]).is_absolute() for row in found["frames"])
    assert [row["name"] for row in found["checked_against"]] == ["street val", "street test"]
    result = CalibrationResult.from_dict(json.loads(ran.out))
    assert result == CalibrationResult.from_dict({**found, "manifest": str(path), "frames": 9})
    assert "pedestrian" in ran.err and "9 of 12 frames of" in ran.err
    assert f"wrote {path}" in ran.err and f"wrote {sheet}" in ran.err
    assert read_image(sheet).shape == (2 * 124, 8 * 164, 3)
    before = path.read_bytes()
    ran = edgeseg("calibrate", street, "-o", path, "--frames", 9, "--seed", 3)
    assert "9 of 12 frames of" in ran.out
    assert path.read_bytes() == before
    ran = edgeseg(
        "compile", network, "-p", "int8", "-t", "onnxruntime-cpu", "--calibration", path, "-o", tmp_path / "b"
    )
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "No images in"),
        (lambda p: p.write_text("x"), "is a file."),
        (lambda p: folder_of(p, tiny.frames(7)), "holds 7 different frames for calibration"),
        (lambda p: folder_of(p, tiny.frames(1) * 9), "holds 1 different frames for calibration"),
        (lambda p: (folder_of(p, tiny.frames(9)) / "03.png").write_bytes(b"no"), "03.png cannot be decoded"),
        (lambda p: (folder_of(p, tiny.frames(9)) / "03.png").write_bytes(b""), "03.png is empty"),
        (
            lambda p: (folder_of(p, tiny.frames(9)) / "classes.txt").write_text("0 a 1 2 3\n1 b 1 2 3"),
            "no split 'train'",
        ),
    ],
)
def test_unusable_sources(tmp_path: Path, edgeseg: Run, prepare: Callable[[Path], Any], message: str) -> None:
    prepare(tmp_path / "frames")
    ran = edgeseg("calibrate", tmp_path / "frames", "-o", tmp_path / "c.json")
    assert ran.code == 2 and message in ran.err, ran.err
    assert not (tmp_path / "c.json").exists()


def test_all_frames_leak(evaluated: Path, tmp_path: Path) -> None:
    folder_of(evaluated, tiny.frames(9, seed=7))
    with pytest.raises(OptionError, match="holds 0 different frames"):
        select(evaluated, 8, against=[evaluated], skip_leaks=True)


def test_frames_of_different_shapes_are_noted(frames: Path, network: Path) -> None:
    write_image(frames / "tall.png", tiny.frames(1, 11, 96, 64)[0])
    notes = select(frames, 8).notes
    assert any("have different shapes (21 of 96x64, 1 of 64x96): each is stretched" in note for note in notes)
    model = network, tiny.SPEC, ""
    assert not any("are stretched to the model's" in note for note in select(frames, 8, model=model).notes)


def test_frames_of_another_shape_than_the_model_are_noted(tmp_path: Path, network: Path) -> None:
    square = folder_of(tmp_path / "square", tiny.frames(9, 1, 64, 64))
    notes = select(square, 8, model=(network, tiny.SPEC, "")).notes
    assert any("frames of 64x64 are stretched to the model's 96x64: right only if" in note for note in notes)
    assert any("not checked against evaluation frames: name them with --against" in note for note in notes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resamples", 3], "--resamples needs a model to quantize, and none is given"),
        (["--data", "x"], "--data is only for evaluating resamples"),
        (["--target", "jetson-nano"], "has no precision 'int8'"),
        (["--against", "nowhere"], "nowhere does not exist"),
        (["--frames", 7], "greater than or equal to 8"),
        (["--model", "no.onnx"], "no.onnx does not exist"),
    ],
)
def test_options_that_do_not_fit(street: Path, tmp_path: Path, edgeseg: Run, words: list[Any], message: str) -> None:
    ran = edgeseg("calibrate", street, "-o", tmp_path / "c.json", *words)
    assert ran.code == 2 and message in ran.err, ran.err


# Do they suffice?


def test_resamples_are_measured_and_continued(labeled: Path, network: Path, tmp_path: Path, edgeseg: Run) -> None:
    words = ["calibrate", labeled, "-o", tmp_path / "c.json", "--frames", 8, "--model", network, "--resamples", 3]
    words += ["--data", labeled, "--split", "val", "--target", "onnxruntime-cpu"]
    ran = edgeseg(*words)
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "c.json").read_text())["resamples"]
    values = [row["miou"] for row in found["rows"]]
    assert (found["measure"], found["on"], len(values)) == ("miou", "clouds val", 3)
    assert found["reference"] == {"precision": "fp32", "miou": 1.0, "agreement": None}
    assert found["mean"] == pytest.approx(np.mean(values)) and found["deviation"] == pytest.approx(
        np.std(values, ddof=1)
    )
    assert (found["lowest"], found["highest"]) == (min(values), max(values)) and 0.5 < min(values) < 1
    assert all(row["frames"] <= 8 for row in found["rows"])
    assert len({row["digest"] for row in found["rows"]}) == 3
    assert "mIoU on clouds val, 3 resamples: " in ran.out
    bundles = tmp_path / "c.resamples"
    before = {p: p.stat().st_mtime_ns for p in bundles.rglob("bundle.json")}
    assert len(before) == 4
    assert edgeseg(*words).code == 0
    assert before == {p: p.stat().st_mtime_ns for p in bundles.rglob("bundle.json")}


def test_resamples_without_labels_compare_with_float(frames: Path, network: Path, tmp_path: Path, edgeseg: Run) -> None:
    words = ["calibrate", frames, "-o", tmp_path / "c.json", "--frames", 8, "--model", network, "--resamples", 2]
    words += ["--target", "onnxruntime-cpu"]
    ran = edgeseg(*words)
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "c.json").read_text())["resamples"]
    assert found["on"] == "12 frames held out" and found["reference"]["agreement"] > 0.999
    assert all(0.5 < row["agreement"] <= 1 and row["frames"] <= 8 for row in found["rows"])
    (frames / "00.png").unlink()
    (frames / "01.png").unlink()
    ran = edgeseg(*words)
    assert ran.code == 2 and "19 frames are too few to resample without labels: 12 of them are held out" in ran.err


def test_an_unreadable_evaluation_frame(frames: Path, evaluated: Path) -> None:
    (evaluated / "02.png").write_bytes(b"no picture")
    with pytest.raises(FileError, match=r"02\.png cannot be decoded"):
        select(frames, 8, against=[evaluated])

"""Calibration sets: frames chosen at random, and manifests that are refused when a frame is missing or has changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.calibration.frames import CalibrationSet
from edgeseg.errors import FileError, OptionError
from edgeseg.images import write_image
from edgeseg.quantization.quantize import quantize


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve frames, two of which are the same picture."""
    frames = tiny.frames(11, seed=2)
    for i, frame in enumerate([*frames, frames[4]]):
        write_image(tmp_path / "frames" / f"{i:02}.png", frame)
    return tmp_path / "frames"


def test_the_same_seed_chooses_the_same_frames(folder: Path) -> None:
    a, b, other = (CalibrationSet.choose(folder, 8, seed) for seed in (3, 3, 4))
    assert a == b and a.digest == b.digest
    assert a.digest != other.digest
    assert len(set(a.frames)) == 8


def test_identical_files_count_once(folder: Path) -> None:
    assert len(CalibrationSet.choose(folder, 100).frames) == 11


def test_a_dataset_gives_its_training_frames(street: Path) -> None:
    chosen = CalibrationSet.choose(street, 64)
    assert len(chosen.frames) == 12
    assert {f.parent for f in chosen.frames} == {street / "train" / "images"}


def test_frames_come_at_the_size_of_the_spec(street: Path) -> None:
    images = list(CalibrationSet.choose(street, 8).images(tiny.SPEC))
    assert {(i.shape, i.dtype) for i in images} == {((tiny.HEIGHT, tiny.WIDTH, 3), np.dtype(np.uint8))}


def test_a_manifest_moves_with_its_frames(folder: Path, tmp_path: Path) -> None:
    chosen = CalibrationSet.choose(folder, 8)
    chosen.save(tmp_path / "calibration.json")
    assert CalibrationSet.choose(tmp_path / "calibration.json", 3) == CalibrationSet.load(tmp_path / "calibration.json")
    assert CalibrationSet.load(tmp_path / "calibration.json").digest == chosen.digest
    shutil.copytree(tmp_path, tmp_path.with_name(tmp_path.name + "-moved"))
    moved = CalibrationSet.load(tmp_path.with_name(tmp_path.name + "-moved") / "calibration.json")
    assert moved.digest == chosen.digest
    assert all("-moved" in str(frame) for frame in moved.frames)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "No images in"),
        (lambda p: [write_image(p / f"{i}.png", f) for i, f in enumerate(tiny.frames(7))], "holds 7 different frames"),
        (lambda p: [write_image(p / f"{i}.png", tiny.frames(1)[0]) for i in range(9)], "holds 1 different frames"),
    ],
)
def test_too_few_frames_to_choose_from(tmp_path: Path, prepare: Callable[[Path], Any], message: str) -> None:
    prepare(tmp_path / "frames")
    with pytest.raises((FileError, OptionError), match=message):
        CalibrationSet.choose(tmp_path / "frames", 64)


def change(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        data = json.loads(path.read_text())
        edit(data)
        path.write_text(json.dumps(data))

    return rewrite


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_text(""), "is empty"),
        (lambda p: p.write_text("{"), "cannot be read"),
        (lambda p: p.write_text("[]"), "cannot be read"),
        (lambda p: p.write_text("[" * 100_000), "cannot be read"),
        (lambda p: p.write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (change(lambda d: d.pop("frames")), "cannot be read"),
        (change(lambda d: d.update(frames=[])), "names 0 frames"),
        (change(lambda d: d.update(frames=d["frames"][:7])), "names 7 frames"),
        (change(lambda d: d.update(frames={"a": 1})), "cannot be read"),
        (change(lambda d: d["frames"][0].pop("sha256")), "cannot be read"),
        (change(lambda d: d["frames"][0].update(file=3)), "cannot be read"),
        (change(lambda d: d["frames"][0].update(file="gone.png")), "does not exist"),
        (change(lambda d: d["frames"][0].update(file="x" * 5000)), "Calibration frame"),
        (change(lambda d: d["frames"][0].update(file="a\0b")), "Calibration frame"),
        (change(lambda d: d["frames"][0].update(file="frames")), "is a folder"),
        (change(lambda d: d["frames"][0].update(sha256="0" * 64)), "has changed since"),
        (lambda p: write_image(p.parent / "frames" / "03.png", tiny.frames(1, 99)[0]), "has changed since"),
        (lambda p: (p.parent / "frames" / "03.png").write_bytes(b""), "is empty"),
    ],
)
def test_a_damaged_or_outdated_manifest(
    folder: Path, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    path = tmp_path / "calibration.json"
    CalibrationSet.choose(folder, 11).save(path)
    damage(path)
    with pytest.raises(FileError) as caught:
        CalibrationSet.load(path)
    assert message in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["file", "sha256", "x"]), inner),
    max_leaves=6,
)


@given(JSON)
def test_any_json_as_a_manifest(tmp_path: Path, frames: Any) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"frames": frames}))
    with pytest.raises(FileError):
        CalibrationSet.load(path)


def test_a_manifest_of_a_newer_schema_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    CalibrationSet.choose(folder, 8).save(path)
    assert json.loads(path.read_text())["schema"] == 1
    change(lambda d: d.update(schema=2))(path)
    with pytest.raises(OptionError, match=r"calibration\.json has schema 2, from a newer edgeseg") as caught:
        CalibrationSet.load(path)
    assert "update edgeseg, or write it again" in caught.value.hint


def test_a_manifest_without_a_schema_is_read_as_the_first(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    CalibrationSet.choose(folder, 8).save(path)
    change(lambda d: d.pop("schema"))(path)
    assert len(CalibrationSet.load(path).frames) == 8


def test_an_unknown_quantizer(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Did you mean 'nncf'"):
        quantize(tmp_path / "graph.onnx", [], "nnfc", tmp_path)


def test_a_corrupt_frame_ends_int8_with_its_name(network: Path, folder: Path, tmp_path: Path) -> None:
    from edgeseg.compile import compile_model
    from edgeseg.target import Target

    (folder / "05.png").write_bytes(b"no picture")
    with pytest.raises(FileError, match=r"05\.png cannot be decoded"):
        compile_model(
            network,
            tmp_path / "out",
            Target.load("onnxruntime-cpu"),
            "int8",
            spec=tiny.SPEC,
            frames=tiny.frames(1),
            calibration=CalibrationSet.choose(folder, 100),
        )
    assert not (tmp_path / "out").exists()

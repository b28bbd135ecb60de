"""init: a recipe that loads and fits the data, the reason for every value, and a refusal where none can be written."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.data.input_size import input_size
from edgeseg.data.recipe_draft import PRESETS, class_weights, draft, recipe_text
from edgeseg.data.stats import dataset_stats
from edgeseg.errors import EdgesegError
from edgeseg.images import write_image
from edgeseg.recipe import Recipe
from edgeseg.target import Target

Edgeseg = Callable[..., Any]

sizes = st.dictionaries(
    st.tuples(st.integers(8, 5000), st.integers(8, 5000)), st.integers(1, 50), min_size=1, max_size=6
)


@given(sizes, st.sampled_from(sorted(PRESETS)))
def test_the_input_is_allowed_and_within_the_presets_bound(found: dict[tuple[int, int], int], preset: str) -> None:
    size = input_size(found, PRESETS[preset].pixels)
    assert size.height % 32 == size.width % 32 == 0
    assert min(size.height, size.width) >= 32 and max(size.height, size.width) <= 4096
    assert size.height * size.width <= PRESETS[preset].pixels


@pytest.mark.parametrize(
    ("found", "most", "expected"),
    [
        ({(480, 360): 9}, 10**6, (352, 480, "stretch")),
        ({(1920, 1080): 9}, 512 * 320, (288, 512, "stretch")),
        ({(96, 64): 1}, 10**6, (64, 96, "stretch")),
        ({(480, 360): 97, (360, 480): 3}, 10**6, (352, 480, "letterbox")),
        ({(480, 360): 99, (360, 480): 1}, 10**6, (352, 480, "stretch")),
        ({(480, 360): 5, (960, 720): 5}, 10**6, (352, 480, "stretch")),
        ({(8, 8): 3}, 10**6, (32, 32, "stretch")),
    ],
)
def test_sizes_near_the_datas_own(found: dict[tuple[int, int], int], most: int, expected: tuple[int, int, str]) -> None:
    size = input_size(found, most)
    assert (size.height, size.width, size.fit) == expected


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_recipe_loads_and_fits_the_data(preset: str, street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    out = tmp_path / "here" / "recipe.toml"
    result = edgeseg("init", street, "--out", out, "--preset", preset)
    assert result.code == 0 and "edgeseg pipeline" in result.out, result.err
    recipe = Recipe.load(out)
    assert recipe.resolve(recipe.data.root).resolve() == street.resolve()
    assert recipe.data.size == (64, 96) and recipe.data.fit == "stretch"
    assert recipe.student.width < recipe.teacher.width and recipe.student.batch <= 12 // 2
    assert len(recipe.student.class_weights) == 8 and not recipe.student.weights, "nothing is downloaded"
    assert recipe.quantize.frames == 12
    for entry in recipe.targets.compile:
        assert Target.load(entry.split(":")[0])
    text = out.read_text()
    keys = re.findall(r"^(# .*\n)(\w+) = ", text, re.M)
    assert len(keys) == text.count(" = ") - text.count("#   "), "a comment above every key"


def test_json_and_the_file_agree(street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    written = json.loads(edgeseg("init", street, "--out", tmp_path / "r.toml", "--json", "-").out)
    assert written["kind"] == "init" and written["preset"] == "medium"
    text = (tmp_path / "r.toml").read_text()
    for choice in written["choices"]:
        assert f"\n{choice['key'].split('.')[-1]} = {choice['value']}\n" in text and choice["why"]


def test_more_frames_get_fewer_epochs(street: Path, tmp_path: Path) -> None:
    stats = dataset_stats(street)
    epochs = []
    for frames in (12, 100, 1000, 100_000):
        train = dataclasses.replace(stats.splits["train"], frames=frames)
        many = dataclasses.replace(stats, splits={**stats.splits, "train": train})
        choices = {c.key: c.value for c in draft(many, street, tmp_path / "r.toml", "medium").choices}
        epochs.append(int(choices["student.epochs"]))
    assert epochs == [200, 200, 32, 5]


def test_class_weights_are_bounded(street: Path) -> None:
    train = dataset_stats(street).splits["train"]
    rare = dataclasses.replace(train.classes["pole"], weight=10_000.0)
    weights = class_weights(dataclasses.replace(train, classes={**train.classes, "pole": rare}))
    assert weights[5] == 10 and weights[0] == pytest.approx(train.classes["road"].weight ** 0.5, abs=1e-3)


def relabeled(street: Path, root: Path, classes: str, value: int | None = None) -> Path:
    shutil.copytree(street, root)
    (root / "classes.txt").write_text(classes)
    for mask in root.rglob("masks/*.png"):
        ids = np.arange(96 * 64, dtype=np.uint8).reshape(64, 96) % 3 if value is None else np.full((64, 96), value)
        write_image(mask, ids.astype(np.uint8))
    return root


def test_left_and_right_are_not_mirrored(street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    root = relabeled(street, tmp_path / "lane set ü", "background\nlane_left\nlane_right\nbright\n")
    result = edgeseg("init", root, "--out", tmp_path / "r.toml")
    assert result.code == 0 and "No frame holds bright, which cannot be learned" in result.err, result.err
    recipe = Recipe.load(tmp_path / "r.toml")
    assert not recipe.student.flip and not recipe.teacher.flip
    assert recipe.data.root == "lane set ü" and recipe.name == "lane-set"


@pytest.mark.parametrize(
    ("damage", "message", "hint"),
    [
        ("val", "has no val split", "edgeseg data split"),
        ("val test", "has no val and no test split", "edgeseg data split"),
        ("few", "train has 7 frames", "At least 8"),
        ("ignored", "every mask is all ignore", "classes.txt"),
        ("one class", "Only the class 'road' occurs", "edgeseg data show"),
        ("broken", "cannot be decoded", ""),
        ("preset", "Unknown preset 'tiny'", "small"),
        ("exists", "r.toml exists", "--out"),
    ],
)
def test_a_dataset_that_no_recipe_can_use(
    damage: str, message: str, hint: str, street: Path, tmp_path: Path, edgeseg: Edgeseg
) -> None:
    root, out = tmp_path / "d", tmp_path / "r.toml"
    if damage in ("ignored", "one class"):
        relabeled(street, root, "# (id 255 = ignore)\nroad\ncar\n", 255 if damage == "ignored" else 0)
    else:
        shutil.copytree(street, root)
    for split in damage.split():
        if split in ("val", "test"):
            shutil.rmtree(root / split)
    if damage == "few":
        for image in sorted((root / "train/images").iterdir())[7:]:
            image.unlink()
    if damage == "broken":
        next((root / "train/images").iterdir()).write_bytes(b"GIF89a")
    if damage == "exists":
        out.write_text("mine")
    result = edgeseg("init", root, "--out", out, *(["--preset", "tiny"] if damage == "preset" else []))
    assert result.code == 2 and message in result.err and hint in result.err, result.err
    assert out.read_text() == "mine" if damage == "exists" else not out.exists()


def test_what_the_refusal_proposes_works(street: Path, tmp_path: Path, edgeseg: Edgeseg, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(street / "train", tmp_path / "d" / "train")
    shutil.copy(street / "classes.txt", tmp_path / "d")
    proposed = re.search(r"edgeseg (data split \S+ --out \S+)", edgeseg("init", "d").err)
    assert proposed and edgeseg(*proposed[1].split()).code == 0
    assert edgeseg("init", "d-split").code == 0 and (tmp_path / "recipe.toml").is_file()


def test_every_preset_names_its_use(street: Path, tmp_path: Path) -> None:
    stats = dataset_stats(street)
    for preset in PRESETS:
        text = recipe_text(draft(stats, street, tmp_path / "r.toml", preset))
        assert f"--preset {preset}: for {PRESETS[preset].use}" in text
        assert max(map(len, text.splitlines())) <= 120
    with pytest.raises(EdgesegError, match="Unknown preset"):
        draft(stats, street, tmp_path / "r.toml", "huge")


@pytest.mark.slow
def test_pipeline_runs_the_recipe_as_it_is(street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    pytest.importorskip("torch", reason="needs edgeseg[train]")
    assert edgeseg("init", street, "--out", tmp_path / "r.toml", "--preset", "small").code == 0
    text = re.sub(r"^epochs = \d+", "epochs = 2", (tmp_path / "r.toml").read_text(), flags=re.M)
    (tmp_path / "r.toml").write_text(text.replace("max_drop = 1.0", "max_drop = 100.0"))
    result = edgeseg("pipeline", tmp_path / "r.toml", "--out", tmp_path / "run")
    assert result.code == 0, result.err
    assert (tmp_path / "run/bundles/street-int8/bundle.json").is_file()

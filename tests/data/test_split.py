"""data split: no group in two splits, shares kept, near copies together, the source untouched."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.data import groups
from edgeseg.data.copies import near_copies
from edgeseg.data.dataset import SPLITS, Classes, Dataset
from edgeseg.data.splitting import Plan, check_shares, split_dataset
from edgeseg.data.stratify import stratify
from edgeseg.errors import OptionError
from edgeseg.images import read_image, write_image

Edgeseg = Callable[..., Any]
CLASSES = Classes(("floor", "box", "rare"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)), 255)


def picture(seed: int) -> np.ndarray:
    """A frame like no other."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 10, 3), np.uint8)
    return cv2.resize(small, (80, 64), interpolation=cv2.INTER_CUBIC)


def put(root: Path, split: str, name: str, seed: int, class_id: int = 1) -> None:
    mask = np.zeros((64, 80), np.uint8)
    mask[:30, : 5 + seed % 40] = class_id
    write_image(root / split / "images" / f"{name}.png", picture(seed))
    write_image(root / split / "masks" / f"{name}.png", mask)
    (root / "classes.txt").write_text(CLASSES.text())


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """12 scenes of 5 frames, all in train; every fourth scene holds the rare class."""
    for scene in range(12):
        for i in range(5):
            put(tmp_path / "d", "train", f"s{scene}_{i}", scene * 10 + i, 2 if scene % 4 == 0 else 1)
    (tmp_path / "d" / "LICENSE").write_text("mine")
    return tmp_path / "d"


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p.relative_to(root)): (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


def placed(root: Path) -> dict[str, str]:
    """The split of every frame."""
    return {
        image.stem: split for split in SPLITS if (root / split).is_dir() for image in Dataset.open(root, split).images
    }


# The algorithm

group_sizes = st.lists(st.tuples(st.integers(1, 9), st.sets(st.integers(0, 4))), min_size=3, max_size=60)


def table(rows: list[tuple[int, set[int]]]) -> np.ndarray:
    return np.array([[size, *(size * (c in classes) for c in range(5))] for size, classes in rows], float)


@given(group_sizes, st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.5), (0.34, 0.33, 0.33), (0.9, 0.1)]), st.integers(0, 5))
def test_shares_hold_within_the_size_of_a_group(
    rows: list[tuple[int, set[int]]], shares: tuple[float, ...], seed: int
) -> None:
    content = table(rows)
    split = stratify(content, shares, seed)
    assert split == stratify(content, shares, seed), "the same seed gives the same splits"
    assert set(split) == set(range(len(shares))), "none is empty"
    frames = np.bincount(split, weights=content[:, 0], minlength=len(shares))
    assert np.abs(frames - np.array(shares) * content[:, 0].sum()).max() <= 2 * content[:, 0].max()


@given(st.lists(st.sets(st.integers(0, 4)), min_size=200, max_size=200), st.integers(0, 3))
def test_every_class_gets_its_share(classes: list[set[int]], seed: int) -> None:
    content = table([(1, own) for own in classes])
    split = np.array(stratify(content, (0.5, 0.5), seed))
    half = content[split == 0, 1:].sum(0)
    assert (np.abs(half - content[:, 1:].sum(0) / 2) <= 4).all()


def test_a_rare_class_reaches_every_split() -> None:
    """Ten of 200 groups hold it: by chance a split of a tenth would have none in a third of the cases."""
    rows = [(1, {0, 1} if i < 10 else {0}) for i in range(200)]
    for seed in range(20):
        split = stratify(table(rows), (0.8, 0.1, 0.1), seed)
        assert np.bincount(split[:10]).tolist() == [8, 1, 1]


def test_seeds_differ() -> None:
    content = table([(1, {0}) for _ in range(50)])
    assert len({tuple(stratify(content, (0.8, 0.2), seed)) for seed in range(5)}) == 5


# Groups

names = st.lists(st.from_regex(r"[a-c]{1,2}_[0-9]{1,3}", fullmatch=True), min_size=1, max_size=40, unique=True)


@given(names, st.integers(1, 7))
def test_blocks_are_consecutive_and_full(found: list[str], length: int) -> None:
    own = groups.by_blocks(found, length)
    for prefix in {name.split("_")[0] for name in found}:
        video = sorted((int(n.split("_")[1]), n, g) for n, g in zip(found, own) if n.split("_")[0] == prefix)
        assert [g for *_, g in video] == sorted((g for *_, g in video), key=[g for *_, g in video].index), "in order"
        assert all(sum(g == h for *_, h in video) <= length for *_, g in video)
    assert all(a.split("_")[0] == b.split("_")[0] for a, g in zip(found, own) for b, h in zip(found, own) if g == h)


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=20), st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)))
)
def test_joined_groups_hold_every_pair(own: list[int], pairs: list[tuple[int, int]]) -> None:
    pairs = [(a, b) for a, b in pairs if max(a, b) < len(own)]
    joined = groups.join([str(g) for g in own], pairs)
    assert all(joined[a] == joined[b] for a, b in pairs)
    assert all(joined[a] == joined[b] for a in range(len(own)) for b in range(len(own)) if own[a] == own[b])
    if not pairs:
        assert len(set(joined)) == len(set(own))


@pytest.mark.parametrize(
    ("found", "count", "what"),
    [
        ([f"{video}_{i}" for video in "abcdefghijkl" for i in range(4)], 12, "sequences"),
        ([f"{video}_{i}" for video in "ab" for i in range(60)], 30, "blocks of 4 consecutive"),
        (["x9f", "kq2", "zzz"], 3, "single frames"),
        ([f"f{i}" for i in range(400)], 31, "blocks of 13 consecutive"),
    ],
)
def test_names_like_a_videos_are_recognized(found: list[str], count: int, what: str) -> None:
    own, made_by = groups.by_names(found)
    assert len(set(own)) == count and what in made_by


# On files


def test_scenes_stay_together_and_nothing_is_lost(scenes: Path, tmp_path: Path) -> None:
    before = contents(scenes)
    result = split_dataset(scenes, tmp_path / "x", Plan((0.5, 0.25, 0.25), pattern=r"(.*)_\d"), near_copies)
    assert contents(scenes) == before
    where = placed(tmp_path / "x")
    splits_of = defaultdict(set)
    for name, split in where.items():
        splits_of[name.split("_")[0]].add(split)
    assert len(where) == 60 and all(len(splits) == 1 for splits in splits_of.values())
    assert {name: part.frames for name, part in result.splits.items()} == {"train": 30, "val": 15, "test": 15}
    assert all(part.classes["rare"].frames == 5 for part in result.splits.values()), "one of three scenes each"
    for split in SPLITS:
        for part in ("images", "masks"):
            for file in (tmp_path / "x" / split / part).iterdir():
                assert file.read_bytes() == (scenes / "train" / part / file.name).read_bytes()
    assert (tmp_path / "x" / "LICENSE").read_text() == "mine"


def test_the_list_says_where_every_frame_went_and_splits_again(scenes: Path, tmp_path: Path) -> None:
    split_dataset(scenes, tmp_path / "x", Plan(pattern=r"(.*)_\d", seed=3))
    rows = list(csv.DictReader((tmp_path / "x" / "split.csv").open()))
    assert {(Path(row["file"]).stem, row["split"]) for row in rows} == set(placed(tmp_path / "x").items())
    assert {row["group"] for row in rows} == {f"s{i}" for i in range(12)}
    split_dataset(scenes, tmp_path / "y", Plan(table=tmp_path / "x" / "split.csv", column="group", seed=3))
    assert placed(tmp_path / "y") == placed(tmp_path / "x")
    split_dataset(scenes, tmp_path / "z", Plan(pattern=r"(.*)_\d", seed=4))
    assert placed(tmp_path / "z") != placed(tmp_path / "x")


def test_near_copies_stay_together(tmp_path: Path) -> None:
    """Twelve frames and a copy of each under another name: smaller, poorer, brighter."""
    for i in range(12):
        put(tmp_path / "d", "train", f"frame{i}", i)
        poor = cv2.convertScaleAbs(cv2.resize(picture(i), (64, 50)), alpha=1.1, beta=8)
        write_image(tmp_path / "d/train/images" / f"copy{i}.jpg", poor)
        write_image(tmp_path / "d/train/masks" / f"copy{i}.png", np.ones((50, 64), np.uint8))
    part = Dataset.open(tmp_path / "d", "train")
    pairs = near_copies([(part, i) for i in range(len(part))])
    assert pairs == [(i, i + 12) for i in range(12)]
    result = split_dataset(tmp_path / "d", tmp_path / "x", Plan((0.5, 0.5), blocks=1), near_copies)
    assert (result.copies, result.leaks, result.groups) == (12, (), 12)
    where = placed(tmp_path / "x")
    assert all(where[f"frame{i}"] == where[f"copy{i}"] for i in range(12))
    loose = split_dataset(tmp_path / "d", tmp_path / "y", Plan((0.5, 0.5), blocks=1, copies="report"), near_copies)
    where = placed(tmp_path / "y")
    apart = [i for i in range(12) if where[f"frame{i}"] != where[f"copy{i}"]]
    assert apart and len(loose.leaks) == len(apart) and "looks like" in loose.leaks[0]


def test_a_test_split_that_stays_is_compared_too(scenes: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    put(scenes, "test", "same", 32)  # as s3_2
    result = edgeseg("data", "split", scenes, "--out", tmp_path / "x", "--shares", "0.9,0.1")
    assert result.code == 1, result.err
    assert f"s3_2 ({placed(tmp_path / 'x')['s3_2']}) looks like same (test)" in result.err
    assert placed(tmp_path / "x")["same"] == "test"
    assert edgeseg("data", "split", scenes, "--out", tmp_path / "y").code == 0, "a new test split can hold both"
    assert placed(tmp_path / "y")["same"] == placed(tmp_path / "y")["s3_2"]


def test_folds_cover_every_frame_once(scenes: Path, tmp_path: Path) -> None:
    for i in range(3):
        put(scenes, "test", f"t_{i}", 900 + i)
    result = split_dataset(scenes, tmp_path / "x", Plan(folds=4, pattern="(.*)_", link=True))
    validated = [placed(tmp_path / "x" / f"fold{k}") for k in (1, 2, 3, 4)]
    for where in validated:
        assert [name for name in where if where[name] == "test"] == ["t_0", "t_1", "t_2"] and len(where) == 63
    assert sorted(n for where in validated for n in where if where[n] == "val") == sorted(placed(scenes))[:60]
    assert result.splits["fold1/train"].frames + result.splits["fold1/val"].frames == 60
    frame = "train/images/s0_0.png"
    linked = next(p for p in (tmp_path / "x").glob("fold1/*/images/s0_0.png"))
    assert linked.samefile(scenes / frame)


def test_in_place(scenes: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    frames = {p.name: p.read_bytes() for p in scenes.rglob("*.png")}
    assert edgeseg("data", "split", scenes, "--in-place", "--group", "(.*)_").code == 0
    assert set(placed(scenes).values()) == set(SPLITS) and len(placed(scenes)) == 60
    assert {p.name: p.read_bytes() for p in scenes.rglob("*.png")} == frames
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d"] and (scenes / "LICENSE").exists()
    (scenes / "train" / "notes.txt").write_text("keep me")
    result = edgeseg("data", "split", scenes, "--in-place", "--group", "(.*)_")
    assert result.code == 2 and "belong to no frame" in result.err and "notes.txt" in result.err
    assert (scenes / "train" / "notes.txt").read_text() == "keep me"


def test_frames_of_the_same_name_in_two_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for i in range(4):
            put(tmp_path / "d", split, f"{i}", i + 50 * (split == "val"))
    split_dataset(tmp_path / "d", tmp_path / "x", Plan((0.5, 0.5), blocks=1))
    assert set(placed(tmp_path / "x")) == {f"{split}-{i}" for split in ("train", "val") for i in range(4)}
    image = next((tmp_path / "x").glob("*/images/val-2.png"))
    assert (read_image(image) == picture(52)).all()


def test_objects_travel_with_their_frame(scenes: Path, tmp_path: Path) -> None:
    objects = np.full((64, 80), 700, np.uint16)
    (scenes / "train" / "instances").mkdir()
    cv2.imwrite(str(scenes / "train/instances/s3_2.png"), objects)
    split_dataset(scenes, tmp_path / "x", Plan())
    (found,) = (tmp_path / "x").glob("*/instances/*.png")
    assert found.name == "s3_2.png" and (found.parents[1] / "images/s3_2.png").is_file()


def test_what_the_verb_prints(scenes: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("data", "split", scenes, "--out", tmp_path / "x", "--json", "-")
    written = json.loads(result.out)
    assert written["kind"] == "split" and written["frames"] == 60 and set(written["splits"]) == set(SPLITS)
    few = edgeseg("data", "split", scenes, "--out", tmp_path / "y", "--group", r"_(\d)", "--shares", "60,20,20")
    assert "5 groups" in few.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--group", "("], "cannot be read"),
        (["--group", r"^x"], "does not match s0_0"),
        (["--group", "^s"], "1 groups, too few for 3 splits"),
        (["--group", "(.*)_", "--blocks", "3"], "More than one of"),
        (["--group-column", "x"], "is for --group-file"),
        (["--group-file", "none.csv"], "none.csv does not exist"),
        (["--shares", "0.8,0.1"], "with the sum 1"),
        (["--shares", "1"], "with the sum 1"),
        (["--shares", "1.2,-0.2"], "with the sum 1"),
        (["--shares", "nan,nan"], "with the sum 1"),
        (["--shares", "much"], "Expected numbers"),
        (["--folds", "1"], "at least 2"),
        (["--folds", "61", "--blocks", "1"], "60 groups, too few for 61 splits"),
        (["--copies", "keep"], "join"),
    ],
)
def test_plans_that_cannot_be_followed(
    words: list[str], message: str, scenes: Path, tmp_path: Path, edgeseg: Edgeseg
) -> None:
    result = edgeseg("data", "split", scenes, "--out", tmp_path / "x", *words)
    assert result.code == 2 and message in result.err, result.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,scene\ns0_0.png,a\n", "does not list s0_1"),
        ("file\ns0_0.png\n", "fewer than two columns"),
        ("file,scene\ns0_0.png\n", "groups.csv:2: no value"),
        ("file,scene\ns0_0.png,a\ns0_0.png,b\n", "is in 'a' and in 'b'"),
        ("\x00", "cannot be read|fewer than two"),
        ("file,scene\n" + "".join(f"s{s}_{i},{s}\n" for s in range(12) for i in range(5)), ""),
        ("file;site\n" + "".join(f"train/images/s{s}_{i}.png;{s}\n" for s in range(12) for i in range(5)), ""),
    ],
)
def test_tables_of_groups(text: str, message: str, scenes: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    table = tmp_path / "groups.csv"
    table.write_text(text)
    result = edgeseg("data", "split", scenes, "--out", tmp_path / "x", "--group-file", table)
    assert result.code == (2 if message else 0), result.err
    assert not message or any(part in result.err for part in message.split("|")), result.err
    if not message:
        assert "12 groups" in result.out
    column = edgeseg("data", "split", scenes, "--out", tmp_path / "y", "--group-file", table, "--group-column", "cite")
    assert column.code == 2


def test_places_that_cannot_be_written(scenes: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for words, message in (
        ([], "Neither --out nor --in-place"),
        (["--out", tmp_path / "x", "--in-place"], "Both --out and --in-place"),
        (["--out", tmp_path / "full"], "is not empty"),
        (["--out", scenes / "x"], "is inside of"),
        (["--out", tmp_path], "is inside of"),
        (["--out", scenes, "--folds", "3"], "is inside of"),
    ):
        result = edgeseg("data", "split", scenes, *words)
        assert result.code == 2 and message in result.err, result.err
    assert len(placed(scenes)) == 60


def test_shares() -> None:
    assert check_shares((80, 10, 10)) == pytest.approx((0.8, 0.1, 0.1))
    with pytest.raises(OptionError, match="sum 1"):
        check_shares((0.5, 0.3, 0.1, 0.1))

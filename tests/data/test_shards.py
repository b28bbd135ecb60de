"""Shards: the same frames as the files they were written from, read by offset; damage of every kind is named."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_dataset import with_exif

from edgeseg import user_cache
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.data.checking import check_dataset
from edgeseg.data.copies import near_copies
from edgeseg.data.dataset import Classes, Dataset
from edgeseg.data.datasheet import read_datasheet
from edgeseg.data.exporting import export_dataset
from edgeseg.data.sharding import write_shards
from edgeseg.data.splitting import Plan, split_dataset
from edgeseg.data.stats import dataset_stats
from edgeseg.errors import FileError, OptionError
from edgeseg.images import read_image, read_mask, write_image

Edgeseg = Callable[..., Any]
CLASSES = Classes(("floor", "box"), ((0, 0, 0), (255, 0, 0)), 255)
NAMES = ("a.jpg", "b.c.PNG", "b%2Ec.png", "ünïcode 1.png", "turned.png", *(f"frame_{i:04}.jpg" for i in range(15)))
SMALL = 1 << 16  # bytes of a shard: several of them


def frame(seed: int) -> np.ndarray:
    """Noise, which does not compress."""
    return np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with names of all kinds, a turned image, maps of objects and a datasheet."""
    root = tmp_path_factory.mktemp("files") / "dataset"
    for split, names in (("train", NAMES), ("val", ("v.png",))):
        for seed, name in enumerate(names):
            mask = np.zeros((60, 80), np.uint8)
            mask[: 5 + seed] = 1
            mask[-1] = 255
            image, stem = root / split / "images" / name, Path(name).stem
            write_image(image, frame(seed))
            write_image(root / split / "masks" / f"{stem}.png", mask)
            if seed % 3 == 0:
                write_image(root / split / "instances" / f"{stem}.png", mask.astype(np.uint16) * 300)  # type: ignore[arg-type]
    turned = root / "train" / "images" / "turned.png"
    turned.write_bytes(with_exif(turned.read_bytes(), 6))
    (root / "classes.txt").write_text(CLASSES.text())
    (root / "datasheet.toml").write_text('source = "Noise"\n')
    return root


@pytest.fixture(scope="module")
def written(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "shards"
    write_shards(files, out, SMALL)
    return out


@pytest.fixture
def shards(written: Path, tmp_path: Path) -> Path:
    """Shards that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "shards"))


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_they_hold_the_frames_in_the_same_order(files: Path, written: Path) -> None:
    assert len(list((written / "train").glob("*.tar"))) > 3
    for split in ("train", "val"):
        one, other = Dataset.open(files, split), Dataset.open(written, split)
        assert [path.name for path in one.images] == [path.name for path in other.images]
        assert one.digest() == other.digest() and one.instances_digest() == other.instances_digest()
        for i in range(len(one)):
            assert all(np.array_equal(a, b) for a, b in zip(one[i], other[i], strict=True))
            objects = one.instances(i), other.instances(i)
            assert (objects[0] is None) == (objects[1] is None) and np.array_equal(*objects)  # type: ignore[arg-type]
    turned = [path.name for path in other.images].index("v.png")
    assert other.mask(turned).shape == (60, 80)


def test_the_index_counts_pixels_as_the_masks_have_them(written: Path) -> None:
    dataset = Dataset.open(written, "train")
    assert dataset.shards is not None
    for i in range(len(dataset)):
        mask = dataset.mask(i)
        assert dataset.shards.pixels[i].tolist() == [(mask == 0).sum(), (mask == 1).sum()]
        assert tuple(dataset.shards.sizes[i]) == mask.shape


def test_statistics_and_the_datasheet_are_the_same(files: Path, written: Path) -> None:
    assert dataset_stats(files).splits == dataset_stats(written).splits
    assert read_datasheet(written) == read_datasheet(files) is not None


def test_the_bytes_are_the_same_each_time(files: Path, written: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(files, tmp_path / "copied", copy_function=shutil.copyfile))  # with other times
    write_shards(copied, tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(written)


def test_tar_reads_them(files: Path, written: Path, tmp_path: Path) -> None:
    index = json.loads((written / "train" / "index.json").read_text())
    for row in index["shards"]:
        archive = written / "train" / row["name"]
        assert hashlib.sha256(archive.read_bytes()).hexdigest() == row["sha256"]
        assert archive.stat().st_size == row["size"] <= SMALL + 10240  # the end of an archive is padded
        subprocess.run(["tar", "xf", archive, "-C", tmp_path], check=True)
    unpacked = contents(tmp_path)
    images, masks = contents(files / "train" / "images"), contents(files / "train" / "masks")
    assert unpacked["b%2Ec.png"] == images["b.c.PNG"] and unpacked["b%2Ec.mask.png"] == masks["b.c.png"]
    assert unpacked["b%252Ec.png"] == images["b%2Ec.png"]
    assert sorted(unpacked.values()) == sorted(contents(files / "train").values())


def test_webdataset_reads_them(files: Path, written: Path) -> None:
    wds = pytest.importorskip("webdataset", reason="the package webdataset is not installed")
    archives = [str(path) for path in sorted((written / "train").glob("*.tar"))]
    samples = {row["__key__"]: row for row in wds.WebDataset(archives, shardshuffle=False)}
    assert len(samples) == len(NAMES)
    assert samples["a"]["jpg"] == (files / "train" / "images" / "a.jpg").read_bytes()
    assert samples["a"]["mask.png"] == (files / "train" / "masks" / "a.png").read_bytes()
    assert samples["a"]["instances.png"] == (files / "train" / "instances" / "a.png").read_bytes()


KILLED = """
import os, sys
from pathlib import Path
from edgeseg.data.sharding import write_shards
write_shards(Path(sys.argv[1]), Path(sys.argv[2]), 1 << 16, lambda done, total: done == 12 and os.kill(os.getpid(), 9))
"""


def test_a_killed_run_continues(files: Path, written: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "shards", tmp_path / ".shards.sharding"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(files), str(out)], check=False)
    assert ended.returncode == -9 and not out.exists()
    finished = sorted(path.name for path in (work / "train").glob("*.json"))
    assert finished
    (work / "train" / finished[-1].replace("json", "tar")).write_bytes(b"not what its index says")
    result = write_shards(files, out, SMALL)
    assert result.kept == len(finished) - 1
    assert contents(out) == contents(written) and not work.exists()


def test_shards_of_other_files_are_not_kept(files: Path, tmp_path: Path) -> None:
    changed, out = Path(shutil.copytree(files, tmp_path / "changed")), tmp_path / "shards"

    def stop(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(changed, out, SMALL, stop)
    write_image(changed / "train" / "images" / "a.jpg", frame(99))
    assert write_shards(changed, out, SMALL).kept == 0
    assert Dataset.open(out, "train").digest() == Dataset.open(changed, "train").digest()


def test_calibration_frames_come_out_of_shards(files: Path, written: Path, tmp_path: Path) -> None:
    user_cache.use(tmp_path)
    try:
        one, other = (CalibrationSet.choose(root, 10, seed=3) for root in (files, written))
        assert one.digest == other.digest and all(path.is_relative_to(tmp_path) for path in other.frames)
        other.frames[0].write_bytes(b"damaged")
        assert CalibrationSet.choose(written, 10, seed=3).frames[0].read_bytes() == one.frames[0].read_bytes()
    finally:
        user_cache.use(None)


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def rename_frame(name: str) -> Callable[[Path], None]:
    def damage(train: Path) -> None:
        change(train / "000000.json", lambda d: d["frames"][0].update(name=name))

    return damage


def in_first(edit: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    return lambda train: change(train / "000000.json", lambda d: edit(d["frames"][0]))


def same_key_twice(train: Path) -> None:
    name = json.loads((train / "000001.json").read_text())["frames"][0]["name"]
    rename_frame(name)(train)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "000001.tar").write_bytes((d / "000001.tar").read_bytes()[:-9000]), "its index says"),
        (lambda d: (d / "000001.tar").write_bytes(b""), "is empty"),
        (lambda d: (d / "000001.tar").unlink(), r"Shard .*000001\.tar does not exist"),
        (lambda d: (d / "000001.json").unlink(), r"000001\.json does not exist"),
        (lambda d: (d / "000001.json").write_text("{"), "is not JSON"),
        (lambda d: (d / "index.json").write_text("[]"), "is not JSON"),
        (lambda d: shutil.copy(d / "000000.json", d / "000001.json"), "is of another shard"),
        (lambda d: change(d / "index.json", lambda x: x.update(schema=9)), "newer edgeseg"),
        (lambda d: change(d / "index.json", lambda x: x.update(shards=[])), "hold no frames"),
        (lambda d: change(d / "index.json", lambda x: x["shards"][0].update(name="../x.tar")), "names a shard '../x"),
        (lambda d: (d.parent / "classes.txt").write_text("a\nb\nc\n"), "have the classes floor, box"),
        (same_key_twice, "have the same name: 00000"),
        (rename_frame("../../x.png"), "leads elsewhere"),
        (rename_frame("/etc/x.png"), "leads elsewhere"),
        (rename_frame(".."), "leads elsewhere"),
        (rename_frame("x\0.png"), "leads elsewhere"),
        (rename_frame("x.exe"), "is no image"),
        (in_first(lambda f: f.update(mask=None)), "has no mask"),
        (in_first(lambda f: f.pop("image")), "missing required field `image`"),
        (in_first(lambda f: f["image"].update(offset=10**9)), "outside of the shard"),
        (in_first(lambda f: f["image"].update(offset=-1)), "outside of the shard"),
        (in_first(lambda f: f["mask"].update(sha256="zz")), "has no sha256"),
        (in_first(lambda f: f.update(pixels=[1])), "impossible counts"),
        (in_first(lambda f: f.update(height=0)), "impossible counts"),
    ],
)  # fmt: skip
def test_damaged_shards_are_refused(damage: Callable[[Path], None], message: str, shards: Path) -> None:
    damage(shards / "train")
    with pytest.raises((FileError, OptionError), match=message):
        Dataset.open(shards, "train")


def test_content_that_changed_is_found_when_it_is_read(shards: Path) -> None:
    dataset = Dataset.open(shards, "train")
    path = shards / "train" / "000000.tar"
    with tarfile.open(path) as archive:
        first = archive.getmembers()[0]
    data = bytearray(path.read_bytes())
    data[first.offset_data + 5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileError, match=r"Shard .*000000\.tar has changed: the images of ") as caught:
        [dataset[i] for i in range(len(dataset))]
    assert "edgeseg data shard" in caught.value.hint
    path.unlink()
    with pytest.raises(FileError, match=r"000000\.tar cannot be read: No such file"):
        [dataset[i] for i in range(len(dataset))]


def test_what_cannot_be_sharded(files: Path, written: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(files, tmp_path / "d"))
    with pytest.raises(FileError, match="exists"):
        write_shards(root, written)
    with pytest.raises(OptionError, match="of 1024 bytes is too small"):
        write_shards(root, tmp_path / "out", 1024)
    with pytest.raises(OptionError, match="data shard needs a dataset of files"):
        write_shards(written, tmp_path / "out")
    (root / "train" / "images" / "a.png").write_bytes((root / "train" / "images" / "b.c.PNG").read_bytes())
    with pytest.raises(FileError, match=r"a\.jpg and a\.png share one mask"):
        write_shards(root, tmp_path / "out")
    (root / "train" / "images" / "a.png").unlink()
    write_image(root / "train" / "masks" / "a.png", np.full((60, 80), 7, np.uint8))
    with pytest.raises(FileError, match="holds label 7, outside the 2 classes"):
        write_shards(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(files: Path, written: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("data", "shard", files, "-o", tmp_path / "s", "--size", "64K", "--json", tmp_path / "r.json")
    assert result.code == 0 and "21 frames (20 train, 1 val) in " in result.out
    row = json.loads((tmp_path / "r.json").read_text())
    assert row["kind"] == "sharding" and row["splits"] == {"train": 20, "val": 1} and row["kept"] == 0
    assert contents(tmp_path / "s") == contents(written)
    for size in ("", "12X", "-1", "1.5G"):
        wrong = edgeseg("data", "shard", files, "-o", tmp_path / "t", f"--size={size}")
        assert wrong.code == 2 and "Expected bytes, like 256M" in wrong.err


def test_verbs_that_need_files_say_so(written: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    for words in (
        ("data", "check", written, "--fix"),
        ("data", "split", written, "--in-place"),
        ("data", "split", written, "-o", tmp_path / "x", "--link"),
        ("data", "shard", written, "-o", tmp_path / "x"),
        ("calibrate", written, "-o", tmp_path / "x.json"),
    ):
        result = edgeseg(*words)
        assert result.code == 2 and "is in shards" in result.err, words


def test_a_check_finds_in_shards_what_it_finds_in_files(street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    root = Path(shutil.copytree(street, tmp_path / "d"))
    image, mask = (sorted((root / "train" / part).iterdir())[3] for part in ("images", "masks"))
    write_image(root / "test" / "images" / f"copy{image.suffix}", np.ascontiguousarray(read_image(image)[:, ::-1]))
    write_image(root / "test" / "masks" / "copy.png", np.ascontiguousarray(read_mask(mask)[:, ::-1]))
    write_image(mask, np.zeros_like(read_mask(mask)))
    write_shards(root, tmp_path / "s")
    one, other = check_dataset(root), check_dataset(tmp_path / "s")
    names = [
        {(f.kind, Path(f.file).name.replace(".mask.", ".")) for f in (*r.errors, *r.warnings)} for r in (one, other)
    ]
    assert names[0] == names[1] and {"leak", "single-class"} <= {kind for kind, _ in names[0]}
    assert (one.frames, one.splits, one.score) == (other.frames, other.splits, other.score)
    ran = edgeseg("data", "check", tmp_path / "s", "--report", tmp_path / "r.html")
    assert ran.code == 1 and "000000.tar/copy" in (tmp_path / "r.html").read_text()
    assert (tmp_path / "r" / "leak-1.jpg").is_file() and (tmp_path / "r" / "single-class-1.jpg").is_file()


def test_a_check_names_the_frame_whose_content_changed(shards: Path) -> None:
    path = shards / "train" / "000000.tar"
    with tarfile.open(path) as archive:
        members = [m for m in archive.getmembers() if ".mask" not in m.name and ".instances" not in m.name]
    data = bytearray(path.read_bytes())
    data[members[0].offset_data + 5000] ^= 1
    path.write_bytes(data)
    (error,) = check_dataset(shards, skip=["copies"]).errors
    assert error.kind == "unreadable" and "has changed: the images of" in error.what


def test_shards_are_divided_and_exported_like_files(files: Path, written: Path, tmp_path: Path) -> None:
    for name, root in (("one", files), ("other", written)):
        split_dataset(root, tmp_path / name / "divided", Plan((0.5, 0.5)), near_copies)
        export_dataset(root, "coco", tmp_path / name / "exported")
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    listed = [files.pop("divided/split.csv").decode() for files in (one, other)]
    assert one == other
    assert re.sub(r"(?<=/)\d{6}\.tar/", "images/", listed[1]) == listed[0]


def test_a_bundle_is_evaluated_on_them(street: Path, bundle: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    write_shards(street, tmp_path / "shards")
    (tmp_path / "slices.toml").write_text('[patterns.half]\nfirst = "[01]$"\nlast = "."\n')
    rows = []
    for root in (street, tmp_path / "shards"):
        options = ("--slices", tmp_path / "slices.toml", "--json", tmp_path / "r.json")
        assert edgeseg("eval", bundle, "--data", root, *options).code == 0
        rows.append(json.loads((tmp_path / "r.json").read_text()))
    assert rows[0]["miou"] == rows[1]["miou"] and rows[0]["slices"] == rows[1]["slices"]
    assert edgeseg("data", "show", tmp_path / "shards", "--out", tmp_path / "sheet.jpg").code == 0

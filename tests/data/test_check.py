"""Planted faults are found, clean frames are not blamed, and fixes lose nothing."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.data import checks
from edgeseg.data.checking import check_dataset, fix_dataset
from edgeseg.data.checks.boundaries import alignment
from edgeseg.data.checks.images import truncation
from edgeseg.data.checks.masks import as_ids
from edgeseg.data.checks.specks import specks
from edgeseg.data.copies import clusters
from edgeseg.data.dataset import Classes, Dataset
from edgeseg.data.local_features import FARTHEST, matches
from edgeseg.data.video import places
from edgeseg.errors import FileError, OptionError
from edgeseg.images import palette_png, read_image, read_mask, write_image
from edgeseg.records import Record
from edgeseg.results.check import CheckResult, Finding

Edgeseg = Callable[..., Any]
COPIES = ["copies"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgeseg.synth.files import write_dataset

    root = tmp_path_factory.mktemp("clean") / "street"
    write_dataset(root, train=6, val=2, test=3, seed=5, height=168, width=288)
    return root


@pytest.fixture(scope="module")
def usual(clean: Path) -> set[tuple[str, str]]:
    """What is found without a fault."""
    return kinds(check_dataset(clean, skip=COPIES))


@pytest.fixture
def root(clean: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(clean, tmp_path / "street"))


def first(root: Path, split: str = "train", number: int = 0) -> tuple[Path, Path]:
    image = sorted((root / split / "images").iterdir())[number]
    return image, root / split / "masks" / f"{image.stem}.png"


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def stored_as(image: Path, suffix: str, data: bytes) -> Path:
    image.unlink()
    new = image.with_suffix(suffix)
    new.write_bytes(data)
    return new


def turned_jpeg(frame: np.ndarray, orientation: int) -> bytes:
    data = cv2.imencode(".jpg", frame)[1].tobytes()
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, orientation, 0) + b"\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def kinds(result: CheckResult) -> set[tuple[str, str]]:
    return {(f.kind, f.file) for f in (*result.errors, *result.warnings)}


def of(result: CheckResult, kind: str) -> list[Finding]:
    return [f for f in (*result.errors, *result.warnings) if f.kind == kind]


def test_nothing_is_wrong_with_a_clean_set(clean: Path) -> None:
    result = check_dataset(clean)
    assert not result.errors
    assert {kind for kind, _ in kinds(result)} <= {"rare-class", "missing-class", "specks-everywhere"}
    assert result.frames == 11 and result.score == 100
    assert any(reason.startswith("label_errors") for reason in result.skipped)


def spoil_image(data: Callable[[np.ndarray], bytes], suffix: str) -> Callable[[Path, Path], Path]:
    return lambda image, mask: stored_as(image, suffix, data(read_image(image)))


def spoil_mask(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, Path], Path]:
    def spoil(image: Path, mask: Path) -> Path:
        mask.write_bytes(png(change(read_mask(mask))))
        return mask

    return spoil


def remove(gone: int) -> Callable[[Path, Path], Path]:
    def spoil(*files: Path) -> Path:
        files[gone].unlink()
        return files[1 - gone]

    return spoil


def shifted(mask: np.ndarray) -> np.ndarray:
    return np.roll(mask, (8, 10), (0, 1))


def dotted(mask: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    mask = mask.copy()
    for y, x in zip(rng.integers(0, mask.shape[0], 200), rng.integers(0, mask.shape[1], 200)):
        mask[y, x] = (mask[y, x] + 1) % 8
    return mask


def jpeg(frame: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", frame)[1].tobytes()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_mask(image: Path, mask: Path) -> Path:
    mask.write_bytes(half(mask.read_bytes()))
    return mask


FAULTS: dict[str, tuple[bool, Callable[[Path, Path], Path]]] = {
    "unreadable": (True, spoil_image(lambda f: b"text" * 99, ".png")),
    "truncated": (True, spoil_image(lambda f: half(jpeg(f)), ".jpg")),
    "exif-rotated": (False, spoil_image(lambda f: turned_jpeg(np.rot90(f), 6), ".jpg")),
    "16-bit": (False, spoil_image(lambda f: png(f.astype(np.uint16) * 257), ".png")),
    "alpha": (False, spoil_image(lambda f: png(np.dstack([f, f[..., 0]])), ".png")),
    "grayscale": (False, spoil_image(lambda f: png(f[..., 0]), ".png")),
    "no-mask": (True, remove(1)),
    "no-image": (False, remove(0)),
    "size": (True, spoil_mask(lambda m: m[:-4])),
    "unknown-id": (True, spoil_mask(lambda m: np.where(m == m[0, 0], 77, m).astype(np.uint8))),
    "single-class": (False, spoil_mask(np.zeros_like)),
    "specks": (False, spoil_mask(dotted)),
    "shifted-mask": (False, spoil_mask(shifted)),
    "mask-encoding": (True, spoil_mask(lambda m: m.astype(np.uint16))),
    "unreadable-mask": (True, cut_mask),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found_and_nothing_else_blamed(root: Path, usual: set[tuple[str, str]], kind: str) -> None:
    error, spoil = FAULTS[kind]
    file = spoil(*first(root, number=2)).relative_to(root).as_posix()
    result = check_dataset(root, skip=COPIES)
    found = result.errors if error else result.warnings
    assert (kind, file) in {(f.kind, f.file) for f in found}
    stem = Path(file).stem
    assert all(Path(f).stem == stem for _, f in kinds(result) - usual if f), kinds(result) - usual
    assert result.score < 100 or kind == "no-image"


def test_an_empty_file_a_missing_end_and_a_damaged_chunk(root: Path) -> None:
    image, _ = first(root)
    whole = image.read_bytes()
    assert truncation(whole) == ""
    assert "last chunk" in truncation(whole[:-8])
    assert "checksum" in truncation(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    webp = cv2.imencode(".webp", read_image(image))[1].tobytes()
    assert truncation(webp) == "" and "bytes" in truncation(webp[:-100])
    image.write_bytes(b"")
    assert "0 bytes" in of(check_dataset(root, skip=COPIES), "unreadable")[0].what


@given(cut=st.integers(1, 2000))
def test_every_cut_is_seen(cut: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    for suffix in (".png", ".jpg", ".webp"):
        data = cv2.imencode(suffix, frame)[1].tobytes()
        assert truncation(data) == ""
        assert truncation(data[: -min(cut, len(data) - 60)])


def test_ignored_masks_are_empty_and_rare_classes_are_named(root: Path) -> None:
    classes = (root / "classes.txt").read_text()
    (root / "classes.txt").write_text(classes.replace("# id name r g b", "# id name r g b  (id 255 = ignore)"))
    if "ignore" not in (root / "classes.txt").read_text():
        (root / "classes.txt").write_text("# (id 255 = ignore)\n" + classes)
    _, mask = first(root)
    mask.write_bytes(png(np.full_like(read_mask(mask), 255)))
    for path in (root / "val" / "masks").iterdir():
        labels = read_mask(path)
        path.write_bytes(png(np.where(labels == 0, 1, labels).astype(np.uint8)))
    result = check_dataset(root, skip=COPIES)
    assert [f.file for f in of(result, "empty-mask")] == [mask.relative_to(root).as_posix()]
    assert any(f.split == "val" for f in of(result, "missing-class"))


ALTERED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "re-encoded": lambda f: cv2.imdecode(cv2.imencode(".jpg", f, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1),
    "half": lambda f: cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "darker": lambda f: (f * 0.7).astype(np.uint8),
    "mirrored": lambda f: f[:, ::-1].copy(),
    "cropped": lambda f: f[20:-10, 15:-30].copy(),
}


@pytest.mark.parametrize("change", ALTERED)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_copy_is_a_leak_across_splits_and_a_duplicate_within(root: Path, change: str, split: str) -> None:
    original, _ = first(root, "test", 1)
    copy = root / split / "images" / "copy.png"
    write_image(copy, ALTERED[change](read_image(original)))
    found = of(check_dataset(root, skip=["pairs"]), "leak" if split == "train" else "near-duplicate")
    assert len(found) == 1
    assert {found[0].file, *found[0].others} == {p.relative_to(root).as_posix() for p in (original, copy)}
    if change in ("mirrored", "cropped"):
        assert change in found[0].what


def test_identical_files(root: Path) -> None:
    original, mask = first(root)
    for folder, path in (("images", original), ("masks", mask)):
        shutil.copy(path, root / "train" / folder / f"other.{path.suffix}".replace("..", "."))
        shutil.copy(path, root / "test" / folder / f"again{path.suffix}")
    result = check_dataset(root)
    assert len(of(result, "duplicate")) == 1 and "identical file" in of(result, "duplicate")[0].what
    assert {f.split for f in of(result, "leak")} == {"train"}
    assert "leak" in {f.kind for f in result.errors} and "duplicate" in {f.kind for f in result.warnings}


def video(root: Path, split: str, numbers: range, scene: np.ndarray) -> None:
    for i in numbers:
        write_image(root / split / "images" / f"clip_{i:05}.png", scene[:, 4 * i : 4 * i + 384].copy())
        write_image(root / split / "masks" / f"clip_{i:05}.png", np.tile(np.arange(8, dtype=np.uint8), (224, 48)))


def test_neighbors_of_a_video_are_a_group_and_warned_of_across_splits(root: Path) -> None:
    rng = np.random.default_rng(3)
    scene = cv2.resize(rng.integers(0, 256, (28, 70, 3), np.uint8), (560, 224), interpolation=cv2.INTER_CUBIC)
    video(root, "train", range(0, 6), scene)
    result = check_dataset(root)
    (group,) = result.groups
    assert (group.first, group.last, group.frames) == (
        "train/images/clip_00000.png", "train/images/clip_00005.png", 6,
    )  # fmt: skip
    assert not of(result, "near-duplicate") and not of(result, "leak")
    video(root, "test", range(6, 10), scene)
    result = check_dataset(root)
    (neighbors,) = of(result, "split-neighbors")
    assert {neighbors.file, *neighbors.others} == {"train/images/clip_00005.png", "test/images/clip_00006.png"}
    assert of(result, "shared-video") and result.groups[0].splits == ("train", "test")


def test_numbers_that_each_split_counts_for_itself_are_no_video() -> None:
    own = places([(split, f"{i:04}") for split in ("train", "test") for i in range(9)])
    assert len({place.video for place in own}) == 2
    one = places([("train" if i < 5 else "test", f"a_{i:04}_leftImg8bit") for i in range(9)])
    assert len({place.video for place in one}) == 1 and one[4].follows(one[5]) and not one[0].follows(one[2])


@pytest.mark.parametrize("counted_by_numpy", [True, False])
def test_features_are_matched_as_opencv_matches_them(counted_by_numpy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not counted_by_numpy:
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    rng = np.random.default_rng(3)
    for few in (1, 7, 40, 96):
        first = rng.integers(0, 256, (96, 32), np.uint8)
        second = first[rng.integers(0, 96, few)] ^ (rng.random((few, 32)) < 0.3).astype(np.uint8)
        found = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first, second)
        expected = [(m.queryIdx, m.trainIdx) for m in found if m.distance <= FARTHEST]
        assert list(zip(*(side.tolist() for side in matches(first, second)))) == expected


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).filter(lambda p: p[0] != p[1])))
def test_clusters_hold_every_number_once_and_pairs_together(pairs: list[tuple[int, int]]) -> None:
    found = clusters(pairs)
    assert sorted(i for cluster in found for i in cluster) == sorted({i for pair in pairs for i in pair})
    assert all(any(a in c and b in c for c in found) for a, b in pairs)


@given(x=st.integers(-7, 7), y=st.integers(-7, 7))
def test_the_shift_of_a_mask_is_measured(x: int, y: int) -> None:
    labels = np.kron(np.random.default_rng(1).integers(0, 5, (9, 12)), np.ones((20, 20))).astype(np.uint8)
    frame = np.dstack([labels * 50] * 3)
    found = alignment(frame, np.roll(labels, (y, x), (0, 1)), None)
    assert found is not None
    assert (abs(found.x - x), abs(found.y - y)) <= (1, 1)
    assert found.shifted == (np.hypot(x, y) >= 2.5) or 2 <= np.hypot(x, y) <= 4


@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_every_lone_pixel_inside_of_a_class_is_a_speck(places: set[tuple[int, int]]) -> None:
    labels = np.zeros((40, 40), np.uint8)
    for y, x in places:
        labels[2 + 4 * y - (y == 9), 2 + 4 * x - (x == 9)] = 1
    assert len(specks(labels, 4, None)) == len(places)
    assert specks(labels, 4, 1) == []


CLASSES = Classes(("a", "b", "c"), ((10, 20, 30), (0, 0, 0), (200, 0, 7)), 255)


@given(st.lists(st.integers(0, 2), min_size=4, max_size=4).filter(lambda ids: len(set(ids)) > 1))
def test_ids_are_recovered_from_other_encodings(ids: list[int]) -> None:
    labels = np.array(ids, np.uint8).reshape(2, 2)
    colored = np.array(CLASSES.palette, np.uint8)[labels][..., ::-1]
    for stored in (labels.astype(np.uint16), np.dstack([labels] * 3), colored):
        np.testing.assert_array_equal(as_ids(stored, CLASSES), labels)
    strange = colored.copy()
    strange[0, 0] = (9, 9, 9)
    assert as_ids(strange, CLASSES) is None and as_ids(labels.astype(np.uint16) + 300, CLASSES) is None


def test_fixes_change_no_pixel_that_is_read_and_delete_nothing(root: Path) -> None:
    palette = ((1, 2, 3), *[(9 * i, i, 7) for i in range(1, 8)])
    for number, kind in enumerate(("exif-rotated", "16-bit", "alpha")):
        FAULTS[kind][1](*first(root, number=number))
    image, mask = first(root, number=0)
    assert image.suffix == ".jpg"
    mask.write_bytes(png(np.ascontiguousarray(np.rot90(read_mask(mask)))))  # fits the stored pixels
    _, palette_mask = first(root, number=3)
    palette_mask.write_bytes(palette_png(read_mask(palette_mask), palette))
    before = {Path(p).stem: frame for p, frame in zip(Dataset.open(root, "train").images, Dataset.open(root, "train"))}
    orphan = root / "val" / "masks" / "orphan.png"
    orphan.write_bytes(png(np.zeros((4, 4), np.uint8)))

    fixed = fix_dataset(root, check_dataset(root, skip=COPIES))
    assert len(fixed) == 5 and not orphan.exists()
    after = Dataset.open(root, "train")
    for path, (frame, labels) in zip(after.images, after):
        np.testing.assert_array_equal(frame, before[path.stem][0])
        np.testing.assert_array_equal(labels, before[path.stem][1])
    left = {kind for kind, _ in kinds(check_dataset(root, skip=COPIES))}
    assert not left & {"exif-rotated", "16-bit", "alpha", "no-image", "mask-palette"}
    removed = {p.name for p in (root / ".removed").rglob("*") if p.is_file()}
    assert removed >= {"orphan.png", image.name, palette_mask.name}
    assert fix_dataset(root, check_dataset(root, skip=COPIES)) == ()


def test_what_may_be_turned_either_way_is_left_alone(root: Path) -> None:
    image, mask = first(root)
    new = stored_as(image, ".jpg", turned_jpeg(read_image(image)[::-1, ::-1], 3))
    data, labels = new.read_bytes(), mask.read_bytes()
    result = check_dataset(root, skip=COPIES)
    assert of(result, "exif-ambiguous")
    assert fix_dataset(root, result) == ()
    assert new.read_bytes() == data and mask.read_bytes() == labels


def test_labels_that_a_model_is_sure_are_wrong(bundle_of: Callable[[str, str], Path], street: Path) -> None:
    from edgeseg.data.checks.label_errors import suspicious

    labels = np.zeros((60, 80), np.uint8)
    labels[:, 40:] = 1
    chances = np.full((3, 60, 80), 0.01, np.float32)
    chances[0], chances[2, 20:40, 50:70] = np.where(labels == 0, 0.98, 0.001), 0.998
    chances[1] = np.where(labels == 1, 0.98, 0.01)
    chances[1, 20:40, 50:70] = 0.0001
    predicted = chances.argmax(0).astype(np.uint8)
    (region,) = suspicious(labels, labels < 3, predicted, chances)
    assert (region.label, region.predicted, region.box) == (1, 2, (50, 20, 20, 20)) and region.score > 0.8
    ignored = np.where(predicted == 2, 255, labels).astype(np.uint8)
    assert not list(suspicious(ignored, ignored < 3, predicted, chances))


def test_a_bundle_is_asked_and_one_of_other_classes_refused(
    bundle_of: Callable[[str, str], Path], street: Path, root: Path, edgeseg: Edgeseg
) -> None:
    bundle = bundle_of("onnxruntime-cpu", "fp32")
    ran = edgeseg("data", "check", street, "--bundle", bundle, "--json", "-")
    assert json.loads(ran.out)["skipped"] == ["faces: no face model was given"]
    lines = (root / "classes.txt").read_text().splitlines()
    (root / "classes.txt").write_text("\n".join(lines).replace("road", "way"))
    ran = edgeseg("data", "check", root, "--bundle", bundle)
    assert ran.code == 2 and "classes" in ran.err


def test_the_command_its_json_exit_codes_and_report(root: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    assert edgeseg("data", "check", root).code == 0
    _, mask = first(root)
    FAULTS["unknown-id"][1](*first(root))
    FAULTS["shifted-mask"][1](*first(root, number=1))
    page = tmp_path / "check.html"
    ran = edgeseg("data", "check", root, "--report", page, "--json", "-")
    assert ran.code == 1
    document = json.loads(ran.out)
    error = next(e for e in document["errors"] if e["kind"] == "unknown-id")
    assert error["file"] == mask.relative_to(root).as_posix() and error["split"] == "train" and "77" in error["what"]
    assert "shifted-mask" in {w["kind"] for w in document["warnings"]}
    assert isinstance(CheckResult.from_dict(document), Record)
    html = page.read_text()
    assert "unknown-id" in html and "<img" in html and "of 100" in html
    saved = tmp_path / "check.json"
    saved.write_text(json.dumps(document))
    assert edgeseg("report", saved, "--out", tmp_path / "again.md").code == 0


def test_fix_on_the_command_line(root: Path, edgeseg: Edgeseg) -> None:
    FAULTS["16-bit"][1](*first(root))
    FAULTS["no-image"][1](*first(root, number=1))
    ran = edgeseg("data", "check", root, "--fix", "--skip", "copies", "--json", "-")
    assert ran.code == 0
    assert len(json.loads(ran.out)["fixed"]) == 2 and "scaled to 8 bits" in ran.err


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda root: shutil.rmtree(root), "does not exist"),
        (lambda root: (root / "classes.txt").unlink(), "Class list"),
        (lambda root: (root / "classes.txt").write_text("{}"), "cannot read"),
        (lambda root: [shutil.rmtree(root / s) for s in ("train", "val", "test")], "no dataset"),
    ],
)
def test_what_is_no_dataset_is_refused(
    root: Path, break_it: Callable[[Path], object], words: str, edgeseg: Edgeseg
) -> None:
    break_it(root)
    ran = edgeseg("data", "check", root)
    assert ran.code == 2 and words in ran.err
    with pytest.raises(FileError, match=words):
        check_dataset(root)


def test_bad_options(root: Path, edgeseg: Edgeseg) -> None:
    with pytest.raises(OptionError, match="Unknown check 'speck'"):
        check_dataset(root, skip=["speck"])
    ran = edgeseg("data", "check", root, "--report", "x.pdf")
    assert ran.code == 2 and ".html or FILE.md" in ran.err


def test_folders_that_lack_something_are_findings(root: Path) -> None:
    shutil.rmtree(root / "val" / "images")
    image, _ = first(root)
    shutil.copy(image, image.with_suffix(".bmp"))
    result = check_dataset(root, skip=COPIES)
    assert {f.kind for f in result.errors} == {"empty-split", "name-clash"}
    assert len(of(result, "no-image")) == 2


def test_a_check_is_one_file_found_by_its_name(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "toy_check.py").write_text(
        "from edgeseg.data.checks import Check\nfrom edgeseg.results.check import Finding\nERRORS = ('toy',)\n"
        "class Toy(Check):\n    def look(self, sample):\n"
        "        return [Finding(kind='toy', file=sample.name, what='x', split=sample.split)]\n"
        "def open(context):\n    return Toy()\n"
    )
    monkeypatch.setattr(checks, "__path__", [*checks.__path__, str(tmp_path / "plugins")])
    assert len(of(check_dataset(root, skip=COPIES), "toy")) == 11

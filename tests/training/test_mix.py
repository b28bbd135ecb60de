"""CutMix and copy-paste: what is pasted comes from one frame, with its labels, and everything else stays as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from training_helpers import HEIGHT, SPEC, WIDTH, recipe, scene

from edgeseg.data.dataset import Dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.images import Image, write_image
from edgeseg.recipe import NetConfig, Settings
from edgeseg.training import cached_logits, loop, mix, nets, preview
from edgeseg.training.augment import Geometry, augment, warp
from edgeseg.training.loader import Sample, SegmentationDataset, batches
from edgeseg.training.objectives.losses import IGNORE
from edgeseg.training.run_identity import run_identity

STILL = {"scale": (1.0, 1.0), "jitter": 0.0, "flip": False}
MOVED = {"scale": (0.5, 2.0), "jitter": 0.0, "rotate": 40.0, "elastic": 4.0, "perspective": 0.15}
BOTH = {"cutmix": 0.9, "copy_paste": 1.0}


def own_mask(seed: int) -> tuple[Image, Image]:
    """A frame that shows its labels and, in the last channel, which frame it is."""
    mask = np.where(scene(seed)[1] == 9, np.uint8(IGNORE), scene(seed)[1])
    frame = np.repeat(np.where(mask == IGNORE, 250, mask * 100)[..., None], 3, 2).astype(np.uint8)
    frame[..., 2] = 20 * seed
    return frame, mask


def some_frames(objects: NDArray[np.uint16] | None = None) -> mix.Frames:
    items = [own_mask(seed) for seed in range(1, 7)]
    pixels = np.array([np.bincount(mask.ravel(), minlength=256)[:3] for _, mask in items])
    return mix.Frames(len(items), mix.RareClasses.among(pixels), items.__getitem__, lambda index: objects)


FRAMES = some_frames()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), moved=st.booleans(), keys=st.sampled_from(["cutmix", "copy_paste", "both"]))
def test_pasted_pixels_and_labels_come_from_the_same_place_of_one_frame(seed: int, moved: bool, keys: str) -> None:
    chosen = BOTH if keys == "both" else {keys: BOTH[keys]}
    asked = Settings(**(MOVED if moved else STILL) | chosen)  # type: ignore[arg-type]
    random = np.random.default_rng(seed)
    geometry = Geometry.draw(HEIGHT, WIDTH, asked, random)
    frame, mask = own_mask(9)
    layers = mix.layers(FRAMES, 0, HEIGHT, WIDTH, asked, (seed,))
    image, labels = augment(frame, mask, HEIGHT, WIDTH, asked, random, geometry, layers)
    expected, expected_labels = warp(frame, mask, HEIGHT, WIDTH, asked, random, geometry)
    for layer in layers:
        source = warp(*FRAMES.read(layer.index), HEIGHT, WIDTH, asked, random, layer.geometry)
        expected, expected_labels = expected.copy(), expected_labels.copy()
        expected[layer.where], expected_labels[layer.where] = (part[layer.where] for part in source)
    assert (image == expected).all() and (labels == expected_labels).all()
    assert set(np.unique(labels)) <= {0, 1, 2, IGNORE}, "no new label"
    known = (labels != IGNORE) & np.isin(image[..., 0], (0, 100, 200))
    assert (image[..., 0][known] != labels[known] * 100.0).mean() < 0.01


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_a_paste_is_one_region_of_one_rare_class(seed: int) -> None:
    (layer,) = mix.layers(FRAMES, 0, HEIGHT, WIDTH, Settings(**MOVED | {"copy_paste": 1.0}), (seed,))  # type: ignore[arg-type]
    pasted = np.unique(layer.mask[layer.where])
    assert len(pasted) <= 1 and set(pasted) <= {1, 2}, "the ground is not rare"


def test_unknown_parts_of_a_rectangle_are_ignored() -> None:
    asked = Settings(**STILL | {"cutmix": 0.9, "scale": (0.3, 0.3)})  # type: ignore[arg-type]
    gray = ignored = 0
    for seed in range(10):
        (layer,) = mix.layers(FRAMES, 0, HEIGHT, WIDTH, asked, (seed,))
        outside = layer.where & (layer.frame == (124, 116, 104)).all(2)
        assert (layer.mask[outside] == IGNORE).all()
        gray, ignored = gray + int(outside.sum()), ignored + int((layer.mask[layer.where] == IGNORE).sum())
    assert gray > 1000 and ignored > gray, "with the stripe that the frames themselves ignore"


def test_rectangles_reach_the_share_that_is_asked() -> None:
    sides = []
    for seed in range(300):
        where = mix.rectangle(np.ones((100, 200), bool), 0.5, np.random.default_rng(seed))
        rows, columns = where.any(1).sum(), where.any(0).sum()
        assert where.sum() == rows * columns and rows <= 50 and columns <= 100
        sides.append((rows, columns))
    assert np.max(sides, 0).tolist() >= [48, 97] and np.min(sides, 0).max() <= 2


def test_an_object_is_pasted_as_a_whole_and_alone() -> None:
    """Two objects of a class that touch, and one in two parts."""
    mask, objects = np.zeros((20, 40), np.uint8), np.zeros((20, 40), np.uint16)
    mask[5:10, 5:25], objects[5:10, 5:15], objects[5:10, 15:25] = 1, 300, 301
    mask[15:18, 20:30], objects[15:18, 20:30] = 1, 301
    random = np.random.default_rng(0)
    seen = {mix.thing(mask, objects, 1, random).tobytes() for _ in range(40)}
    assert seen == {(objects == 300).tobytes(), (objects == 301).tobytes()}
    regions = {int(mix.thing(mask, None, 1, random).sum()) for _ in range(40)}
    assert regions == {100, 30}, "without objects, connected regions"
    assert not mix.thing(mask, None, 2, random).any()


def test_chances_follow_the_frequencies() -> None:
    pixels = np.array([[900, 50, 0, 0], [900, 50, 40, 0], [960, 0, 0, 0]])
    rare = mix.RareClasses.among(pixels)
    assert rare.ids.tolist() == [1, 2] and [f.tolist() for f in rare.frames] == [[0, 1], [1]]
    difference = (100 - 40) / 2900
    assert rare.chances[1] / rare.chances[0] == pytest.approx(np.exp(difference / 0.01)) and sum(rare.chances) == 1
    for none in (np.zeros((2, 3), int), np.array([[5, 5]]), np.array([[7, 0]])):
        assert not len(mix.RareClasses.among(none).ids), "nothing, equal shares, one class alone"


def test_nothing_rare_pastes_nothing() -> None:
    nothing = mix.Frames(1, mix.RareClasses.among(np.array([[5, 5]])), FRAMES.read, lambda index: None)
    assert mix.layers(nothing, 0, HEIGHT, WIDTH, Settings(copy_paste=1.0), (0,)) == []


def test_a_frame_gets_nothing_from_itself() -> None:
    for index in range(6):
        pasted = [mix.layers(FRAMES, index, HEIGHT, WIDTH, Settings(**BOTH), (seed,)) for seed in range(30)]  # type: ignore[arg-type]
        assert {layer.index for layers in pasted for layer in layers} == set(range(6)) - {index}
    alone = mix.Frames(1, mix.RareClasses.among(np.array([[9, 5]])), FRAMES.read, lambda index: None)
    assert mix.layers(alone, 0, HEIGHT, WIDTH, Settings(**BOTH), (0,)) == []  # type: ignore[arg-type]


def test_copy_paste_is_the_share_of_frames() -> None:
    found = [len(mix.layers(FRAMES, 0, HEIGHT, WIDTH, Settings(copy_paste=0.3), (seed,))) for seed in range(200)]
    assert 0.2 < np.mean(found) < 0.4


def everything(root: Path, workers: int = 0, cache: float = 4.0, rank: int = 0, world: int = 1) -> list[torch.Tensor]:
    frames = SegmentationDataset(Dataset.open(root, "train"), SPEC, Settings(**MOVED | BOTH), 5, cache)  # type: ignore[arg-type]
    return [part for batch in batches(frames, 4, 1, workers=workers, rank=rank, world=world) for part in batch]


def test_mixing_depends_on_seed_epoch_and_index_only(root: Path) -> None:
    first = everything(root)
    for other in (everything(root, workers=2), everything(root, cache=0.0)):
        assert all(torch.equal(a, b) for a, b in zip(first, other))
    halves = [everything(root, rank=rank, world=2) for rank in range(2)]
    for whole, even, odd in zip(first, *halves):
        assert torch.equal(whole[::2], even) and torch.equal(whole[1::2], odd)


def test_mixing_leaves_the_random_numbers_of_the_rest_alone(root: Path) -> None:
    dataset = Dataset.open(root, "train")
    plain = SegmentationDataset(dataset, SPEC, Settings(rotate=20.0))[0]
    mixed = SegmentationDataset(dataset, SPEC, Settings(rotate=20.0, cutmix=1e-9, copy_paste=1e-9))[0]
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed))
    assert mix.layers(FRAMES, 0, HEIGHT, WIDTH, Settings(), (0,)) == []


class Before(SegmentationDataset):
    """Items as they were before frames could be mixed."""

    def __getitem__(self, index: int) -> Sample:
        assert self.settings is not None
        frame, mask = self._item(index)
        random = np.random.default_rng((self.seed, self.epoch, index))
        image, mask = augment(frame, mask, HEIGHT, WIDTH, self.settings, random)
        scaled = (image - self._mean) * self._scale
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))), torch.from_numpy(mask).long()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nets.build(NetConfig("lite", width=0.25), 3)


def test_a_recipe_without_these_keys_trains_bit_for_bit_as_before(root: Path, tmp_path: Path) -> None:
    asked, val = Settings(epochs=2, batch=4, rotate=10.0), SegmentationDataset(Dataset.open(root, "val"), SPEC)
    trained = {}
    for kind in (Before, SegmentationDataset):
        trained[kind] = net()
        frames = kind(Dataset.open(root, "train"), SPEC, asked, seed=1)
        loop.fit(trained[kind], frames, val, asked, tmp_path / kind.__name__, seed=1)
    before, after = (model.state_dict() for model in trained.values())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_cached_logits_follow_what_is_pasted(root: Path, tmp_path: Path) -> None:
    """Constant logits, a number for each frame, tell where every pixel comes from."""
    frames = SegmentationDataset(Dataset.open(root, "train"), SPEC, Settings(**STILL | BOTH))  # type: ignore[arg-type]
    for i in range(len(frames)):
        np.save(cached_logits.logits_path(tmp_path, i), np.full((HEIGHT // 4, WIDTH // 4, 3), 1.0 + i, np.float16))
    frames.teacher_cache = tmp_path
    others = mix.Frames(len(frames), frames._rare, frames._item, frames._objects)
    pasted = 0
    for i in range(len(frames)):
        expected = np.full((HEIGHT, WIDTH), 1.0 + i)
        for layer in mix.layers(others, i, HEIGHT, WIDTH, frames.settings, (0, 0, i)):  # type: ignore[arg-type]
            expected[layer.where] = 1.0 + layer.index
        logits = frames[i][2].numpy()
        inner = (slice(None), slice(4, -4), slice(4, -4))  # the border of the small map fades to 0
        assert (logits[inner] == expected[inner[1:]]).all()
        pasted += int((expected != 1 + i).sum())
    assert pasted > 1000


@pytest.fixture
def with_objects(root: Path, tmp_path: Path) -> Path:
    """The scenes, each with a box of two objects and ids above 255."""
    copy = Path(shutil.copytree(root, tmp_path / "objects"))
    dataset = Dataset.open(copy, "train")
    for i, image in enumerate(dataset.images):
        mask = dataset.mask(i)
        columns = np.cumsum((mask == 1).any(0))
        objects = np.where(mask == 1, np.where(columns > 15, 700, 500), 0).astype(np.uint16)
        write_image(copy / "train" / "instances" / f"{image.stem}.png", objects)  # type: ignore[arg-type]
    return copy


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop", "pad"])
def test_objects_fit_the_input_as_their_mask_does(with_objects: Path, fit: str) -> None:
    spec = type(SPEC)(**{**SPEC.__dict__, "fit": fit, "height": 96, "width": 96})
    frames = SegmentationDataset(Dataset.open(with_objects, "train"), spec, Settings(**STILL))  # type: ignore[arg-type]
    objects, mask = frames._objects(0), frames._item(0)[1]
    assert objects is not None and objects.shape == mask.shape
    assert ((objects > 0) == (mask == 1)).all() and set(np.unique(objects)) == {0, 500, 700}


def test_objects_of_another_size_are_refused_by_name(with_objects: Path) -> None:
    for path in (with_objects / "train" / "instances").iterdir():
        write_image(path, np.zeros((8, 8), np.uint16))  # type: ignore[arg-type]
    frames = SegmentationDataset(Dataset.open(with_objects, "train"), SPEC, Settings(copy_paste=1.0))
    with pytest.raises(FileError, match=r"instances/00\d\.png is 8x8, its mask 96x64"):
        [frames[i] for i in range(len(frames))]


def test_other_objects_are_another_run_only_where_they_are_pasted(root: Path, with_objects: Path) -> None:
    def identity(folder: Path, asked: Settings) -> str:
        train, val = (SegmentationDataset(Dataset.open(folder, split), SPEC) for split in ("train", "val"))
        return run_identity(nn.Identity(), train, val, asked, 0, None, None)

    assert identity(root, Settings()) == identity(with_objects, Settings())
    assert identity(root, Settings(copy_paste=0.5)) != identity(with_objects, Settings(copy_paste=0.5))


def test_the_preview_pastes_from_other_frames(root: Path) -> None:
    dataset, plain = Dataset.open(root, "train"), recipe(student={**STILL, "scale": [1.0, 1.0]})
    mixed = recipe(student={**STILL, "scale": [1.0, 1.0], "cutmix": 0.9})
    (frame, _), *_ = preview.augmented(dataset, plain, plain.student, 3, 1)
    seen = [image for image, _ in preview.augmented(dataset, mixed, mixed.student, 3, 4)]
    changed = [float((image != frame).any(2).mean()) for image in seen]
    assert 0.02 < max(changed) < 0.85 and len(set(changed)) == 4


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("perspective", 0.3, "Expected 0 to 0.2"),
        ("cutmix", 1.0, "Expected 0 to 0.9"),
        ("copy_paste", -0.1, "Expected 0 to 1"),
        ("copy_paste", True, "number"),
        ("copypaste", 0.1, "Did you mean 'student.copy_paste'"),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        recipe(student={key: value})

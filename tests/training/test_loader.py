"""SegmentationDataset: frames are prepared as the Spec says, and random choices are reproducible."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import HEIGHT, SPEC, WIDTH, write_scenes

from edgeseg.data.dataset import Dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.images import resize, write_image
from edgeseg.recipe import Settings
from edgeseg.spec import Spec
from edgeseg.training.loader import SegmentationDataset, batches, collate
from edgeseg.training.objectives.losses import IGNORE

STILL = Settings(scale=(1.0, 1.0), jitter=0.0, flip=False)
ALL = Settings(rotate=20.0, elastic=3.0, blur=1.0, noise=5.0)


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_pixels_are_normalized_as_the_spec_says(root: Path, color: str) -> None:
    spec = dataclasses.replace(SPEC, height=32, width=64, color=color)
    dataset = Dataset.open(root, "val")
    image, _ = SegmentationDataset(dataset, spec)[0]
    frame = resize(dataset[0][0], 32, 64)[..., :: -1 if color == "RGB" else 1]
    expected = (frame / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(image.numpy(), expected.transpose(2, 0, 1), atol=1e-5)


def test_the_ignore_id_becomes_255_and_comes_from_the_dataset(root: Path) -> None:
    _, labels = SegmentationDataset(Dataset.open(root, "val"), SPEC)[0]
    assert (labels[:, -4:] == IGNORE).all() and sorted(labels.unique().tolist()) == [0, 1, 2, IGNORE]


def test_no_zoom_no_flip_is_the_frame_itself(root: Path) -> None:
    plain, moved = (SegmentationDataset(Dataset.open(root, "train"), SPEC, s)[0] for s in (None, STILL))
    torch.testing.assert_close(plain, moved)


def everything(root: Path, workers: int, epoch: int = 1, seed: int = 5, cache: float = 4.0) -> torch.Tensor:
    frames = SegmentationDataset(Dataset.open(root, "train"), SPEC, ALL, seed, cache)
    return torch.cat([images for images, _ in batches(frames, 4, epoch, workers=workers)])


def test_augmentation_depends_on_seed_epoch_and_index_only(root: Path) -> None:
    first = everything(root, 0)
    torch.manual_seed(123)
    assert torch.equal(first, everything(root, 0))
    assert torch.equal(first, everything(root, 2))
    assert torch.equal(first, everything(root, 0, cache=0.0)), "decoding again changes nothing"
    assert not torch.equal(first, everything(root, 0, epoch=2))
    assert not torch.equal(first, everything(root, 0, seed=6))


def test_loading_leaves_torchs_random_state_alone(root: Path) -> None:
    before = torch.get_rng_state()
    everything(root, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_batches_are_channels_last_and_drop_the_rest_only_when_shuffled(root: Path) -> None:
    frames = SegmentationDataset(Dataset.open(root, "train"), SPEC)
    assert [len(labels) for _, labels in batches(frames, 3, 0)] == [3, 3]
    assert [len(labels) for _, labels in batches(frames, 3, 0, shuffle=False)] == [3, 3, 2]
    assert [len(labels) for _, labels in batches(frames, 99, 0)] == [8]
    images, _ = next(batches(frames, 3, 0))
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_a_label_outside_the_classes_is_refused(tmp_path: Path) -> None:
    root = write_scenes(tmp_path, {"train": 1})
    write_image(root / "train" / "masks" / "000.png", np.full((HEIGHT, WIDTH), 7, np.uint8))
    with pytest.raises(FileError, match="holds label 7, outside the 3 classes"):
        SegmentationDataset(Dataset.open(root, "train"), SPEC)


def test_a_dataset_of_other_classes_is_refused(root: Path) -> None:
    with pytest.raises(OptionError, match=r"has the classes ground, box, disc\.\nExpected those of the Spec: a, b"):
        SegmentationDataset(Dataset.open(root, "train"), Spec(HEIGHT, WIDTH, ("a", "b")))


def test_frames_beyond_the_cache_are_decoded_again(root: Path) -> None:
    dataset = Dataset.open(root, "train")
    one = 4 * HEIGHT * WIDTH / 1e9
    for cache, in_memory in ((0.0, 0), (2.5 * one, 3), (4.0, len(dataset))):
        frames = SegmentationDataset(dataset, SPEC, cache=cache)
        assert frames.frames_in_memory == in_memory
        torch.testing.assert_close(frames[7], SegmentationDataset(dataset, SPEC)[7])


@pytest.mark.parametrize("cache", [0.0, 4.0])
def test_labeled_pixels_are_counted_per_class(root: Path, cache: float) -> None:
    dataset = Dataset.open(root, "train")
    masks = np.stack([dataset.mask(i) for i in range(len(dataset))])
    pixels = SegmentationDataset(dataset, SPEC, cache=cache).pixels
    assert pixels.tolist() == [(masks == c).sum() for c in range(3)]


def test_collate_pads_what_is_smaller_with_nothing_and_ignore() -> None:
    small = torch.ones(3, 20, 40), torch.ones(20, 40, dtype=torch.int64)
    large = torch.ones(3, 33, 30), torch.ones(33, 30, dtype=torch.int64)
    images, labels = collate([small, large])
    assert images.shape == (2, 3, 64, 64) and labels.shape == (2, 64, 64)
    assert (labels[0, :20, :40] == 1).all() and (labels[0] != IGNORE).sum() == 20 * 40
    assert images[1].sum() == 3 * 33 * 30 and (images[1, :, 33:] == 0).all()
    same, _ = collate([small, small])
    assert same.shape == (2, 3, 20, 40) and same.is_contiguous(memory_format=torch.channels_last)


def test_processes_share_every_batch_without_overlap(root: Path) -> None:
    frames = SegmentationDataset(Dataset.open(root, "train"), SPEC)
    whole = [images for images, _ in batches(frames, 4, 0)]
    parts = [[images for images, _ in batches(frames, 4, 0, rank=rank, world=2)] for rank in range(2)]
    for one, first, second in zip(whole, *parts):
        assert torch.equal(one[::2], first) and torch.equal(one[1::2], second)

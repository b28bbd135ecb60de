"""SegmentationDataset: frames are prepared as the Spec says, and random choices are reproducible."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from training_helpers import CLASSES, HEIGHT, SPEC, WIDTH, scene, write_scenes

from edgeseg.data.dataset import Dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.images import resize, write_image
from edgeseg.recipe import Settings
from edgeseg.spec import Spec
from edgeseg.training.loader import STRIDE, SegmentationDataset, batches, collate, collate_fn
from edgeseg.training.objectives.losses import IGNORE
from edgeseg.training.size_buckets import SizeBuckets

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


SIZES = [(64, 96), (70, 60), (64, 96), (128, 90), (60, 140), (33, 33), (64, 97), (128, 96)]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Frames of different sizes."""
    root = tmp_path_factory.mktemp("uneven")
    (root / "classes.txt").write_text(CLASSES.text())
    for i, (height, width) in enumerate(SIZES):
        frame, mask = scene(i, height, width)
        write_image(root / "train" / "images" / f"{i}.png", frame)
        write_image(root / "train" / "masks" / f"{i}.png", mask)
    return Dataset.open(root, "train")


def test_frames_of_their_own_size_are_the_frames(uneven: Dataset) -> None:
    frames = SegmentationDataset(uneven, SPEC, own_size=True)
    assert frames.sizes.tolist() == [list(size) for size in SIZES]
    for i, size in enumerate(SIZES):
        image, labels = frames[i]
        assert image.dtype == torch.float32 and image.shape == (3, *size)
        assert labels.dtype == torch.int64 and labels.shape == size
        frame, mask = uneven[i]
        expected = (frame[..., ::-1] / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
        np.testing.assert_allclose(image.numpy(), expected.transpose(2, 0, 1), atol=1e-5)
        assert (labels.numpy() == np.where(mask == 9, IGNORE, mask)).all()


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_frames_of_their_own_size_are_augmented_at_that_size(uneven: Dataset, fit: str) -> None:
    spec = dataclasses.replace(SPEC, fit=fit)
    mixed = dataclasses.replace(ALL, cutmix=0.9, copy_paste=1.0, perspective=0.1)
    plain = SegmentationDataset(uneven, spec, STILL, own_size=True)
    torch.testing.assert_close(plain[1], SegmentationDataset(uneven, spec, own_size=True)[1])
    frames = SegmentationDataset(uneven, spec, mixed, own_size=True)
    assert [tuple(frames[i][1].shape) for i in range(len(frames))] == SIZES
    assert (torch.cat([frames[i][1].unique() for i in range(len(frames))]).unique() <= 2).sum() == 3
    cropped = SegmentationDataset(uneven, spec, dataclasses.replace(mixed, crop=(64, 32)), own_size=True)
    assert {tuple(cropped[i][1].shape) for i in range(len(cropped))} == {(64, 32)} and (cropped.sizes == (64, 32)).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_of_different_sizes_can_be_taken_apart_again(uneven: Dataset, workers: int) -> None:
    frames = SegmentationDataset(uneven, SPEC, own_size=True)
    loader = DataLoader(frames, batch_size=3, num_workers=workers, collate_fn=collate_fn)
    seen = 0
    for images, labels, sizes in loader:
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.shape[2] % STRIDE == images.shape[3] % STRIDE == 0 and sizes.dtype == torch.int64
        for image, label, (height, width) in zip(images, labels, sizes.tolist()):
            original, known = frames[seen]
            assert torch.equal(image[:, :height, :width], original) and torch.equal(label[:height, :width], known)
            assert not image[:, height:].any() and not image[:, :, width:].any()
            assert (label[height:] == IGNORE).all() and (label[:, width:] == IGNORE).all()
            seen += 1
    assert seen == len(SIZES)


def test_frames_of_one_size_are_padded_to_the_stride_of_nets() -> None:
    small = torch.ones(3, 20, 40), torch.ones(20, 40, dtype=torch.int64), torch.ones(3, 20, 40)
    images, labels, logits, sizes = collate_fn([small, small])
    assert images.shape == logits.shape == (2, 3, 32, 64) and sizes.tolist() == [[20, 40], [20, 40]]
    assert (labels == IGNORE).sum() == 2 * (32 * 64 - 20 * 40) and logits.sum() == 2 * 3 * 20 * 40


def test_an_image_and_labels_of_different_sizes_are_refused() -> None:
    fine = torch.ones(3, 20, 40), torch.ones(20, 40, dtype=torch.int64)
    with pytest.raises(OptionError, match=r"Sample 1 of a batch has an image of 40x20 and labels of 41x20\."):
        collate_fn([fine, (fine[0], torch.ones(20, 41, dtype=torch.int64))])


def test_buckets_hold_every_frame_once_and_pad_less(uneven: Dataset) -> None:
    frames = SegmentationDataset(uneven, SPEC, own_size=True, seed=3)
    buckets = SizeBuckets(frames, 3)
    orders = []
    for epoch in range(2):
        frames.epoch = epoch
        groups = list(buckets)
        assert groups == list(buckets) and len(groups) == len(buckets) == 3
        assert sorted(i for group in groups for i in group) == list(range(len(SIZES)))
        orders.append(groups)
    assert orders[0] != orders[1]

    def padded(groups: list[list[int]]) -> int:
        return sum(collate_fn([frames[i] for i in group])[1].numel() for group in groups)

    assert padded(orders[0]) < padded([[0, 1, 2], [3, 4, 5], [6, 7]])
    loader = DataLoader(frames, batch_sampler=buckets, num_workers=2, collate_fn=collate_fn)
    assert [sizes.tolist() for *_, sizes in loader] == [frames.sizes[group].tolist() for group in buckets]


def test_an_empty_bucket_is_refused(uneven: Dataset) -> None:
    with pytest.raises(OptionError, match=r"The batch is 0\.\nExpected at least 1"):
        SizeBuckets(SegmentationDataset(uneven, SPEC), 0)

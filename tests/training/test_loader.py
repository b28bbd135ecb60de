"""Frames: what the network sees is what the Spec says, and random choices can be repeated."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import HEIGHT, SPEC, WIDTH, scene, write_scenes

from edgeseg.data.dataset import Dataset
from edgeseg.data.images import resize, write_image
from edgeseg.errors import FileError, OptionError
from edgeseg.recipe import Settings
from edgeseg.spec import Spec
from edgeseg.training.loader import Frames, batches, recolour, zoom
from edgeseg.training.losses import IGNORE

STILL = Settings(scale=(1.0, 1.0), jitter=0.0, flip=False)


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_pixels_are_normalised_as_the_spec_says(root: Path, color: str) -> None:
    spec = dataclasses.replace(SPEC, height=32, width=64, color=color)
    dataset = Dataset.open(root, "val")
    image, _ = Frames(dataset, spec)[0]
    frame = resize(dataset[0][0], 32, 64)[..., :: -1 if color == "RGB" else 1]
    expected = (frame / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(image.numpy(), expected.transpose(2, 0, 1), atol=1e-5)


def test_the_ignore_id_becomes_255_and_comes_from_the_dataset(root: Path) -> None:
    _, labels = Frames(Dataset.open(root, "val"), SPEC)[0]
    assert (labels[:, -4:] == IGNORE).all() and sorted(labels.unique().tolist()) == [0, 1, 2, IGNORE]


def test_no_zoom_no_flip_is_the_frame_itself(root: Path) -> None:
    plain, moved = (Frames(Dataset.open(root, "train"), SPEC, s)[0] for s in (None, STILL))
    torch.testing.assert_close(plain, moved)


def test_image_and_mask_move_together() -> None:
    """A frame that is its own mask must still be so after any zoom and flip (away from blended edges)."""
    _, mask = scene(1)
    mask[mask == 9] = 0
    frame = np.repeat(mask[..., None] * 100, 3, 2).astype(np.uint8)
    for seed in range(20):
        random = np.random.default_rng(seed)
        image, labels = zoom(frame, mask, 96, 128, Settings(scale=(0.5, 2.0)), random)
        inside = (labels != IGNORE) & np.isin(image[..., 0], (0, 100, 200))
        wrong = image[..., 0][inside] != labels[inside] * 100
        assert wrong.mean() < 0.01


def test_a_zoom_out_pads_the_mask_with_ignore() -> None:
    frame, mask = scene(1)
    _, labels = zoom(frame, mask, HEIGHT, WIDTH, Settings(scale=(0.5, 0.5), flip=False), np.random.default_rng(0))
    assert (labels != IGNORE).mean() == pytest.approx(0.25 * (WIDTH - 4) / WIDTH, abs=0.02)


def test_recolour_stays_in_range_and_off_means_off() -> None:
    image = scene(1)[0].astype(np.float32)
    changed = recolour(image, 0.5, np.random.default_rng(0))
    assert changed.min() >= 0 and changed.max() <= 255 and not np.allclose(changed, image)
    assert recolour(image, 0.0, np.random.default_rng(0)) is image


def everything(root: Path, workers: int, epoch: int = 1, seed: int = 5) -> torch.Tensor:
    frames = Frames(Dataset.open(root, "train"), SPEC, Settings(), seed)
    return torch.cat([images for images, _ in batches(frames, 4, epoch, workers=workers)])


def test_augmentation_depends_on_seed_epoch_and_index_only(root: Path) -> None:
    first = everything(root, 0)
    torch.manual_seed(123)
    assert torch.equal(first, everything(root, 0))
    assert torch.equal(first, everything(root, 2))
    assert not torch.equal(first, everything(root, 0, epoch=2))
    assert not torch.equal(first, everything(root, 0, seed=6))


def test_loading_leaves_torchs_random_state_alone(root: Path) -> None:
    before = torch.get_rng_state()
    everything(root, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_batches_are_channels_last_and_drop_the_rest_only_when_shuffled(root: Path) -> None:
    frames = Frames(Dataset.open(root, "train"), SPEC)
    assert [len(labels) for _, labels in batches(frames, 3, 0)] == [3, 3]
    assert [len(labels) for _, labels in batches(frames, 3, 0, shuffle=False)] == [3, 3, 2]
    assert [len(labels) for _, labels in batches(frames, 99, 0)] == [8]
    images, _ = next(batches(frames, 3, 0))
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_a_label_outside_the_classes_is_refused(tmp_path: Path) -> None:
    root = write_scenes(tmp_path, {"train": 1})
    write_image(root / "train" / "masks" / "000.png", np.full((HEIGHT, WIDTH), 7, np.uint8))
    with pytest.raises(FileError, match="holds label 7, outside the 3 classes"):
        Frames(Dataset.open(root, "train"), SPEC)


def test_a_dataset_of_other_classes_is_refused(root: Path) -> None:
    with pytest.raises(OptionError, match=r"has the classes ground, box, disc\.\nExpected those of the Spec: a, b"):
        Frames(Dataset.open(root, "train"), Spec(HEIGHT, WIDTH, ("a", "b")))

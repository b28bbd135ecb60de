"""The teacher cache: logits are transformed like labels, computed once per frame, and a resumed run uses them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_helpers import HEIGHT, SPEC, WIDTH, CalledAt, recipe, scene, stop

from edgeseg.data.dataset import Dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.recipe import Distill, NetConfig, Settings
from edgeseg.spec import Spec
from edgeseg.training import cached_logits, checkpoint, devices, loop, nets, stages, teacher_cache
from edgeseg.training.augment import Geometry, warp
from edgeseg.training.loader import SegmentationDataset, batches
from edgeseg.training.objectives.losses import IGNORE

STILL = Settings(scale=(1.0, 1.0), jitter=0.0, flip=False)
ALL = Settings(epochs=2, batch=4, scale=(0.5, 2.0), rotate=30.0, elastic=4.0, crop=(32, 64))


class CountingTeacher(nn.Module):
    """A teacher that counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.count = nets.build(NetConfig("lite", width=0.5), 3), 0

    def forward(self, images: Tensor) -> Tensor:
        self.count += 1
        return self.net(images)  # type: ignore[no-any-return]


def train(root: Path, settings: Settings = ALL) -> SegmentationDataset:
    return SegmentationDataset(Dataset.open(root, "train"), SPEC, settings, seed=1)


@pytest.mark.parametrize("seed", range(6))
def test_logits_are_transformed_like_labels(tmp_path: Path, seed: int) -> None:
    """Logits that match the labels must still match after any change of geometry, away from blended edges."""
    frame, mask = scene(seed)
    mask[mask == 9] = 0
    logits = np.stack([mask == c for c in range(3)], 2).astype(np.float16) * 10
    np.save(
        tmp_path / "000000.npy", cv2.resize(logits.astype(np.float32), (WIDTH // 4, HEIGHT // 4)).astype(np.float16)
    )
    random = np.random.default_rng(seed)
    geometry = Geometry.draw(HEIGHT, WIDTH, ALL, random)
    _, labels = warp(frame, mask, HEIGHT, WIDTH, ALL, random, geometry)
    got = cached_logits.read_logits(tmp_path, 0, geometry)
    assert got.shape == (3, 32, 64) and got.dtype == torch.float32
    edges = cv2.dilate(cv2.Laplacian(labels, cv2.CV_8U), np.ones((15, 15)))
    inside = torch.from_numpy((labels != IGNORE) & (edges == 0))
    assert (got.argmax(0).numpy() == labels)[inside].mean() > 0.99
    outside = cv2.erode((labels == IGNORE).astype(np.uint8), np.ones((9, 9))) > 0
    assert not got[:, torch.from_numpy(outside)].any()


def test_many_classes_move_like_few(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(16, 24, 150)).astype(np.float16)
    geometry = Geometry.draw(HEIGHT, WIDTH, ALL, np.random.default_rng(3))
    np.save(tmp_path / "000000.npy", logits)
    np.save(tmp_path / "000001.npy", logits[..., 140:])
    assert torch.equal(
        cached_logits.read_logits(tmp_path, 0, geometry)[140:], cached_logits.read_logits(tmp_path, 1, geometry)
    )


def test_without_augmentation_the_logits_are_the_teachers(root: Path, tmp_path: Path) -> None:
    teacher, frames = CountingTeacher().eval(), train(root, STILL)
    frames.teacher_cache = teacher_cache.fill(teacher, frames, tmp_path, devices.connect("cpu"))
    for i in (0, 5):
        image, _, got = frames[i]
        with torch.no_grad():
            expected = teacher(image[None])[0]
        assert (got - expected).abs().mean() < 0.05 * expected.std()
        assert (got.argmax(0) == expected.argmax(0)).float().mean() > 0.97


def test_batches_carry_logits_and_images_stay_the_same(root: Path, tmp_path: Path) -> None:
    plain = list(batches(train(root), 4, 1))
    frames = train(root)
    frames.teacher_cache = teacher_cache.fill(CountingTeacher().eval(), frames, tmp_path, devices.connect("cpu"))
    for workers in (0, 2):
        batches_with_logits = list(batches(frames, 4, 1, workers=workers))
        for (images, labels), (same, same_labels, logits) in zip(plain, batches_with_logits, strict=True):
            assert torch.equal(images, same) and torch.equal(labels, same_labels)
            assert logits.shape == (4, 3, 32, 64)


def test_the_teacher_runs_once_per_frame(root: Path, tmp_path: Path) -> None:
    teacher, frames, fabric = CountingTeacher().eval(), train(root), devices.connect("cpu")
    home = teacher_cache.fill(teacher, frames, tmp_path, fabric)
    assert teacher.count == 8 and len(list(home.glob("*.npy"))) == 8
    before = (home / "000003.npy").read_bytes()
    (home / "000003.npy").unlink()  # as if killed before it
    assert teacher_cache.fill(teacher, frames, tmp_path, fabric) == home
    assert teacher.count == 9 and (home / "000003.npy").read_bytes() == before
    with torch.no_grad():
        next(teacher.parameters()).mul_(2)
    assert teacher_cache.fill(teacher, frames, tmp_path, fabric) != home


def test_a_broken_file_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "000000.npy").write_bytes(b"\x93NUMPY")
    frames = train(root)
    frames.teacher_cache = tmp_path
    with pytest.raises(FileError, match=r"000000\.npy cannot be read: .*\nRemove the folder they are in"):
        frames[0]


def stopped_at(call: int) -> nn.Module:
    """A net that is stopped in the given training step."""
    torch.manual_seed(2)
    return CalledAt(stop, nets.build(NetConfig("lite", width=0.25), 3), call)


def test_a_run_with_a_teacher_cache_resumes_exactly(root: Path, tmp_path: Path) -> None:
    def run(folder: str, model: nn.Module, teacher: nn.Module, cache: bool = True) -> None:
        val = SegmentationDataset(Dataset.open(root, "val"), SPEC)
        distill = Distill(channel=1.0, cache=cache)
        loop.fit(model, train(root), val, ALL, tmp_path / folder / "s", seed=1, teacher=teacher, distill=distill)

    whole, resumed, teacher = stopped_at(0), stopped_at(0), CountingTeacher()
    run("whole", whole, teacher)
    assert teacher.count == 8, "once per frame, not once per step"
    with pytest.raises(KeyboardInterrupt):
        run("parts", stopped_at(3), CountingTeacher())
    run("parts", resumed, teacher)
    assert teacher.count == 8, "the interrupted run had cached them all"
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    identity = checkpoint.read(tmp_path / "parts" / "s" / "last.pt")["identity"]
    run("parts", stopped_at(0), teacher, cache=False)
    assert teacher.count == 12, "in each of four steps"
    assert checkpoint.read(tmp_path / "parts" / "s" / "last.pt")["identity"] != identity


def test_a_recipe_with_a_cache_and_another_kind_of_teacher(root: Path, tmp_path: Path) -> None:
    """A teacher of another family, pixel order and more classes in another order."""
    net = NetConfig("ddrnet", width=0.25)
    spec = Spec(32, 32, ("disc", "tree", "ground", "box"), color="BGR", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    torch.manual_seed(0)
    path = checkpoint.save(tmp_path / "t.pt", nets.build(net, 4), net, spec)
    config = recipe(distill={"cache": True, "channel": 1.0, "epochs": 1})
    report = stages.distill_student(config, path, root, tmp_path).with_suffix(".json")
    assert len(json.loads(report.read_text())["history"]) == 1
    assert len(list((tmp_path / "teacher-cache").glob("*/*.npy"))) == 8
    config = recipe(distill={"feature": 1.0, "structure": 1.0, "epochs": 1})
    report = stages.distill_student(config, path, root, tmp_path / "maps").with_suffix(".json")
    assert len(json.loads(report.read_text())["history"]) == 1


def test_feature_maps_cannot_be_cached() -> None:
    for key in ("feature", "structure"):
        with pytest.raises(
            OptionError, match=r"distill\.cache is on with feature or structure\.\nOnly logits are cached"
        ):
            recipe(distill={"cache": True, key: 1.0})

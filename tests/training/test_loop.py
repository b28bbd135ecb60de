"""The loop learns, repeats itself bit for bit, resumes exactly, and stops on a broken loss without losing anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_helpers import HEIGHT, SPEC, WIDTH, CalledAt, stop

from edgeseg.data.dataset import Dataset
from edgeseg.errors import EdgesegError
from edgeseg.recipe import Distill, Machine, NetConfig, Settings
from edgeseg.results.stage import EpochResult
from edgeseg.training import checkpoint, loop, metrics, nets, optim, validation
from edgeseg.training.loader import SegmentationDataset, batches
from edgeseg.training.objectives import distillation_losses, losses
from edgeseg.training.objectives.objective import Objective

SETTINGS = Settings(epochs=4, batch=4, lr=2e-3, warmup=0.2, stride=1)


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nets.build(NetConfig("lite", width=0.25), 3), nn.Dropout(0.1))


def run(root: Path, folder: Path, model: nn.Module, settings: Settings = SETTINGS, **more: object) -> list[EpochResult]:
    train = SegmentationDataset(Dataset.open(root, "train"), SPEC, settings, seed=1)
    val = SegmentationDataset(Dataset.open(root, "val"), SPEC)
    return loop.fit(model, train, val, settings, folder, seed=1, **more)  # type: ignore[arg-type]


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_interrupted_and_resumed_equals_never_stopped(root: Path, tmp_path: Path, ema: float) -> None:
    settings = Settings(epochs=4, batch=4, lr=2e-3, ema=ema)
    whole = CalledAt(stop, model(), 0)
    history = run(root, tmp_path / "whole", whole, settings)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "parts", CalledAt(stop, model(), 6), settings)  # two steps an epoch: in the third epoch
    assert checkpoint.read(tmp_path / "parts" / "last.pt")["epoch"] == 2
    resumed = CalledAt(stop, model(), 0)
    again = run(root, tmp_path / "parts", resumed, settings)
    assert same(whole, resumed)
    assert numbers(history) == numbers(again)


def test_a_finished_run_is_not_repeated(root: Path, tmp_path: Path) -> None:
    first, second = model(), model()
    history = run(root, tmp_path, first)
    assert run(root, tmp_path, second) == history and same(first, second)


@pytest.mark.parametrize("what", ["settings", "weights", "data"])
def test_a_run_of_something_else_is_not_continued(root: Path, tmp_path: Path, what: str) -> None:
    short = Settings(epochs=1, batch=4)
    run(root, tmp_path, model(), short)
    identity = checkpoint.read(tmp_path / "last.pt")["identity"]
    if what == "settings":
        run(root, tmp_path, model(), Settings(epochs=1, batch=4, lr=1e-3))
    elif what == "weights":
        run(root, tmp_path, model(seed=9), short)
    else:
        val = SegmentationDataset(Dataset.open(root, "val"), SPEC)
        loop.fit(model(), val, val, short, tmp_path, seed=1)
    assert checkpoint.read(tmp_path / "last.pt")["identity"] != identity


def test_a_broken_resume_file_starts_anew(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "last.pt").write_bytes(b"half a file")
    assert len(run(root, tmp_path, model(), Settings(epochs=1, batch=4))) == 1
    assert "Starting from the first epoch" in caplog.text


class Explode(nn.Module):
    """Multiplies the logits by something that becomes NaN in the given call."""

    def __init__(self, inner: nn.Module, call: int):
        super().__init__()
        self.inner, self.left = inner, call

    def forward(self, image: Tensor) -> Tensor:
        self.left -= self.training
        return self.inner(image) * (float("nan") if self.training and self.left == 0 else 1.0)  # type: ignore[no-any-return]


def test_a_nan_stops_and_keeps_the_last_good_state(root: Path, tmp_path: Path) -> None:
    broken = Explode(model(), 4)
    with pytest.raises(
        EdgesegError, match=r"stopped in epoch 2, step 2: loss nan.*after epoch 1 is in .*last\.pt\.\nTry"
    ):
        run(root, tmp_path, broken)
    assert all(torch.isfinite(t).all() for t in broken.state_dict().values() if t.is_floating_point())
    assert checkpoint.read(tmp_path / "last.pt")["epoch"] == 1


def test_a_nan_in_the_first_epoch(root: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgesegError, match=r"stopped in epoch 1, step 1: loss nan.*nothing was saved yet"):
        run(root, tmp_path, Explode(model(), 1))


def test_the_student_can_memorize_four_frames(root: Path, tmp_path: Path) -> None:
    """Pixel accuracy on the frames it was trained on: what a bug in labels, loss or updates would prevent."""
    settings = Settings(epochs=60, batch=4, lr=5e-3, scale=(1.0, 1.0), jitter=0.0, flip=False)
    four = Dataset.open(root, "train")
    frames = SegmentationDataset(Dataset(four.root, "train", four.classes, four.images[:4]), SPEC, settings)
    torch.manual_seed(0)
    student = nets.build(NetConfig("lite", width=0.5), 3)
    loop.fit(student, frames, frames, settings, tmp_path)
    images, labels = next(batches(frames, 4, 0, shuffle=False))
    with torch.inference_mode():
        right = (student(images).argmax(1) == labels)[labels != 255]
    assert right.float().mean() >= 0.95


def test_the_rate_warms_up_and_ends_at_zero() -> None:
    settings = Settings(epochs=10, lr=1.0, warmup=0.2)
    rates = [optim.learning_rate(settings, done, 100) for done in range(101)]
    assert rates[0] == pytest.approx(0.05) and rates[20] == 1.0 and rates[60] == pytest.approx(0.5)
    assert max(rates) == 1.0 and rates[100] == pytest.approx(0)


@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
def test_distillation_mixes_labels_and_teacher(weight: float) -> None:
    torch.manual_seed(0)
    teacher, student = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    image, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    distill = Distill(weight=weight, temperature=3.0, channel=0.5)
    got = Objective(replace(SETTINGS, dice=2.0), 3, teacher, distill)(student, image, labels)
    logits, targets = student(image), teacher(image)
    expected = (1 - weight) * losses.cross_entropy(logits, labels)
    expected = expected + weight * distillation_losses.soft_targets(logits, targets, labels, 3.0)
    expected = expected + 0.5 * distillation_losses.channel_wise(logits, targets, labels, 3.0)
    expected = expected + 2.0 * losses.dice(logits, labels)
    torch.testing.assert_close(got, expected)


def test_every_pixel_is_sampled_and_images_and_labels_alike() -> None:
    objective = Objective(replace(SETTINGS, stride=3), 3)
    seen = torch.zeros(7, 8)
    where = torch.arange(56.0).reshape(7, 8)
    torch.manual_seed(0)
    for _ in range(100):
        pick = objective.sample_pixels()
        seen[pick] += 1
        assert where[None, None][pick].flatten().tolist() == where[None][pick].flatten().tolist()
    assert seen.min() > 0


def test_the_teacher_learns_nothing(root: Path, tmp_path: Path) -> None:
    teacher, before = model(5), model(5)
    run(root, tmp_path, model(), Settings(epochs=1, batch=4), teacher=teacher, distill=Distill())
    assert same(teacher, before)


Trained = tuple[nn.Module, list[EpochResult]]


def quiet(folder: Path, settings: Settings, root: Path, seed: int = 0, **machine: object) -> Trained:
    net = model(seed)
    return net, run(root, folder, net, settings, machine=Machine(**{"pictures": 0, **machine}))  # type: ignore[arg-type]


def numbers(history: list[EpochResult]) -> list[dict[str, object]]:
    return [{**epoch.metrics(), "seconds": None} for epoch in history]


def test_equal_seeds_give_identical_numbers(root: Path, tmp_path: Path) -> None:
    settings = Settings(epochs=2, batch=4, ema=0.9, dice=1.0, rotate=20.0, elastic=4.0, noise=8.0, blur=1.0)
    one, history = quiet(tmp_path / "a", settings, root)
    other, again = quiet(tmp_path / "b", settings, root, workers=2, cache=0.0)
    assert numbers(history) == numbers(again) and same(one, other)
    third, _ = quiet(tmp_path / "c", settings, root, seed=1)
    assert not same(one, third)


def test_a_batch_in_parts_is_the_same_batch(root: Path, tmp_path: Path) -> None:
    """A net without batch norm, all pixels, the same number of labeled ones per frame: only rounding may differ."""
    ends = []
    for parts in (1, 2, 4):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
        settings = Settings(epochs=2, batch=4, accumulate=parts, stride=1, scale=(1.0, 1.0))
        run(root, tmp_path / str(parts), net, settings, machine=Machine(pictures=0))
        ends.append(net.state_dict())
    for other in ends[1:]:
        for key, tensor in ends[0].items():
            torch.testing.assert_close(other[key], tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_precisions_and_optimizers_learn(root: Path, tmp_path: Path, precision: str, optimizer: str) -> None:
    lr = 5e-3 if optimizer == "adamw" else 0.05
    settings = Settings(epochs=12, batch=4, lr=lr, optimizer=optimizer, precision=precision, stride=1)
    net, history = quiet(tmp_path, settings, root)
    assert history[-1].loss < 0.7 * history[0].loss
    assert {p.dtype for p in net.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("cosine", {0: 1.0, 30: 0.75, 45: 0.5, 90: 0.0}),
        ("poly", {0: 1.0, 45: 0.5**0.9, 81: 0.1**0.9, 90: 0.0}),
        ("step", {0: 1.0, 59: 1.0, 60: 0.1, 79: 0.1, 80: 0.01, 89: 0.01}),
    ],
)
def test_schedules_by_hand(schedule: str, rates: dict[int, float]) -> None:
    settings = Settings(epochs=1, lr=1.0, warmup=0.1, schedule=schedule)
    for done, expected in rates.items():
        assert optim.learning_rate(settings, 10 + done, 100) == pytest.approx(expected)
    assert [optim.learning_rate(settings, done, 100) for done in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])


def test_the_encoder_learns_at_its_own_rate_and_norms_do_not_decay() -> None:
    net = nets.build(NetConfig("lite", width=0.25), 3)
    groups = optim.optimizer(net, Settings(encoder_lr=0.3, weight_decay=0.1)).param_groups
    scales = sorted({(g["lr_scale"], g["weight_decay"]) for g in groups})
    assert scales == [
        (0.3, 0.0),
        (0.3, 0.1),
        (1.0, 0.0),
        (1.0, 0.1),
    ]
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in net.parameters())
    assert all(p.ndim > 1 for g in groups if g["weight_decay"] for p in g["params"])


def test_early_stopping_keeps_the_best_epoch(root: Path, tmp_path: Path) -> None:
    """A rate so high that the net gets worse again at some point."""
    settings = Settings(epochs=40, batch=4, lr=0.05, warmup=0.0, patience=3, schedule="step")
    net, history = quiet(tmp_path, settings, root)
    best = max(history, key=lambda result: result.val_miou)
    assert len(history) == best.epoch + 3 < 40
    stored = checkpoint.read(tmp_path / "best.pt")
    assert stored["extra"]["epoch"] == best.epoch and stored["extra"]["val_miou"] == best.val_miou
    assert all(torch.equal(t, stored["state"][key]) for key, t in net.state_dict().items())
    val = SegmentationDataset(Dataset.open(root, "val"), SPEC)
    assert metrics.mean_iou(validation.evaluate(net, val)) == pytest.approx(best.val_miou)
    again, rows = quiet(tmp_path, settings, root)
    assert rows == history and same(net, again), "a run that stopped early is finished"


def test_best_pt_is_a_checkpoint_and_the_last_epoch_the_result(root: Path, tmp_path: Path) -> None:
    net = NetConfig("lite", width=0.25)
    torch.manual_seed(0)
    student = nets.build(net, 3)
    history = run(root, tmp_path, student, Settings(epochs=6, batch=4, lr=0.02), net=net)
    loaded, stored, spec, extra = checkpoint.load(tmp_path / "best.pt")
    assert (stored, spec) == (net, SPEC)
    val = SegmentationDataset(Dataset.open(root, "val"), SPEC)
    assert metrics.mean_iou(validation.evaluate(loaded, val)) == pytest.approx(extra["val_miou"])
    assert extra["val_miou"] == max(result.val_miou for result in history)
    assert metrics.mean_iou(validation.evaluate(student, val)) == pytest.approx(history[-1].val_miou)


def test_pictures_of_every_epoch(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path, model(), Settings(epochs=2, batch=4), machine=Machine(pictures=2))
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["001.jpg", "002.jpg"]
    val = Dataset.open(root, "val")
    picture = validation.pictures(model(), SegmentationDataset(val, SPEC), 2)
    tall, wide = picture.shape[0] // 2, round(WIDTH * 224 / HEIGHT)
    frame = cv2.resize(val[1][0], (wide, tall), interpolation=cv2.INTER_AREA)
    assert np.abs(picture[tall:, :wide].astype(int) - frame).max() <= 2, "the second row starts with the second frame"


def test_the_loss_is_the_sum_the_recipe_asks_for() -> None:
    torch.manual_seed(0)
    net, image, labels = nn.Conv2d(3, 3, 1), torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    weights = (1.0, 2.0, 0.5)
    settings = Settings(
        stride=1, ce=0.5, dice=2.0, iou=3.0, boundary=0.25, focal=4.0, focal_gamma=1.5, tversky=5.0, tversky_beta=0.6,
        class_weights=weights, smoothing=0.1, ohem=0.4,
    )  # fmt: skip
    logits = net(image)
    expected = 0.5 * losses.cross_entropy(logits, labels, torch.tensor(weights), 0.1, 0.4)
    expected = expected + 2 * losses.dice(logits, labels) + 3 * losses.lovasz(logits, labels)
    expected = expected + 0.25 * losses.boundary(logits, labels)
    expected = expected + 4 * losses.focal(logits, labels, 1.5) + 5 * losses.tversky(logits, labels, 0.6)
    torch.testing.assert_close(Objective(settings, 3)(net, image, labels), expected)

"""The loop learns, repeats itself bit for bit, resumes exactly, and stops on a broken loss without losing anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_helpers import SPEC

from edgeseg.data.dataset import Dataset
from edgeseg.errors import EdgesegError
from edgeseg.recipe import Distil, NetConfig, Settings
from edgeseg.training import checkpoint, loop, nets
from edgeseg.training.loader import Frames, batches

SETTINGS = Settings(epochs=4, batch=4, lr=2e-3, warmup=0.2, stride=1)


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nets.build(NetConfig("lite", width=0.25), 3), nn.Dropout(0.1))


def run(root: Path, folder: Path, net: nn.Module, settings: Settings = SETTINGS, **more: object) -> loop.History:
    train = Frames(Dataset.open(root, "train"), SPEC, settings, seed=1)
    val = Frames(Dataset.open(root, "val"), SPEC)
    return loop.fit(net, train, val, settings, folder, seed=1, **more)  # type: ignore[arg-type]


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


class Stop(nn.Module):
    """Raises KeyboardInterrupt, as Ctrl-C does, in the given call."""

    def __init__(self, inner: nn.Module, call: int):
        super().__init__()
        self.inner, self.left = inner, call

    def forward(self, image: Tensor) -> Tensor:
        self.left -= self.training
        if self.training and self.left == 0:
            raise KeyboardInterrupt
        return self.inner(image)  # type: ignore[no-any-return]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_interrupted_and_resumed_equals_never_stopped(root: Path, tmp_path: Path, ema: float) -> None:
    settings = Settings(epochs=4, batch=4, lr=2e-3, ema=ema)
    whole = Stop(model(), 0)
    history = run(root, tmp_path / "whole", whole, settings)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "parts", Stop(model(), 6), settings)  # two steps an epoch: in the third epoch
    assert checkpoint.read(tmp_path / "parts" / "last.pt")["epoch"] == 2
    resumed = Stop(model(), 0)
    again = run(root, tmp_path / "parts", resumed, settings)
    assert same(whole, resumed)
    assert [(r["loss"], r["val_miou"]) for r in history] == [(r["loss"], r["val_miou"]) for r in again]


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
        val = Frames(Dataset.open(root, "val"), SPEC)
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
    with pytest.raises(EdgesegError, match=r"stopped in epoch 2: loss nan.*after epoch 1 is kept in .*last\.pt\.\nTry"):
        run(root, tmp_path, broken)
    assert all(torch.isfinite(t).all() for t in broken.state_dict().values() if t.is_floating_point())
    assert checkpoint.read(tmp_path / "last.pt")["epoch"] == 1


def test_a_nan_in_the_first_epoch(root: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgesegError, match=r"stopped in epoch 1: loss nan.*nothing was saved yet"):
        run(root, tmp_path, Explode(model(), 1))


def test_the_student_can_learn_four_frames_by_heart(root: Path, tmp_path: Path) -> None:
    """Pixel accuracy on the frames it was trained on: what a bug in labels, loss or updates would prevent."""
    settings = Settings(epochs=60, batch=4, lr=5e-3, scale=(1.0, 1.0), jitter=0.0, flip=False)
    four = Dataset.open(root, "train")
    frames = Frames(Dataset(four.root, "train", four.classes, four.images[:4]), SPEC, settings)
    torch.manual_seed(0)
    student = nets.build(NetConfig("lite", width=0.5), 3)
    loop.fit(student, frames, frames, settings, tmp_path)
    images, labels = next(batches(frames, 4, 0, shuffle=False))
    with torch.inference_mode():
        right = (student(images).argmax(1) == labels)[labels != 255]
    assert right.float().mean() >= 0.95


def test_the_rate_warms_up_and_ends_at_zero() -> None:
    schedule = loop._Run(model(), Settings(epochs=10, lr=1.0, warmup=0.2), per_epoch=10)
    rates = []
    for schedule.done in range(101):
        rates.append(schedule.lr())
    assert rates[0] == pytest.approx(0.05) and rates[20] == 1.0 and rates[60] == pytest.approx(0.5)
    assert max(rates) == 1.0 and rates[100] == pytest.approx(0)


@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
def test_distillation_mixes_labels_and_teacher(weight: float) -> None:
    torch.manual_seed(0)
    teacher, student = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    image, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    distil = Distil(weight=weight, temperature=3.0, channel=0.5)
    got = loop._Lessons(replace(SETTINGS, dice=2.0), teacher, distil)(student, image, labels)
    logits, wanted = student(image), teacher(image)
    expected = (1 - weight) * loop.losses.cross_entropy(logits, labels)
    expected = expected + weight * loop.losses.soft_targets(logits, wanted, labels, 3.0)
    expected = expected + 0.5 * loop.losses.channel_wise(logits, wanted, 3.0)
    expected = expected + 2.0 * loop.losses.dice(logits, labels)
    torch.testing.assert_close(got, expected)


def test_every_pixel_is_sampled_and_images_and_labels_alike() -> None:
    lessons = loop._Lessons(replace(SETTINGS, stride=3), None, None)
    seen = torch.zeros(7, 8)
    where = torch.arange(56.0).reshape(7, 8)
    torch.manual_seed(0)
    for _ in range(100):
        pick = lessons.sample()
        seen[pick] += 1
        assert where[None, None][pick].flatten().tolist() == where[None][pick].flatten().tolist()
    assert seen.min() > 0


def test_the_teacher_learns_nothing(root: Path, tmp_path: Path) -> None:
    teacher, before = model(5), model(5)
    run(root, tmp_path, model(), Settings(epochs=1, batch=4), teacher=teacher, distil=Distil())
    assert same(teacher, before)

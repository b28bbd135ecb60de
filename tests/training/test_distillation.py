"""Any teacher can be distilled into any student, and the teacher never changes."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn
from training_helpers import HEIGHT, SPEC, WIDTH

from edgeseg.errors import OptionError
from edgeseg.recipe import Distill, NetConfig, Settings
from edgeseg.spec import Spec
from edgeseg.training import nets
from edgeseg.training.objectives import distillation_losses
from edgeseg.training.objectives.adapted_teacher import AdaptedTeacher
from edgeseg.training.objectives.losses import IGNORE
from edgeseg.training.objectives.objective import Objective

SETTINGS = Settings(stride=1)
STUDENT = NetConfig("lite", width=0.25)
TEACHERS = [
    NetConfig("lite", width=0.5),
    NetConfig("fcn", width=0.25),
    NetConfig("liteseg", width=0.25),
    NetConfig("ddrnet", width=0.25),
    NetConfig("hrnet", "tu-hrnet_w18_small", width=0.25),
    NetConfig("unet", "tu-mobilenetv3_small_050"),
    NetConfig("deeplabv3plus", "tu-mobilenetv3_small_050"),
    NetConfig("segformer", "mit_b0"),
]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    labels = torch.randint(0, 3, (2, HEIGHT, WIDTH))
    labels[:, :, -8:] = IGNORE
    return torch.randn(2, 3, HEIGHT, WIDTH), labels


def gradient(student: nn.Module, teacher: nn.Module, **distill: float) -> float:
    """Its sum over the student's weights for the teacher's part of the loss."""
    objective = Objective(dataclasses.replace(SETTINGS, ce=0.0, dice=1e-12), 3, teacher, Distill(weight=0.0, **distill))  # type: ignore[arg-type]
    student.zero_grad()
    objective(student, *batch()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    return sum(float(p.grad.abs().sum()) for p in student.parameters() if p.grad is not None)


@pytest.mark.parametrize("net", TEACHERS, ids=lambda net: net.arch)
def test_any_teacher_teaches_any_student(net: NetConfig) -> None:
    """Of other channels and strides, with nothing to learn in between; from its maps alone."""
    torch.manual_seed(0)
    teacher, student = nets.build(net, 3).eval(), nets.build(STUDENT, 3)
    objective = Objective(SETTINGS, 3, teacher, Distill(feature=1.0, structure=1.0))
    with torch.no_grad(), objective.record_features(teacher) as features:
        logits = teacher(batch()[0])
    assert len(features) == 1 and features[0].ndim == 4 and logits.shape == (2, 3, HEIGHT, WIDTH)
    assert gradient(student, teacher, feature=1.0) > 1e-4
    assert gradient(student, teacher, structure=1.0) > 1e-4
    assert gradient(student, teacher) < 1e-6
    last = nets.head(student)[-1].weight.grad  # the maps are the input of the head, which learns from logits only
    assert last is not None and last.abs().sum() < 1e-6
    assert not any(module._forward_pre_hooks for net in (teacher, student) for module in net.modules())


def test_features_and_structure_are_added_by_weight() -> None:
    torch.manual_seed(0)
    teacher, student = (nets.build(NetConfig("lite", width=w), 3).eval() for w in (0.5, 0.25))
    images, labels = batch()
    plain = Distill(weight=0.4, temperature=2.0, channel=0.5)
    maps = []
    for net in (student, teacher):
        with Objective(SETTINGS, 3, teacher, Distill(feature=1.0)).record_features(net) as features:
            net(images)
        maps += features
    expected = Objective(SETTINGS, 3, teacher, plain)(student, images, labels)
    expected = (
        expected
        + 3.0 * distillation_losses.attention_transfer(*maps)
        + 5.0 * distillation_losses.pairwise_similarity(*maps)
    )
    more = dataclasses.replace(plain, feature=3.0, structure=5.0)
    torch.testing.assert_close(Objective(SETTINGS, 3, teacher, more)(student, images, labels), expected)


def test_no_gradient_reaches_the_teacher_or_ignored_pixels() -> None:
    """Whatever is weighted, no gradient reaches the teacher and the student's ignored pixels have none."""
    torch.manual_seed(0)
    teacher = nn.Conv2d(3, 3, 1)
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.randint(0, 3, (1, 4, 4))
    labels[:, 1] = IGNORE
    objective = Objective(SETTINGS, 3, teacher, Distill(weight=0.5, channel=2.0))
    objective(lambda images: logits, torch.randn(1, 3, 4, 4), labels).backward()  # type: ignore[arg-type]
    assert teacher.weight.grad is None and logits.grad is not None
    assert not logits.grad[:, :, 1].any() and logits.grad[:, :, [0, 2, 3]].any()


def test_cached_logits_replace_the_teacher() -> None:
    torch.manual_seed(0)
    teacher, student = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    images, labels = batch()
    objective = Objective(SETTINGS, 3, teacher, Distill(channel=1.0))
    expected = objective(student, images, labels)
    cached = teacher(images).detach()
    objective.teacher = NeverRuns()
    torch.testing.assert_close(objective(student, images, labels, cached), expected)


class NeverRuns(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the teacher ran")


# A teacher of another Spec

OTHER = Spec(32, 32, ("disc", "tree", "ground", "box"), color="BGR", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def test_other_pixels_and_classes_are_converted() -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 1)
    pixels = torch.rand(2, 3, 5, 7)  # RGB, 0..1
    mean, std = (torch.tensor(value).reshape(3, 1, 1) for value in (SPEC.mean, SPEC.std))
    got = AdaptedTeacher(net, OTHER, SPEC, Path("t.pt"))((pixels - mean) / std)
    mean, std = (torch.tensor(value).reshape(3, 1, 1) for value in (OTHER.mean, OTHER.std))
    expected = net((pixels.flip(1) - mean) / std)
    torch.testing.assert_close(got, expected[:, [2, 3, 0]])  # ground, box, disc
    shares = expected.softmax(1)[:, [2, 3, 0]]
    torch.testing.assert_close(got.softmax(1), shares / shares.sum(1, keepdim=True))


@pytest.mark.parametrize("change", [{"mean": (0.1, 0.2, 0.3)}, {"std": (0.1, 0.2, 0.3)}, {"color": "BGR"}])
def test_each_part_of_the_normalization_counts(change: dict[str, object]) -> None:
    own = dataclasses.replace(SPEC, **change)  # type: ignore[arg-type]
    net = nn.Conv2d(3, 3, 1)
    image = torch.rand(1, 3, 2, 2)
    assert not torch.allclose(AdaptedTeacher(net, own, SPEC, Path("t"))(image), net(image))
    torch.testing.assert_close(AdaptedTeacher(net, SPEC, SPEC, Path("t"))(image), net(image))


def test_a_class_that_the_teacher_does_not_know() -> None:
    with pytest.raises(
        OptionError, match=r"t\.pt does not know box; it knows the classes ground, disc\.\nClasses are ma"
    ):
        AdaptedTeacher(
            nn.Identity(), dataclasses.replace(SPEC, classes=("ground", "disc"), palette=()), SPEC, Path("t.pt")
        )


def test_an_adapted_teacher_changes_the_identity_of_a_run() -> None:
    """The state dict, of which run identities are computed, holds the conversion."""
    net = nn.Conv2d(3, 4, 1)
    one, other = (
        AdaptedTeacher(copy.deepcopy(net), OTHER, spec, Path("t"))
        for spec in (SPEC, dataclasses.replace(SPEC, classes=("box", "ground", "disc")))
    )
    assert not torch.equal(one.state_dict()["index"], other.state_dict()["index"])

"""Every loss against a value worked out by hand."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from edgeseg.training import metrics
from edgeseg.training.objectives import distillation_losses, losses
from edgeseg.training.objectives.losses import IGNORE

LOG = torch.log


def pixels(*shares: tuple[float, ...]) -> torch.Tensor:
    """Logits [1, C, 1, pixels] whose softmax is `shares`."""
    return LOG(torch.tensor(shares)).T[None, :, None]


def labels(*ids: int) -> torch.Tensor:
    return torch.tensor(ids)[None, None]


def smoothed(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return losses.cross_entropy(logits, ids, torch.tensor([1.0, 2.0, 3.0]), smoothing=0.1, ohem=1.0)


def test_cross_entropy_is_the_mean_over_labeled_pixels() -> None:
    logits = pixels((0.5, 0.5), (0.25, 0.75), (0.9, 0.1))
    got = losses.cross_entropy(logits, labels(0, 1, IGNORE))
    assert got.item() == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 2, rel=1e-5)


def test_dice_by_hand() -> None:
    logits = pixels((0.8, 0.2), (0.4, 0.6), (0.5, 0.5))
    got = losses.dice(logits, labels(0, 1, IGNORE))
    first = 1 - 2 * 0.8 / ((0.8 + 0.4) + 1)
    second = 1 - 2 * 0.6 / ((0.2 + 0.6) + 1)
    assert got.item() == pytest.approx((first + second) / 2, rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_tversky_by_hand(beta: float) -> None:
    """Class 0: 0.8 right, 0.4 false, 0.2 missed. Class 1: 0.6 right, 0.2 false, 0.4 missed."""
    logits = pixels((0.8, 0.2), (0.4, 0.6), (0.5, 0.5))
    got = losses.tversky(logits, labels(0, 1, IGNORE), beta)
    first = 1 - 0.8 / (0.8 + (1 - beta) * 0.4 + beta * 0.2)
    second = 1 - 0.6 / (0.6 + (1 - beta) * 0.2 + beta * 0.4)
    assert got.item() == pytest.approx((first + second) / 2, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_by_hand(gamma: float) -> None:
    logits = pixels((0.5, 0.5), (0.25, 0.75), (0.9, 0.1))
    got = losses.focal(logits, labels(0, 1, IGNORE), gamma)
    assert got.item() == pytest.approx(-(0.5**gamma * math.log(0.5) + 0.25**gamma * math.log(0.75)) / 2, rel=1e-5)
    if not gamma:
        assert got.item() == pytest.approx(losses.cross_entropy(logits, labels(0, 1, IGNORE)).item(), rel=1e-6)


def test_focal_has_a_gradient_where_a_pixel_is_certain() -> None:
    logits = torch.tensor([[[[100.0, 0.0]], [[-100.0, 0.0]]]], requires_grad=True)
    losses.focal(logits, labels(0, 1), 0.5).backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad.any()


def test_dice_leaves_out_classes_nobody_labeled() -> None:
    assert losses.dice(pixels((1 - 2e-9, 1e-9, 1e-9)), labels(0)).item() == pytest.approx(0, abs=1e-6)


def test_class_weights_by_hand() -> None:
    logits = pixels((0.5, 0.5), (0.25, 0.75), (0.9, 0.1))
    got = losses.cross_entropy(logits, labels(0, 1, IGNORE), weights=torch.tensor([1.0, 3.0]))
    assert got.item() == pytest.approx(-(math.log(0.5) + 3 * math.log(0.75)) / 4, rel=1e-5)


def test_label_smoothing_by_hand() -> None:
    got = losses.cross_entropy(pixels((0.8, 0.2), (0.5, 0.5)), labels(0, IGNORE), smoothing=0.1)
    assert got.item() == pytest.approx(-(0.95 * math.log(0.8) + 0.05 * math.log(0.2)), rel=1e-5)


def test_ohem_counts_the_hardest_share_of_the_labeled_pixels() -> None:
    logits = pixels((0.9, 0.1), (0.4, 0.6), (0.2, 0.8), (0.7, 0.3), (0.01, 0.99))
    got = losses.cross_entropy(logits, labels(0, 0, 0, 0, IGNORE), ohem=0.5)
    assert got.item() == pytest.approx(-(math.log(0.4) + math.log(0.2)) / 2, rel=1e-5)
    hardest = losses.hardest(logits, labels(0, 0, 0, 0, IGNORE), 0.5)
    assert hardest.flatten().tolist() == [IGNORE, 0, 0, IGNORE, IGNORE]


def test_lovasz_by_hand() -> None:
    """Class 0: errors 0.7 (a miss), 0.4 (a false alarm), 0.1; Jaccard losses 1/2, 2/3, 1 in that order."""
    logits = pixels((0.9, 0.1), (0.3, 0.7), (0.4, 0.6), (0.5, 0.5))
    got = losses.lovasz(logits, labels(0, 0, 1, IGNORE))
    first = 0.7 * (1 / 2) + 0.4 * (2 / 3 - 1 / 2) + 0.1 * (1 - 2 / 3)
    # Class 1: errors 0.7 (a false alarm), 0.4 (a miss), 0.1: after one false alarm 1 - 1/2, then 1 - 0/2, then 1.
    second = 0.7 * (1 / 2) + 0.4 * (1 / 2)
    assert got.item() == pytest.approx((first + second) / 2, rel=1e-5)


def test_lovasz_of_hard_predictions_is_one_minus_iou() -> None:
    hard = pixels((1 - 1e-7, 1e-7), (1e-7, 1 - 1e-7), (1e-7, 1 - 1e-7), (1e-7, 1 - 1e-7))
    assert losses.lovasz(hard, labels(0, 0, 1, 1)).item() == pytest.approx(1 - (1 / 2 + 2 / 3) / 2, rel=1e-4)


def test_boundary_counts_pixels_that_have_a_neighbor_of_another_class() -> None:
    shares = [(0.9, 0.1), (0.8, 0.2), (0.7, 0.3), (0.6, 0.4), (0.5, 0.5), (0.2, 0.8)]
    got = losses.boundary(pixels(*shares), labels(0, 0, 1, 1, IGNORE, 0))
    # Between the second and the third pixel only: an ignored pixel hides the other change.
    assert got.item() == pytest.approx(-(math.log(0.8) + math.log(0.3)) / 2, rel=1e-5)


def test_no_boundary_is_no_loss() -> None:
    assert losses.boundary(pixels((0.9, 0.1), (0.2, 0.8)), labels(0, 0)).item() == 0


def test_soft_targets_by_hand() -> None:
    student, teacher = pixels((0.5, 0.5), (0.3, 0.7)), pixels((0.9, 0.1), (0.2, 0.8))
    got = distillation_losses.soft_targets(student, teacher, labels(0, IGNORE), temperature=1.0)
    assert got.item() == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5), rel=1e-5)


def test_temperature_softens_both_sides_and_scales_back() -> None:
    student, teacher = pixels((0.5, 0.5)), pixels((0.9, 0.1))
    got = distillation_losses.soft_targets(student, teacher, labels(0), temperature=2.0)
    soft = 3 / 4  # softmax of log(0.9)/2, log(0.1)/2: sqrt(0.9) : sqrt(0.1) = 3 : 1
    assert got.item() == pytest.approx(4 * (soft * math.log(soft / 0.5) + 0.25 * math.log(0.25 / 0.5)), rel=1e-5)


def test_channel_wise_by_hand() -> None:
    student = torch.zeros(1, 2, 1, 2)
    teacher = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])[None, :, None]
    got = distillation_losses.channel_wise(student, teacher, labels(0, 0), temperature=1.0)
    second = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert got.item() == pytest.approx(second / 2, rel=1e-5)


def test_channel_wise_leaves_ignored_pixels_out_on_both_sides() -> None:
    student, teacher = torch.randn(2, 3, 1, 4, requires_grad=True), torch.randn(2, 3, 1, 4)
    ids = torch.tensor([[[0, IGNORE, 2, 1]], [[IGNORE] * 4]])
    got = distillation_losses.channel_wise(student, teacher, ids, 2.0)
    labeled_only = distillation_losses.channel_wise(
        student[:1, ..., [0, 2, 3]], teacher[:1, ..., [0, 2, 3]], ids[:1, :, [0, 2, 3]], 2.0
    )
    torch.testing.assert_close(got, labeled_only / 2)  # the frame without labels adds nothing to the mean of two
    got.backward()
    assert student.grad is not None and not student.grad[1].any()
    assert not student.grad[0, ..., 1].any() and student.grad[0, ..., [0, 2, 3]].any()


def test_attention_by_hand() -> None:
    """Two places: the student's channels give 3^2 + 4^2 and 0, the teacher's one channel 1 and 1."""
    student = torch.tensor([[3.0, 0.0], [4.0, 0.0]])[None, :, None]
    teacher = torch.tensor([[1.0, -1.0]])[None, :, None]
    root = 0.5**0.5
    assert distillation_losses.attention_transfer(student, teacher).item() == pytest.approx(
        (1 - root) ** 2 + root**2, rel=1e-5
    )
    assert distillation_losses.attention_transfer(student, 7 * student).item() == pytest.approx(0, abs=1e-6)


def test_structure_by_hand() -> None:
    """The student's two places are orthogonal, the teacher's are 60 degrees apart: two of four pairs differ by 1/2."""
    student = torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, 0.0]])[None, :, None]
    teacher = torch.tensor([[1.0, 0.5], [0.0, 0.75**0.5]])[None, :, None]
    assert distillation_losses.pairwise_similarity(student, teacher).item() == pytest.approx(2 * 0.25 / 4, rel=1e-5)
    turned = torch.linalg.qr(torch.randn(3, 3))[0] @ student[0, :, 0]
    assert distillation_losses.pairwise_similarity(student, turned[None, :, None]).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", [distillation_losses.attention_transfer, distillation_losses.pairwise_similarity])
def test_maps_of_other_channels_and_strides_are_compared_on_the_coarser_grid(loss: object) -> None:
    coarse, student = torch.rand(2, 5, 3, 6), torch.rand(2, 5, 3, 6, requires_grad=True)
    fine = coarse.repeat_interleave(4, 2).repeat_interleave(2, 3)
    more = torch.cat([fine, fine], 1)  # twice the channels with the same content
    got = loss(student, more)  # type: ignore[operator]
    torch.testing.assert_close(got, loss(student, coarse))  # type: ignore[operator]
    got.backward()
    assert got > 0 and student.grad is not None and student.grad.abs().sum() > 0
    assert loss(torch.zeros(1, 2, 2, 2), torch.rand(1, 3, 4, 4)).isfinite()  # type: ignore[operator]


def test_nothing_labeled_is_no_loss_and_no_nan() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    nothing = torch.full((1, 2, 2), IGNORE)
    total = losses.cross_entropy(logits, nothing) + losses.dice(logits, nothing)
    total = total + distillation_losses.soft_targets(logits, torch.randn(1, 3, 2, 2), nothing, 2.0)
    total = total + losses.lovasz(logits, nothing) + losses.boundary(logits, nothing)
    total = total + losses.focal(logits, nothing, 0.5) + losses.tversky(logits, nothing, 0.7)
    total = total + distillation_losses.channel_wise(logits, torch.randn(1, 3, 2, 2), nothing, 2.0)
    total = total + losses.cross_entropy(logits, nothing, torch.ones(3), smoothing=0.1, ohem=0.3)
    total.backward()
    assert total.item() == 0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize(
    "loss",
    [
        losses.cross_entropy,
        losses.dice,
        losses.lovasz,
        smoothed,
        partial(losses.focal, gamma=2.0),
        partial(losses.tversky, beta=0.7),
    ],
)
def test_ignored_pixels_have_no_gradient(loss: object) -> None:
    logits = torch.randn(1, 3, 1, 4, requires_grad=True)
    loss(logits, labels(0, IGNORE, 2, IGNORE)).backward()  # type: ignore[operator]
    assert logits.grad is not None
    assert not logits.grad[..., [1, 3]].any() and logits.grad[..., [0, 2]].any()


def test_mean_iou_counts_classes_seen_and_skips_ignored_pixels() -> None:
    logits = pixels((0.9, 0.05, 0.05), (0.9, 0.05, 0.05), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8))
    counts = metrics.confusion(logits, labels(0, 1, 1, IGNORE))
    assert counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert metrics.mean_iou(counts) == pytest.approx(0.5)


def test_mean_iou_of_nothing_is_zero() -> None:
    assert metrics.mean_iou(torch.zeros(3, 3, dtype=torch.int64)) == 0


def test_pixel_accuracy_is_the_share_that_is_right() -> None:
    assert metrics.pixel_accuracy(torch.tensor([[3, 1], [0, 4]])) == pytest.approx(7 / 8)
    assert metrics.pixel_accuracy(torch.zeros(3, 3, dtype=torch.int64)) == 0

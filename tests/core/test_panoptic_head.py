"""Queries -> segments: who wins a pixel, what is dropped, what is one segment, and what fits no bundle."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg import heads
from edgeseg.errors import BundleError, OptionError
from edgeseg.panoptic import PanopticMap
from edgeseg.spec import Spec

SPEC = Spec(8, 16, ("road", "sky", "car"), task="panoptic", things=("car",))
ROAD, SKY, CAR, NOTHING = range(4)


def queries(*rows: tuple[int, float, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of queries given as (class, its logit over the others, mask of bool)."""
    classes = np.zeros((len(rows), 4), np.float32)
    for row, (kind, logit, _) in zip(classes, rows):
        row[kind] = logit
    masks = np.stack([np.where(mask, 6, -6) for *_, mask in rows]).astype(np.float32)
    return {"class_logits": classes, "mask_logits": masks}


def area(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((8, 16), bool)
    mask[rows, columns] = True
    return mask


TOP, BOTTOM = area(slice(4), slice(None)), area(slice(4, 8), slice(None))
LEFT, RIGHT = area(slice(4, 8), slice(6)), area(slice(4, 8), slice(6, 9))


def decoded(*rows: tuple[int, float, np.ndarray]) -> PanopticMap:
    found = heads.get("panoptic").open(SPEC, "half_pixel").decode(queries(*rows)).panoptic
    assert isinstance(found, PanopticMap)
    return found


def test_objects_are_apart_and_stuff_is_one() -> None:
    found = decoded(
        (ROAD, 5, LEFT),
        (ROAD, 5, ~LEFT & BOTTOM),
        (CAR, 8, TOP & (np.arange(16) < 7)),
        (CAR, 8, TOP & (np.arange(16) >= 7)),
    )
    assert [(s.class_id, s.area, s.thing) for s in found.segments] == [
        (ROAD, 64, False),
        (CAR, 28, True),
        (CAR, 36, True),
    ]
    assert [(found.ids == s.id).sum() for s in found.segments] == [64, 28, 36]
    assert all(0.9 < s.score < 1 for s in found.segments)


def test_what_is_unsure_or_nothing_is_void() -> None:
    found = decoded((SKY, 6, TOP), (CAR, 0.5, LEFT), (NOTHING, 9, RIGHT))
    assert [s.class_id for s in found.segments] == [SKY]
    assert (found.ids[4:] == 0).all() and (found.classmap()[4:] == 255).all()


def test_a_query_that_wins_little_of_its_mask_is_dropped() -> None:
    whole = TOP | BOTTOM
    found = decoded((ROAD, 8, BOTTOM), (CAR, 3, whole))
    assert [s.class_id for s in found.segments] == [ROAD]


def test_no_query_at_all() -> None:
    found = decoded((NOTHING, 9, TOP))
    assert found.segments == () and not found.ids.any()


def test_the_class_map_has_no_void_and_its_margin_is_that_of_logits() -> None:
    head = heads.get("panoptic").open(SPEC, "half_pixel")
    outputs = queries((SKY, 6, TOP), (ROAD, 6, BOTTOM), (CAR, 6, RIGHT))
    plain, sure = head.decode(outputs), head.decode(outputs, margin=True)
    assert set(np.unique(plain.classmap)) <= {ROAD, SKY, CAR}
    assert (plain.classmap == sure.classmap).all() and sure.margin is not None and (sure.margin >= 0).all()
    assert (plain.classmap[:4] == SKY).all()


def test_masks_at_the_heads_stride_are_upsampled() -> None:
    small = {"class_logits": queries((SKY, 6, TOP))["class_logits"], "mask_logits": np.full((1, 2, 4), 5, np.float32)}
    found = heads.get("panoptic").open(SPEC, "half_pixel").decode(small).panoptic
    assert found is not None and found.ids.shape == (8, 16) and (found.ids == 1).all()


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"class_logits": np.zeros((3, 4), np.float32)},
        {"class_logits": np.zeros((3, 9), np.float32), "mask_logits": np.zeros((3, 2, 4), np.float32)},
        {"class_logits": np.zeros((3, 4), np.float32), "mask_logits": np.zeros((2, 2, 4), np.float32)},
        {"class_logits": np.zeros((0, 4), np.float32), "mask_logits": np.zeros((0, 2, 4), np.float32)},
    ],
)
def test_outputs_of_another_model(outputs: dict[str, np.ndarray]) -> None:
    head = heads.get("panoptic").open(SPEC, "half_pixel")
    with pytest.raises(BundleError, match=r"(?s)outputs are .*Expected class_logits \[Q, 4\]"):
        head.decode(outputs)


def test_a_spec_without_things() -> None:
    with pytest.raises(BundleError, match="'panoptic' without things"):
        heads.get("panoptic").open(Spec(8, 16, ("a", "b"), task="panoptic"), "half_pixel")


@pytest.mark.parametrize(
    ("things", "message"), [(("cra",), "thing 'cra' is none of the classes"), (("car", "car"), "one of them twice")]
)
def test_things_that_are_not_classes(things: tuple[str, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Spec(8, 16, ("road", "sky", "car"), things=things)


def test_things_are_kept_in_the_spec() -> None:
    assert Spec.from_dict(SPEC.to_dict()) == SPEC
    assert "things" not in Spec(8, 16, ("a", "b")).to_dict()  # older readers do not know it

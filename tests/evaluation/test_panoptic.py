"""Panoptic quality against its definition, spelled out segment by segment; labels, COCO's form and the overlay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg import segment_overlay
from edgeseg.errors import OptionError
from edgeseg.evaluation.panoptic import count, quality, score
from edgeseg.panoptic import PanopticMap, Segment, from_labels, thing_ids
from edgeseg.spec import Spec
from edgeseg.synth.street import CLASSES, Street

THINGS, CLASS_COUNT, IGNORE = (2, 3), 4, 255
Labels = tuple[np.ndarray, np.ndarray]


def blocks(random: np.random.Generator, void: bool) -> Labels:
    """Rectangles of classes 0 to 3 over each other; a third of the objects is not told apart."""
    mask, objects = np.zeros((20, 26), np.uint8), np.zeros((20, 26), np.uint16)
    for number in range(1, 9):
        y, x, high, wide = (int(random.integers(0, most)) for most in (18, 24, 12, 14))
        window = np.s_[y : y + high + 2, x : x + wide + 2]
        mask[window] = kind = int(random.integers(0, CLASS_COUNT))
        objects[window] = number if kind in THINGS and random.random() < 0.7 else 0
    if void:
        window = np.s_[2:9, int(random.integers(0, 20)) :]
        mask[window], objects[window] = IGNORE, 0
    return mask, objects


def moved(labels: Labels, random: np.random.Generator) -> Labels:
    """Labels a little shifted, with another rectangle over them, and no void."""
    step = int(random.integers(-2, 3))
    mask, objects = (np.roll(part, step, 1) for part in labels)
    mask[12:16, 4:12], objects[12:16, 4:12] = 3, 40
    objects[(mask == 3) & (objects == 0)] = 41
    objects[(mask == 2) & (objects == 0)] = 42
    empty = mask == IGNORE
    mask[empty], objects[empty] = 0, 0
    return mask, objects


def by_definition(truth: PanopticMap, found: PanopticMap) -> np.ndarray:
    """Kirillov et al. 2019, section 4, with boolean masks."""
    table = np.zeros((CLASS_COUNT, 4))
    void = truth.ids == 0
    missed = {s.id for s in truth.segments if not s.crowd}
    for p in found.segments:
        mine, hit = found.ids == p.id, False
        for t in truth.segments:
            if t.crowd or t.class_id != p.class_id:
                continue
            its = truth.ids == t.id
            iou = (mine & its).sum() / ((mine | its) & ~(mine & void)).sum()
            if iou > 0.5:
                table[p.class_id, :2] += iou, 1
                missed.discard(t.id)
                hit = True
        if not hit:
            nowhere = void.copy()
            for t in truth.segments:
                nowhere |= (truth.ids == t.id) if t.crowd and t.class_id == p.class_id else False
            table[p.class_id, 2] += (mine & nowhere).sum() / mine.sum() <= 0.5
    for t in truth.segments:
        table[t.class_id, 3] += t.id in missed
    return table


@given(seed=st.integers(0, 2**32), void=st.booleans())
@settings(max_examples=60, deadline=None)
def test_counts_follow_the_definition(seed: int, void: bool) -> None:
    random = np.random.default_rng(seed)
    labels = blocks(random, void)
    truth = from_labels(*labels, THINGS, IGNORE)
    found = from_labels(*moved(labels, random), THINGS)
    np.testing.assert_allclose(count(truth, found, CLASS_COUNT), by_definition(truth, found))


def test_a_perfect_prediction() -> None:
    mask, objects = blocks(np.random.default_rng(3), void=False)
    objects[np.isin(mask, THINGS) & (objects == 0)] = 50  # no crowds
    truth = from_labels(mask, objects, THINGS)
    pq, sq, rq = quality(count(truth, truth, CLASS_COUNT))
    there = np.unique(mask)
    assert (pq[there] == 1).all() and (sq[there] == 1).all() and (rq[there] == 1).all()


def test_half_of_an_object_is_no_match() -> None:
    """An IoU of exactly one half: one false segment, one missed."""
    mask = np.array([[2, 2, 0, 0]], np.uint8)
    truth = from_labels(mask, np.array([[1, 1, 0, 0]], np.uint16), THINGS)
    found = from_labels(np.array([[2, 0, 0, 0]], np.uint8), np.array([[1, 0, 0, 0]], np.uint16), THINGS)
    assert count(truth, found, CLASS_COUNT)[2].tolist() == [0, 0, 1, 1]


def test_scores_have_intervals_over_frames() -> None:
    random = np.random.default_rng(5)
    tables = []
    for _ in range(12):
        labels = blocks(random, void=True)
        tables.append(
            count(from_labels(*labels, THINGS, IGNORE), from_labels(*moved(labels, random), THINGS), CLASS_COUNT)
        )
    found = score(np.stack(tables), THINGS)
    assert 0 < found.pq.low <= found.pq.value <= found.pq.high < 1
    assert found.pq.value == pytest.approx(np.mean([pq for pq, _, _ in found.classes]))
    assert found.things.value == pytest.approx(np.mean([found.classes[c][0] for c in THINGS]))
    assert found.classes[2][0] == pytest.approx(found.classes[2][1] * found.classes[2][2])


def test_a_class_that_is_nowhere_does_not_count() -> None:
    found = score(np.array([[[0.9, 1, 0, 0], [0, 0, 0, 0]]]), things=())
    assert found.pq.value == pytest.approx(0.9)
    assert np.isnan(found.things.value) and np.isnan(found.classes[1][0])


def test_maps_of_two_sizes() -> None:
    small, large = (from_labels(np.zeros((4, width), np.uint8), None, THINGS) for width in (4, 5))
    with pytest.raises(OptionError, match=r"labels are \(4, 4\), the prediction \(5, 4\)"):
        count(small, large, CLASS_COUNT)


def test_objects_of_a_class_that_is_no_thing() -> None:
    mask, objects = np.full((4, 4), 1, np.uint8), np.ones((4, 4), np.uint16)
    with pytest.raises(OptionError, match=r"(?s)Class 1 has objects.*not among the things.*Add it"):
        from_labels(mask, objects, THINGS)


@pytest.mark.parametrize(
    ("things", "message"),
    [(["cra"], r"Thing 'cra' is none of the classes"), (["car", "car"], r"car, car: one is there twice")],
)
def test_things_that_are_not_classes(things: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        thing_ids(things, CLASSES.names)


def test_coco_form_is_read_as_it_was(tmp_path: Path) -> None:
    segments = (Segment(1, 0, 1.0, 6, False), Segment(300, 3, 0.75, 2, True))
    own = PanopticMap(np.array([[1, 1, 300, 300], [1, 1, 1, 1]], np.uint16), segments)
    table, colors = own.to_coco(7, "a.png"), own.coco_colors().astype(int)
    assert (colors[..., 2] + 256 * colors[..., 1] + 65536 * colors[..., 0] == own.ids).all()
    assert table["image_id"] == 7
    assert table["segments_info"][1] == {
        "id": 300, "category_id": 3, "area": 2, "bbox": [2, 0, 2, 1], "iscrowd": 0, "score": 0.75,
    }  # fmt: skip
    assert own.classmap().tolist() == [[0, 0, 3, 3], [0, 0, 0, 0]]


def test_overlay_tells_objects_apart() -> None:
    image, mask, objects = Street(3, 224, 384).frame_with_objects(40)
    spec = Spec(224, 384, CLASSES.names, CLASSES.palette, things=("car", "pedestrian"))
    truth = from_labels(mask, objects, thing_ids(spec.things, spec.classes))
    drawn = segment_overlay.draw(image, truth, spec)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    things = [s for s in truth.segments if s.thing and s.area > 60]
    colors = {tuple(np.median(drawn[truth.ids == s.id], 0).astype(int).tolist()) for s in things}
    assert len(things) > 1 and len(colors) == len(things)

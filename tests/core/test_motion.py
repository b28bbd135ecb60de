"""Motion of blocks, fields and warped class maps: C against numpy, and both against what they mean."""

from __future__ import annotations

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg import mask
from edgeseg.fit import OUTSIDE, Box, fit_labels, place
from edgeseg.motion import field, flow, h264, vectors, warp
from edgeseg.motion.field import Grid
from edgeseg.spec import Spec

CLASSES = ("road", "car", "sky")
SPEC = Spec(48, 64, CLASSES)
needs_kernel = pytest.mark.skipif(not field.compiled(), reason="the C kernel was not built")
seeds = st.integers(0, 2**32 - 1)


def random_field(rng: np.random.Generator, grid: Grid, reach: float) -> NDArray[np.float32]:
    moved = rng.normal(scale=reach, size=(*grid.shape, 2))
    moved[rng.random(grid.shape) < 0.5] = 0  # flat regions are copied
    return moved.astype(np.float32)


def random_map(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (height, width), np.uint8)


@needs_kernel
@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(1, 70), st.integers(1, 70), st.sampled_from([0.0, 0.3, 5.0, 300.0]))
def test_the_kernel_moves_class_maps_as_numpy_does(seed: int, height: int, width: int, reach: float) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid(height, width)
    before, moved = random_map(rng, height, width), random_field(rng, grid, reach)
    axes = [warp._axis(n, 0, 1.0, grid.cell, cells) for n, cells in zip((height, width), grid.shape)]
    assert (warp._warped(before, moved, *axes) == warp.plain(before, moved, *axes)).all()


@needs_kernel
@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(0, 40))
def test_the_kernel_adds_blocks_as_numpy_does(seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid(50, 90)
    corners = rng.integers(-40, 120, (number, 2))
    sizes = rng.choice([4, 8, 16], (number, 2))
    blocks = np.hstack([corners, corners + sizes, rng.normal(scale=9, size=(number, 2))]).astype(np.float32)
    sums, areas = np.zeros((*grid.shape, 2)), np.zeros(grid.shape)
    field.add_blocks(blocks, grid.cell, *grid.shape, sums, areas)
    moved, known = field.of_blocks(blocks, grid)
    assert (moved == (sums / np.maximum(areas, 1)[..., None]).astype(np.float32)).all()
    assert (known == (areas > 0)).all()


@needs_kernel
@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e30])
def test_absurd_blocks_do_not_crash_and_absurd_fields_are_refused(bad: float) -> None:
    grid = Grid(50, 90)
    field.of_blocks(np.full((3, 6), bad, np.float32), grid)
    axes = [warp._axis(n, 0, 1.0, grid.cell, cells) for n, cells in zip((50, 90), grid.shape)]
    with pytest.raises(ValueError, match="do not fit"):
        warp._warped(np.zeros((50, 90), np.uint8), np.full((*grid.shape, 2), bad, np.float32), *axes)


def test_a_picture_that_moved_as_a_whole_is_shifted_and_its_border_repeated() -> None:
    rng = np.random.default_rng(1)
    before, grid = random_map(rng, SPEC.height, SPEC.width), Grid(48, 64)
    moved = np.full((*grid.shape, 2), (-5, 3), np.float32)  # what is here was 5 to the left and 3 below
    expected = np.pad(before, ((0, 3), (5, 0)), mode="edge")[3:, :-5]
    assert (warp.class_map(before, moved, grid, SPEC) == expected).all()


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop", "pad"])
def test_labels_move_with_the_picture_whatever_its_fit(fit: str) -> None:
    spec = replace(SPEC, fit=fit)
    labels = np.zeros((120, 240), np.uint8)
    labels[40:80, 100:140] = 1
    later = np.roll(labels, (8, 16), (0, 1))
    grid = Grid(120, 240)
    moved = np.full((*grid.shape, 2), (-16, -8), np.float32)
    got = warp.class_map(fit_labels(labels, spec, OUTSIDE), moved, grid, spec)
    expected = fit_labels(later, spec, OUTSIDE)
    assert (got != expected).mean() < 0.01 and ((got == OUTSIDE) == (expected == OUTSIDE)).all()
    seen = place(spec, 120, 240).seen
    assert (warp.frame_map(seen.of(labels), moved, grid, seen) == seen.of(later)).all()


def test_logits_and_class_maps_move_alike() -> None:
    rng = np.random.default_rng(2)
    logits = cv2.GaussianBlur(rng.normal(size=(48, 64, 3)), (0, 0), 3).transpose(2, 0, 1).astype(np.float32)
    grid = Grid(96, 128)
    moved = np.full((*grid.shape, 2), (6, -4), np.float32)  # in frame pixels: 3 and -2 of the input
    by_logits = warp.logits(logits, moved, grid, SPEC).argmax(0)
    by_map = warp.class_map(logits.argmax(0).astype(np.uint8), moved, grid, SPEC)
    assert (by_logits == by_map).mean() > 0.99


def test_composed_fields_add_up_and_never_point_outside() -> None:
    grid = Grid(64, 64)
    a, b = np.full((*grid.shape, 2), (3, 1), np.float32), np.full((*grid.shape, 2), (-1, 2), np.float32)
    assert np.allclose(field.compose(a, b, grid), (2, 3))
    far = field.compose(a * 1e6, b, grid)
    assert abs(far).max() <= 64


def test_holes_take_the_motion_around_them() -> None:
    grid = Grid(96, 96)
    moved, known = np.full((*grid.shape, 2), 4, np.float32), np.ones(grid.shape, bool)
    known[4:8, 4:8] = False
    moved[~known] = 0
    assert np.allclose(field.fill_holes(moved, known), 4)
    assert (field.fill_holes(moved * 0, np.zeros(grid.shape, bool)) == 0).all()


@pytest.mark.parametrize(("size", "cell"), [((48, 64), 8), ((720, 1280), 16), ((1080, 1920), 16), ((2160, 3840), 32)])
def test_the_grid_stays_small(size: tuple[int, int], cell: int) -> None:
    assert Grid(*size).cell == cell and Grid(*size).shape == (-(-size[0] // cell), -(-size[1] // cell))


VECTOR = np.dtype(
    {
        "names": ["source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale"],
        "formats": ["<i4", "u1", "u1", "<i2", "<i2", "<i4", "<i4", "<u2"],
    }
)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=23 * 40))
def test_no_vectors_of_a_stream_give_an_absurd_field(data: bytes) -> None:
    found = np.frombuffer(data[: len(data) // VECTOR.itemsize * VECTOR.itemsize], VECTOR)
    blocks = vectors.blocks_of(found)
    assert np.isfinite(blocks).all() and abs(blocks).max(initial=0) <= vectors.LONGEST
    grid = Grid(72, 128)
    moved = field.fill_holes(*field.of_blocks(blocks, grid))
    warp.class_map(np.zeros((SPEC.height, SPEC.width), np.uint8), field.compose(moved, moved, grid), grid, SPEC)


def moving_picture(i: int, height: int = 192, width: int = 256) -> NDArray[np.uint8]:
    """A textured plane that moves 4 pixels to the right and 2 down in each frame."""
    rng = np.random.default_rng(3)
    big = cv2.GaussianBlur(rng.integers(0, 256, (2 * height, 2 * width, 3), np.uint8), (0, 0), 2)
    big = cv2.normalize(big, None, 0, 255, cv2.NORM_MINMAX)
    return np.ascontiguousarray(big[64 - 2 * i : 64 - 2 * i + height, 96 - 4 * i : 96 - 4 * i + width])


def test_optical_flow_finds_where_a_picture_moved() -> None:
    grid = Grid(192, 256)
    before, now = (flow.thumbnail(moving_picture(i)) for i in (0, 1))
    inner = flow.field(before, now, grid)[3:-3, 3:-3]
    assert np.abs(np.median(inner, axis=(0, 1)) - (-4, -2)).max() < 0.5
    assert (flow.field(now, now, grid) == 0).all()


def test_the_decoder_tells_where_a_picture_moved() -> None:
    pytest.importorskip("av")
    if not h264.available():
        pytest.skip("this PyAV has no H.264 encoder")
    pictures = [moving_picture(i) for i in range(8)]
    decoded = list(h264.decode(h264.encode(pictures, 30, 30)))
    assert len(decoded) == 8 and len(decoded[0][1].blocks) == 0
    grid = Grid(192, 256)
    for image, motion in decoded[1:]:
        assert image.shape == (192, 256, 3) and motion.reference
        moved, known = field.of_blocks(motion.blocks, grid)
        assert known.mean() > 0.5
        assert np.abs(np.median(moved[known], axis=0) - (-4, -2)).max() < 0.6


UPSAMPLES = ["half_pixel", "align_corners", "asymmetric"]


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(["stretch", "letterbox", "crop", "pad"]), st.sampled_from(UPSAMPLES), st.booleans())
def test_maps_of_the_frames_size_equal_a_dense_upsample(seed: int, fit: str, upsample: str, plain: bool) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(2, 150, 2))
    spec, logits = replace(SPEC, fit=fit), rng.normal(size=(3, 12, 16)).astype(np.float32)
    placed = place(spec, height, width)
    rows = mask._frame_axis(placed.seen.height, placed.filled.top, placed.filled.height, 48, 12, upsample)
    columns = mask._frame_axis(placed.seen.width, placed.filled.left, placed.filled.width, 64, 16, upsample)
    got = mask._sparse(logits, rows, columns) if plain else mask.frame_map(logits, 48, 64, upsample, placed)
    assert (got == mask.interpolated(logits, rows, columns).argmax(0)).all()


@pytest.mark.parametrize("upsample", UPSAMPLES)
def test_a_frame_of_the_inputs_size_gets_the_same_map(upsample: str) -> None:
    logits = np.random.default_rng(4).normal(size=(3, 12, 16)).astype(np.float32)
    whole = mask.frame_map(logits, 48, 64, upsample, place(SPEC, 48, 64))
    assert (whole == mask.class_map(logits, 48, 64, upsample)).all()


WITHOUT = """
import sys
sys.modules["edgeseg._motion"] = None
import numpy as np
from edgeseg.motion import field, warp
from edgeseg.motion.field import Grid
from edgeseg.spec import Spec
assert not field.compiled()
grid = Grid(48, 64)
moved, known = field.of_blocks(np.array([[0, 0, 64, 48, 4, 0]], np.float32), grid)
before = np.arange(48 * 64).reshape(48, 64).astype(np.uint8)
assert (warp.class_map(before, moved, grid, Spec(48, 64, ("a", "b")))[:, :60] == before[:, 4:]).all()
"""


def test_it_works_without_the_kernel() -> None:
    import subprocess

    subprocess.run([sys.executable, "-c", WITHOUT], check=True, timeout=60)


def test_a_box_of_a_frame_is_warped_by_itself() -> None:
    before = random_map(np.random.default_rng(5), 20, 30)
    grid = Grid(48, 64)
    assert (warp.frame_map(before, grid.still(), grid, Box(10, 10, 30, 20)) == before).all()

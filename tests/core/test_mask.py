"""Class maps: the kernel in C, its numpy twin and the dense reference must agree on every pixel."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg import mask

MODES = ("half_pixel", "align_corners", "asymmetric")

_mask: Any = pytest.importorskip("edgeseg._mask", reason="the C kernel could not be built here")


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, int, int, str]:
    """Logits in steps of one eighth, so that many tie, with sizes that are not multiples of each other."""
    classes = draw(st.one_of(st.integers(2, 12), st.integers(2, 150)))
    h, w = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    height, width = draw(st.integers(h, 8 * h + 5)), draw(st.integers(w, 8 * w + 5))
    steps = draw(st.sampled_from([1, 2, 5, 1000]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return (
        random.integers(-steps, steps + 1, (classes, h, w)).astype(np.float32) / 8,
        height,
        width,
        draw(st.sampled_from(MODES)),
    )


@given(cases())
def test_kernel_equals_numpy_equals_dense(case: tuple[np.ndarray, int, int, str]) -> None:
    expected = mask.dense(*case)
    np.testing.assert_array_equal(mask.sparse(*case), expected)
    np.testing.assert_array_equal(mask.class_map(*case), expected)


@pytest.mark.parametrize("mode", [*MODES, "none"])
def test_a_map_without_any_preference_is_class_zero(mode: str) -> None:
    logits = np.full((7, 6, 5), 0.3, np.float32)
    assert not mask.class_map(logits, *((6, 5) if mode == "none" else (24, 21)), mode).any()


def test_ties_go_to_the_lowest_class() -> None:
    logits = np.zeros((4, 3, 3), np.float32)
    logits[0] = -1  # 1, 2 and 3 tie everywhere
    assert (mask.class_map(logits, 11, 13, "half_pixel") == 1).all()


def test_full_size_logits_are_only_compared() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 8, 12)).astype(np.float32)
    np.testing.assert_array_equal(mask.class_map(logits, 8, 12, "none"), logits.argmax(0))


@given(st.integers(1, 256), st.integers(1, 5), st.integers(1, 3000), st.integers(0, 2**32))
def test_full_size_logits_equal_numpy(classes: int, h: int, w: int, seed: int) -> None:
    """With ties, infinities, and sizes on both sides of what the kernel takes at once."""
    w = w if classes < 20 else w % 50 + 1
    logits = np.random.default_rng(seed).integers(-3, 4, (classes, h, w)).astype(np.float32)
    logits[logits == -3] = -np.inf
    np.testing.assert_array_equal(mask.class_map(logits, h, w, "none"), logits.argmax(0))


def test_full_size_logits_that_do_not_fit_are_refused() -> None:
    logits, out = np.zeros((3, 4, 5), np.float32), np.zeros((4, 5), np.uint8)
    for classes, given_out in ((2, out), (0, out), (257, out), (3, np.zeros(21, np.uint8))):
        with pytest.raises(ValueError, match="do not fit"):
            _mask.argmax(logits, classes, given_out)


@pytest.mark.parametrize(
    ("mode", "position"),
    [
        ("half_pixel", lambda i: min(max((i + 0.5) / 4 - 0.5, 0), 1)),
        ("align_corners", lambda i: i / 7),
        ("asymmetric", lambda i: min(i / 4, 1)),
    ],
)
def test_the_border_of_two_classes_follows_the_convention(mode: str, position: Any) -> None:
    logits = np.array([[[0.7, 0]], [[0, 0.7]]], np.float32)  # equal halfway between the two columns
    expected = [int(position(i) > 0.5) for i in range(8)]
    np.testing.assert_array_equal(mask.class_map(logits, 1, 8, mode)[0], expected)


def smooth(random: np.random.Generator, classes: int, h: int, w: int) -> np.ndarray:
    """Logits as a network gives them: neighbors are similar."""
    import cv2

    coarse = random.normal(0, 3, (classes, h // 4 + 2, w // 4 + 2)).astype(np.float32)
    return np.stack([cv2.resize(plane, (w, h), interpolation=cv2.INTER_CUBIC) for plane in coarse])


@pytest.mark.parametrize("align", [False, True])
def test_the_kernel_equals_torch(align: bool) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    random = np.random.default_rng(5)
    pixels = different = 0
    for classes, (h, w), (height, width) in [
        (19, (32, 48), (128, 192)),
        (11, (45, 60), (360, 480)),
        (8, (28, 48), (224, 384)),
        (4, (17, 23), (150, 201)),
        (150, (16, 16), (128, 128)),
    ] * 3:
        logits = smooth(random, classes, h, w)
        full = torch.nn.functional.interpolate(
            torch.from_numpy(logits)[None], (height, width), mode="bilinear", align_corners=align
        )[0]
        result = mask.class_map(logits, height, width, "align_corners" if align else "half_pixel")
        wrong = result != full.argmax(0).numpy()
        top = full.topk(2, dim=0).values.numpy()
        np.testing.assert_array_less((top[0] - top[1])[wrong], 1e-5)  # only where rounding decides
        pixels, different = pixels + wrong.size, different + int(wrong.sum())
    assert pixels > 900_000
    assert different < pixels / 100_000


def test_logits_need_not_be_contiguous() -> None:
    logits = np.random.default_rng(2).normal(size=(6, 10, 5)).astype(np.float32).transpose(2, 0, 1)
    assert not logits.flags.c_contiguous
    expected = mask.dense(np.ascontiguousarray(logits), 25, 41, "half_pixel")
    np.testing.assert_array_equal(mask.class_map(logits, 25, 41, "half_pixel"), expected)


def test_numpy_replaces_a_missing_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = smooth(np.random.default_rng(3), 9, 12, 18)
    with_kernel = mask.class_map(logits, 48, 72, "align_corners")
    monkeypatch.setattr(mask, "_mask", None)
    np.testing.assert_array_equal(mask.class_map(logits, 48, 72, "align_corners"), with_kernel)


def ints(*values: int) -> bytes:
    return struct.pack(f"{len(values)}i", *values)


def floats(*values: float) -> bytes:
    return struct.pack(f"{len(values)}f", *values)


@given(cases())
def test_margins_are_the_best_logit_less_the_second(case: tuple[np.ndarray, int, int, str]) -> None:
    logits, height, width, _ = case
    result, margin = mask.class_map_margin(*case)
    np.testing.assert_array_equal(result, mask.dense(*case))
    assert (margin >= 0).all() and margin.shape == (height, width)
    full = dense_in_doubles(*case)
    second, first = np.partition(full, -2, axis=0)[-2:]
    np.testing.assert_allclose(margin, first - second, atol=1e-4 * max(1.0, float(np.abs(logits).max())))


def dense_in_doubles(logits: np.ndarray, height: int, width: int, mode: str) -> np.ndarray:
    """Every logit upsampled, pixel by pixel as the ONNX specification has it."""

    def positions(size: int, small: int) -> np.ndarray:
        i = np.arange(size)
        if mode == "align_corners":
            return i * (small - 1) / max(size - 1, 1)
        return np.clip(i * small / size if mode == "asymmetric" else (i + 0.5) * small / size - 0.5, 0, small - 1)

    _, h, w = logits.shape
    ys, xs = positions(height, h), positions(width, w)
    y, x = np.floor(ys).astype(int), np.floor(xs).astype(int)
    b, r = np.minimum(y + 1, h - 1), np.minimum(x + 1, w - 1)
    v, u = (ys - y)[:, None], xs - x
    wide = logits.astype(np.float64)
    top = wide[:, y][:, :, x] * (1 - u) + wide[:, y][:, :, r] * u
    low = wide[:, b][:, :, x] * (1 - u) + wide[:, b][:, :, r] * u
    return np.asarray(top * (1 - v) + low * v)


def call(**changes: Any) -> bytearray:
    """The kernel on 2 classes of 2 x 2, to 2 x 3 pixels, with some arguments replaced."""
    given = {
        "logits": floats(*range(8)),
        "classes": 2,
        "h": 2,
        "w": 2,
        "y0": ints(0, 0),
        "wy": floats(0, 1),
        "x0": ints(0, 0, 0),
        "wx": floats(0, 0.5, 1),
        "out": bytearray(6),
        "margin": None,
    }
    given.update(changes)
    _mask.class_map(*given.values())
    return given["out"]


def test_the_kernel_by_itself() -> None:
    assert call(logits=floats(1, 0, 1, 0, 0, 1, 0, 1)) == bytearray([0, 0, 1, 0, 0, 1])


HUGE = 2**31 - 1


@pytest.mark.parametrize(
    "changes",
    [
        {"logits": floats(*range(7))},
        {"logits": b""},
        {"classes": 0},
        {"classes": -2},
        {"classes": 257},
        {"h": 0},
        {"w": -2},
        {"w": 3},
        {"y0": ints(0, 2)},
        {"y0": ints(-1, 0)},
        {"y0": ints(1, 0)},
        {"y0": ints(0)},
        {"x0": ints(0, 0, 2)},
        {"x0": ints(0, 1, 0)},
        {"x0": ints(0, 0, -(2**31))},
        {"x0": ints(0, 0)},
        {"wy": floats(0)},
        {"wx": floats(0, 1, 0, 1)},
        {"out": bytearray(5)},
        {"out": bytearray(7)},
        {"margin": bytearray(23)},
        {"margin": bytearray(28)},
        {"margin": bytes(24)},
        {"h": HUGE, "w": HUGE},
        {"logits": b"", "classes": 256, "h": 1 << 30, "w": 1 << 24},  # 2**64 bytes: overflows to none
        {"logits": b"", "classes": 64, "h": 1 << 30, "w": 1 << 26},
    ],
    ids=str,
)
def test_inconsistent_sizes_are_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        call(**changes)


@pytest.mark.parametrize("changes", [{"out": bytes(6)}, {"logits": None}, {"classes": "2"}, {"h": 2**40}], ids=str)
def test_arguments_of_the_wrong_type_are_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises((TypeError, BufferError, OverflowError)):
        call(**changes)


@given(
    st.binary(max_size=80),
    st.tuples(*[st.integers(-3, 300)] * 3),
    st.tuples(*[st.binary(max_size=24)] * 4),
    st.integers(0, 40),
)
def test_any_input_is_segmented_correctly_or_rejected(
    logits: bytes, sizes: tuple[int, int, int], axes: tuple[bytes, bytes, bytes, bytes], out: int
) -> None:
    try:
        _mask.class_map(logits, *sizes, *axes, bytearray(out), bytearray(4 * out) if sizes[0] % 2 else None)
    except ValueError:
        return
    assert len(logits) == 4 * sizes[0] * sizes[1] * sizes[2]

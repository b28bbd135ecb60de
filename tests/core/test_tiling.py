"""Tiled: a large frame in tiles is the frame as a whole, wherever a tile holds what a logit depends on."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.compile import compile_model
from edgeseg.errors import OptionError
from edgeseg.images import write_image
from edgeseg.runtime import open_segmenter
from edgeseg.target import Target
from edgeseg.tiling import BLENDS, Tiled, starts, weight

WHOLE = 192, 320  # tiles are of tiny.HEIGHT x tiny.WIDTH; the network sees 7 pixels around each logit


def compiled(folder: Path, height: int, width: int, target: str = "openvino-cpu", mode: str = "half_pixel") -> Path:
    net = tiny.Net(seed=3)
    spec = tiny.SPEC.__class__(height, width, tiny.SPEC.classes, tiny.SPEC.palette)
    path = folder / f"{width}-{mode}.onnx"
    logits = net.head("image", len(spec.classes))
    path.write_bytes(net.model(net.resize(logits, mode), shape=(1, 3, height, width), spec=spec).SerializeToString())
    frames = tiny.frames(2, height=height, width=width)
    return compile_model(
        path, folder / f"{width}-{mode}-{target}", Target.load(target), "fp32", spec=spec, frames=frames
    ).path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """For tiles, and for the whole frame."""
    folder = tmp_path_factory.mktemp("tiling")
    return compiled(folder, tiny.HEIGHT, tiny.WIDTH), compiled(folder, *WHOLE)


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    return tiny.frames(1, seed=5, height=WHOLE[0], width=WHOLE[1])[0]


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_hard_tiles_that_overlap_enough_are_the_whole_frame(bundles, frame, mode):
    with open_segmenter(bundles[0], mode) as small, open_segmenter(bundles[1]) as large:
        expected = large(frame).classmap
        assert len(np.unique(expected)) > 2
        result = Tiled(small, overlap=16, blend="hard")(frame)
    np.testing.assert_array_equal(result.classmap, expected)
    np.testing.assert_array_equal(result.at_frame_size(), expected)


def test_blended_tiles_are_the_whole_frame_away_from_seams(bundles, frame):
    with open_segmenter(bundles[0]) as small, open_segmenter(bundles[1]) as large:
        expected, result = large(frame).classmap, Tiled(small)(frame).at_frame_size()
    apart = np.ones(WHOLE, bool)
    for axis, tile in enumerate((tiny.HEIGHT, tiny.WIDTH)):
        for top in starts(WHOLE[axis] // 4, tile // 4, 2):
            for edge in (4 * top, 4 * top + tile):
                if 0 < edge < WHOLE[axis]:
                    apart[(slice(None),) * axis + (slice(edge - 8, edge + 8),)] = False
    assert apart.mean() > 0.2
    np.testing.assert_array_equal(result[apart], expected[apart])
    assert (result == expected).mean() > 0.98


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("size", [(tiny.HEIGHT, tiny.WIDTH), (30, 40), (65, 97), (20, 301)])
def test_frames_of_any_size(bundles, blend, size):
    frames = tiny.frames(1, seed=2, height=size[0], width=size[1])
    with open_segmenter(bundles[0]) as small:
        result = Tiled(small, blend=blend)(frames[0])
        if size == (tiny.HEIGHT, tiny.WIDTH):
            np.testing.assert_array_equal(result.classmap, small(frames[0]).classmap)
    assert result.at_frame_size().shape == size and result.plot().shape == (*size, 3)
    assert sum(result.areas().values()) == pytest.approx(1)


@given(st.integers(1, 500), st.integers(1, 100), st.data())
def test_tiles_cover_everything_and_overlap_enough(size, tile, data):
    overlap = data.draw(st.integers(0, tile // 2))
    found = starts(max(size, tile), tile, overlap)
    assert found[0] == 0 and found[-1] == max(size, tile) - tile
    assert all(0 < b - a <= tile - overlap for a, b in pairwise(found))


@pytest.mark.parametrize("blend", BLENDS)
def test_every_logit_of_a_tile_counts_and_the_middle_most(blend):
    weights = weight(9, 15, blend)
    assert weights.min() > 0 and weights[4, 7] == weights.max()
    np.testing.assert_allclose(weights, weights[::-1, ::-1])


def test_what_cannot_be_tiled(bundles, tmp_path):
    with open_segmenter(bundles[0]) as small:
        with pytest.raises(OptionError, match=r"Unknown blend 'gausian'\.\nDid you mean 'gaussian'"):
            Tiled(small, blend="gausian")
        for overlap in (33, -1):
            with pytest.raises(OptionError, match=rf"96x64 cannot overlap by {overlap} pixels.\nExpected 0 to 32"):
                Tiled(small, overlap)
        with pytest.raises(OptionError, match=r"A frame of 16385x8 is too large.\nExpected at most 16384"):
            Tiled(small)(np.zeros((8, 16385, 3), np.uint8))
    corners = compiled(tmp_path, tiny.HEIGHT, tiny.WIDTH, mode="align_corners")
    with (
        open_segmenter(corners) as segmenter,
        pytest.raises(OptionError, match=r"upsampling \(align_corners\) depends"),
    ):
        Tiled(segmenter)


def test_predict_and_eval_in_tiles(bundles, frame, edgeseg, tmp_path):
    write_image(tmp_path / "a.png", frame)
    words = ("predict", bundles[0], tmp_path / "a.png", "--save", tmp_path / "out", "--json", "-")
    told = json.loads(edgeseg(*words, "--tile", "--overlap", 16, "--blend", "hard").out)["images"][0]
    assert told["size"] == [WHOLE[1], WHOLE[0]]
    data = tmp_path / "data" / "test"
    with open_segmenter(bundles[1]) as large:
        write_image(data / "masks" / "a.png", large(frame).classmap)
    write_image(data / "images" / "a.png", frame)
    (tmp_path / "data" / "classes.txt").write_text("\n".join(tiny.SPEC.classes) + "\n")
    words = ("eval", bundles[0], "--data", tmp_path / "data", "--json", "-")
    exact = json.loads(edgeseg(*words, "--tile", "--overlap", 16, "--blend", "hard").out)
    assert exact["pixel_accuracy"] == 1 and json.loads(edgeseg(*words).out)["pixel_accuracy"] < 1

    result = edgeseg(*words, "--overlap", 16)
    assert result.code == 2 and "--overlap and --blend are of tiles." in result.err
    result = edgeseg(*words, "--tile", "--flip")
    assert result.code == 2 and "--tile goes with --data" in result.err

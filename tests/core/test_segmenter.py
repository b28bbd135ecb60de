"""The Segmenter alone: order, full slots, stage times, frames of any size, failures inside the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from edgeseg.heads import semantic
from edgeseg.images import resize
from edgeseg.result import Frame
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter


class Broken:
    """An engine whose device is gone."""

    slots = 2

    def __init__(self) -> None:
        self.closed = False

    def inputs(self, slot: int) -> dict[str, np.ndarray]:
        return {"frame": np.zeros((tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)}

    def start(self, slot: int) -> None:
        pass

    def wait(self, slot: int) -> dict[str, np.ndarray]:
        raise RuntimeError("the device is gone")

    def close(self) -> None:
        self.closed = True


def test_a_result_carries_its_frame_and_the_seconds_of_each_stage(bundle: Path) -> None:
    with open_segmenter(bundle) as segmenter:
        frame = Frame(tiny.frames(1)[0], 7, 12.5, "door")
        segmenter.submit(frame)
        assert (segmenter.in_flight, segmenter.full) == (1, True)
        result = segmenter.collect()
    assert result.frame is frame
    assert set(result.times) == {"resize", "infer", "mask"}
    assert all(0 < seconds < 60 for seconds in result.times.values())
    assert (result.classmap.shape, result.classmap.dtype) == ((tiny.HEIGHT, tiny.WIDTH), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (65, 97), (480, 640), (1, 1)])
def test_frames_of_another_size_are_stretched_first(bundle: Path, height: int, width: int) -> None:
    image = tiny.frames(1, 3, height, width)[0]
    with open_segmenter(bundle) as segmenter:
        np.testing.assert_array_equal(
            segmenter(image).classmap, segmenter(resize(image, tiny.HEIGHT, tiny.WIDTH)).classmap
        )


def test_a_view_of_a_larger_frame(bundle: Path) -> None:
    image = tiny.frames(1, 3, 128, 192)[0]
    with open_segmenter(bundle) as segmenter:
        part = image[10:100, 20:150]
        np.testing.assert_array_equal(segmenter(part).classmap, segmenter(part.copy()).classmap)


def test_a_failure_in_flight_frees_the_slot_and_still_closes_the_engine() -> None:
    engine = Broken()
    segmenter = Segmenter(tiny.SPEC, engine, semantic.open(tiny.SPEC, "half_pixel"))
    image = tiny.frames(1)[0]
    for _ in range(4):  # more often than there are slots
        with pytest.raises(RuntimeError, match="the device is gone"):
            segmenter(image)
    assert segmenter.in_flight == 0
    with pytest.raises(RuntimeError, match="the device is gone"), segmenter:
        segmenter.submit(Frame(image))
    assert engine.closed


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 96), np.uint8),
        np.zeros((64, 96, 4), np.uint8),
        np.zeros((64, 96, 1), np.uint8),
        np.zeros((64, 96, 3), np.float32),
    ],
    ids=["gray", "with alpha", "one channel", "floats"],
)
def test_an_invalid_frame_is_rejected_and_takes_no_slot(bundle: Path, image: np.ndarray) -> None:
    with open_segmenter(bundle) as segmenter:
        with pytest.raises(ValueError, match=r"expected \[H, W, 3\] uint8 BGR"):
            segmenter(image)
        assert not segmenter.full and segmenter.in_flight == 0


def test_an_unknown_engine_option_is_an_error(bundle: Path) -> None:
    with pytest.raises(TypeError, match="thread"):
        open_segmenter(bundle, thread=2)


def test_a_frame_that_cannot_start_takes_no_slot(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Frame(tiny.frames(1)[0])
    with open_segmenter(bundle) as segmenter:
        with monkeypatch.context() as broken:
            broken.setattr(type(segmenter.engine), "start", lambda *_: 1 / 0)
            for _ in range(3):
                with pytest.raises(ZeroDivisionError):
                    segmenter.submit(frame)
        assert not segmenter.full and segmenter.in_flight == 0
        segmenter.submit(frame)
        assert segmenter.collect().frame is frame

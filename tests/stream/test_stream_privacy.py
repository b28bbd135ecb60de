"""Classes that no sink gets to see: their pixels reach no file, however the frame fits the network."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from stream_helpers import COLORS, HEAD, SPEC, ColorEngine, bundle, read_back

from edgeseg.blur import GRAY
from edgeseg.errors import OptionError
from edgeseg.fit import OUTSIDE
from edgeseg.images import Image
from edgeseg.result import Frame, Result
from edgeseg.segmenter import Segmenter
from edgeseg.stream import loop, sinks
from edgeseg.stream.events.rules import load
from edgeseg.stream.events.watch import Watch
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.privacy import Privacy
from edgeseg.stream.sources import EndOfStream, Source

RULES = '[rules.seen]\nwhen = "car in frame"\n'
SECRET = COLORS[3]  # what a car looks like


def secret_pixels(image: Image) -> int:
    """How many pixels look like a car, within what a codec may change."""
    return int((np.abs(image.astype(int) - SECRET.astype(int)).max(2) < 45).sum())


def street(i: int, car: Image = SECRET, size: tuple[int, int] = (256, 384)) -> Image:
    """Road and sky, and a car that moves, with something in its middle."""
    height, width = size
    image = np.ascontiguousarray(np.broadcast_to(COLORS[0], (height, width, 3)))
    image[: height // 3] = COLORS[1]
    left = 20 + 10 * i
    image[height // 2 : height // 2 + 80, left : left + 100] = SECRET
    image[height // 2 + 20 : height // 2 + 60, left + 20 : left + 80] = car
    return image


class Streets(Source):
    count, fps = 12, 10.0

    def __init__(self, car: Image) -> None:
        super().__init__()
        self._car = car
        self._frames = iter(range(12))

    def read(self, timeout: float) -> Frame:
        for i in self._frames:
            return Frame(street(i, self._car), i, pts=i / 10, source=f"street{i}")
        raise EndOfStream


def pictures(folder: Path) -> list[Image]:
    """Every picture in a folder, of images, videos and clips alike."""
    found: list[Image] = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.suffix + path.stem[-12:]):
        if path.suffix in (".mp4", ".avi", ".mkv"):
            found += read_back(path)
        elif path.suffix in (".jpg", ".png"):
            found.append(np.asarray(cv2.imread(str(path)), np.uint8))
    return found


def recorded(
    folder: Path, fit: str, blur: tuple[str, ...] = (), fill: tuple[str, ...] = (), car: Image = SECRET
) -> list:
    """What every sink that writes pixels has written of a street."""
    (folder / "zones.toml").write_text(RULES)
    rules, spec, out = load(folder / "zones.toml"), replace(SPEC, fit=fit), folder / "out"
    info = sinks.Info(spec, 10.0, rules=rules)
    uris = (f"{out}/v.mp4", f"{out}/v.avi", f"{out}/f/?masks=0&overlay=1", f"events://{out}/e.jsonl?clip=1s")
    opened = [sinks.open(uri, info) for uri in uris]
    stream = Stream(Streets(car), opened, "", Watch(rules, spec), Privacy.of(spec, blur, fill))
    summary = loop.Run(Segmenter(spec, ColorEngine(), HEAD), [stream], overlay=False).go()
    assert summary.error is None, summary.error
    found = pictures(out)
    assert len(found) > 45, "two videos, a folder, a snapshot and a clip"
    return found


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop", "pad"])
def test_hidden_pixels_reach_no_file(tmp_path: Path, fit: str) -> None:
    for name in ("plain", "filled", "other"):
        (tmp_path / name).mkdir()
    plain = recorded(tmp_path / "plain", fit)
    assert min(secret_pixels(image) for image in plain) > 3000, "the test sees what it looks for"
    filled = recorded(tmp_path / "filled", fit, fill=("car",))
    assert max(secret_pixels(image) for image in filled) == 0
    # The same street with a car that looks different, to the network a car as well, gives the same files.
    other = recorded(tmp_path / "other", fit, fill=("car",), car=np.array((95, 50, 170), np.uint8))
    assert all((one == same).all() for one, same in zip(filled, other, strict=True))


def result(image: Image, classmap: Image, spec=SPEC) -> Result:
    return Result(Frame(image), classmap, {}, spec=spec)


def test_a_blur_leaves_no_detail_and_touches_nothing_else() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (720, 1280, 3), np.uint8)
    classmap = np.zeros((SPEC.height, SPEC.width), np.uint8)
    classmap[16:48, 24:60] = 3
    privacy = Privacy.of(SPEC, ("car",), ())
    assert privacy is not None
    original = image.copy()
    hidden = privacy.applied(result(image, classmap)).frame.image
    region = np.s_[180:540, 320:800]
    assert hidden[region].std() < 12 < 70 < image[region].std()
    correlation = np.corrcoef(cv2.GaussianBlur(image, (9, 9), 0)[region].ravel(), hidden[region].ravel())[0, 1]
    assert correlation < 0.2
    assert (hidden[:130] == image[:130]).all() and (hidden[:, 860:] == image[:, 860:]).all()
    assert (image == original).all(), "the frame that the engine may still read is left alone"


def test_a_rim_around_a_region_is_hidden_too() -> None:
    image = np.full((64, 96, 3), 200, np.uint8)
    classmap = np.zeros((SPEC.height, SPEC.width), np.uint8)
    classmap[30, 40] = 3
    privacy = Privacy.of(SPEC, (), ("car",))
    assert privacy is not None
    hidden = privacy.applied(result(image, classmap)).frame.image
    filled = (hidden == GRAY).all(2)
    assert filled.sum() == 81 and filled[26:35, 36:45].all()


def test_what_the_network_does_not_see_is_hidden() -> None:
    spec = replace(SPEC, fit="crop")
    image = np.full((64, 400, 3), 200, np.uint8)
    classmap = np.zeros((spec.height, spec.width), np.uint8)
    privacy = Privacy.of(spec, (), ("car",))
    assert privacy is not None
    whole = result(image, classmap, spec)
    outside = whole.at_frame_size() == OUTSIDE
    assert outside.any() and ((privacy.applied(whole).frame.image == GRAY).all(2) == outside).all()


def test_a_frame_without_the_class_is_not_copied_and_one_that_nobody_sees_is_empty() -> None:
    image = np.full((64, 96, 3), 200, np.uint8)
    one = result(image, np.zeros((SPEC.height, SPEC.width), np.uint8))
    privacy = Privacy.of(SPEC, ("car",), ())
    assert privacy is not None and privacy.applied(one).frame.image is image
    unseen = privacy.applied(one, shown=False).frame.image
    assert unseen.shape == image.shape and not unseen.any()


def test_classes_are_checked() -> None:
    assert Privacy.of(SPEC, (), ()) is None
    with pytest.raises(OptionError, match=r"Unknown class 'cart'.\nDid you mean 'car'"):
        Privacy.of(SPEC, ("cart",), ())
    with pytest.raises(OptionError, match="'car' is to be blurred and filled"):
        Privacy.of(SPEC, ("car",), ("tree", "car"))


def test_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgeseg[openvino]'")
    model = bundle(tmp_path / "colors")
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), street(i))
    words = [
        "run",
        model,
        "--source",
        f"{tmp_path}/*.png",
        "--sink",
        f"{tmp_path}/out/?masks=0&overlay=1",
        "--no-overlay",
    ]
    program = [sys.executable, "-c", "from edgeseg.cli import main; main()", *map(str, words)]
    done = subprocess.run([*program, "--fill", "tree, car"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [secret_pixels(image) for image in pictures(tmp_path / "out")] == [0, 0, 0]
    done = subprocess.run([*program, "--blur", "person"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "Unknown class 'person'" in done.stderr


def test_frames_that_are_collected_hide_the_classes_and_nothing_else(tmp_path: Path) -> None:
    """A sink without an overlay that looks at the frame: alone, it gets the frame all the same."""
    privacy = Privacy.of(SPEC, (), ("car",))
    sink = sinks.open(f"collect://{tmp_path / 'kept'}?every=0s", sinks.Info(SPEC, 10.0))
    segmenter = Segmenter(SPEC, ColorEngine(), HEAD, margin=1)
    summary = loop.Run(segmenter, [Stream(Streets(SECRET), [sink], privacy=privacy)]).go()
    assert summary.error is None
    kept = [cv2.imread(str(path)) for path in sorted((tmp_path / "kept/train/images").iterdir())]
    assert kept
    for image in kept:
        assert secret_pixels(image) == 0
        assert np.abs(image[:60].astype(int) - COLORS[1].astype(int)).max() < 12  # the sky is as it was

"""Reuse between key frames, on the shipped street model and rendered streets that were coded as H.264."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.errors import OptionError
from edgeseg.motion import Motion, h264
from edgeseg.motion.vectors import NO_BLOCKS
from edgeseg.result import MOST_MOTIONS, Frame, Result
from edgeseg.reuse.policy import LONGEST, AutoInterval, FixedInterval, parse
from edgeseg.reuse.segmenter import ReusingSegmenter
from edgeseg.reuse.stabilize import Stabilizer
from edgeseg.reuse.track import Step, Tracker
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter
from edgeseg.stream.channel import Channel
from edgeseg.synth.street import Street

STREET = Path(__file__).parents[2] / "models/street/street-int8"
FRAMES = 40
av = pytest.importorskip("av")
pytest.importorskip("openvino")
if not h264.available():
    pytest.skip("this PyAV has no H.264 encoder", allow_module_level=True)


@pytest.fixture(scope="module")
def street() -> list[tuple[Frame, NDArray[np.uint8]]]:
    """Consecutive frames as a camera sends them, and their exact labels."""
    scene = Street(3, 224, 384)
    rendered = [scene.frame(t) for t in range(FRAMES)]
    decoded = h264.decode(h264.encode([image for image, _ in rendered], 25, 12))
    return [(Frame(image, i, motion=(m,)), rendered[i][1]) for i, (image, m) in enumerate(decoded)]


@pytest.fixture(scope="module")
def segmenter() -> Iterator[Segmenter]:
    with open_segmenter(STREET) as opened:
        yield opened


def every(k: int) -> Callable[[int], FixedInterval]:
    return lambda stream: FixedInterval(k, stream)


def results(segmenter: Segmenter, frames: list[Frame], policy: Any, **options: Any) -> list[Result]:
    return list(ReusingSegmenter(segmenter, policy, **options).stream(iter(frames)))


def test_an_interval_of_one_changes_nothing(segmenter: Segmenter, street: list[Any]) -> None:
    frames = [frame for frame, _ in street]
    reused = results(segmenter, frames, every(1))
    alone = list(segmenter.stream(iter(frames)))
    assert all((a.classmap == b.classmap).all() and a.reused == 0 for a, b in zip(reused, alone, strict=True))


@pytest.mark.parametrize("ahead", [0, 8])
def test_every_third_frame_goes_through_the_network_and_the_others_follow(
    segmenter: Segmenter, street: list[Any], ahead: int
) -> None:
    frames = [frame for frame, _ in street]
    found = results(segmenter, frames, every(3), ahead=ahead)
    assert [r.reused for r in found] == [i % 3 for i in range(FRAMES)]
    assert [r.frame.index for r in found] == list(range(FRAMES))
    assert set(found[1].times) == {"motion", "mask"} and set(found[3].times) == {"motion", "resize", "infer", "mask"}
    alone = [segmenter(frame.image).classmap for frame in frames]
    assert all((found[i].classmap == alone[i]).all() for i in range(0, FRAMES, 3))
    moved = np.mean([(found[i].classmap == alone[i]).mean() for i in range(FRAMES) if i % 3])
    held = np.mean([(alone[i - i % 3] == alone[i]).mean() for i in range(FRAMES) if i % 3])
    assert moved > held + 0.005 and moved > 0.95


def test_reuse_is_nearer_to_the_truth_than_holding(segmenter: Segmenter, street: list[Any]) -> None:
    found = results(segmenter, [frame for frame, _ in street], every(5))
    truth = [label for _, label in street]
    moved = np.mean([(found[i].classmap == truth[i]).mean() for i in range(FRAMES)])
    held = np.mean([(found[i - i % 5].classmap == truth[i]).mean() for i in range(FRAMES)])
    assert moved > held + 0.01


def test_without_motion_vectors_optical_flow_does_it(segmenter: Segmenter, street: list[Any]) -> None:
    frames = [replace(frame, motion=None) for frame, _ in street]
    found = results(segmenter, frames, every(3))
    alone = [segmenter(frame.image).classmap for frame in frames]
    moved = np.mean([(found[i].classmap == alone[i]).mean() for i in range(FRAMES) if i % 3])
    held = np.mean([(alone[i - i % 3] == alone[i]).mean() for i in range(FRAMES) if i % 3])
    assert moved > held


def test_maps_of_the_frames_size_move_too(segmenter: Segmenter, street: list[Any]) -> None:
    large = [replace(f, image=cv2.resize(f.image, (768, 448)), motion=None) for f, _ in street[:4]]
    reusing = ReusingSegmenter(segmenter, every(3))
    reusing.keep_detail()
    try:
        found = [r.at_frame_size() for r in reusing.stream(iter(large))]
    finally:
        segmenter._detail = False
    assert all(m.shape == (448, 768) for m in found)
    direct = segmenter(large[3].image).at_frame_size()
    assert (found[3] == direct).all() and (found[1] == segmenter(large[1].image).at_frame_size()).mean() > 0.95


def test_dropped_frames_pass_their_motion_on(segmenter: Segmenter, street: list[Any]) -> None:
    inbox: Channel[Frame] = Channel(1, drop=True, pass_on=lambda dropped, frame: frame.after(dropped))
    kept = []
    for i, (frame, _) in enumerate(street[:13]):
        inbox.put(frame)
        if i % 3 == 0:
            kept.append(inbox.get(0))
    assert [f.index for f in kept] == [0, 3, 6, 9, 12] and [len(f.motion) for f in kept] == [1, 3, 3, 3, 3]
    found = results(segmenter, kept, every(5))
    truth = [segmenter(f.image).classmap for f in kept]
    assert np.mean([(a.classmap == b).mean() for a, b in zip(found, truth)]) > np.mean(
        [(truth[0] == b).mean() for b in truth]
    )


def test_motion_of_too_many_dropped_frames_is_forgotten() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    frame = Frame(image, motion=(Motion(NO_BLOCKS),))
    for _ in range(MOST_MOTIONS + 5):
        frame = Frame(image, motion=(Motion(NO_BLOCKS),)).after(frame)
    assert frame.motion is None


def test_another_scene_or_size_is_a_key_frame(segmenter: Segmenter, street: list[Any]) -> None:
    other = Street(99, 224, 384, night=1.0)
    pictures = [street[i][0].image for i in range(6)] + [255 - other.frame(i)[0] for i in range(6)]
    decoded = list(h264.decode(h264.encode(pictures, 25, 100)))
    frames = [Frame(image, i, motion=(m,)) for i, (image, m) in enumerate(decoded)]
    frames += [replace(f, image=cv2.resize(f.image, (192, 112)), index=12 + f.index) for f in frames[:3]]
    found = results(segmenter, frames, every(20))
    assert [i for i, r in enumerate(found) if r.reused == 0] == [0, 6, 12]
    flow = results(segmenter, [replace(f, motion=None) for f in frames], every(20))
    assert [i for i, r in enumerate(flow) if r.reused == 0] == [0, 6, 12]


def test_cameras_that_share_an_engine_keep_their_key_frames_apart(segmenter: Segmenter, street: list[Any]) -> None:
    both = [replace(frame, stream=name) for frame, _ in street[:12] for name in ("a", "b")]
    found = results(segmenter, both, every(4))
    keys = {name: [r.frame.index for r in found if r.frame.stream == name and r.reused == 0] for name in "ab"}
    assert keys == {"a": [0, 4, 8], "b": [0, 3, 7, 11]}


def coded_with_b_frames(path: Path, street: list[Any]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2", "g": "25", "b-adapt": "0"})
        stream.height, stream.width, stream.pix_fmt = 224, 384, "yuv420p"
        for frame, _ in street:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image, format="bgr24")))
        container.mux(stream.encode())


def test_frames_between_that_refer_to_later_ones_are_followed(
    segmenter: Segmenter, street: list[Any], tmp_path: Path
) -> None:
    from edgeseg.stream.sources.video import Video

    coded_with_b_frames(tmp_path / "b.mp4", street)
    source = Video(tmp_path / "b.mp4")
    source.use_motion()
    frames = [source.read(1.0) for _ in range(FRAMES - 2)]
    source.close()
    assert sum(not f.motion[0].reference for f in frames[1:] if f.motion) > FRAMES // 2
    found = results(segmenter, frames, every(4))
    keys = [r.frame.index for r in found if r.reused == 0]
    assert all(f.motion is None or f.motion[0].reference for f in frames if f.index in keys)
    alone = [segmenter(frame.image).classmap for frame in frames]
    latest = [max(k for k in keys if k <= i) for i in range(len(frames))]
    moved = np.mean([(r.classmap == a).mean() for r, a in zip(found, alone)])
    assert moved > np.mean([(alone[k] == a).mean() for k, a in zip(latest, alone)])


# ---- policies


STILL = Step(np.zeros((1, 1, 2), np.float32), None, 0.0, False, True)  # type: ignore[arg-type]


def test_a_key_frame_waits_for_a_picture_that_others_refer_to() -> None:
    policy = FixedInterval(2)
    between = replace(STILL, reference=False)
    steps = [replace(STILL, cut=True), STILL, between, between, STILL, STILL]
    assert [policy.decide(step) for step in steps] == [True, False, False, False, True, False]


def intervals(
    policy: AutoInterval, differs: Callable[[int], float], frames: int = 3000, change: float = 0.5
) -> list[int]:
    """The intervals that the policy chooses where a key frame after n frames differs by differs(n)."""
    since, found = 0, []
    for i in range(frames):
        since += 1
        if policy.decide(replace(STILL, cut=i == 0, change=change)):
            if i:
                policy.learn(differs(since), since)
                found.append(since)
            since = 0
    return found


@pytest.mark.parametrize("rate", [0.002, 0.005, 0.01])
def test_auto_keeps_the_loss_at_its_limit(rate: float) -> None:
    policy = AutoInterval(max_drop=1.0)  # 2 % of the pixels at the end of an interval
    late = intervals(policy, lambda n: 0.02 + rate * n)[-40:]
    usual = np.median([n for n in late if n > 1])
    assert usual == pytest.approx(min(LONGEST, 1 + 0.02 / rate), rel=0.35)
    assert policy.drop is not None and policy.drop < 1.2


def test_auto_goes_to_its_longest_interval_where_nothing_is_lost() -> None:
    late = intervals(AutoInterval(1.0), lambda n: 0.03)[-20:]
    assert np.median(late) == LONGEST


def test_auto_takes_more_key_frames_at_once_where_more_happens() -> None:
    policy = AutoInterval(1.0)
    quiet = intervals(policy, lambda n: 0.02 + 0.002 * n, change=0.1)
    since = 0
    for _ in range(20):
        since += 1
        if policy.decide(replace(STILL, change=2.0)):
            break
    assert since < np.median(quiet[-20:]) / 2


@pytest.mark.parametrize("slots", [1, 3])
def test_auto_does_not_depend_on_timing(street: list[Any], slots: int) -> None:
    frames = [frame for frame, _ in street] * 2
    mode = "latency" if slots == 1 else "throughput"
    runs = []
    for _ in range(2):
        with open_segmenter(STREET, mode) as opened:
            runs.append([r.reused for r in results(opened, frames, lambda stream: AutoInterval(0.5))])
    assert runs[0] == runs[1] and 0 in runs[0][1:]


@pytest.mark.parametrize(
    ("reuse", "max_drop", "message"),
    [
        ("0", None, "--reuse is '0'"),
        ("31", None, "1 to 30"),
        ("three", None, "Expected auto, or how many frames share an inference"),
        ("-1", None, "--reuse is '-1'"),
        ("1.5", None, "--reuse is '1.5'"),
        ("3", 1.0, "--max-drop is for --reuse auto"),
        ("auto", 0.0, "more than 0"),
        ("auto", float("nan"), "--max-drop is nan"),
    ],
)
def test_what_is_no_reuse_is_refused(reuse: str, max_drop: float | None, message: str) -> None:
    with pytest.raises(OptionError) as error:
        parse(reuse, max_drop)
    assert message in f"{error.value.what} {error.value.hint}"


# ---- stable classes


def test_stable_classes_flicker_less_and_are_no_worse(segmenter: Segmenter, street: list[Any]) -> None:
    noisy = np.random.default_rng(0)
    frames = [
        replace(f, image=np.clip(f.image + noisy.normal(0, 12, f.image.shape), 0, 255).astype(np.uint8))
        for f, _ in street
    ]
    truth = [label for _, label in street]
    plain, steady = (results(segmenter, frames, every(1), stabilize=s) for s in (False, True))
    changes = [
        np.mean([(a.classmap != b.classmap)[t == u].mean() for a, b, t, u in zip(r, r[1:], truth, truth[1:])])
        for r in (plain, steady)
    ]
    right = [np.mean([(a.classmap == t).mean() for a, t in zip(r, truth)]) for r in (plain, steady)]
    assert changes[1] < 0.8 * changes[0] and right[1] > right[0] - 0.002


def test_a_cut_forgets_what_was_before(segmenter: Segmenter) -> None:
    stabilizer, logits = Stabilizer(segmenter.spec), np.zeros((8, 56, 96), np.float32)
    tracker = Tracker()
    step = tracker.follow(Frame(np.zeros((224, 384, 3), np.uint8)))
    logits[0] = 1
    stabilizer.steady(logits, step.field, step.grid, 1, cut=False)
    other = np.roll(logits, 1, axis=0)
    assert (stabilizer.steady(other, step.field, step.grid, 1, cut=True) == other).all()


def test_only_semantic_bundles_can_be_reused(segmenter: Segmenter) -> None:
    class Other:
        outputs = ("masks",)

    other = Segmenter(segmenter.spec, segmenter.engine, Other())  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="not semantic"):
        ReusingSegmenter(other, every(2))


# ---- from the command line


@pytest.fixture(scope="module")
def video(street: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "street.mkv"
    path.write_bytes(h264.encode([frame.image for frame, _ in street], 25, 12))
    return path


def test_run_says_what_it_reused(edgeseg: Any, video: Path, tmp_path: Path) -> None:
    lines, summary = tmp_path / "out.jsonl", tmp_path / "run.json"
    ran = edgeseg("run", STREET, "--source", video, "--sink", lines, "--reuse", "4", "--json", summary)
    assert ran.code == 0, ran.err
    assert "key frames: 10 of 40 (25%)" in ran.out
    assert [json.loads(line)["reused"] for line in lines.read_text().splitlines()] == [i % 4 for i in range(FRAMES)]
    assert json.loads(summary.read_text())["reuse"] == {
        "frames": 40, "key_frames": 10, "estimated_drop": None, "keyframes": 0.25,
    }  # fmt: skip


def test_run_auto_estimates_what_it_loses(edgeseg: Any, video: Path) -> None:
    ran = edgeseg("run", STREET, "--source", video, "--reuse", "auto", "--max-drop", "2", "--stabilize")
    assert ran.code == 0, ran.err
    assert "estimated loss" in ran.out


def test_without_reuse_nothing_is_said_of_it(edgeseg: Any, video: Path, tmp_path: Path) -> None:
    ran = edgeseg("run", STREET, "--source", video, "--json", tmp_path / "run.json")
    assert ran.code == 0 and "key frames" not in ran.out
    assert json.loads((tmp_path / "run.json").read_text())["reuse"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reuse", "0"], "--reuse is '0'"),
        (["--max-drop", "1"], "max_drop without reuse"),
        (["--reuse", "2", "--deadline", "50"], "A deadline together with --reuse"),
        (["--reuse", "2", "--blur", "car"], "Who comes into view would be seen"),
        (["--stabilize", "--fill", "car"], "--blur or --fill together with"),
        (["--stabilize", "--deadline", "50"], "A deadline together with --reuse or --stabilize"),
    ],
)
def test_options_that_do_not_go_together(edgeseg: Any, video: Path, words: list[str], message: str) -> None:
    ran = edgeseg("run", STREET, "--source", video, *words)
    assert ran.code == 2 and message in ran.err


@pytest.fixture(scope="module")
def clip(street: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clip")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for frame, label in street[:24]:
        cv2.imwrite(str(root / "images" / f"{frame.index:04d}.png"), frame.image)
        cv2.imwrite(str(root / "masks" / f"{frame.index:04d}.png"), label)
    return root


@pytest.mark.parametrize(("reuse", "codec"), [("3", "h264"), ("auto", "h264"), ("2", "none")])
def test_eval_of_a_clip(edgeseg: Any, clip: Path, reuse: str, codec: str) -> None:
    ran = edgeseg("eval", STREET, "--clip", clip, "--reuse", reuse, "--codec", codec, "--json", "-")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert {"miou", "keyframes", "fps", "fps_without_reuse", "flicker"} <= set(result)
    assert result["kind"] == "clip" and result["frames"] == 24
    assert 0.5 < result["miou"] <= 1 and 0 <= result["flicker"] < 0.2
    assert result["motion"] == ("H.264 motion vectors" if codec == "h264" else "optical flow")
    assert result["drop"]["low"] <= result["drop"]["value"] <= result["drop"]["high"]
    if reuse != "auto":
        k = int(reuse)
        assert result["keyframes"] == 1 / k
        assert [row["distance"] for row in result["by_distance"]] == list(range(k))
        assert [frame["reused"] for frame in result["per_frame"]] == [i % k for i in range(24)]


def test_eval_of_a_clip_without_reuse_loses_nothing(edgeseg: Any, clip: Path) -> None:
    result = json.loads(edgeseg("eval", STREET, "--clip", clip, "--json", "-").out)
    assert result["drop"]["value"] == 0 and result["keyframes"] == 1 and result["agreement"] == 1


def test_what_is_no_clip_is_refused(edgeseg: Any, clip: Path, tmp_path: Path) -> None:
    import shutil

    def says(*words: object, message: str) -> None:
        ran = edgeseg("eval", STREET, *words)
        assert ran.code == 2 and message in ran.err, ran.err

    says(message="No data is given")
    says("--clip", clip, "--data", clip, message="--clip goes with --reuse")
    says("--data", clip, "--reuse", "2", message="are for videos")
    says("--clip", clip, "--codec", "hevc", message="Unknown codec 'hevc'")
    says("--clip", tmp_path, message="has no images and masks")
    broken = shutil.copytree(clip, tmp_path / "broken")
    (broken / "masks" / "0003.png").unlink()
    says("--clip", broken, message="0003.png has no mask")
    other = shutil.copytree(clip, tmp_path / "other")
    (other / "classes.txt").write_text("0 road 0 0 0\n1 sky 0 0 9\n")
    says("--clip", other, message="The model's classes are")
    sizes = shutil.copytree(clip, tmp_path / "sizes")
    cv2.imwrite(str(sizes / "images" / "0005.png"), np.zeros((112, 192, 3), np.uint8))
    cv2.imwrite(str(sizes / "masks" / "0005.png"), np.zeros((112, 192), np.uint8))
    says("--clip", sizes, message="has another size than")
    one = tmp_path / "one"
    for folder in ("images", "masks"):
        (one / folder).mkdir(parents=True)
        shutil.copy(clip / folder / "0000.png", one / folder)
    says("--clip", one, message="two at least")


@pytest.mark.parametrize(("value", "reuse"), [('"auto"', "auto"), ('"3"', "3"), ("3", "3")])
def test_reuse_in_a_config(tmp_path: Path, value: str, reuse: str) -> None:
    from edgeseg.stream import config

    text = f"bundle = 'b'\nreuse = {value}\n[[stream]]\nsource = 'a.mp4'\n"
    (tmp_path / "stream.toml").write_text(text)
    assert config.load(tmp_path / "stream.toml").reuse == reuse


def test_a_bundle_that_was_calibrated_on_a_clip_says_what_a_difference_is_worth(
    edgeseg: Any, clip: Path, video: Path, tmp_path: Path
) -> None:
    model = STREET.with_name("street.onnx")
    ran = edgeseg("compile", model, "-p", "fp32", "--clip", clip, "--out", tmp_path / "b")
    assert ran.code == 0, ran.err
    stored = json.loads((tmp_path / "b" / "bundle.json").read_text())["reuse"]
    assert stored["size"] == [384, 224] and stored["frames"] == 24 and 0.05 <= stored["points"] <= 5
    assert set(stored["drops"]) == {"2", "3", "4", "6"}
    same = edgeseg("run", tmp_path / "b", "--source", video, "--reuse", "auto")
    assert same.code == 0 and "was calibrated" not in same.err
    other = tmp_path / "other.mkv"
    other.write_bytes(h264.encode([np.zeros((112, 192, 3), np.uint8)] * 5, 25, 5))
    ran = edgeseg("run", tmp_path / "b", "--source", other, "--reuse", "auto")
    assert ran.code == 0 and "calibrated on frames of 384x224" in ran.err and "these are 192x112" in ran.err


def test_a_clip_that_is_too_short_to_calibrate_writes_no_bundle(edgeseg: Any, clip: Path, tmp_path: Path) -> None:
    import shutil

    short = shutil.copytree(clip, tmp_path / "short")
    for path in sorted((short / "images").iterdir())[10:]:
        path.unlink()
    model = STREET.with_name("street.onnx")
    ran = edgeseg("compile", model, "-p", "fp32", "--clip", short, "--out", tmp_path / "b")
    assert ran.code == 2 and "has 10 frames" in ran.err and "Expected 24 or more" in ran.err
    assert not (tmp_path / "b").exists()

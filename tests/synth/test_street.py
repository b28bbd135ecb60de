"""Street scenes: the same every time, labeled exactly, and as hard as requested."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data.dataset import SPLITS, Dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.synth import files
from edgeseg.synth.atmosphere import Atmosphere
from edgeseg.synth.camera import Camera
from edgeseg.synth.files import scene_seeds, write_clip, write_dataset
from edgeseg.synth.renderer import BUILDING, CAR, PAVEMENT, PEDESTRIAN, POLE, ROAD, SKY, TREE, Renderer
from edgeseg.synth.street import CLASSES, Street, clip

SIZE = {"height": 96, "width": 160}
SEEDS = range(12)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [Street(seed, **SIZE).frame(40) for seed in SEEDS]


def gradient(image: np.ndarray) -> np.ndarray:
    gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), 1).astype(np.float32)
    return np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))


def test_the_same_seed_and_time_give_the_same_bytes_in_any_order() -> None:
    one, two = Street(3, **SIZE), Street(3, **SIZE)
    forward = [one.frame(t) for t in (0, 7, 300)]
    backward = [two.frame(t) for t in (300, 7, 0)][::-1]
    for (image, mask), (other_image, other_mask) in zip(forward, backward):
        np.testing.assert_array_equal(image, other_image)
        np.testing.assert_array_equal(mask, other_mask)


def test_another_seed_is_another_street(scenes) -> None:
    assert len({mask.tobytes() for _, mask in scenes}) == len(scenes)


def test_shapes_types_and_ids(scenes) -> None:
    for image, mask in scenes:
        assert (image.shape, image.dtype) == ((96, 160, 3), np.uint8)
        assert (mask.shape, mask.dtype) == ((96, 160), np.uint8)
        assert mask.max() < len(CLASSES.names) == len(CLASSES.palette) == 8


@pytest.mark.parametrize(
    "label, least, most",
    [
        (ROAD, 0.15, 0.6),
        (PAVEMENT, 0.01, 0.3),
        (SKY, 0.03, 0.5),
        (BUILDING, 0.08, 0.6),
        (TREE, 0.01, 0.4),
        (POLE, 0.003, 0.1),
        (CAR, 0.01, 0.3),
        (PEDESTRIAN, 0.002, 0.1),
    ],
)
def test_every_class_has_its_share(scenes, label: int, least: float, most: float) -> None:
    share = np.mean([(mask == label).mean() for _, mask in scenes])
    assert least < share < most


def test_road_is_below_and_sky_above(scenes) -> None:
    rows = np.arange(96)[:, None] * np.ones((1, 160))
    for _, mask in scenes:
        assert rows[mask == ROAD].min() > rows[mask == SKY].mean()


def test_labels_lie_where_the_image_changes(scenes) -> None:
    """Along the border of a label the image has stronger edges than elsewhere."""
    inside, along = [], []
    for image, mask in scenes:
        edges = gradient(image)
        border = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        along.append(edges[border].mean())
        inside.append(edges[~border].mean())
    assert np.mean(along) > 2 * np.mean(inside)


def test_image_and_mask_are_drawn_from_the_same_corners() -> None:
    camera = Camera(60, 80, focal=70, horizon=25, x=0, elevation=1.5, bend=0)
    renderer = Renderer(camera, Atmosphere(0, (0, 0, 0), 0, 0, (0, 0), 0), np.zeros((60, 80, 3), np.uint8))
    renderer.fill([[-2, 0, 8], [1.3, 0, 8], [0.7, 2.4, 9], [-1, 2.9, 9]], (255, 255, 255), CAR)
    strong = renderer.image[..., 0] > 140
    assert strong.any()
    assert (renderer.mask[strong] == CAR).mean() > 0.98  # the rest is half-covered pixels of the border
    assert (renderer.image[renderer.mask == CAR].max(1) > 0).mean() > 0.95


def test_what_reaches_behind_the_camera_is_cut_off() -> None:
    camera = Camera(60, 80, focal=70, horizon=25, x=0, elevation=1.5, bend=0)
    renderer = Renderer(camera, Atmosphere(0, (0, 0, 0), 0, 0, (0, 0), 0), np.zeros((60, 80, 3), np.uint8))
    renderer.fill([[1, 0, -5], [1, 0, 20], [1, 3, 20], [1, 3, -5]], (255, 255, 255), BUILDING)
    wall = renderer.mask == BUILDING
    assert wall[:, -1].all()  # to the edge of the image
    assert not wall[:, :40].any()  # and nothing mirrored to the other side
    renderer.fill([[-1, 0, -5], [-1, 3, -5], [-2, 3, -5]], (255, 255, 255), CAR)
    assert not (renderer.mask == CAR).any()


def test_near_things_move_faster_than_far_ones() -> None:
    street = Street(6, height=192, width=320)
    near, far = 0.0, 0.0
    for t in range(0, 40, 4):
        before, after = (cv2.cvtColor(street.frame(n)[0], cv2.COLOR_BGR2GRAY) for n in (t, t + 1))
        flow = np.linalg.norm(cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0), axis=2)
        near += flow[:, :50].mean() + flow[:, -50:].mean()
        far += 2 * flow[60:120, 135:185].mean()
    assert near > 3 * far


def test_nothing_pops_up_between_two_frames() -> None:
    street = Street(8, **SIZE)
    masks = [street.frame(t)[1] for t in range(100, 130)]
    changed = [(a != b).mean() for a, b in pairwise(masks)]
    assert 0 < max(changed) < 0.12
    assert max(changed) < 4 * np.median(changed)


def test_the_street_goes_on_for_ever() -> None:
    image, mask = Street(1, **SIZE).frame(10_000_000)
    assert image.std() > 10
    assert len(np.unique(mask)) >= 5


def test_a_scene_is_laid_out_alike_at_every_size() -> None:
    small, large = (Street(5, 96 * n, 160 * n).frame(3)[1] for n in (1, 2))
    assert (cv2.resize(large, (160, 96), interpolation=cv2.INTER_NEAREST) == small).mean() > 0.9


def test_night_is_darker_and_fog_is_paler() -> None:
    brightness = []
    for seed in range(4):
        day, night, fog = (Street(seed, **SIZE, **weather) for weather in ({}, {"night": 1.0}, {"fog": 1.0}))
        (image, mask), (dark, dark_mask), (pale, pale_mask) = (street.frame(5) for street in (day, night, fog))
        np.testing.assert_array_equal(mask, dark_mask)
        np.testing.assert_array_equal(mask, pale_mask)
        brightness.append(dark.mean() / image.mean())
        assert detail(pale[:60]) < 0.75 * detail(image[:60])  # far objects fade
        assert pale[60:].std() > 3  # near ones stay visible
    assert max(brightness) < 0.8
    assert np.mean(brightness) < 0.6


def test_more_fog_hides_more() -> None:
    shown = [detail(Street(2, **SIZE, fog=fog).frame(5)[0][:60]) for fog in (0.0, 0.3, 1.0)]
    assert shown == sorted(shown, reverse=True)


def detail(image: np.ndarray) -> float:
    """The mean strength of edges."""
    return float(gradient(image).mean())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"night": 1.5}, "night is 1.5"),
        ({"night": -0.1}, "night is -0.1"),
        ({"fog": float("nan")}, "fog is nan"),
        ({"height": 16}, "height is 16 pixels"),
        ({"width": 100_000}, "width is 100000 pixels"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_value_out_of_range(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        Street(**({"seed": 1} | options))
    assert caught.value.hint.startswith("Expected")
    with pytest.raises(OptionError, match=message):
        write_dataset(tmp_path / "new", **options)


# ------------------------------------------------------------------------------------------------ files


def test_a_dataset_can_be_opened(tmp_path: Path) -> None:
    seen = []
    root = tmp_path / "streets"
    root.mkdir()  # an empty folder may be there
    write_dataset(root, train=3, val=1, test=2, **SIZE, progress=lambda *p: seen.append(p))
    assert seen == [(n, 6) for n in range(1, 7)]
    assert [len(Dataset.open(root, split)) for split in SPLITS] == [3, 1, 2]
    dataset = Dataset.open(root, "train")
    assert dataset.classes == CLASSES
    frame, mask = dataset[2]
    assert frame.shape == (96, 160, 3)
    assert mask.max() < 8
    assert [p.name for p in tmp_path.iterdir()] == ["streets"]


def test_the_same_seed_writes_the_same_dataset(tmp_path: Path) -> None:
    for name, seed in (("one", 4), ("two", 4), ("three", 5)):
        write_dataset(tmp_path / name, train=2, val=1, test=1, seed=seed, **SIZE)
    one, two, three = (Dataset.open(tmp_path / name, "train").digest() for name in ("one", "two", "three"))
    assert one == two != three


def test_splits_never_share_a_street() -> None:
    seeds = [s for seed in range(3) for split in SPLITS for s in scene_seeds(seed, split, 500)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_exists_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "streets"
    keep = root if kind == "file" else root / "precious.txt"
    keep.parent.mkdir(exist_ok=True)
    keep.write_text("precious")
    with pytest.raises(FileError, match="already exists") as caught:
        write_dataset(root, train=1, val=1, test=1, **SIZE)
    assert caught.value.hint == "Choose a new folder, or delete this one first."
    assert keep.read_text() == "precious"


def test_a_dataset_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match="Cannot write"):
        write_dataset(tmp_path / "taken" / "streets", train=1, val=1, test=1, **SIZE)


def test_a_split_without_frames(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="val is 0 frames"):
        write_dataset(tmp_path / "streets", val=0)


def interrupt(done: int, total: int) -> None:
    if done == 2:
        raise KeyboardInterrupt


def test_an_interrupted_dataset_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "streets", train=3, val=1, test=1, **SIZE, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_clip_yields_frames_and_masks() -> None:
    pairs = list(clip(7, 3, **SIZE))
    expected = Street(7, **SIZE).frame(2)
    assert len(pairs) == 3
    np.testing.assert_array_equal(pairs[2][0], expected[0])
    np.testing.assert_array_equal(pairs[2][1], expected[1])


def test_a_clip_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "street.mp4"
    write_clip(path, frames=12, **SIZE)
    video = cv2.VideoCapture(str(path))
    frames = []
    while (grabbed := video.read())[0]:
        frames.append(grabbed[1])
    assert len(frames) == 12
    assert video.get(cv2.CAP_PROP_FPS) == 25
    expected = Street(7, **SIZE).frame(5)[0]
    assert np.abs(frames[5].astype(int) - expected).mean() < 12
    assert [p.name for p in path.parent.iterdir()] == ["street.mp4"]


def test_an_interrupted_clip_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_clip(tmp_path / "street.mp4", frames=5, **SIZE, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match="Cannot write"):
        write_clip(tmp_path / "taken" / "street.mp4", frames=2, **SIZE)
    (tmp_path / "street.mp4").mkdir()
    with pytest.raises(FileError, match="Cannot write"):
        write_clip(tmp_path / "street.mp4", frames=2, **SIZE)
    monkeypatch.setattr(files.cv2.VideoWriter, "isOpened", lambda self: False)
    with pytest.raises(FileError, match="Cannot write"):
        write_clip(tmp_path / "other.mp4", frames=2, **SIZE)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("street.avi", {}, "ends in '.avi'"),
        ("street.mp4", {"frames": 0}, "A clip of 0 frames"),
        ("street.mp4", {"width": 161}, "MP4 needs even sizes"),
        ("street.mp4", {"fog": 2}, "fog is 2"),
    ],
)
def test_a_clip_that_cannot_be_made(tmp_path: Path, name: str, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        write_clip(tmp_path / name, **({"frames": 2} | SIZE | options))
    assert list(tmp_path.iterdir()) == []


def test_objects_are_cars_and_pedestrians_one_by_one() -> None:
    street = Street(3, 224, 384)
    image, mask = street.frame(40)
    again, same, objects = street.frame_with_objects(40)
    assert (again == image).all() and (same == mask).all()
    things = (mask == CAR) | (mask == PEDESTRIAN)
    assert things.any() and ((objects > 0) == things).all()
    assert set(np.unique(objects)) == set(range(objects.max() + 1))
    classes_of = [np.unique(mask[objects == number]) for number in range(1, objects.max() + 1)]
    assert all(len(found) == 1 for found in classes_of)

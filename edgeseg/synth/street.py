"""Street scenes made by arithmetic: a dataset without a download, whose labels are exact.

`Street(seed).frame(t)` is a driver's view and its class map; the same seed, t and size give the same bytes.
`night` and `fog` shift the distribution, for tests of robustness and drift.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from edgeseg.data.dataset import SPLITS, Classes
from edgeseg.errors import FileError, OptionError
from edgeseg.files import write_bytes
from edgeseg.images import Image, write_image
from edgeseg.synth.buildings import Building, design
from edgeseg.synth.renderer import Air, Camera, Canvas
from edgeseg.synth.scenery import Ground, Hedge, Pole, Rng, Thing, Tree, foliage, leaves, paint_sky
from edgeseg.synth.traffic import Car, Pedestrian

CLASSES = Classes(
    names=("road", "pavement", "sky", "building", "tree", "pole", "car", "pedestrian"),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 130, 180), (70, 70, 70),
        (107, 142, 35), (153, 153, 153), (0, 0, 142), (220, 20, 60),
    ),
    ignore_index=None,
)  # fmt: skip
FPS = 25
PERIOD = 400.0  # meters after which a street repeats
BEHIND = 40.0  # meters behind the camera that are kept in mind
SPLIT_SPAN = 1_000_000  # scene seeds of one split


class Street:
    """A drive along one street; every property of the scene follows from `seed`.

    `night` 0 (day) to 1 (dark), `fog` 0 (clear) to 1 (about 60 m of sight). OptionError where a value is out of range.
    """

    def __init__(self, seed: int, height: int = 224, width: int = 384, night: float = 0.0, fog: float = 0.0):
        _check(seed, height, width, night, fog)
        self.seed, self.height, self.width = seed, height, width
        rng = np.random.default_rng([seed, 1])
        self._parking = bool(rng.random() < 0.7)
        self._half = float(rng.uniform(3.2, 4.2) * rng.choice([1, 1, 2]) + 2.2 * self._parking)
        self._walk = float(rng.uniform(2.0, 4.5))
        self._lane = (self._half - 2.2 * self._parking) / (2 if self._half < 7 else 2.6)
        self.speed = float(rng.uniform(6, 11))  # m/s
        bend = float(rng.choice([0, 0, 1]) * rng.uniform(-0.0022, 0.0022))
        focal, horizon = width * float(rng.uniform(0.75, 1.0)), height * float(rng.uniform(0.38, 0.5))
        x, eye = self._lane * float(rng.uniform(0.8, 1.1)), float(rng.uniform(1.25, 2.1))
        self._camera = Camera(height, width, focal, horizon, x, eye, bend)
        self._air = _air(rng, night, fog, self._camera.x)
        self._ground = Ground(rng, self._camera, self._half, self._walk, PERIOD)
        self._things = [*self._frontage(rng), *self._furniture(rng), *self._traffic(rng), *self._walkers(rng)]
        self._sky = paint_sky(rng, self._camera, self._air, (150, 150, 150))
        self._lens = _Lens(rng, height, width, night)

    def frame(self, t: int) -> tuple[Image, Image]:
        """Frame number `t` at 25 fps: image [H, W, 3] uint8 BGR and mask [H, W] uint8 of class ids."""
        seconds = t / FPS
        at = self.speed * seconds
        placed = [((thing.where(seconds) - at + BEHIND) % PERIOD - BEHIND, thing) for thing in self._things]
        small = self._camera.focal / 3  # meters at which 3 m are 9 pixels: what is farther is not worth its time
        near = [
            (z, thing)
            for z, thing in placed
            if z < (thing.sight if thing.reach else min(thing.sight, small)) and z + max(thing.reach, 12) > 0
        ]
        near.sort(key=lambda pair: -(pair[0] + pair[1].reach))
        lamps = [(p.x + p.arm * 1.5, z) for z, p in near if isinstance(p, Pole) and p.kind == "lamp" and z < 90]
        canvas = Canvas(self._camera, replace(self._air, lamps=lamps), self._sky[0])
        np.copyto(canvas.mask, self._sky[1])
        self._ground.paint_on(canvas, at)
        for z, thing in near:
            if z < 120:
                thing.shade(canvas, z, seconds)
        self._ground.finish(canvas, at)
        for z, thing in near:
            thing.draw(canvas, z, seconds)
        if self._ground.wet:
            self._ground.mirror(canvas)
        return self._lens.take(canvas.image, np.random.default_rng([self.seed, 2, t % (1 << 32)])), canvas.mask

    def _frontage(self, rng: Rng) -> list[Thing]:
        """Both sides of the street: rows of buildings with side streets and parks between them."""
        pixels = float(np.clip(self.width / 32, 10, 36))
        designs = [design(rng, pixels, self._air) for _ in range(7)]
        trees = [foliage(rng, int(np.clip(self.width / 3, 64, 320)), -np.sign(self._air.slope[0])) for _ in range(3)]
        self._trees, hedge = trees, leaves(rng, pixels, self._air)
        open_share, front = float(rng.uniform(0.05, 0.35)), self._half + self._walk
        things: list[Thing] = []
        for side in (-1, 1):
            z, before = 0.0, 0.0
            while z < PERIOD - 8:
                chosen = designs[rng.integers(len(designs))]
                gap = float(rng.uniform(8, 26))
                if rng.random() < open_share and z + gap < PERIOD:
                    before = 0.0
                    if rng.random() < 0.35:
                        self._ground.side_streets.append((z + 1, z + 8, side))
                        z += 9
                        continue
                    things.append(Hedge(hedge, side, z, gap, front + 0.3, float(rng.uniform(0.9, 2.2))))
                    for place in np.arange(z + 2, z + gap - 2, rng.uniform(4, 7)):
                        tall = float(rng.uniform(6, 11))
                        x = side * (front + rng.uniform(3.5, 7))
                        things.append(
                            Tree(trees[rng.integers(3)], x, float(place), tall, tall * float(rng.uniform(0.7, 1)))
                        )
                    z += gap
                elif z + chosen.width < PERIOD + 6:
                    things.append(Building(chosen, side, z, front, chosen.height > before or chosen.pitched))
                    z, before = z + chosen.width, chosen.height
                else:
                    break
        return things

    def _furniture(self, rng: Rng) -> list[Thing]:
        """Lamp posts, street trees, signs, and traffic lights at the crossings."""
        things: list[Thing] = []
        gray = np.array(((92, 94, 96), (58, 60, 58), (120, 122, 124), (62, 74, 58))[rng.integers(4)])
        edge = self._half + 0.55
        spacing, rows = PERIOD / int(rng.integers(12, 20)), rng.random() < 0.5
        for i, z in enumerate(np.arange(rng.uniform(0, 10), PERIOD, spacing)):
            sides = (-1, 1) if rows else ((-1,) if i % 2 else (1,))
            things += [Pole("lamp", side * edge, float(z), -side, gray) for side in sides]
        planted = float(rng.choice([0, 0.25, 0.6, 0.9]))
        for side in (-1, 1):
            for z in np.arange(rng.uniform(2, 8), PERIOD, 9.5):
                if rng.random() < planted:
                    tall = float(rng.uniform(4.5, 8))
                    shape = self._trees[rng.integers(3)]
                    things.append(
                        Tree(shape, side * (self._half + 0.9), float(z), tall, tall * float(rng.uniform(0.6, 0.85)))
                    )
            for z in rng.uniform(0, PERIOD, rng.integers(6, 14)):
                things.append(Pole("sign", side * (edge + 0.1), float(z), -side, (130, 132, 134), int(rng.integers(5))))
        for z in self._ground.zebras:
            if rng.random() < 0.7:
                things += [Pole("light", side * edge, z - 0.8, -side, (60, 62, 60)) for side in (-1, 1)]
        return things

    def _traffic(self, rng: Rng) -> list[Thing]:
        """Parked cars, oncoming cars at one speed, and cars ahead that keep ours."""
        things: list[Thing] = []
        if self._parking:
            share = float(rng.uniform(0.2, 0.9))
            for side in (-1, 1):
                for z in np.arange(rng.uniform(0, 6), PERIOD - 6, 6.6):
                    clear = all(
                        not -8 < (z - zebra) % PERIOD - PERIOD * ((z - zebra) % PERIOD > 200) < 4
                        for zebra in self._ground.zebras
                    )
                    if rng.random() < share and clear:
                        kinds = ("hatch", "hatch", "sedan", "sedan", "van")
                        things.append(
                            Car(rng, side * (self._half - 1.15), partial(_still, float(z)), side < 0, False, kinds)
                        )
        density = float(rng.uniform(14, 70))
        place = float(rng.uniform(0, density))
        while place < PERIOD - 20:
            things.append(Car(rng, -self._lane, partial(_moving, place, -self.speed * 0.9), True, True))
            place += 14 + float(rng.exponential(density))
        if rng.random() < 0.75:
            gap, sway = float(rng.uniform(12, 40)), float(rng.uniform(1, 3))
            things.append(Car(rng, self._lane, partial(_ahead, self.speed, gap, sway), False, True))
            things.append(Car(rng, self._lane, partial(_ahead, self.speed, gap + 24, sway), False, True))
        return things

    def _walkers(self, rng: Rng) -> list[Thing]:
        """Pedestrians along the pavements, and some who cross well ahead of us at a zebra."""
        things: list[Thing] = []
        for side in (-1, 1):
            for z in rng.uniform(0, PERIOD, int(rng.integers(12, 60))):
                x = side * (self._half + float(rng.uniform(1.0, max(1.1, self._walk - 0.35))))
                path = partial(_moving, float(z), float(rng.choice([-1, 1]) * rng.uniform(1.0, 1.6)))
                things.append(Pedestrian(rng, path, x, False))
        for zebra in self._ground.zebras:
            for _ in range(int(rng.integers(0, 4))):
                way, done = int(rng.choice([-1, 1])), float(rng.uniform(11, 26))
                path = partial(_still, zebra + float(rng.uniform(0.4, 2.6)))
                cross = partial(_crossing, way, self._half + 0.8, 1.4 / self.speed, done)
                things.append(Pedestrian(rng, path, cross, True))
        return things


def _still(place: float, seconds: float) -> float:
    return place


def _moving(place: float, speed: float, seconds: float) -> float:
    return place + speed * seconds


def _ahead(speed: float, gap: float, sway: float, seconds: float) -> float:
    return speed * seconds + gap + sway * float(np.sin(seconds * 0.35))


def _crossing(way: int, edge: float, pace: float, done: float, z: float) -> float:
    """x of someone who reaches the far kerb when we are `done` meters away."""
    return way * float(np.clip(edge - (z - done) * pace, -edge, edge))


def _air(rng: Rng, night: float, fog: float, x: float) -> Air:
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.6)
    sun = float(rng.choice([0.0, 0.6, 1.0])) * max(0.0, 1 - night * 1.5) * (1 - fog) ** 2
    bright = np.array([222, 219, 214]) * rng.uniform(0.9, 1.05)
    haze = bright * (1 - night) + np.array([44, 44, 46]) * night
    density = float(rng.uniform(0.0012, 0.003)) + 0.055 * fog
    return Air(
        night,
        (float(haze[0]), float(haze[1]), float(haze[2])),
        density,
        sun,
        (float(np.cos(angle) * length), float(np.sin(angle) * length)),
        x,
    )


class _Lens:
    """From the painted image to the photograph: blur, vignette, exposure, color cast, noise, compression."""

    def __init__(self, rng: Rng, height: int, width: int, night: float):
        self.blur = float(rng.uniform(0.35, 0.75)) * max(1.0, width / 900)
        exposure, cast = rng.uniform(0.82, 1.15), rng.uniform(-0.07, 0.07)
        gamma = rng.uniform(0.88, 1.15) * (1 - 0.12 * night)
        tone = np.linspace(0, 1, 256)[:, None] ** gamma * exposure * (1 + cast * np.array([1, 0, -1]))
        self.table = np.clip(tone * 255, 0, 255).astype(np.uint8).reshape(1, 256, 3)
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        dark = 1 - rng.uniform(0, 0.16) * (x * x + y * y)
        self.vignette = np.repeat(dark[..., None], 3, 2).astype(np.float32)
        self.noise = float(rng.uniform(1, 4)) + 6 * night
        grain = rng.standard_normal((height + 64, width + 64, 3), np.float32) * self.noise
        self.grain = grain.round().clip(-127, 127).astype(np.int16)
        self.quality = int(rng.integers(55, 95)) if rng.random() < 0.5 else 0
        self.night = night

    def take(self, image: Image, rng: Rng) -> Image:
        height, width = image.shape[:2]
        if self.night > 0:
            image = self._bloom(image)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), self.blur))
        image = np.asarray(cv2.multiply(image, self.vignette, dtype=cv2.CV_8U))
        image = np.asarray(cv2.LUT(image, self.table))
        y, x = rng.integers(64, size=2)
        image = np.asarray(cv2.add(image, self.grain[y : y + height, x : x + width], dtype=cv2.CV_8U))
        if self.quality:
            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
            image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
        return np.asarray(image, np.uint8)

    def _bloom(self, image: Image) -> Image:
        """Light spills from what is brighter than the sensor can hold."""
        height, width = image.shape[:2]
        small = cv2.resize(image, (max(1, width // 4), max(1, height // 4)), interpolation=cv2.INTER_AREA)
        excess = np.clip((np.asarray(small, np.float32) - 150) * 1.6, 0, 255)
        spill = cv2.resize(cv2.GaussianBlur(excess, (0, 0), width / 160), (width, height))
        return np.asarray(cv2.add(image, spill, dtype=cv2.CV_8U), np.uint8)


def _check(seed: int, height: int, width: int, night: float, fog: float) -> None:
    if not 0 <= seed < 1 << 62:
        raise OptionError(f"seed is {seed}.", "Expected a whole number from 0 on.")
    for name, size in (("height", height), ("width", width)):
        if not 32 <= size <= 4096:
            raise OptionError(f"{name} is {size} pixels.", "Expected 32 to 4096.")
    for name, knob in (("night", night), ("fog", fog)):
        if not 0 <= knob <= 1:
            raise OptionError(f"{name} is {knob}.", "Expected 0 (none) to 1 (full).")


# ------------------------------------------------------------------------------------------------ files


def scene_seeds(seed: int, split: str, count: int) -> range:
    """The street of every frame of a split; no two splits, and no two dataset seeds, share one."""
    start = (seed * len(SPLITS) + SPLITS.index(split)) * SPLIT_SPAN
    return range(start, start + count)


def write_dataset(
    root: Path,
    *,
    train: int = 240,
    val: int = 40,
    test: int = 60,
    seed: int = 1,
    height: int = 224,
    width: int = 384,
    night: float = 0.0,
    fog: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a dataset that `Dataset.open` reads, one street a frame; `progress(done, total)` is called after each.

    All or nothing: it is made under a temporary name and renamed at the end. FileError where `root` holds something.
    """
    root = Path(root)
    counts = {"train": train, "val": val, "test": test}
    _check(seed, height, width, night, fog)
    for split, count in counts.items():
        if not 1 <= count <= SPLIT_SPAN:
            raise OptionError(f"{split} is {count} frames.", f"Expected 1 to {SPLIT_SPAN}.")
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise FileError(f"{root} already exists.", "Choose a new folder, or delete this one first.")
    temporary = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        done = 0
        for split, count in counts.items():
            for number, scene in enumerate(scene_seeds(seed, split, count)):
                image, mask = Street(scene, height, width, night, fog).frame(scene * 37 % 1000)
                write_image(temporary / split / "images" / f"{number:05d}.png", image)
                write_image(temporary / split / "masks" / f"{number:05d}.png", mask)
                done += 1
                if progress:
                    progress(done, sum(counts.values()))
        write_bytes(temporary / "classes.txt", CLASSES.text().encode())
        try:
            temporary.replace(root)
        except OSError as error:
            raise FileError(f"Cannot write {root}: {error.strerror}.", "Choose a folder you may write.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clip(
    seed: int, frames: int, height: int = 720, width: int = 1280, night: float = 0.0, fog: float = 0.0
) -> Iterator[tuple[Image, Image]]:
    """The first `frames` frames of a street: images [H, W, 3] uint8 BGR with their masks [H, W] uint8."""
    street = Street(seed, height, width, night, fog)
    return (street.frame(t) for t in range(frames))


def check_clip(path: Path, frames: int, height: int, width: int, night: float, fog: float) -> None:
    """OptionError for what `write_clip` cannot make."""
    _check(0, height, width, night, fog)
    if frames < 1:
        raise OptionError(f"A clip of {frames} frames.", "Expected at least 1.")
    if height % 2 or width % 2:
        raise OptionError(f"A clip of {width}x{height} pixels.", "MP4 needs even sizes.")
    if path.suffix.lower() != ".mp4":
        raise OptionError(f"Clip {path} ends in {path.suffix!r}.", "Expected a name ending in .mp4.")


def write_clip(
    path: Path,
    *,
    seed: int = 7,
    frames: int = 250,
    height: int = 720,
    width: int = 1280,
    fps: int = FPS,
    night: float = 0.0,
    fog: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a street as an MP4 (mp4v) of `frames` frames; a temporary name is renamed at the end."""
    path = Path(path)
    check_clip(path, frames, height, width, night, fog)
    images = clip(seed, frames, height, width, night, fog)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
        if not writer.isOpened():
            raise FileError(f"Cannot write {path}.", "Choose a folder you may write.")
        for done, (image, _) in enumerate(images, 1):
            writer.write(image)
            if progress:
                progress(done, frames)
        writer.release()
        temporary.replace(path)
    except OSError as error:
        raise FileError(f"Cannot write {path}: {error.strerror}.", "Choose a folder you may write.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()

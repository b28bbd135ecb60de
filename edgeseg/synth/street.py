"""Procedural street scenes, whose labels are exact.

`Street(seed).frame(t)` is a driver's view and its class map; the same seed, t and size give the same bytes.
`night` and `fog` shift the distribution, for tests of robustness and drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.dataset import Classes
from edgeseg.errors import OptionError
from edgeseg.images import Image
from edgeseg.synth.atmosphere import Atmosphere
from edgeseg.synth.buildings import Building, design
from edgeseg.synth.camera import Camera
from edgeseg.synth.cars import Car
from edgeseg.synth.ground import Ground
from edgeseg.synth.lens import Lens
from edgeseg.synth.pedestrians import Pedestrian
from edgeseg.synth.plants import Hedge, Tree, foliage, leaves
from edgeseg.synth.poles import Pole
from edgeseg.synth.renderer import Renderer, SceneObject
from edgeseg.synth.sky import render_sky
from edgeseg.synth.texture import Rng

CLASSES = Classes(
    names=("road", "pavement", "sky", "building", "tree", "pole", "car", "pedestrian"),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 130, 180), (70, 70, 70),
        (107, 142, 35), (153, 153, 153), (0, 0, 142), (220, 20, 60),
    ),
    ignore_index=None,
)  # fmt: skip
THINGS = (Car, Pedestrian)  # of which each is an object by itself
FPS = 25
PERIOD = 400.0  # meters after which a street repeats
BEHIND = 40.0  # meters behind the camera in which objects are still considered


class Street:
    """A drive along one street; every property of the scene follows from `seed`.

    `night` 0 (day) to 1 (dark), `fog` 0 (clear) to 1 (about 60 m of sight). OptionError where a value is out of range.
    """

    def __init__(self, seed: int, height: int = 224, width: int = 384, night: float = 0.0, fog: float = 0.0):
        check_scene(seed, height, width, night, fog)
        self.seed, self.height, self.width = seed, height, width
        rng = np.random.default_rng([seed, 1])
        self._parking = bool(rng.random() < 0.7)
        self._half = float(rng.uniform(3.2, 4.2) * rng.choice([1, 1, 2]) + 2.2 * self._parking)
        self._walk = float(rng.uniform(2.0, 4.5))
        self._lane = (self._half - 2.2 * self._parking) / (2 if self._half < 7 else 2.6)
        self.speed = float(rng.uniform(6, 11))  # m/s
        bend = float(rng.choice([0, 0, 1]) * rng.uniform(-0.0022, 0.0022))
        focal, horizon = width * float(rng.uniform(0.75, 1.0)), height * float(rng.uniform(0.38, 0.5))
        x, elevation = self._lane * float(rng.uniform(0.8, 1.1)), float(rng.uniform(1.25, 2.1))
        self._camera = Camera(height, width, focal, horizon, x, elevation, bend)
        self._atmosphere = _atmosphere(rng, night, fog, self._camera.x)
        self._ground = Ground(rng, self._camera, self._half, self._walk, PERIOD)
        self._objects = [*self._frontage(rng), *self._furniture(rng), *self._traffic(rng), *self._walkers(rng)]
        self._sky = render_sky(rng, self._camera, self._atmosphere, (150, 150, 150))
        self._lens = Lens(rng, height, width, night)

    def frame(self, t: int) -> tuple[Image, Image]:
        """Frame number `t` at 25 fps: image [H, W, 3] uint8 BGR and mask [H, W] uint8 of class ids."""
        renderer = self._rendered(t, objects=False)
        return self._seen(renderer, t), renderer.mask

    def frame_with_objects(self, t: int) -> tuple[Image, Image, NDArray[np.uint16]]:
        """The same image and mask, and [H, W] uint16: which car or pedestrian each pixel shows, 0 for none. Numbers
        start at 1 with the farthest, and are those of this frame only."""
        renderer = self._rendered(t, objects=True)
        assert renderer.objects is not None
        seen, numbers = np.unique(renderer.objects, return_inverse=True)
        objects = np.searchsorted(seen[seen > 0], seen, side="right")[numbers].reshape(renderer.mask.shape)
        return self._seen(renderer, t), renderer.mask, objects.astype(np.uint16)

    def _seen(self, renderer: Renderer, t: int) -> Image:
        return self._lens.take(renderer.image, np.random.default_rng([self.seed, 2, t % (1 << 32)]))

    def _rendered(self, t: int, objects: bool) -> Renderer:
        seconds = t / FPS
        driven = self.speed * seconds
        placed = [((item.position(seconds) - driven + BEHIND) % PERIOD - BEHIND, item) for item in self._objects]
        small = self._camera.focal / 3  # meters at which 3 m are 9 pixels: smaller objects are not worth their time
        near = [
            (z, item)
            for z, item in placed
            if z < (item.visible_range if item.depth else min(item.visible_range, small))
            and z + max(item.depth, 12) > 0
        ]
        near.sort(key=lambda pair: -(pair[0] + pair[1].depth))
        lamps = [(p.x + p.arm * 1.5, z) for z, p in near if isinstance(p, Pole) and p.kind == "lamp" and z < 90]
        renderer = Renderer(self._camera, replace(self._atmosphere, lamps=lamps), self._sky[0], objects)
        np.copyto(renderer.mask, self._sky[1])
        self._ground.draw(renderer, driven)
        for z, item in near:
            if z < 120:
                item.cast_shadow(renderer, z, seconds)
        self._ground.shade(renderer, driven)
        for number, (z, item) in enumerate(near, 1):
            renderer.drawn = number if isinstance(item, THINGS) else 0
            item.draw(renderer, z, seconds)
        if self._ground.wet:
            self._ground.reflect(renderer)
        return renderer

    def _frontage(self, rng: Rng) -> list[SceneObject]:
        """Both sides of the street: rows of buildings with side streets and parks between them."""
        pixels = float(np.clip(self.width / 32, 10, 36))
        designs = [design(rng, pixels, self._atmosphere) for _ in range(7)]
        trees = [
            foliage(rng, int(np.clip(self.width / 3, 64, 320)), -np.sign(self._atmosphere.shadow_slope[0]))
            for _ in range(3)
        ]
        self._trees, hedge = trees, leaves(rng, pixels, self._atmosphere)
        open_share, front = float(rng.uniform(0.05, 0.35)), self._half + self._walk
        objects: list[SceneObject] = []
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
                    objects.append(Hedge(hedge, side, z, gap, front + 0.3, float(rng.uniform(0.9, 2.2))))
                    for tree_z in np.arange(z + 2, z + gap - 2, rng.uniform(4, 7)):
                        tall = float(rng.uniform(6, 11))
                        x = side * (front + rng.uniform(3.5, 7))
                        objects.append(
                            Tree(trees[rng.integers(3)], x, float(tree_z), tall, tall * float(rng.uniform(0.7, 1)))
                        )
                    z += gap
                elif z + chosen.width < PERIOD + 6:
                    objects.append(Building(chosen, side, z, front, chosen.height > before or chosen.pitched))
                    z, before = z + chosen.width, chosen.height
                else:
                    break
        return objects

    def _furniture(self, rng: Rng) -> list[SceneObject]:
        """Lamp posts, street trees, signs, and traffic lights at the crossings."""
        objects: list[SceneObject] = []
        gray = np.array(((92, 94, 96), (58, 60, 58), (120, 122, 124), (62, 74, 58))[rng.integers(4)])
        edge = self._half + 0.55
        spacing, rows = PERIOD / int(rng.integers(12, 20)), rng.random() < 0.5
        for i, z in enumerate(np.arange(rng.uniform(0, 10), PERIOD, spacing)):
            sides = (-1, 1) if rows else ((-1,) if i % 2 else (1,))
            objects += [Pole("lamp", side * edge, float(z), -side, gray) for side in sides]
        planted = float(rng.choice([0, 0.25, 0.6, 0.9]))
        for side in (-1, 1):
            for z in np.arange(rng.uniform(2, 8), PERIOD, 9.5):
                if rng.random() < planted:
                    tall = float(rng.uniform(4.5, 8))
                    shape = self._trees[rng.integers(3)]
                    objects.append(
                        Tree(shape, side * (self._half + 0.9), float(z), tall, tall * float(rng.uniform(0.6, 0.85)))
                    )
            for z in rng.uniform(0, PERIOD, rng.integers(6, 14)):
                objects.append(
                    Pole("sign", side * (edge + 0.1), float(z), -side, (130, 132, 134), int(rng.integers(5)))
                )
        for z in self._ground.zebras:
            if rng.random() < 0.7:
                objects += [Pole("light", side * edge, z - 0.8, -side, (60, 62, 60)) for side in (-1, 1)]
        return objects

    def _traffic(self, rng: Rng) -> list[SceneObject]:
        """Parked cars, oncoming cars at one speed, and cars ahead at our own."""
        objects: list[SceneObject] = []
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
                        objects.append(
                            Car(rng, side * (self._half - 1.15), partial(_still, float(z)), side < 0, False, kinds)
                        )
        density = float(rng.uniform(14, 70))
        z = float(rng.uniform(0, density))
        while z < PERIOD - 20:
            objects.append(Car(rng, -self._lane, partial(_moving, z, -self.speed * 0.9), True, True))
            z += 14 + float(rng.exponential(density))
        if rng.random() < 0.75:
            gap, sway = float(rng.uniform(12, 40)), float(rng.uniform(1, 3))
            objects.append(Car(rng, self._lane, partial(_ahead, self.speed, gap, sway), False, True))
            objects.append(Car(rng, self._lane, partial(_ahead, self.speed, gap + 24, sway), False, True))
        return objects

    def _walkers(self, rng: Rng) -> list[SceneObject]:
        """Pedestrians along the pavements, and some who cross well ahead of us at a zebra."""
        objects: list[SceneObject] = []
        for side in (-1, 1):
            for z in rng.uniform(0, PERIOD, int(rng.integers(12, 60))):
                x = side * (self._half + float(rng.uniform(1.0, max(1.1, self._walk - 0.35))))
                path = partial(_moving, float(z), float(rng.choice([-1, 1]) * rng.uniform(1.0, 1.6)))
                objects.append(Pedestrian(rng, path, x, False))
        for zebra in self._ground.zebras:
            for _ in range(int(rng.integers(0, 4))):
                direction, done = int(rng.choice([-1, 1])), float(rng.uniform(11, 26))
                path = partial(_still, zebra + float(rng.uniform(0.4, 2.6)))
                cross = partial(_crossing, direction, self._half + 0.8, 1.4 / self.speed, done)
                objects.append(Pedestrian(rng, path, cross, True))
        return objects


def _still(position: float, seconds: float) -> float:
    return position


def _moving(start: float, speed: float, seconds: float) -> float:
    return start + speed * seconds


def _ahead(speed: float, gap: float, sway: float, seconds: float) -> float:
    return speed * seconds + gap + sway * float(np.sin(seconds * 0.35))


def _crossing(direction: int, edge: float, pace: float, done: float, z: float) -> float:
    """x of someone who reaches the far kerb when we are `done` meters away."""
    return direction * float(np.clip(edge - (z - done) * pace, -edge, edge))


def _atmosphere(rng: Rng, night: float, fog: float, x: float) -> Atmosphere:
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.6)
    sun = float(rng.choice([0.0, 0.6, 1.0])) * max(0.0, 1 - night * 1.5) * (1 - fog) ** 2
    bright = np.array([222, 219, 214]) * rng.uniform(0.9, 1.05)
    haze = bright * (1 - night) + np.array([44, 44, 46]) * night
    density = float(rng.uniform(0.0012, 0.003)) + 0.055 * fog
    return Atmosphere(
        night,
        (float(haze[0]), float(haze[1]), float(haze[2])),
        density,
        sun,
        (float(np.cos(angle) * length), float(np.sin(angle) * length)),
        x,
    )


def check_scene(seed: int, height: int, width: int, night: float, fog: float) -> None:
    if not 0 <= seed < 1 << 62:
        raise OptionError(f"seed is {seed}.", "Expected an integer from 0 on.")
    for name, size in (("height", height), ("width", width)):
        if not 32 <= size <= 4096:
            raise OptionError(f"{name} is {size} pixels.", "Expected 32 to 4096.")
    for name, amount in (("night", night), ("fog", fog)):
        if not 0 <= amount <= 1:
            raise OptionError(f"{name} is {amount}.", "Expected 0 (none) to 1 (full).")


def clip(
    seed: int, frames: int, height: int = 720, width: int = 1280, night: float = 0.0, fog: float = 0.0
) -> Iterator[tuple[Image, Image]]:
    """The first `frames` frames of a street: images [H, W, 3] uint8 BGR with their masks [H, W] uint8."""
    street = Street(seed, height, width, night, fog)
    return (street.frame(t) for t in range(frames))

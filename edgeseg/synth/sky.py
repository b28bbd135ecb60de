"""The sky with its clouds, and the far skyline."""

from __future__ import annotations

import numpy as np

from edgeseg.images import Image
from edgeseg.synth.atmosphere import Atmosphere
from edgeseg.synth.camera import Camera, Color
from edgeseg.synth.renderer import BUILDING, TREE, Renderer
from edgeseg.synth.texture import Rng, noise


def render_sky(rng: Rng, camera: Camera, atmosphere: Atmosphere, skyline: Color) -> tuple[Image, Image]:
    """The sky with clouds and the far skyline, and its class map; neither moves (they are too far away)."""
    height, width, horizon = camera.height, camera.width, max(camera.horizon, 2.0)
    up = np.clip(1 - np.arange(height, dtype=np.float32) / horizon, 0, 1)[:, None, None]
    zenith = np.array(((214, 160, 105), (205, 178, 150), (196, 190, 184), (190, 140, 96))[rng.integers(4)])
    low = np.array(((236, 224, 208), (226, 222, 216), (206, 216, 232))[rng.integers(3)])
    sky = low + (zenith - low) * up**0.7
    clouds = sum(noise(rng, height, width * 2, height / n)[:, :width] * w for n, w in ((4, 0.5), (9, 0.35), (24, 0.2)))
    cover = np.clip((np.asarray(clouds) + rng.uniform(-0.5, 0.5)) * 1.6, 0, 1)[..., None] * np.clip(up * 4, 0.15, 1)
    sky = sky + (np.array([246, 246, 246]) * (0.86 + 0.1 * np.asarray(clouds)[..., None]) - sky) * cover * 0.85
    glow = np.array([40, 60, 78]) * (1 - up) ** 2 * atmosphere.night
    sky = sky * (np.array(atmosphere.ambient) * (1 - 0.55 * atmosphere.night)) + glow
    veil = 1 - np.exp(-atmosphere.density * 160 * (1 - 0.55 * up))
    renderer = Renderer(
        camera, atmosphere, np.clip(sky + (np.array(atmosphere.haze) - sky) * veil, 0, 255).astype(np.uint8)
    )
    _skyline(rng, renderer, skyline)
    return renderer.image, renderer.mask


def _skyline(rng: Rng, renderer: Renderer, color: Color) -> None:
    camera, left = renderer.camera, -20.0
    unit = camera.focal / 260  # pixels of a meter, 260 m away
    foot = camera.horizon + camera.elevation * unit + 1
    while left < camera.width:
        wide, tall = rng.uniform(8, 26) * unit, rng.uniform(6, 17) * unit
        right, top = left + wide, foot - tall
        tint = np.asarray(color) * rng.uniform(0.75, 1.15)
        if rng.random() < 0.4:
            steps = np.linspace(0, np.pi, 9)
            bumps = np.stack(
                [left + wide / 2 - wide * 0.6 * np.cos(steps), foot - tall * 0.6 * np.sin(steps) ** 0.6], 1
            )
            renderer.polygon(bumps, renderer.atmosphere.apparent_color((52, 84, 70), 0, 260), TREE)
        else:
            box = np.array([[left, top], [right + 1, top], [right + 1, foot], [left, foot]])
            renderer.polygon(box, renderer.atmosphere.apparent_color(tint, 0, 260), BUILDING)
        left = right

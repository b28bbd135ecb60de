"""Draw docs/images from the shipped street model: python docs/images.py (ffmpeg makes the GIF)."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import edgeseg

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
HEIGHT, WIDTH = 225, 400
FRAMES, STEP, FPS = 18, 3, 8


def blend(image: NDArray[np.uint8], classmap: NDArray[np.uint8], spec: edgeseg.Spec) -> NDArray[np.uint8]:
    """The frame [H, W, 3] with the class colors over it, lighter than the palette so that dark colors show."""
    colors = np.array(spec.palette, np.float32)[:, ::-1]
    size = (image.shape[1], image.shape[0])
    ids = cv2.resize(classmap, size, interpolation=cv2.INTER_NEAREST)
    return (0.4 * image + 0.6 * (0.8 * colors[ids] + 40)).clip(0, 255).astype(np.uint8)


def main() -> None:
    street = edgeseg.Street(seed=11, height=HEIGHT, width=WIDTH)
    with (
        edgeseg.open_segmenter(ROOT / "models" / "street" / "street-int8") as segmenter,
        tempfile.TemporaryDirectory() as folder,
    ):
        for number in range(FRAMES):
            image, _ = street.frame(40 + number * STEP)
            segmented = blend(image, segmenter(image).classmap, segmenter.spec)
            gap = np.full((HEIGHT, 6, 3), 255, np.uint8)
            cv2.imwrite(f"{folder}/{number:03}.png", np.hstack([image, gap, segmented]))
        palette = "split[a][b];[a]palettegen=max_colors=56[p];[b][p]paletteuse=dither=none"
        command = ["ffmpeg", "-y", "-loglevel", "error", "-framerate", str(FPS), "-i", f"{folder}/%03d.png"]
        subprocess.run([*command, "-vf", palette, str(IMAGES / "street.gif")], check=True)


if __name__ == "__main__":
    main()

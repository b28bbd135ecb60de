"""Images and masks as files, read with errors a person can act on and written atomically."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import FileError
from edgeseg.files import require_file, write_bytes

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 16384 * 16384
Image = NDArray[np.uint8]


def read_image(path: Path) -> Image:
    """The image as [H, W, 3] uint8 BGR; FileError for a file that is not one."""
    return _decode(path, cv2.IMREAD_COLOR, "Image")


def read_mask(path: Path) -> Image:
    """The class map as [H, W] uint8: a single-channel 8-bit PNG of class ids (palette PNGs are not colors here)."""
    mask = _decode(path, cv2.IMREAD_UNCHANGED, "Mask")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise FileError(
            f"Mask {path} has shape {mask.shape} and type {mask.dtype}.",
            "Expected one 8-bit channel of class ids; convert color masks to ids first.",
        )
    return mask


def write_image(path: Path, image: Image) -> None:
    """Encode in the format of the suffix and write atomically; FileError for an unknown suffix."""
    try:
        ok, data = cv2.imencode(path.suffix or ".png", image)
    except cv2.error:
        ok = False
    if not ok:
        raise FileError(f"Cannot encode {path}.", f"Use one of: {', '.join(IMAGE_SUFFIXES)}.")
    write_bytes(path, data.tobytes())


def resize(frame: Image, height: int, width: int, into: Image | None = None) -> Image:
    """Stretch a frame to the model's input (bilinear): the one resize on every path from frame to network."""
    return cv2.resize(frame, (width, height), dst=into, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def list_images(folder: Path) -> list[Path]:
    """The image files of `folder` in name order; FileError if there is none."""
    if not folder.is_dir():
        raise FileError(f"Image folder {folder} does not exist.", "Check the path.")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not files:
        raise FileError(f"No images in {folder}.", f"Expected files ending in {', '.join(IMAGE_SUFFIXES)}.")
    return files


def _decode(path: Path, flags: int, what: str) -> Image:
    data = np.fromfile(require_file(path, what), np.uint8)
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error:
        image = None
    if image is None:
        raise FileError(f"{what} {path} cannot be decoded.", "The file is corrupt or truncated; write it again.")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise FileError(
            f"{what} {path} is {image.shape[1]}x{image.shape[0]}.", f"Expected at most {MAX_PIXELS} pixels: resize it."
        )
    return image  # type: ignore[return-value]

"""What fixes share: files are replaced atomically, and what was there is kept in ROOT/.removed."""

from __future__ import annotations

from pathlib import Path

import cv2

from edgeseg.data.checks import Context
from edgeseg.files import cannot_write, write_bytes
from edgeseg.images import Image, read_image

REMOVED = ".removed"


def set_aside(path: Path, context: Context, keep: bool = False) -> str:
    """Move `path` into ROOT/.removed (a second name for it, with `keep`) under a name that is free there. The new name,
    as results show it."""
    target = context.root / REMOVED / path.relative_to(context.root)
    number = 0
    while target.exists():
        number += 1
        target = target.with_name(f"{path.stem}.{number}{path.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if keep:
            write_bytes(target, path.read_bytes())
        else:
            path.rename(target)
    except OSError as error:
        raise cannot_write(target, error) from error
    return context.name(target)


def write_png(path: Path, pixels: Image) -> None:
    write_bytes(path, cv2.imencode(".png", pixels)[1].tobytes())


def store_as_read(path: Path, context: Context) -> str:
    """Store an image as the PNG of what read_image gives, the original set aside. The new file's name; "" where
    another image has that name."""
    target = path.with_suffix(".png")
    if target != path and target.exists():
        return ""
    pixels = read_image(path)
    if target == path:  # the name never leaves the dataset
        set_aside(path, context, keep=True)
        write_png(target, pixels)
    else:
        write_png(target, pixels)
        set_aside(path, context)
    return context.name(target)

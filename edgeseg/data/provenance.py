"""What a bundle's bill of materials says about the data that its model was made with."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from edgeseg.bom import UsedData
from edgeseg.data.datasheet import NAME, read_datasheet
from edgeseg.errors import FileError
from edgeseg.results.datasheet import Datasheet

logger = logging.getLogger(__name__)
CLASSES = "classes.txt"


def used(root: Path, use: str, frames: int = 0, digest: str = "") -> UsedData:
    """The data in the folder `root`, with what its datasheet states; a warning where there is one without a license.

    FileError where there is no such folder, and for a datasheet that cannot be read (read_datasheet).
    """
    if not root.is_dir():
        raise FileError(f"{root} is not a folder.", f"Give the folder of the data, which may hold {NAME}.")
    sheet = read_datasheet(root) or Datasheet()
    if sheet != Datasheet() and not sheet.license.strip():
        logger.warning("%s states no license: the bill of materials has none for %s", root / NAME, root.name)
    return UsedData(root.resolve().name, use, frames, digest, sheet)


def roots(frames: Iterable[Path]) -> list[Path]:
    """The datasets that these frames are of (ROOT/SPLIT/images/FRAME), else the folders that they are in."""
    folders = dict.fromkeys(path.absolute().parent for path in frames)
    return list(dict.fromkeys(_root(folder) for folder in folders))


def _root(folder: Path) -> Path:
    owner = folder.parent.parent
    return owner if (owner / CLASSES).is_file() and not (folder / NAME).is_file() else folder

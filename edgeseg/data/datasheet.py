"""ROOT/datasheet.toml, an optional file in which the owner of a dataset states where it comes from.

source = "Dashboard cameras of our delivery vans, 2025; labeled by our own staff"
license = "Internal use only"
consent = "Drivers agreed in writing; passers-by could not be asked"
sensitive = "Faces and number plates are visible"
classification = "Confidential"
"""

from __future__ import annotations

from pathlib import Path

from edgeseg import toml
from edgeseg.files import write_bytes
from edgeseg.results.datasheet import Datasheet

NAME = "datasheet.toml"


def carry_datasheet(source: Path, out: Path) -> bool:
    """Have the datasheet of the folder `source`, if it has one, in `out`, too; whether it has. Raises as
    read_datasheet."""
    if read_datasheet(source) is None:
        return False
    write_bytes(out / NAME, (source / NAME).read_bytes(), durable=False)
    return True


def read_datasheet(root: Path) -> Datasheet | None:
    """The datasheet of the dataset `root`; None where it has none.

    FileError for a file that is no TOML, OptionError for a key that is unknown or no text.
    """
    path = root / NAME
    return toml.to_dataclass(Datasheet, toml.read(path, "Datasheet"), "", path) if path.exists() else None

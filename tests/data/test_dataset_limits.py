"""Class lists: numbers and sizes beyond any use."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.data.dataset import read_classes
from edgeseg.errors import FileError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9" * 5000 + " road 1 2 3\n1 car 1 2 3\n", "cannot read"),
        ("0 road 1 2 " + "9" * 5000 + "\n1 car 1 2 3\n", "cannot read"),
        ("# (id 256 = ignore)\nroad\ncar\n", "the ignore id is 256"),
        ("# (id " + "9" * 5000 + " = ignore)\nroad\ncar\n", "the ignore id is 999"),
        ("road\n" * 300_000, "is larger than 1048576 bytes"),
    ],
    ids=["id", "color", "ignore", "long ignore", "size"],
)
def test_what_no_class_list_holds(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(FileError, match=message):
        read_classes(tmp_path / "classes.txt")

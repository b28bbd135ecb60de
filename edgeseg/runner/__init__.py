"""build.sh and runner.py, which a bundle contains for boards whose Python is too old for edgeseg.

Neither is imported here. JetPack 4.6 has Python 3.6 and JetPack 5 has 3.8, with TensorRT bindings for those alone.
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

FILES = ("build.sh", "runner.py")


def add(folder: Path) -> list[str]:
    """Copy both into a bundle; returns their names."""
    for name in FILES:
        with resources.as_file(resources.files("edgeseg.runner") / name) as file:
            shutil.copyfile(file, folder / name)
    (folder / "build.sh").chmod(0o755)
    return list(FILES)

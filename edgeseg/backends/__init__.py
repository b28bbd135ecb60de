"""Backends: one module each, found by its file name, imported on first use.

A backend module has
    probe() -> str                                       "" when it can run here, else the reason
    compile(graph, out, target, precision) -> list[str]  write the model files of a bundle, return their names
    open(bundle, mode) -> Engine                         load them (see segmenter.Engine)
and imports nothing of another backend.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from edgeseg.errors import unknown


def names() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(__path__)]


def get(name: str) -> ModuleType:
    """The backend module called `name`; OptionError if there is none."""
    if name not in names():
        raise unknown("backend", name, names())
    return importlib.import_module(f"{__name__}.{name}")

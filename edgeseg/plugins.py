"""Modules of a package by their file names: a backend, a format or a head is added without naming it elsewhere."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from edgeseg.errors import unknown


def names(package: str) -> list[str]:
    """The modules of `package`, in name order; those whose names start with an underscore are helpers of others."""
    path = importlib.import_module(package).__path__
    return [module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")]


def get(package: str, kind: str, name: str) -> ModuleType:
    """The module of `package` that a user named; OptionError, naming those there are, if there is no such `kind`."""
    if name not in names(package):
        raise unknown(kind, name, names(package))
    return load(package, name)


def load(package: str, name: str) -> ModuleType:
    """One of them, imported on first use."""
    return importlib.import_module(f"{package}.{name}")

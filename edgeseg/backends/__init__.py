"""Backends: one module each, found by its file name, imported on first use.

A backend module has
    probe() -> str                                       "" when it can run here, else the reason
    compile(graph, out, target, precision) -> list[str]  write the model files of a bundle, return their names
    open(bundle, mode) -> Engine                         load them, from bundle.read(name) (see segmenter.Engine)
and, where it has several devices, probe_device(device) -> str  "" when that one is here, else the reason
and imports nothing of another backend. PACKAGE: the distribution it needs, where that has another name.
ADDS_IN_16_BITS: whether its INT8 kernels saturate on CPUs without dot products (cpus.adds_in_16_bits).
"""

from __future__ import annotations

from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING

from edgeseg import plugins

if TYPE_CHECKING:
    from edgeseg.target import Target


def names() -> list[str]:
    return plugins.names(__name__)


def get(name: str) -> ModuleType:
    """The backend module called `name`; OptionError if there is none."""
    return plugins.get(__name__, "backend", name)


def missing(target: Target) -> str:
    """Why `target` cannot run on this machine, or ""."""
    module = get(target.backend)
    reason = str(module.probe())
    return reason or (str(module.probe_device(target.device)) if hasattr(module, "probe_device") else "")


def package(name: str) -> str:
    """The distribution that a backend needs."""
    return str(getattr(get(name), "PACKAGE", name))


def packages() -> list[str]:
    return [package(name) for name in names()]


def version(name: str) -> str:
    """The installed version of the package behind a backend."""
    return metadata.version(package(name))

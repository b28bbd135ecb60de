"""Exporters: what other inference servers need to serve a bundle; one module each, found by its file name.

An exporter module has
    TITLE: str                               the server, for messages
    refuse(bundle: Bundle) -> None           OptionError, with the reason, for a bundle that it cannot serve
    write(bundle: Bundle, name: str, out: Path) -> str
                                             fill the folder `out`; the command that serves it
and imports nothing of another exporter.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

from edgeseg import plugins
from edgeseg.bundle import Bundle
from edgeseg.errors import OptionError
from edgeseg.files import replacing

ABOUT = "edgeseg.json"  # in every folder that is written: what it came from, and what clients need to know
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def names() -> list[str]:
    return plugins.names(__name__)


def get(name: str) -> ModuleType:
    """The exporter called `name`; OptionError if there is none."""
    return plugins.get(__name__, "format", name)


def export(path: Path, server: str, out: Path, name: str = "") -> str:
    """Write the bundle at `path` for another server into the folder `out`; the command that serves it.

    `name`: of the model there, the bundle's own without it. BundleError for a bundle whose digests differ, OptionError
    for one that this server cannot run, FileError where `out` holds something else.
    """
    exporter = get(server)
    bundle = Bundle.load(path)
    name = name or bundle.name
    if not NAME.fullmatch(name):
        raise OptionError(
            f"Model name {name[:100]!r}.", "Expected letters, digits, '.', '_' and '-'. Choose one: --name street"
        )
    exporter.refuse(bundle)
    with replacing(out, ABOUT) as folder:
        command = str(exporter.write(bundle, name, folder))
        (folder / ABOUT).write_text(json.dumps(about(bundle, server), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return command.replace(str(folder), str(out))


def about(bundle: Bundle, server: str) -> dict[str, object]:
    """What the model file does not say: its classes and colors, and how logits become a class map."""
    return {
        "schema": 1,
        "server": server,
        "bundle": bundle.name,
        "digest": bundle.digest,
        "target": bundle.target,
        "precision": bundle.precision.value,
        "upsample": bundle.upsample,
        "spec": bundle.spec.to_dict(),
    }

"""Installed Python packages: their versions and licenses, as they state them themselves."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata

MODULES = {"opencv-python-headless": "cv2"}  # distributions whose module has another name
MAX_LICENSE = 100  # characters: longer ones are the text of a license, not its name
CLASSIFIER = "License :: "


@dataclass(frozen=True)
class Package:
    """`license`: an SPDX expression where `spdx`, else a name; "" where the package states none."""

    name: str
    version: str
    license: str = ""
    spdx: bool = False

    @property
    def purl(self) -> str:
        """The package URL (https://github.com/package-url/purl-spec), for PyPI."""
        return f"pkg:pypi/{normalized(self.name)}@{self.version}"


def normalized(name: str) -> str:
    """The name of a distribution as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find(name: str) -> Package | None:
    """The distribution `name`; None where it is not installed."""
    try:
        about = metadata.metadata(name).json
    except metadata.PackageNotFoundError:
        return None
    version, expression = str(about["version"]), about.get("license_expression")
    if expression:
        return Package(normalized(name), version, str(expression), spdx=True)
    return Package(normalized(name), version, _license_name(about))


def loaded(names: Iterable[str]) -> list[Package]:
    """Those of the distributions `names` whose module this process has imported, in name order."""
    modules = {name: MODULES.get(name, name.replace("-", "_")) for name in names}
    found = [find(name) for name, module in sorted(modules.items()) if module in sys.modules]
    return [package for package in found if package is not None]


def _license_name(about: Mapping[str, str | list[str]]) -> str:
    """What a package without a license expression states: the field License, else its classifiers."""
    stated = str(about.get("license", "")).strip()
    if stated and stated.upper() != "UNKNOWN" and "\n" not in stated and len(stated) <= MAX_LICENSE:
        return stated
    classifiers = [text for text in about.get("classifier", ()) if text.startswith(CLASSIFIER)]
    return ", ".join(text.rpartition(" :: ")[2] for text in classifiers)

"""The licenses of an install: every package that edgeseg and its extras bring, as the packages state them.

A package is weighed by its license's name, and by libraries inside its wheel whose names are known: a permissive
package may carry a library under the GPL. This is a list to start from, no legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata

from edgeseg.packages import Package, find, normalized

STRONG, WEAK = "copyleft", "weak copyleft"
KINDS = {  # names in licenses: what they ask of those who pass the package on
    STRONG: r"(?<![L])A?GPL|(?<!Lesser )General Public License",
    WEAK: r"LGPL|Lesser General Public|MPL|Mozilla|EPL|Eclipse Public",
}
LIBRARIES = {  # in wheels, by the beginning of their file's name
    "libx264": "GPL-2.0-or-later",
    "libx265": "GPL-2.0-or-later",
    "libxvidcore": "GPL-2.0-or-later",
    "libavcodec": "LGPL-2.1-or-later",
    "libmp3lame": "LGPL-2.0-or-later",
    "libgnutls": "LGPL-2.1-or-later",
}
REQUIREMENT = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?", re.S)
EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
UNION = "all"  # the extra that names others


@dataclass(frozen=True)
class Licensed:
    """`extras`: those that bring the package, "" for edgeseg without any. `libraries`: name and license of known ones
    in its wheel. `kind`: copyleft, weak copyleft or "", by the strictest of its license and libraries."""

    package: Package
    extras: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class Install:
    """`missing`: extras of which at least one package is not installed here, so that their list is not complete."""

    packages: tuple[Licensed, ...]
    missing: tuple[str, ...] = ()


def of_install(name: str = "edgeseg") -> Install:
    """What the distribution `name` and its extras bring, as far as it is installed; nothing where `name` is not."""
    brought: dict[str, list[str]] = {}
    missing = []
    for extra in ("", *_extras(name)) if find(name) else ():
        found: dict[tuple[str, str], None] = {}
        _walk(name, extra, found)
        for package in dict.fromkeys(key for key, _ in found):
            brought.setdefault(package, []).append(extra)
        missing += [extra] if any(need.always and find(need.name) is None for need in _needs(name, extra)) else []
    rows = [_licensed(package, tuple(extras)) for package, extras in sorted(brought.items()) if package != name]
    return Install(tuple(row for row in rows if row is not None), tuple(missing))


def kind_of(license: str) -> str:
    """copyleft, weak copyleft or "": the strictest that the license names."""
    return next((kind for kind, words in KINDS.items() if re.search(words, license)), "")


def _licensed(name: str, extras: tuple[str, ...]) -> Licensed | None:
    package = find(name)
    if package is None:
        return None
    libraries = dict(_libraries(metadata.files(name) or ()))
    kinds = {kind_of(text) for text in (package.license, *libraries.values())}
    kind = next((kind for kind in KINDS if kind in kinds), "")
    return Licensed(package, extras, tuple(f"{key} ({value})" for key, value in libraries.items()), kind)


def _libraries(files: Iterable[metadata.PackagePath]) -> Iterator[tuple[str, str]]:
    for file in files:
        for start, text in LIBRARIES.items():
            if file.name.startswith(start) and ".so" in file.name:
                yield start, text


def _extras(name: str) -> list[str]:
    return [str(extra) for extra in metadata.metadata(name).get_all("Provides-Extra") or [] if extra != UNION]


@dataclass(frozen=True)
class _Need:
    """A requirement. `extras`: of it, comma separated. `always`: whatever the platform and the version of Python."""

    name: str
    extras: str
    always: bool


def _needs(name: str, extras: str) -> Iterator[_Need]:
    """What the installed distribution `name[extras]` requires beyond Python. Conditions of the platform are not read:
    what is installed counts."""
    chosen = {part.strip() for part in extras.split(",")}
    for text in metadata.requires(name) or []:
        if match := REQUIREMENT.match(text):
            condition = match[3] or ""
            conditions = set(EXTRA.findall(condition))
            if not conditions or conditions & chosen:
                rest = EXTRA.sub("", condition).strip(" ()")
                yield _Need(normalized(match[1]), match[2] or "", not rest)


def _walk(name: str, extras: str, found: dict[tuple[str, str], None]) -> None:
    """Put what `name[extras]` needs, all the way down, into `found` as far as it is installed."""
    if (name, extras) in found or find(name) is None:
        return
    found[name, extras] = None
    for need in _needs(name, extras):
        _walk(need.name, need.extras, found)

"""fleet.toml: which devices there are, how to reach them, and where bundles live on them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg import toml
from edgeseg.bench.remote import Host
from edgeseg.errors import OptionError, unknown

WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
SHARED = ("port", "folder", "python", "command", "key", "restart", "health")  # what a group may say for its devices


@dataclass(frozen=True)
class Device:
    """A device. `host`: [user@]name as ssh takes it, `folder`: where bundles live there, `python`: an interpreter for
    the rollout itself, `command`: how edgeseg is called there [default: python -m edgeseg], `key`: the public key it
    trusts, `restart`: what makes it use FOLDER/current, `health`: a URL or command there that says whether it is well.
    """

    name: str
    host: str
    folder: str
    port: int = toml.number(0, 0, 65535)
    group: str = ""
    python: str = "python3"
    command: str = ""
    key: str = ""
    restart: str = ""
    health: str = ""

    @property
    def address(self) -> Host:
        host = Host.parse(f"ssh://{self.host}")
        return Host(host.name, host.user, self.port or host.port)


@dataclass(frozen=True)
class Fleet:
    path: Path
    devices: tuple[Device, ...]

    @classmethod
    def load(cls, path: Path) -> Fleet:
        """OptionError or FileError, with the place in the file, for anything that cannot be used."""
        table = toml.read(path, "Fleet")
        for key in table:
            if key not in ("devices", "groups"):
                error = unknown("key", key, ("devices", "groups"))
                raise OptionError(f"{path}: {error.what}", error.hint)
        rows, groups = table.get("devices"), table.get("groups", {})
        if not isinstance(rows, list) or not rows:
            raise OptionError(f"{path} has no devices.", "Expected a [[devices]] with name, host and folder for each.")
        if not isinstance(groups, dict):
            raise OptionError(f"{path}: groups is not a table.", "Expected [groups.NAME] with what its devices share.")
        devices = tuple(_device(row, groups, path) for row in rows)
        _check_names(devices, groups, path)
        return cls(path, devices)

    @property
    def ledger(self) -> Path:
        return self.path.with_suffix(".ledger.json")

    def group(self, name: str | None) -> tuple[Device, ...]:
        """The devices of a group, or all of them."""
        if name is None:
            return self.devices
        chosen = tuple(device for device in self.devices if device.group == name)
        if not chosen:
            raise unknown("group", name, {device.group for device in self.devices if device.group})
        return chosen


def canaries(text: str, devices: int) -> int:
    """How many of `devices` come first: "10%" (at least one) or a number."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3})?) ?%", text.strip())
    if match and 0 < float(match[1]) <= 100:
        return max(1, math.ceil(devices * float(match[1]) / 100))
    if re.fullmatch(r"\d{1,6}", text.strip()) and 1 <= int(text) <= devices:
        return int(text)
    raise OptionError(
        f"--canary is {text[:40]!r}.", f"Expected a share such as 10%, over 0 and up to 100, or 1 to {devices} devices."
    )


def _device(row: Any, groups: dict[str, Any], path: Path) -> Device:
    name = row.get("group") if isinstance(row, dict) else None
    shared = groups.get(name, {}) if isinstance(name, str) else {}
    if not isinstance(shared, dict):
        raise OptionError(f"{path}: groups.{name} is not a table.", f"Expected [groups.{name}].")
    for key in shared:
        if key not in SHARED:
            error = unknown("key", f"groups.{name}.{key}", [f"groups.{name}.{known}" for known in SHARED])
            raise OptionError(f"{path}: {error.what}", error.hint)
    if isinstance(row, dict):
        row = {**shared, **row}
    device = toml.to_dataclass(Device, row, "devices", path)
    if not WORD.fullmatch(device.name):
        raise toml.wrong_value(path, "devices.name", device.name, "letters, digits, dots, dashes and underscores")
    try:
        _ = device.address
    except OptionError:
        raise OptionError(
            f"{path}: the host of {device.name} is not one that ssh can be given.",
            'Expected "name" or "user@name"; passwords, keys and jump hosts belong into ~/.ssh/config.',
        ) from None
    if not device.folder.startswith(("/", "~/")) or "\0" in device.folder:
        raise toml.wrong_value(path, f"folder of {device.name}", device.folder, 'an absolute path, or one with "~/"')
    if not re.fullmatch(r"[A-Za-z0-9_./~][A-Za-z0-9_./~+-]*", device.python):
        raise toml.wrong_value(path, f"python of {device.name}", device.python, "the path of an interpreter")
    return device


def _check_names(devices: tuple[Device, ...], groups: dict[str, Any], path: Path) -> None:
    places: dict[tuple[Host, str], str] = {}
    names: set[str] = set()
    for device in devices:
        if device.name in names:
            raise OptionError(f"{path}: two devices are called {device.name!r}.", "Give each a name of its own.")
        names.add(device.name)
        place = (device.address, device.folder.rstrip("/"))
        if place in places:
            raise OptionError(
                f"{path}: {places[place]} and {device.name} are one folder of one host.", "Name each device once."
            )
        places[place] = device.name
    used = {device.group for device in devices if device.group}
    for name in groups:
        if name not in used:
            error = unknown("group", name, used)
            raise OptionError(f"{path}: no device is in the group {name!r}.", error.hint)

"""Published models: one TOML table each in models/, with where its author keeps it, its license and its Spec."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgeseg import toml
from edgeseg.errors import OptionError, unknown
from edgeseg.records import convert
from edgeseg.spec import Spec

FOLDERS = [Path(__file__).parent / "models"]
FORMATS = ("onnx", "torchvision", "hugging-face")
COMMERCIAL = ("yes", "no", "ask")


@dataclass(frozen=True)
class RemoteFile:
    """A file of an author. `sha256`: the digest that the author states, or its first digits, as torchvision has them
    in file names; "" where none is stated. `size` in bytes, 0 where it is not known."""

    name: str
    url: str
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True)
class PublishedModel:
    """`format`: one of FORMATS, how the files become a network; `builder`: the function of torchvision that builds it.

    `license` of the weights, `data` they were trained on, and whether that allows `commercial` use: yes, no, or ask
    (a lawyer: where licenses of weights, images and labels differ or are silent). `megabytes`: of all files, as
    stated; 0 where nothing is. `spec`: keys of the Spec; those that
    a Hugging Face folder states itself are left out.
    """

    name: str
    title: str
    source: str
    license: str
    data: str
    commercial: str
    format: str
    files: tuple[RemoteFile, ...]
    megabytes: float = 0.0
    builder: str = ""
    spec: dict[str, Any] | None = None

    @classmethod
    def load(cls, name: str) -> PublishedModel:
        """OptionError for a name that has no table."""
        if name not in _tables():
            raise unknown("published model", name, names())
        path = _tables()[name]
        table = toml.read(path, "Published model")
        keys = [f.name for f in fields(cls) if f.name != "name"]
        if other := next((key for key in table if key not in keys), None):
            raise unknown(f"key of {path}", other, keys)
        model = convert({**table, "name": name}, cls, f"{path} cannot be used", f"Its keys: {', '.join(keys)}.")
        for key, value, allowed in (("format", model.format, FORMATS), ("commercial", model.commercial, COMMERCIAL)):
            if value not in allowed:
                raise OptionError(f"{path}: {key} is {value!r}.", f"Expected one of: {', '.join(allowed)}.")
        return model

    @property
    def verifiable(self) -> bool:
        """Whether the author states a digest of every file."""
        return all(file.sha256 for file in self.files)

    def own_spec(self) -> Spec:
        """The Spec of a model whose table states it whole."""
        return Spec.from_dict(self.spec or {})


def names() -> list[str]:
    return sorted(_tables())


def _tables() -> dict[str, Path]:
    return {path.stem: path for folder in FOLDERS for path in folder.glob("*.toml")}

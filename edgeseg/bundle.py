"""Bundle: the directory that is deployed. Immutable and self-checking.

bundle.json     Spec, target, digests of every file, parent, versions, metrics
model.*         what the backend loads
golden/N.png    frames as they came, golden/N.mask.png this bundle's class maps of them when it was compiled
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from edgeseg.errors import BundleError, FileError
from edgeseg.files import sha256
from edgeseg.images import Image, read_image, read_mask
from edgeseg.mask import UPSAMPLES
from edgeseg.precision import Precision
from edgeseg.recipe import PTQ
from edgeseg.records import check_schema, convert
from edgeseg.results.common import BundleIdentity, Parent, Parity
from edgeseg.results.evaluation import Metrics
from edgeseg.spec import Spec

SCHEMA = 1
MANIFEST = "bundle.json"
MAX_MANIFEST = 4 << 20
GOLDEN = "golden"
COPY_AGAIN = "Copy or compile the bundle again."


@dataclass(frozen=True)
class FileEntry:
    sha256: str
    bytes: int


@dataclass(frozen=True)
class GraphNotes:
    """What was done to the parent's graph: BatchNormalization nodes before and after, and remarks."""

    batchnorm_before: int
    batchnorm_after: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CalibrationDigest:
    frames: int
    digest: str


@dataclass(frozen=True)
class StoredMetrics(Metrics):
    """Accuracy measured when the bundle was compiled; `data` is the dataset's folder name."""

    data: str = ""
    split: str = ""
    frames: int = 0


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of bundle.json.

    `upsample`: the bilinear upsampling left to the head (mask.UPSAMPLES). `kept`: names of the layers excluded from
    INT8. `ptq`: how INT8 was found; None where the model came quantized. `any_cpu`: its INT8 weights saturate on no x86
    CPU, with VNNI or without. `proved_by`: the backend that verified it,
    BACKEND or BACKEND:DEVICE. `files`: every file of the bundle but this one. `recipe`, `control`, `autotune`: what
    the bundle came from, where one of them did, as plain values for people to read.
    """

    name: str
    spec: Spec
    target: str
    backend: str
    precision: Precision
    upsample: str
    files: dict[str, FileEntry]
    schema: int = SCHEMA
    parent: Parent | None = None
    graph: GraphNotes | None = None
    calibration: CalibrationDigest | None = None
    kept: tuple[str, ...] = ()
    ptq: PTQ | None = None
    any_cpu: bool = False
    proved_by: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    parity: Parity | None = None
    metrics: StoredMetrics | None = None
    recipe: dict[str, Any] | None = None
    control: dict[str, Any] | None = None
    autotune: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values without unknown ones."""
        return {key: value for key, value in msgspec.to_builtins(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: object, name: object) -> Manifest:
        """OptionError for a newer schema or an unusable Spec, BundleError for anything that is not a manifest."""
        if not isinstance(data, dict):
            raise BundleError(f"{name} is not a manifest.", COPY_AGAIN)
        try:
            check_schema(data, SCHEMA, name)
            Spec.from_dict(data.get("spec", {}))  # these two errors are clearer than a type error
            Precision.parse(data.get("precision", ""))
            manifest = convert(data, cls, f"{name} cannot be read", "")
        except FileError as error:
            raise BundleError(error.what, COPY_AGAIN) from None
        if manifest.upsample not in UPSAMPLES:
            raise BundleError(f"{name}: unknown upsample {manifest.upsample!r}.", f"Known: {', '.join(UPSAMPLES)}.")
        return manifest


@dataclass(frozen=True)
class Bundle:
    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def spec(self) -> Spec:
        return self.manifest.spec

    @property
    def target(self) -> str:
        return self.manifest.target

    @property
    def backend(self) -> str:
        return self.manifest.backend

    @property
    def precision(self) -> Precision:
        return self.manifest.precision

    @property
    def upsample(self) -> str:
        return self.manifest.upsample

    @property
    def digest(self) -> str:
        """sha256 of bundle.json, which holds the digests of everything else."""
        return sha256(self.path / MANIFEST)

    @property
    def size(self) -> int:
        """Bytes of the model files, golden frames not counted."""
        return sum(entry.bytes for name, entry in self.manifest.files.items() if not name.startswith(GOLDEN))

    @property
    def identity(self) -> BundleIdentity:
        """The bundle in the results that were measured on it."""
        m = self.manifest
        return BundleIdentity(m.name, m.target, m.precision.value, self.digest, self.size, m.parent, m.parity)

    @classmethod
    def load(cls, path: Path, check: bool = True) -> Bundle:
        """Read a bundle; BundleError when it is not one or (`check`) a file's digest differs from the manifest.

        Raises OptionError where its Spec is not usable, or its schema is newer than this edgeseg.
        """
        if not path.is_dir():
            raise BundleError(f"Bundle {path} is not a folder.", "Give the folder that holds bundle.json.")
        if not (path / MANIFEST).is_file():
            raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}.", "Make one: edgeseg compile MODEL.onnx")
        if (path / MANIFEST).stat().st_size > MAX_MANIFEST:
            raise BundleError(
                f"{path / MANIFEST} is over {MAX_MANIFEST >> 20} MiB.",
                f"Expected a bundle's manifest. {COPY_AGAIN}",
            )
        try:
            data = json.loads((path / MANIFEST).read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(
                f"{path / MANIFEST} cannot be read: {type(error).__name__} {error}.",
                COPY_AGAIN,
            ) from error
        bundle = cls(path, Manifest.from_dict(data, path / MANIFEST))
        for name, entry in bundle.manifest.files.items():
            bundle._check(name, entry.sha256 if check else None)
        return bundle

    def _check(self, name: str, digest: str | None) -> None:
        inside = PurePosixPath(name)
        try:
            there = (self.path / name).is_file()
            escapes = (self.path / name).resolve() != self.path.resolve() / name  # through a link, to a folder too
        except (OSError, ValueError, RuntimeError):
            there, escapes = False, False  # a name that no file can have
        if inside.is_absolute() or ".." in inside.parts or escapes:
            raise BundleError(f"Bundle {self.path} names a file outside itself: {name}.", "Do not use this bundle.")
        if not there:
            raise BundleError(f"Bundle {self.path} lacks {name[:200]}.", COPY_AGAIN)
        if digest is not None and sha256(self.path / name) != digest:
            raise BundleError(
                f"Bundle {self.path}: {name} differs from its digest.",
                f"The file was altered or damaged. {COPY_AGAIN}",
            )

    def file(self, name: str) -> Path:
        """One of the bundle's own files; BundleError for a file whose digest the manifest does not hold."""
        if name not in self.manifest.files:
            raise BundleError(f"Bundle {self.path} has no digest of {name}.", COPY_AGAIN)
        return self.path / name

    def golden(self) -> Iterator[tuple[Image, Image]]:
        """(frame, expected class map) pairs."""
        for name in sorted(self.manifest.files):
            if name.startswith(f"{GOLDEN}/") and name.endswith(".mask.png"):
                yield read_image(self.file(name.replace(".mask.png", ".png"))), read_mask(self.file(name))


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write bundle.json with the digest of every file in `folder`; the manifest with these digests."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    files = {name: FileEntry(sha256(folder / name), (folder / name).stat().st_size) for name in names}
    sealed = replace(manifest, files=files)
    (folder / MANIFEST).write_text(json.dumps(sealed.to_dict(), indent=1) + "\n")
    return sealed

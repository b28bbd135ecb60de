"""Bundle: the directory that is deployed. Immutable and self-checking.

bundle.json     Spec, target, digests of every file, parent, versions, metrics
bundle.sig      a signature of bundle.json, where there is one (see signature.py)
model.sig       a signature for other tools, where there is one (see model_signing.py)
model.*         what the backend loads
golden/N.png    frames as they came, golden/N.mask.png this bundle's class maps of them when it was compiled
reference.json  statistics of the frames that it was made for (monitoring/), where there were enough
bom.cdx.json    what it was made from (bom.py); older bundles have none

It is read once. What was checked is what is loaded, whatever happens to the directory meanwhile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from edgeseg import directory
from edgeseg.directory import Directory, LinkError
from edgeseg.errors import BundleError, FileError
from edgeseg.files import sha256, write_bytes
from edgeseg.images import Image, decode_image, decode_mask
from edgeseg.mask import UPSAMPLES
from edgeseg.precision import Precision
from edgeseg.recipe import PTQ
from edgeseg.records import check_schema, convert, parse_json
from edgeseg.results.common import BundleIdentity, Parent, Parity, ReuseCalibration
from edgeseg.results.evaluation import Metrics
from edgeseg.spec import Spec

SCHEMA = 1
MANIFEST = "bundle.json"
SIGNATURE = "bundle.sig"
MODEL_SIGNATURE = "model.sig"
UNLISTED = (MANIFEST, SIGNATURE, MODEL_SIGNATURE)  # what no manifest lists
MAX_MANIFEST = 4 << 20
MAX_SIGNATURE = 1 << 12
MAX_MODEL_SIGNATURE = 1 << 20  # it lists every file
MAX_BYTES = 4 << 30  # of all files: they are read into memory
MAX_LISTED = 5  # names in one message
GOLDEN = "golden"
REFERENCE = "reference.json"
BOM = "bom.cdx.json"
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
    reuse: ReuseCalibration | None = None
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
    """A bundle in memory, every byte of it checked. `text`: bundle.json as it was read; `signature`: bundle.sig,
    which signature.py checks, None where there is none; `files`: content by name. `path`: where it came from.
    `model_signature`: model.sig, which model_signing.py checks."""

    path: Path
    manifest: Manifest
    text: bytes = field(repr=False)
    signature: bytes | None = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    model_signature: bytes | None = field(default=None, repr=False)

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

    @cached_property
    def digest(self) -> str:
        """sha256 of bundle.json, which holds the digests of everything else."""
        return hashlib.sha256(self.text).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of the model files."""
        return sum(entry.bytes for name, entry in self.manifest.files.items() if is_model_file(name))

    @property
    def identity(self) -> BundleIdentity:
        """The bundle in the results that were measured on it."""
        m = self.manifest
        return BundleIdentity(m.name, m.target, m.precision.value, self.digest, self.size, m.parent, m.parity)

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read a bundle; BundleError when it is not one, when a file's digest differs from the manifest, or when there
        are files that the manifest does not list.

        Raises OptionError where its Spec is not usable, or its schema is newer than this edgeseg.
        """
        if not path.is_dir():
            raise BundleError(f"Bundle {path} is not a folder.", "Give the folder that holds bundle.json.")
        try:
            with directory.opened(path, "Bundle") as folder:
                text = _manifest_text(folder, path)
                manifest = Manifest.from_dict(_json(text, path / MANIFEST), path / MANIFEST)
                files = _read_all(folder, manifest, path)
                _refuse_unlisted(folder, manifest, path)
                own = _signature(folder, SIGNATURE, MAX_SIGNATURE)
                return cls(path, manifest, text, own, files, _signature(folder, MODEL_SIGNATURE, MAX_MODEL_SIGNATURE))
        except OSError as error:
            raise BundleError(f"Bundle {path} cannot be read: {error.strerror or error}.", COPY_AGAIN) from error

    def read(self, name: str) -> bytes:
        """The content of one of the bundle's own files; BundleError for one whose digest the manifest does not hold."""
        if name not in self.files:
            raise BundleError(f"Bundle {self.path} has no digest of {name}.", COPY_AGAIN)
        return self.files[name]

    def golden(self) -> Iterator[tuple[Image, Image]]:
        """(frame, expected class map) pairs; BundleError for a class map that is not of the Spec's size."""
        size = (self.spec.height, self.spec.width)
        for name in sorted(self.files):
            if name.startswith(f"{GOLDEN}/") and name.endswith(".mask.png"):
                frame = name.replace(".mask.png", ".png")
                image = decode_image(self.read(frame), self.path / frame)
                mask = decode_mask(self.read(name), self.path / name)
                if mask.shape != size:
                    raise BundleError(
                        f"Bundle {self.path}: {name} is {mask.shape[1]}x{mask.shape[0]}, not {size[1]}x{size[0]}.",
                        COPY_AGAIN,
                    )
                yield image, mask


def is_model_file(name: str) -> bool:
    """Whether the file of that name belongs to the model: not a golden frame, the reference statistics or the bill."""
    return not name.startswith((GOLDEN, REFERENCE, BOM))


def _manifest_text(folder: Directory, path: Path) -> bytes:
    try:
        text = folder.read(MANIFEST, MAX_MANIFEST + 1)
    except FileNotFoundError:
        raise BundleError(
            f"{path} is not a bundle: it has no {MANIFEST}.", "Make one: edgeseg compile MODEL.onnx"
        ) from None
    if len(text) > MAX_MANIFEST:
        raise BundleError(
            f"{path / MANIFEST} is over {MAX_MANIFEST >> 20} MiB.", f"Expected a bundle's manifest. {COPY_AGAIN}"
        )
    return text


def _json(text: bytes, name: Path) -> object:
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} cannot be read: {type(error).__name__} {error}.", COPY_AGAIN) from error


def _signature(folder: Directory, name: str, most: int) -> bytes | None:
    try:
        return folder.read(name, most)
    except FileNotFoundError:
        return None


def _refuse_unlisted(folder: Directory, manifest: Manifest, path: Path) -> None:
    unlisted = sorted(name for name in folder.names() if name not in {*manifest.files, *UNLISTED})
    if unlisted:
        more = f" and {len(unlisted) - MAX_LISTED} more" if len(unlisted) > MAX_LISTED else ""
        raise BundleError(
            f"Bundle {path} holds files that its manifest does not list: {', '.join(unlisted[:MAX_LISTED])}{more}.",
            "Remove them if you know where they come from; engines are kept in a cache outside of it. Else copy the "
            "bundle again.",
        )


def _read_all(folder: Directory, manifest: Manifest, path: Path) -> dict[str, bytes]:
    total = sum(entry.bytes for entry in manifest.files.values())
    if total > MAX_BYTES:
        raise BundleError(f"Bundle {path} holds {total} bytes.", f"At most {MAX_BYTES >> 30} GiB can be loaded.")
    return {name: _read(folder, name, entry, path) for name, entry in manifest.files.items()}


def _read(folder: Directory, name: str, entry: FileEntry, path: Path) -> bytes:
    try:
        data = folder.read(name, max(0, entry.bytes) + 1)
    except LinkError:
        raise BundleError(
            f"Bundle {path} names a file outside itself: {name[:200]}.", "Do not use this bundle."
        ) from None
    except (OSError, ValueError):  # missing, no file, or a name that no file can have
        raise BundleError(f"Bundle {path} lacks {name[:200]}.", COPY_AGAIN) from None
    if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(
            f"Bundle {path}: {name} differs from its digest.", f"The file was altered or damaged. {COPY_AGAIN}"
        )
    return data


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write bundle.json with the digest of every file in `folder`; the manifest with these digests."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names = [name for name in names if name not in UNLISTED]
    files = {name: FileEntry(sha256(folder / name), (folder / name).stat().st_size) for name in names}
    sealed = replace(manifest, files=files)
    write_bytes(folder / MANIFEST, (json.dumps(sealed.to_dict(), indent=1) + "\n").encode())
    return sealed

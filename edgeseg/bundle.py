"""Bundle: the directory that is deployed. Immutable and self-checking.

bundle.json     Spec, target, digests of every file, parent, versions, metrics
model.*         what the backend loads
golden/N.png    frames as they came, golden/N.mask.png the class maps this bundle gave for them when it was made
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgeseg.errors import BundleError, EdgesegError
from edgeseg.files import sha256
from edgeseg.images import Image, read_image, read_mask
from edgeseg.mask import UPSAMPLES
from edgeseg.precision import Precision
from edgeseg.spec import Spec

FORMAT = 1
MANIFEST = "bundle.json"
MAX_MANIFEST = 4 << 20
GOLDEN = "golden"


@dataclass(frozen=True)
class Bundle:
    path: Path
    spec: Spec
    target: str
    backend: str
    precision: Precision
    upsample: str
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest.get("name", self.path.name))

    @property
    def digest(self) -> str:
        """sha256 of bundle.json, which holds the digests of everything else."""
        return sha256(self.path / MANIFEST)

    @property
    def size(self) -> int:
        """Bytes of the model files, golden frames not counted."""
        files: dict[str, dict[str, Any]] = self.manifest["files"]
        return sum(int(entry["bytes"]) for name, entry in files.items() if not name.startswith(GOLDEN))

    @classmethod
    def load(cls, path: Path, check: bool = True) -> Bundle:
        """Read a bundle; BundleError when it is not one or (`check`) a file's digest differs from the manifest.

        Raises OptionError where its Spec is not usable.
        """
        if not path.is_dir():
            raise BundleError(f"Bundle {path} is not a folder.", "Give the folder that holds bundle.json.")
        if not (path / MANIFEST).is_file():
            raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}.", "Make one: edgeseg compile MODEL.onnx")
        if (path / MANIFEST).stat().st_size > MAX_MANIFEST:
            raise BundleError(
                f"{path / MANIFEST} is over {MAX_MANIFEST >> 20} MiB.", "This is not a bundle's manifest."
            )
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            if manifest["format"] != FORMAT:
                raise BundleError(
                    f"Bundle {path} has format {manifest['format']}.",
                    f"This edgeseg reads format {FORMAT}; compile again.",
                )
            spec = Spec.from_dict(manifest["spec"])
            target, backend, upsample = (str(manifest[key]) for key in ("target", "backend", "upsample"))
            precision = Precision.parse(manifest["precision"])
            if upsample not in UPSAMPLES:
                raise ValueError(f"upsample {upsample!r}")
            files = {name: str(entry["sha256"]) for name, entry in manifest["files"].items()}
            if not all(type(entry["bytes"]) is int for entry in manifest["files"].values()):
                raise ValueError("bytes of a file that are no number")
        except EdgesegError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(
                f"{path / MANIFEST} cannot be read: {type(error).__name__} {error}.",
                "Copy or compile the bundle again.",
            ) from error
        bundle = cls(path, spec, target, backend, precision, upsample, manifest)
        for name, digest in files.items():
            bundle._check(name, digest if check else None)
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
            raise BundleError(f"Bundle {self.path} lacks {name[:200]}.", "Copy or compile the bundle again.")
        if digest is not None and sha256(self.path / name) != digest:
            raise BundleError(
                f"Bundle {self.path}: {name} differs from its digest.",
                "The file was altered or damaged. Copy or compile the bundle again.",
            )

    def file(self, name: str) -> Path:
        """One of the bundle's own files; BundleError for a file whose digest the manifest does not hold."""
        if name not in self.manifest["files"]:
            raise BundleError(f"Bundle {self.path} has no digest of {name}.", "Copy or compile the bundle again.")
        return self.path / name

    def golden(self) -> Iterator[tuple[Image, Image]]:
        """(frame, expected class map) pairs."""
        for name in sorted(self.manifest["files"]):
            if name.startswith(f"{GOLDEN}/") and name.endswith(".mask.png"):
                yield read_image(self.file(name.replace(".mask.png", ".png"))), read_mask(self.file(name))


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write bundle.json with the digest of every file in `folder`."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    files = {name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in names}
    text = json.dumps({"format": FORMAT, **manifest, "files": files}, indent=1)
    (folder / MANIFEST).write_text(text + "\n")

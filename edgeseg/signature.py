"""Signed bundles: an Ed25519 signature (RFC 8032) over bundle.json, which holds the digests of everything else.

bundle.sig lies beside bundle.json: 128 hexadecimal digits and a newline. A second line, `VERSION NAME`, binds the
signature to them: it then covers that line, too, so that an old bundle, or one of another camera, cannot take the place
of the one that is expected. Keys are PEM files; a private one is written for its owner alone and never shown.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.bundle import MANIFEST, SIGNATURE, Bundle
from edgeseg.errors import BundleError, FileError, MissingPackage, OptionError
from edgeseg.files import require_file, write_bytes

PUBLIC_SUFFIX = ".pub.pem"
MAX_KEY = 1 << 16
CONTENT = re.compile(rb"([0-9a-f]{128})\n?(?:([0-9]{1,18}) ([^\n]{1,400})\n?)?")
BOUND = b"edgeseg bundle signature, version and name:\n"  # no bundle.json starts like this


@dataclass(frozen=True)
class Required:
    """What the signature of a bundle must be: of the owner of public `key` and, where given, bound to the name `name`
    and to a version of `min_version` or more."""

    key: Path
    name: str = ""
    min_version: int | None = None


def new_key(path: Path) -> Path:
    """Write a new private key (mode 0600) and, beside it, its public key; returns the path of the public one.

    FileError where either file exists: a key is never replaced.
    """
    return save_key(path, _ed25519().Ed25519PrivateKey.generate())


def save_key(path: Path, private: Any) -> Path:
    """Write the two files of a key pair: see new_key."""
    keys = _ed25519()
    public = path.with_suffix(PUBLIC_SUFFIX)
    for existing in (path, public):
        if existing.exists():
            raise FileError(f"{existing} exists.", "Choose another name; a key that is lost cannot be made again.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise FileError(f"Cannot write {path}: {error.strerror}.", "Choose a folder you may write.") from error
    with os.fdopen(handle, "wb") as file:
        file.write(private.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.PKCS8, keys.NoEncryption()))
    write_bytes(public, private.public_key().public_bytes(*public_format()))
    return public


def public_format() -> tuple[Any, Any]:
    """How public keys are written: PEM, SubjectPublicKeyInfo."""
    keys = _ed25519()
    return keys.Encoding.PEM, keys.PublicFormat.SubjectPublicKeyInfo


def sign(path: Path, key: Path, name: str = "", version: int | None = None) -> Path:
    """Write bundle.sig after checking every digest; BundleError for a bundle that is not whole.

    `version` binds the signature to that version of `name` (by default the bundle's own).
    """
    private = _load(key, "private")
    bundle = Bundle.load(path)
    bound = b""
    if version is not None:
        bound = f"{version} {name or bundle.name}".encode(errors="replace")
        if not CONTENT.fullmatch(b"0" * 128 + b"\n" + bound):
            raise OptionError(f"Name {name[:80]!r} or version {version} cannot be used.", "Expected a line, and 0 up.")
    elif name:
        raise OptionError("A name without a version.", "Give both: --name NAME --version N.")
    lines = [private.sign(_signed(bundle, bound)).hex().encode(), *([bound] if bound else [])]
    write_bytes(path / SIGNATURE, b"\n".join(lines) + b"\n")
    return path / SIGNATURE


def require(bundle: Bundle, required: Required) -> None:
    """Pass where `bundle`, as it was read, has the signature that is required; BundleError otherwise."""
    public = _load(required.key, "public")
    where = f"Bundle {bundle.path}"
    if bundle.signature is None:
        raise BundleError(f"{where} is not signed.", f"Sign it: edgeseg sign {bundle.path} --key private.pem")
    content = CONTENT.fullmatch(bundle.signature)
    if not content:
        raise BundleError(
            f"{bundle.path / SIGNATURE} is not a signature.", "It was altered or damaged; sign the bundle again."
        )
    line = bundle.signature.split(b"\n")[1] if content[2] else b""
    try:
        public.verify(bytes.fromhex(content[1].decode()), _signed(bundle, line))
    except _ed25519().InvalidSignature:
        raise BundleError(
            f"{where} is not signed with this key ({required.key}), or its {MANIFEST} was altered after signing.",
            "Do not use it, unless you know of another key.",
        ) from None
    _require_binding(where, content, required)


def _signed(bundle: Bundle, line: bytes) -> bytes:
    """What a signature covers: bundle.json, and the line that it is bound to."""
    return BOUND + line + b"\n" + bundle.text if line else bundle.text


def _require_binding(where: str, content: re.Match[bytes], required: Required) -> None:
    if not required.name and required.min_version is None:
        return
    if not content[2]:
        raise BundleError(
            f"The signature of {where} is not bound to a name and a version.", "Sign it with --name and --version."
        )
    name, version = content[3].decode(errors="replace"), int(content[2])
    if required.name and name != required.name:
        raise BundleError(f"{where} was signed as {name!r}.", f"Expected {required.name!r}: it is another bundle.")
    if required.min_version is not None and version < required.min_version:
        raise BundleError(
            f"{where} was signed as version {version}.", f"Expected {required.min_version} or newer: it is out of date."
        )


def _load(path: Path, kind: str) -> Any:
    keys = _ed25519()
    return load_key(path, kind, keys.Ed25519PrivateKey if kind == "private" else keys.Ed25519PublicKey, "Ed25519")


def load_key(path: Path, kind: str, expected: Any, algorithm: str) -> Any:
    """The "private" or "public" key in a PEM file, a type of `cryptography`; FileError for anything else."""
    keys = _ed25519()
    if require_file(path, f"The {kind} key").stat().st_size > MAX_KEY:
        raise FileError(f"The {kind} key {path} is over {MAX_KEY >> 10} KiB.", "Expected a PEM file of edgeseg keygen.")
    data = path.read_bytes()
    try:
        key = keys.load_private(data, None) if kind == "private" else keys.load_public(data)
    except (ValueError, TypeError, keys.UnsupportedAlgorithm):
        key = None  # not a word of the file is repeated: it may be a private key given where a public one belongs
    if not isinstance(key, expected):
        raise FileError(
            f"{path} holds no {kind} {algorithm} key.", "Expected a PEM file of edgeseg keygen (without a password)."
        )
    return key


def _ed25519() -> Any:
    """The parts of `cryptography` that are used here, under one name."""
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingPackage("cryptography", "Signing and checking signatures", "sign") from error
    from types import SimpleNamespace

    return SimpleNamespace(
        Ed25519PrivateKey=ed25519.Ed25519PrivateKey,
        Ed25519PublicKey=ed25519.Ed25519PublicKey,
        InvalidSignature=exceptions.InvalidSignature,
        UnsupportedAlgorithm=exceptions.UnsupportedAlgorithm,
        Encoding=serialization.Encoding,
        PrivateFormat=serialization.PrivateFormat,
        PublicFormat=serialization.PublicFormat,
        NoEncryption=serialization.NoEncryption,
        load_private=serialization.load_pem_private_key,
        load_public=serialization.load_pem_public_key,
    )

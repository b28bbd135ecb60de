"""Signed bundles: an Ed25519 signature (RFC 8032) over bundle.json, which holds the digests of everything else.

bundle.sig lies beside bundle.json: 128 hexadecimal digits and a newline. Keys are PEM files; a private one is written
for its owner alone and never shown.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from edgeseg.bundle import MANIFEST, Bundle
from edgeseg.errors import BundleError, FileError, MissingPackage
from edgeseg.files import require_file, write_bytes

FILE = "bundle.sig"
PUBLIC_SUFFIX = ".pub.pem"
MAX_KEY = 1 << 16


def new_key(path: Path) -> Path:
    """Write a new private key (mode 0600) and, beside it, its public key; returns the path of the public one.

    FileError where either file exists: a key is never replaced.
    """
    keys = _ed25519()
    public = path.with_suffix(PUBLIC_SUFFIX)
    for existing in (path, public):
        if existing.exists():
            raise FileError(f"{existing} exists.", "Choose another name; a key that is lost cannot be made again.")
    private = keys.Ed25519PrivateKey.generate()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise FileError(f"Cannot write {path}: {error.strerror}.", "Choose a folder you may write.") from error
    with os.fdopen(handle, "wb") as file:
        file.write(private.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.PKCS8, keys.NoEncryption()))
    shown = private.public_key().public_bytes(keys.Encoding.PEM, keys.PublicFormat.SubjectPublicKeyInfo)
    write_bytes(public, shown)
    return public


def sign(bundle: Path, key: Path) -> Path:
    """Write bundle.sig after checking every digest; BundleError for a bundle that is not whole."""
    private = _load(key, "private")
    Bundle.load(bundle)
    write_bytes(bundle / FILE, private.sign((bundle / MANIFEST).read_bytes()).hex().encode() + b"\n")
    return bundle / FILE


def require(bundle: Path, key: Path) -> None:
    """Pass where `bundle` is signed by the owner of public `key` and nothing was altered; BundleError otherwise."""
    public = _load(key, "public")
    Bundle.load(bundle)  # checks every digest; the signature covers their list
    if not (bundle / FILE).is_file():
        raise BundleError(f"Bundle {bundle} is not signed.", f"Sign it: edgeseg sign {bundle} --key private.pem")
    text = (bundle / FILE).read_bytes()[:1000].strip()
    if not re.fullmatch(rb"[0-9a-f]{128}", text):
        raise BundleError(f"{bundle / FILE} is not a signature.", "It was altered or damaged; sign the bundle again.")
    try:
        public.verify(bytes.fromhex(text.decode()), (bundle / MANIFEST).read_bytes())
    except _ed25519().InvalidSignature:
        raise BundleError(
            f"Bundle {bundle} is not signed with this key ({key}), or its {MANIFEST} was altered after signing.",
            "Do not use it, unless you know of another key.",
        ) from None


def _load(path: Path, kind: str) -> Any:
    keys = _ed25519()
    if require_file(path, f"The {kind} key").stat().st_size > MAX_KEY:
        raise FileError(f"The {kind} key {path} is over {MAX_KEY >> 10} KiB.", "Expected a PEM file of edgeseg keygen.")
    data = path.read_bytes()
    expected = keys.Ed25519PrivateKey if kind == "private" else keys.Ed25519PublicKey
    try:
        key = keys.load_private(data, None) if kind == "private" else keys.load_public(data)
    except (ValueError, TypeError, keys.UnsupportedAlgorithm):
        key = None  # not a word of the file is repeated: it may be a private key given where a public one belongs
    if not isinstance(key, expected):
        raise FileError(
            f"{path} holds no {kind} Ed25519 key.", "Expected a PEM file of edgeseg keygen (without a password)."
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

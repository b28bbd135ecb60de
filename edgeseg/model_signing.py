"""Open Model Signing (OpenSSF, v1.0): model.sig, which tools of others verify, beside edgeseg's own bundle.sig.

A Sigstore bundle that holds a DSSE envelope around an in-toto statement, which lists the sha256 of every file of the
bundle; signed with ECDSA and the SHA-2 hash of the curve's size. The format has no Ed25519, so it needs a key of its
own, on P-256, P-384 or P-521. Neither signature covers the other: both can be made and renewed in any order.
https://github.com/ossf/model-signing-spec, https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgeseg import signature
from edgeseg.bundle import MANIFEST, MODEL_SIGNATURE, SIGNATURE, Bundle
from edgeseg.errors import BundleError, FileError, MissingPackage
from edgeseg.files import write_bytes
from edgeseg.records import parse_json

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}  # by curve


def new_key(path: Path) -> Path:
    """Write a new private key on P-256 (mode 0600) and, beside it, its public key; returns the path of the public one.

    FileError where either file exists: a key is never replaced.
    """
    parts = _cryptography()
    return signature.save_key(path, parts.ec.generate_private_key(parts.ec.SECP256R1()))


def sign(path: Path, key: Path) -> Path:
    """Write model.sig after checking every digest; BundleError for a bundle that is not whole, FileError for a key
    that the format does not have."""
    parts = _cryptography()
    private = signature.load_key(key, "private", parts.ec.EllipticCurvePrivateKey, "elliptic-curve")
    algorithm = _algorithm(private, key)
    bundle = Bundle.load(path)
    payload = json.dumps(_statement(bundle), indent=1).encode()
    signed = {"sig": _base64(private.sign(_encoded(payload), algorithm)), "keyid": ""}
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": _hint(private.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {"payload": _base64(payload), "payloadType": PAYLOAD_TYPE, "signatures": [signed]},
    }
    write_bytes(path / MODEL_SIGNATURE, (json.dumps(document) + "\n").encode())
    return path / MODEL_SIGNATURE


def require(bundle: Bundle, key: Path) -> None:
    """Pass where the model.sig of `bundle`, as it was read, is of the owner of the public `key` and lists its very
    files; BundleError otherwise."""
    parts = _cryptography()
    public = signature.load_key(key, "public", parts.ec.EllipticCurvePublicKey, "elliptic-curve")
    algorithm = _algorithm(public, key)
    if bundle.model_signature is None:
        raise BundleError(
            f"Bundle {bundle.path} has no {MODEL_SIGNATURE}.", f"Sign it: edgeseg sign {bundle.path} --oms-key ec.pem"
        )
    try:
        payload, signed = _envelope(bundle.model_signature)
        public.verify(signed, _encoded(payload), algorithm)
        listed = _listed(parse_json(payload))
    except parts.InvalidSignature:
        raise BundleError(
            f"{bundle.path / MODEL_SIGNATURE} is not signed with this key ({key}), or was altered after signing.",
            "Do not use the bundle, unless you know of another key.",
        ) from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{bundle.path / MODEL_SIGNATURE} is not an Open Model Signing signature: {type(error).__name__} {error}.",
            "It was altered or damaged; sign the bundle again.",
        ) from None
    if listed != _digests(bundle):
        raise BundleError(
            f"{bundle.path / MODEL_SIGNATURE} is the signature of other files.", "The bundle was altered after signing."
        )


def _statement(bundle: Bundle) -> dict[str, Any]:
    digests = _digests(bundle)
    total = hashlib.sha256(b"".join(map(bytes.fromhex, digests.values()))).hexdigest()
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [SIGNATURE, MODEL_SIGNATURE],
    }
    resources = [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in digests.items()]
    return {
        "_type": STATEMENT,
        "subject": [{"name": bundle.name, "digest": {"sha256": total}}],
        "predicateType": PREDICATE,
        "predicate": {"serialization": serialization, "resources": resources},
    }


def _digests(bundle: Bundle) -> dict[str, str]:
    """sha256 of every file but the signatures, by name."""
    digests = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    return dict(sorted({**digests, MANIFEST: bundle.digest}.items()))


def _envelope(text: bytes) -> tuple[bytes, bytes]:
    """The payload and its signature; ValueError, KeyError or TypeError for anything else."""
    document = parse_json(text)
    envelope = document["dsseEnvelope"]
    if document["mediaType"] != MEDIA_TYPE or envelope["payloadType"] != PAYLOAD_TYPE:
        raise ValueError("another type of file")
    (signed,) = envelope["signatures"]
    return base64.b64decode(envelope["payload"], validate=True), base64.b64decode(signed["sig"], validate=True)


def _listed(statement: Mapping[str, Any]) -> dict[str, str]:
    """The digests in a statement, by name."""
    if (statement["_type"], statement["predicateType"]) != (STATEMENT, PREDICATE):
        raise ValueError("another type of statement")
    resources = statement["predicate"]["resources"]
    if any(row["algorithm"] != "sha256" for row in resources):
        raise ValueError("digests other than sha256")
    listed = {row["name"]: row["digest"] for row in resources}
    if len(listed) != len(resources):
        raise ValueError("a file that is listed twice")
    return listed


def _encoded(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _algorithm(key: Any, path: Path) -> Any:
    """ECDSA with the hash of the key's curve; FileError for a curve that the format does not have."""
    parts, curve = _cryptography(), key.curve.name
    if curve not in HASHES:
        raise FileError(
            f"{path} holds a key on the curve {curve}.", "Expected P-256, P-384 or P-521: edgeseg keygen --oms."
        )
    return parts.ec.ECDSA(getattr(parts.hashes, HASHES[curve])())


def _hint(public: Any) -> str:
    """The name of a public key in the file: sha256 of its PEM text."""
    encoding, style = signature.public_format()
    return hashlib.sha256(public.public_bytes(encoding, style)).hexdigest()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _cryptography() -> Any:
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise MissingPackage("cryptography", "Signing and checking signatures", "sign") from error
    return SimpleNamespace(ec=ec, hashes=hashes, InvalidSignature=exceptions.InvalidSignature)

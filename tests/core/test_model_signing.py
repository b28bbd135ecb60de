"""Open Model Signing: the package `model-signing` accepts what we sign, and both refuse what was altered."""

from __future__ import annotations

import base64
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg import model_signing, signature
from edgeseg.bundle import MANIFEST, MODEL_SIGNATURE, SIGNATURE, Bundle
from edgeseg.errors import BundleError, FileError, MissingPackage
from edgeseg.files import sha256

pytest.importorskip("cryptography")
Edgeseg = Callable[..., Any]
Keys = tuple[Path, Path]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """(private, public) on P-256"""
    private = tmp_path_factory.mktemp("oms") / "maker.pem"
    return private, model_signing.new_key(private)


@pytest.fixture
def signed(bundle: Path, keys: Keys, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(bundle, tmp_path / "signed"))
    model_signing.sign(copy, keys[0])
    return copy


def require(path: Path, key: Path) -> None:
    model_signing.require(Bundle.load(path), key)


def reference(path: Path, key: Path) -> None:
    """The verdict of the package `model-signing`, the reference implementation; ValueError or InvalidSignature."""
    verifying = pytest.importorskip("model_signing.verifying", reason="needs the package model-signing")
    verifying.Config().use_elliptic_key_verifier(public_key=key).verify(path, path / MODEL_SIGNATURE)


def swap_weights(path: Path) -> None:
    """An attack: other weights, and a manifest with their digests."""
    weights = bytearray((path / "model.bin").read_bytes())
    weights[10] ^= 1
    (path / "model.bin").write_bytes(weights)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"]["model.bin"]["sha256"] = sha256(path / "model.bin")
    (path / MANIFEST).write_text(json.dumps(manifest))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the document of model.sig."""
    document = json.loads((path / MODEL_SIGNATURE).read_text())
    change(document)
    (path / MODEL_SIGNATURE).write_text(json.dumps(document))


def restate(path: Path) -> None:
    """An attack: the statement of the altered files under the old signature."""

    def change(document: dict[str, Any]) -> None:
        envelope = document["dsseEnvelope"]
        statement = json.loads(base64.b64decode(envelope["payload"]))
        for row in statement["predicate"]["resources"]:
            row["digest"] = sha256(path / row["name"])
        envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    swap_weights(path)
    edit(path, change)


def test_the_key_is_on_p256_and_of_its_owner_alone(keys: Keys) -> None:
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert "PRIVATE" in private.read_text() and "PRIVATE" not in public.read_text()
    with pytest.raises(FileError, match=r"maker\.pem exists"):
        model_signing.new_key(private)


def test_both_accept_it(signed: Path, keys: Keys) -> None:
    require(signed, keys[1])
    reference(signed, keys[1])


def test_the_two_signatures_do_not_depend_on_each_other(signed: Path, keys: Keys, tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    public = signature.new_key(own)
    for version in (1, 2):
        signature.sign(signed, own, "gate", version)
        require(signed, keys[1])
        reference(signed, keys[1])
    model_signing.sign(signed, keys[0])
    signature.require(Bundle.load(signed), signature.Required(public, "gate", 2))
    digests = json.loads((signed / MANIFEST).read_text())["files"]
    assert not {SIGNATURE, MODEL_SIGNATURE} & set(digests)


@pytest.mark.parametrize("curve", ["SECP384R1", "SECP521R1"])
def test_larger_curves(curve: str, signed: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    public = signature.save_key(tmp_path / "k.pem", ec.generate_private_key(getattr(ec, curve)()))
    model_signing.sign(signed, tmp_path / "k.pem")
    require(signed, public)
    reference(signed, public)


def test_it_verifies_what_the_package_signed(bundle: Path, keys: Keys, tmp_path: Path) -> None:
    signing = pytest.importorskip("model_signing.signing", reason="needs the package model-signing")
    hashing = pytest.importorskip("model_signing.hashing")
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    ignored = hashing.Config().set_ignored_paths(paths=[copy / SIGNATURE, copy / MODEL_SIGNATURE])
    config = signing.Config().use_elliptic_key_signer(private_key=keys[0]).set_hashing_config(ignored)
    config.sign(copy, copy / MODEL_SIGNATURE)
    require(copy, keys[1])
    swap_weights(copy)
    with pytest.raises(BundleError, match="is the signature of other files"):
        require(copy, keys[1])


ATTACKS = [
    (swap_weights, "is the signature of other files"),
    (restate, "is not signed with this key"),
    (lambda p: (p / "model.bin").write_bytes(b"0"), "differs from its digest"),
    (lambda p: (p / "more.txt").write_text("x"), "does not list: more.txt"),
    (lambda p: (p / "golden" / "0.png").unlink(), "lacks golden/0.png"),
    (lambda p: edit(p, lambda d: d["dsseEnvelope"]["signatures"][0].update(sig="AAAA")), "is not signed with this key"),
]


@pytest.mark.parametrize(("attack", "message"), ATTACKS)
def test_both_refuse_what_was_altered(attack: Callable[[Path], Any], message: str, signed: Path, keys: Keys) -> None:
    attack(signed)
    with pytest.raises(BundleError, match=message):
        require(signed, keys[1])
    from cryptography.exceptions import InvalidSignature

    with pytest.raises((ValueError, InvalidSignature)):
        reference(signed, keys[1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / MODEL_SIGNATURE).unlink(), r"has no model\.sig"),
        (lambda p: (p / MODEL_SIGNATURE).write_bytes(b""), "is not an Open Model Signing signature"),
        (lambda p: (p / MODEL_SIGNATURE).write_text("[1]"), "is not an Open Model Signing signature"),
        (lambda p: edit(p, lambda d: d.update(mediaType="x")), "another type of file"),
        (lambda p: edit(p, lambda d: d["dsseEnvelope"].update(payloadType="x")), "another type of file"),
        (lambda p: edit(p, lambda d: d["dsseEnvelope"].update(payload="*")), "is not an Open Model Signing signature"),
        (
            lambda p: edit(p, lambda d: d["dsseEnvelope"].update(signatures=[])),
            "is not an Open Model Signing signature",
        ),
        (lambda p: edit(p, lambda d: d["dsseEnvelope"].pop("payload")), "is not an Open Model Signing signature"),
    ],
)
def test_a_damaged_signature(damage: Callable[[Path], Any], message: str, signed: Path, keys: Keys) -> None:
    damage(signed)
    with pytest.raises(BundleError, match=message):
        require(signed, keys[1])


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)):
        model_signing._envelope(data)


def test_the_wrong_key(signed: Path, tmp_path: Path) -> None:
    other = model_signing.new_key(tmp_path / "other.pem")
    with pytest.raises(BundleError, match="is not signed with this key"):
        require(signed, other)
    with pytest.raises(ValueError, match="Key mismatch"):
        reference(signed, other)


def test_keys_that_the_format_does_not_have(signed: Path, keys: Keys, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    ours = signature.new_key(tmp_path / "ours.pem")
    with pytest.raises(FileError, match="holds no private elliptic-curve key"):
        model_signing.sign(signed, tmp_path / "ours.pem")
    with pytest.raises(FileError, match="holds no public elliptic-curve key"):
        require(signed, ours)
    with pytest.raises(FileError, match="holds no private elliptic-curve key"):
        model_signing.sign(signed, keys[1])
    koblitz = signature.save_key(tmp_path / "k1.pem", ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(FileError, match=r"on the curve secp256k1\.\nExpected P-256, P-384 or P-521"):
        model_signing.sign(signed, tmp_path / "k1.pem")
    with pytest.raises(FileError, match="on the curve secp256k1"):
        require(signed, koblitz)


def test_a_broken_bundle_is_not_signed(bundle: Path, keys: Keys, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "model.bin").write_bytes(b"0")
    with pytest.raises(BundleError, match="differs from its digest"):
        model_signing.sign(copy, keys[0])
    assert not (copy / MODEL_SIGNATURE).exists()


def test_without_cryptography(signed: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingPackage, match=r"pip install 'edgeseg\[sign\]'"):
        model_signing.sign(signed, keys[0])


def test_the_verbs(bundle: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    own, oms = tmp_path / "own.pem", tmp_path / "oms.pem"
    assert edgeseg("keygen", own).code == 0 and edgeseg("keygen", oms, "--oms").code == 0
    signed = edgeseg("sign", copy, "--key", own, "--oms-key", oms)
    assert signed.code == 0 and "bundle.sig" in signed.err and "model.sig" in signed.err
    verified = edgeseg("verify", copy, "--key", tmp_path / "own.pub.pem", "--oms-key", tmp_path / "oms.pub.pem")
    assert verified.code == 0 and "signature, Open Model Signing" in verified.out
    refused = edgeseg("verify", copy, "--oms-key", tmp_path / "own.pub.pem")
    assert refused.code == 2 and "holds no public elliptic-curve key" in refused.err
    assert edgeseg("sign", copy).code == 2
    bound = edgeseg("sign", copy, "--oms-key", oms, "--version", "3")
    assert bound.code == 2 and "without --key" in bound.err


def test_a_rollout_carries_it(signed: Path) -> None:
    from edgeseg.fleet.connection import Parcel

    assert Parcel(Bundle.load(signed)).files[MODEL_SIGNATURE] == (signed / MODEL_SIGNATURE).read_bytes()

"""Signed bundles: the right key passes; everything else is rejected with the reason, and no key is ever shown."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeseg import signature
from edgeseg.bundle import MANIFEST, Bundle
from edgeseg.errors import BundleError, EdgesegError, FileError
from edgeseg.files import sha256

pytest.importorskip("cryptography")


def require(path: Path, key: Path, name: str = "", min_version: int | None = None) -> None:
    signature.require(Bundle.load(path), signature.Required(key, name, min_version))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(private, public)"""
    private = tmp_path_factory.mktemp("keys") / "maker.pem"
    return private, signature.new_key(private)


@pytest.fixture
def signed(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(bundle, tmp_path / "signed"))
    signature.sign(copy, keys[0])
    return copy


def test_the_private_key_is_readable_by_its_owner_only(keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert "PRIVATE" in private.read_text() and "PRIVATE" not in public.read_text()
    assert public.name == "maker.pub.pem"


def test_a_key_is_never_replaced(keys: tuple[Path, Path]) -> None:
    before = keys[0].read_bytes()
    with pytest.raises(FileError, match=r"maker\.pem exists"):
        signature.new_key(keys[0])
    assert keys[0].read_bytes() == before


def test_a_signed_bundle_passes_and_still_loads(signed: Path, keys: tuple[Path, Path]) -> None:
    require(signed, keys[1])
    assert Bundle.load(signed).digest == sha256(signed / MANIFEST)
    signature.sign(signed, keys[0])
    require(signed, keys[1])


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def swap_weights(path: Path) -> None:
    """An attack: other weights, and a manifest with their digests."""
    weights = bytearray((path / "model.bin").read_bytes())
    weights[10] ^= 1
    (path / "model.bin").write_bytes(weights)
    digest = sha256(path / "model.bin")
    change(path / MANIFEST, lambda m: m["files"]["model.bin"].update(sha256=digest))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda p: (p / "bundle.sig").unlink(), "is not signed"),
        (lambda p: change(p / MANIFEST, lambda m: m.update(name="other")), "altered after signing"),
        (lambda p: change(p / MANIFEST, lambda m: m["spec"].update(color="BGR")), "altered after signing"),
        (lambda p: (p / "model.bin").write_bytes((p / "model.bin").read_bytes()[:-1]), "model.bin differs from"),
        (swap_weights, "altered after signing"),
        (lambda p: (p / "bundle.sig").write_text("0" * 128), "is not signed with this key"),
        (lambda p: (p / "bundle.sig").write_text("zz"), "is not a signature"),
        (lambda p: (p / "bundle.sig").write_bytes(b""), "is not a signature"),
        (lambda p: (p / "bundle.sig").write_text((p / "bundle.sig").read_text().strip()[:-2]), "is not a signature"),
    ],
)
def test_an_altered_bundle_is_rejected(
    signed: Path, keys: tuple[Path, Path], tamper: Callable[[Path], Any], message: str
) -> None:
    tamper(signed)
    with pytest.raises(BundleError, match=message):
        require(signed, keys[1])


def test_the_wrong_key_is_rejected(signed: Path, tmp_path: Path) -> None:
    other = signature.new_key(tmp_path / "other.pem")
    with pytest.raises(BundleError, match="is not signed with this key"):
        require(signed, other)


def test_a_broken_bundle_is_not_signed(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "model.bin").write_bytes(b"0")
    with pytest.raises(BundleError, match="differs from its digest"):
        signature.sign(copy, keys[0])
    assert not (copy / "bundle.sig").exists()


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN PRIVATE KEY-----\nTOPSECRET\n-----END PRIVATE KEY-----\n"])
def test_an_invalid_key_is_rejected_and_not_shown(signed: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "key.pem").write_text(text)
    for use in (signature.sign, require):
        with pytest.raises(FileError) as caught:
            use(signed, tmp_path / "key.pem")
        assert "SECRET" not in str(caught.value)


def test_a_private_key_in_place_of_a_public_one_is_rejected_and_vice_versa(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    with pytest.raises(FileError, match="holds no private Ed25519 key"):
        signature.sign(signed, keys[1])
    with pytest.raises(FileError, match="holds no public Ed25519 key"):
        require(signed, keys[0])


def test_another_kind_of_key_is_rejected(signed: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "ec.pem").write_bytes(pem)
    with pytest.raises(FileError, match="holds no private Ed25519 key"):
        signature.sign(signed, tmp_path / "ec.pem")


# The verbs


def test_keygen_sign_verify_and_run(edgeseg: Callable[..., Any], bundle: Path, street: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    generated = edgeseg("keygen", tmp_path / "k.pem")
    assert generated.code == 0 and "k.pub.pem" in generated.err
    secret = (tmp_path / "k.pem").read_text().splitlines()[1]
    images = street / "test" / "images"
    unsigned = edgeseg("run", copy, "--source", images, "--require-signature", tmp_path / "k.pub.pem")
    assert unsigned.code == 2 and "is not signed" in unsigned.err
    result = edgeseg("sign", copy, "--key", tmp_path / "k.pem")
    assert result.code == 0, result.err
    verified = edgeseg("verify", copy, "--key", tmp_path / "k.pub.pem", "--json", "-")
    assert verified.code == 0 and json.loads(verified.out)["signed"] is True
    result = edgeseg("run", copy, "--source", images, "--require-signature", tmp_path / "k.pub.pem")
    assert result.code == 0, result.err
    config = tmp_path / "stream.toml"
    config.write_text(f'bundle = "copy"\nrequire_signature = "k.pub.pem"\n[[stream]]\nsource = "{images}"\n')
    assert edgeseg("run", "--config", config).code == 0
    (copy / "bundle.sig").unlink()
    refused = edgeseg("run", "--config", config)
    assert refused.code == 2 and "is not signed" in refused.err
    for outcome in (generated, result, verified, refused):
        assert secret not in outcome.out + outcome.err


def test_without_cryptography_signing_is_a_missing_package_error(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cryptography", None)
    for use in (lambda: signature.sign(signed, keys[0]), lambda: require(signed, keys[1])):
        with pytest.raises(EdgesegError, match=r"pip install 'edgeseg\[sign\]'"):
            use()

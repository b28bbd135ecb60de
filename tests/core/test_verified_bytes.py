"""What was verified is what runs: files replaced under a running engine, links flipped while a bundle is opened, files
that nobody listed, caches that others could write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgeseg import signature, user_cache
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, EdgesegError, FileError, OptionError
from edgeseg.runtime import open_segmenter

RACES = 100
TARGETS = [("openvino-cpu", "fp32"), ("openvino-cpu", "int8"), ("onnxruntime-cpu", "fp32"), ("tflite-cpu", "fp32")]
# In a process of its own: a mapped file that shrinks kills it (SIGBUS).
OWN = (user_cache.DIGESTS, user_cache.LOCK)
REPLACED = """
import sys
from pathlib import Path
import numpy as np
from edgeseg import open_segmenter

folder, mode, cache = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
options = {"cache": Path(cache)} if cache else {}
with open_segmenter(folder, mode, **options) as segmenter:
    frames = np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), np.uint8)
    before = [segmenter(frame).classmap for frame in frames]
    places = [path for place in (folder, *options.values()) for path in place.rglob("*") if path.is_file()]
    for path in places:
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.write(b"\\x55" * path.stat().st_size)
    for _ in range(10):
        assert all((segmenter(frame).classmap == mask).all() for frame, mask in zip(frames, before)), "overwritten"
    for path in places:
        with path.open("r+b") as file:
            file.truncate(0)
    for _ in range(10):
        assert all((segmenter(frame).classmap == mask).all() for frame, mask in zip(frames, before)), "truncated"
print("same masks,", len(places), "files")
"""


def replaced(bundle: Path, mode: str, cache: object = "") -> None:
    done = subprocess.run(
        [sys.executable, "-c", REPLACED, bundle, mode, str(cache)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "same masks" in done.stdout, (done.returncode, done.stderr)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("kind", TARGETS, ids=":".join)
def test_files_replaced_under_a_running_engine_change_nothing(
    kind: tuple[str, str], mode: str, bundle_of: Callable[[str, str], Path], tmp_path: Path
) -> None:
    replaced(Path(shutil.copytree(bundle_of(*kind), tmp_path / "copy")), mode)


def test_a_cached_model_replaced_under_a_running_engine_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    open_segmenter(bundle, cache=tmp_path / "cache").close()
    assert list((tmp_path / "cache").rglob("*.blob"))
    replaced(Path(shutil.copytree(bundle, tmp_path / "copy")), "latency", tmp_path / "cache")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key."""
    pytest.importorskip("cryptography")
    private = tmp_path_factory.mktemp("key") / "maker.pem"
    signature.new_key(private)
    return private


def public(key: Path) -> Path:
    return key.with_suffix(signature.PUBLIC_SUFFIX)


def turn(link: Path, target: Path) -> None:
    spare = link.with_name("spare")
    spare.symlink_to(target)
    spare.replace(link)


@contextmanager
def turned_after(seconds: float, link: Path, first: Path, then: Path) -> Iterator[None]:
    """`link` points to `first`, and to `then` after that time."""
    turn(link, first)
    timer = threading.Timer(seconds, turn, [link, then])
    timer.start()
    yield
    timer.join()


def test_a_link_that_is_turned_never_gets_an_unsigned_bundle_in(bundle: Path, key: Path, tmp_path: Path) -> None:
    """The unsigned one has the same network with its classes renamed, and a signature that is not for it."""
    signed = Path(shutil.copytree(bundle, tmp_path / "signed"))
    signature.sign(signed, key)
    other = Path(shutil.copytree(signed, tmp_path / "other"))
    (other / "bundle.json").write_text((other / "bundle.json").read_text().replace('"road"', '"ROAD"'))
    digest, link, required = Bundle.load(signed).digest, tmp_path / "current", signature.Required(public(key))
    begin = time.perf_counter()
    signature.require(Bundle.load(signed), required)
    span = time.perf_counter() - begin
    good, refused = 0, 0
    for i in range(RACES):
        # The second half of the races begins with the unsigned one.
        pair = (signed, other) if i < RACES // 2 else (other, signed)
        with turned_after(span * 2 * (i % 50) / 50, link, *pair):
            try:
                with open_segmenter(link, required=required) as segmenter:
                    assert segmenter.bundle is not None and segmenter.bundle.digest == digest
                    assert "ROAD" not in segmenter.spec.classes
                    good += 1
            except BundleError as error:
                assert "is not signed with this key" in error.what
                refused += 1
    assert good and refused, (good, refused)  # both were seen, or this was no race


@pytest.mark.parametrize("name", ["engine/model.engine", "runner.py", "build.sh", "golden/more.png", ".hidden"])
def test_files_that_the_manifest_does_not_list_are_refused(
    name: str, bundle: Path, key: Path, tmp_path: Path, edgeseg: Callable[..., Any]
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    signature.sign(copy, key)
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("planted")
    result = edgeseg("verify", copy, "--key", public(key))
    assert result.code == 2 and f"its manifest does not list: {name}" in result.err


def test_links_and_many_unlisted_files_are_named_in_short(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "elsewhere").symlink_to("/etc")
    with pytest.raises(BundleError, match="does not list: elsewhere"):
        Bundle.load(copy)
    for i in range(20):
        (copy / f"a{i:02d}").write_text("x")
    with pytest.raises(BundleError, match="a00, a01, a02, a03, a04 and 16 more"):
        Bundle.load(copy)


def test_a_pipe_in_a_bundle_is_not_waited_for(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "model.bin").unlink()
    os.mkfifo(copy / "model.bin")
    with pytest.raises(BundleError, match=r"lacks model\.bin"):
        Bundle.load(copy)


def test_a_bundle_in_memory_outlives_its_folder(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    loaded = Bundle.load(copy)
    shutil.rmtree(copy)
    with open_segmenter(loaded) as segmenter:
        for frame, mask in loaded.golden():
            np.testing.assert_array_equal(segmenter(frame).classmap, mask)


def test_a_golden_mask_of_another_size_is_a_bundle_error(
    bundle: Path, tmp_path: Path, edgeseg: Callable[..., Any]
) -> None:
    from edgeseg.images import write_image

    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    write_image(copy / "golden" / "1.mask.png", np.zeros((7, 9), np.uint8))
    tiny.reseal(copy)
    result = edgeseg("verify", copy)
    assert result.code == 2 and "golden/1.mask.png is 9x7, not 96x64" in result.err


# Names and versions


def test_a_signature_is_bound_to_a_name_and_a_version(
    bundle: Path, key: Path, tmp_path: Path, edgeseg: Callable[..., Any]
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    assert edgeseg("sign", copy, "--key", key, "--name", "gate 7", "--version", 3).code == 0

    def verify(*words: object) -> Any:
        return edgeseg("verify", copy, "--key", public(key), *words)

    assert verify().code == 0
    assert verify("--bundle-name", "gate 7", "--min-version", 3).code == 0
    other = verify("--bundle-name", "gate 8")
    assert other.code == 2 and "was signed as 'gate 7'" in other.err
    old = edgeseg("run", copy, "--source", "synthetic://street", "--require-signature", public(key), "--min-version", 4)
    assert old.code == 2 and "was signed as version 3" in old.err and "Expected 4 or newer" in old.err
    alone = edgeseg("verify", copy, "--min-version", 4)
    assert alone.code == 2 and "without a signature" in alone.err


@pytest.mark.parametrize(
    "change", [(b"3 ", b"4 "), (b"gate", b"date"), (b"\n3 gate\n", b"\n"), (b"3 gate", b"3 gate ")]
)
def test_the_bound_line_cannot_be_altered(change: tuple[bytes, bytes], bundle: Path, key: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    file = signature.sign(copy, key, "gate", 3)
    file.write_bytes(file.read_bytes().replace(*change))
    with pytest.raises(BundleError, match="is not signed with this key"):
        signature.require(Bundle.load(copy), signature.Required(public(key)))


def test_a_line_cannot_be_added_to_a_plain_signature(bundle: Path, key: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    file = signature.sign(copy, key)
    with pytest.raises(BundleError, match="is not bound to a name and a version"):
        signature.require(Bundle.load(copy), signature.Required(public(key), min_version=0))
    file.write_bytes(file.read_bytes() + b"9 gate\n")
    with pytest.raises(BundleError, match="is not signed with this key"):
        signature.require(Bundle.load(copy), signature.Required(public(key), min_version=0))


@pytest.mark.parametrize(("name", "version"), [("a\nb", 1), ("a" * 500, 1), ("a", None), ("a", -1), ("a", 10**18)])
def test_names_and_versions_that_cannot_be_bound(
    name: str, version: int | None, bundle: Path, key: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    with pytest.raises(OptionError, match=r"cannot be used|without a version"):
        signature.sign(copy, key, name, version)
    assert not (copy / "bundle.sig").exists()


# The cache of engines


def test_the_cache_is_for_this_user_alone(tmp_path: Path) -> None:
    folder = user_cache.private(tmp_path / "a" / "b")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert user_cache.private(folder).stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(FileError, match="can be written by other users"):
        user_cache.private(folder)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="Cannot keep engines"):
        user_cache.private(tmp_path / "file" / "x")


def test_cached_files_that_were_changed_or_added_are_removed(tmp_path: Path) -> None:
    with user_cache.checked(tmp_path / "c") as folder:
        for name in ("kept", "changed"):
            (folder / name).write_text(name)
    (folder / "changed").write_text("other")
    (folder / "planted").write_text("x")
    (folder / "link").symlink_to("/etc")
    with user_cache.checked(tmp_path / "c") as folder:
        assert sorted(p.name for p in folder.iterdir() if p.name not in OWN) == ["kept"]
    (folder / user_cache.DIGESTS).write_text("[" * 100_000)
    with user_cache.checked(tmp_path / "c") as folder:
        assert not (folder / "kept").exists()


def test_a_damaged_cached_model_is_compiled_again(bundle: Path, tmp_path: Path) -> None:
    image = tiny.frames(1)[0]
    with open_segmenter(bundle, cache=tmp_path / "cache") as segmenter:
        expected = segmenter(image).classmap
    [blob] = (tmp_path / "cache").rglob("*.blob")
    blob.chmod(0o600)
    blob.write_bytes(b"\x55" * blob.stat().st_size)
    with open_segmenter(bundle, cache=tmp_path / "cache") as segmenter:
        np.testing.assert_array_equal(segmenter(image).classmap, expected)


def test_the_environment_places_the_cache(
    edgeseg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_cache, "_root", None)
    for name, expected in (("XDG_CACHE_HOME", "x/edgeseg"), ("EDGESEG_CACHE", "e")):
        monkeypatch.setenv(name, str(tmp_path / name[0].lower()))
        edgeseg("targets")
        assert user_cache.folder("engines") == tmp_path / expected / "engines"
    edgeseg("--cache-dir", tmp_path / "o", "targets")
    assert user_cache.folder("engines") == tmp_path / "o" / "engines"


def test_an_engine_that_cannot_open_the_model_says_so(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "model.xml").write_text("<net/>")
    tiny.reseal(copy)
    with pytest.raises(EdgesegError, match="OpenVINO cannot load the model of"):
        open_segmenter(copy)

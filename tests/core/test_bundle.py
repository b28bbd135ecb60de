"""Bundles: whatever happens to one, loading it raises BundleError or OptionError, or returns the unchanged bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.bundle import MANIFEST, Bundle, Manifest, seal
from edgeseg.errors import BundleError, EdgesegError, FileError, MissingPackage, OptionError
from edgeseg.files import replacing, sha256
from edgeseg.precision import Precision
from edgeseg.runtime import open_segmenter
from edgeseg.spec import Spec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the fp32 bundle that a test may damage."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


@pytest.fixture(scope="module")
def scratch(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose manifest is damaged and restored again and again."""
    return Path(shutil.copytree(bundle, tmp_path_factory.mktemp("scratch") / "copy"))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    change(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest))


def test_a_valid_bundle_describes_itself(bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    assert (loaded.name, loaded.target, loaded.precision) == ("openvino-cpu-fp32", "openvino-cpu", "fp32")
    assert (loaded.backend, loaded.upsample) == ("openvino", "half_pixel")
    assert loaded.spec == tiny.SPEC
    assert loaded.size == sum((bundle / name).stat().st_size for name in ("model.xml", "model.bin"))
    assert loaded.digest == sha256(bundle / MANIFEST)
    on_disk = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert on_disk == {*loaded.manifest.files, MANIFEST}


def test_golden_frames_match_the_bundle(bundle: Path) -> None:
    pairs = list(Bundle.load(bundle).golden())
    assert len(pairs) == 3
    with open_segmenter(bundle) as segmenter:
        for (frame, expected), original in zip(pairs, tiny.frames(3, seed=1)):
            np.testing.assert_array_equal(frame, original)
            np.testing.assert_array_equal(segmenter(frame).classmap, expected)


def flip(path: Path, name: str) -> None:
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)


def link(path: Path, name: str) -> None:
    """The same bytes, through a link out of the bundle."""
    outside = path.parent / "outside"
    shutil.move(path / name, outside)
    (path / name).symlink_to(outside)


def add_file(name: Any) -> Callable[[Path], None]:
    return lambda path: edit(path, lambda m: m["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}))


def outside(path: Path) -> None:
    (path.parent / "secret").write_text("x")
    entry = {"sha256": sha256(path.parent / "secret"), "bytes": 1}
    edit(path, lambda m: m["files"].update({"../secret": entry}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: flip(p, "model.bin"), "model.bin differs from its digest"),
        (lambda p: flip(p, "model.xml"), "model.xml differs from its digest"),
        (lambda p: flip(p, "golden/1.mask.png"), "golden/1.mask.png differs from its digest"),
        (lambda p: (p / "model.bin").write_bytes(b""), "model.bin differs from its digest"),
        (lambda p: (p / "model.bin").unlink(), "lacks model.bin"),
        (lambda p: shutil.rmtree(p / "golden"), "lacks golden/0.mask.png"),
        (lambda p: link(p, "model.bin"), "names a file outside itself: model.bin"),
        (lambda p: link(p, "golden"), "names a file outside itself: golden"),
        (outside, "names a file outside itself: ../secret"),
        (add_file("golden/../../secret"), "names a file outside itself"),
        (add_file("/etc/hostname"), "names a file outside itself: /etc/hostname"),
        (add_file("a\0b"), "lacks a"),
        (add_file("a" * 5000), "lacks aaa"),
        (add_file("golden"), "lacks golden"),
        (add_file("."), "lacks ."),
        (lambda p: (p / MANIFEST).unlink(), "is not a bundle: it has no bundle.json"),
        (lambda p: (p / MANIFEST).write_text(""), "cannot be read"),
        (lambda p: (p / MANIFEST).write_text("{"), "cannot be read"),
        (lambda p: (p / MANIFEST).write_text("[]"), "is not a manifest"),
        (lambda p: (p / MANIFEST).write_text("[" * 100_000), "cannot be read"),
        (lambda p: (p / MANIFEST).write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (lambda p: (p / MANIFEST).write_text(" " * ((4 << 20) + 1)), "is over 4 MiB"),
        (lambda p: edit(p, lambda m: m.update(schema=2)), "has schema 2, from a newer edgeseg"),
        (lambda p: edit(p, lambda m: m.update(schema="1")), "has schema '1'"),
        (lambda p: edit(p, lambda m: m.update(upsample="bicubic")), "upsample 'bicubic'"),
        (lambda p: edit(p, lambda m: m.update(files=[])), "cannot be read"),
        (
            lambda p: edit(p, lambda m: m["files"]["model.bin"].pop("bytes")),
            "cannot be read: Object missing required field `bytes`",
        ),
        (lambda p: edit(p, lambda m: m["files"]["model.bin"].update(bytes="x")), "cannot be read"),
        (lambda p: edit(p, lambda m: m["spec"].update(height=1)), "height is 1"),
        *[
            (lambda p, key=key: edit(p, lambda m: m.pop(key)), message)
            for key, message in (
                ("spec", "Spec is not usable"),
                ("precision", "Unknown precision ''"),
                *((name, f"missing required field `{name}`") for name in ("target", "backend", "upsample", "files")),
            )
        ],
    ],
)
def test_loading_rejects_damaged_bundles(copy: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(copy)
    with pytest.raises((BundleError, OptionError)) as caught:
        Bundle.load(copy)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: m.update(backend="openvin"), "Did you mean 'openvino'"),
        (lambda m: m.update(backend="../mask"), "Unknown backend"),
        (lambda m: m.update(backend="onnxruntime"), "no digest of model.onnx"),
        (lambda m: m.update(precision="int4"), "precision 'int4'"),
        (lambda m: m["files"].pop("model.bin"), "files that its manifest does not list: model.bin"),
        (lambda m: m.update(files={}), "does not list: bom.cdx.json, golden/0.mask.png, golden/0.png"),
        (lambda m: m["spec"].update(height=128), "Spec says 96x128"),
    ],
)
def test_opening_rejects_bundles_that_do_not_fit(
    copy: Path, damage: Callable[[dict[str, Any]], Any], message: str
) -> None:
    edit(copy, damage)
    with pytest.raises((BundleError, OptionError)) as caught:
        open_segmenter(copy)
    assert message in str(caught.value)


@pytest.mark.parametrize(("name", "what"), [("nowhere", "is not a folder"), ("file", "is not a folder")])
def test_a_bundle_must_be_a_folder(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match=what):
        Bundle.load(tmp_path / name)


KEYS = ("schema", "spec", "target", "backend", "precision", "upsample", "files", "name", "parity", "metrics")


@given(st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3))
def test_any_json_as_the_manifest_is_loaded_or_rejected(scratch: Path, changes: dict[str, Any]) -> None:
    before = (scratch / MANIFEST).read_bytes()
    try:
        edit(scratch, lambda m: m.update(changes))
        loaded = Bundle.load(scratch)
        assert loaded.size >= 0 and loaded.name and isinstance(list(loaded.golden()), list)
    except (BundleError, OptionError):
        pass
    finally:
        (scratch / MANIFEST).write_bytes(before)


@given(st.lists(st.sampled_from(["files", "spec"]), min_size=1, max_size=2), st.data())
def test_any_json_as_a_manifest_entry_is_loaded_or_rejected(
    scratch: Path, keys: list[str], data: st.DataObject
) -> None:
    before = (scratch / MANIFEST).read_bytes()

    def change(manifest: dict[str, Any]) -> None:
        for key in keys:
            name = data.draw(st.sampled_from(sorted(manifest[key])))
            manifest[key][name] = data.draw(JSON)

    try:
        edit(scratch, change)
        assert Bundle.load(scratch).size >= 0
    except (BundleError, OptionError):
        pass
    finally:
        (scratch / MANIFEST).write_bytes(before)


# replacing: how every folder is written


def test_replacing_renames_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with replacing(out, "marker") as work:
        (work / "marker").write_text("new")
        assert not out.exists()
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    with replacing(out, "marker") as work:
        (work / "marker").write_text("newer")
        assert (out / "marker").read_text() == "new"
    assert (out / "marker").read_text() == "newer"
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, FileError])
def test_replacing_leaves_nothing_after_a_failure(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "marker").write_text("old")
    with pytest.raises(error), replacing(tmp_path / "out", "marker") as work:
        (work / "marker").write_text("half")
        raise error("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "marker").read_text() == "old"


def foreign(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("ten years")


@pytest.mark.parametrize(
    ("prepare", "name", "message"),
    [
        (foreign, "out", "exists and holds something else"),
        (lambda p: p.write_text("x"), "out", "exists and holds something else"),
        (lambda p: p.write_text("x"), "out/inner", "Cannot write"),
        (lambda p: None, "a" * 300, "Cannot write"),
    ],
)
def test_replacing_rejects_a_folder_of_something_else(
    tmp_path: Path, prepare: Callable[[Path], Any], name: str, message: str
) -> None:
    prepare(tmp_path / "out")
    before = sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(FileError, match=message), replacing(tmp_path / name, "marker"):
        pytest.fail("the block must not run")
    assert sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()) == before


def test_replacing_an_empty_folder_and_leftovers_of_a_killed_run(tmp_path: Path) -> None:
    import os

    (tmp_path / "out").mkdir()
    left = tmp_path / f".out.{os.getpid()}.tmp"
    left.mkdir()
    (left / "half").write_text("x")
    with replacing(tmp_path / "out", "marker") as work:
        assert not any(work.iterdir())
        (work / "marker").write_text("x")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "marker"]


def test_replacing_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with replacing(Path(), "marker") as work:
        (work / "marker").write_text("x")
    assert (tmp_path / "here" / "marker").is_file()


def test_seal_lists_every_file(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "0.png").write_bytes(b"abc")
    spec = Spec(8, 8, ("a", "b"))
    manifest = Manifest(
        name="x", spec=spec, target="t", backend="b", precision=Precision.FP32, upsample="none", files={}
    )
    seal(tmp_path, manifest)
    written = json.loads((tmp_path / MANIFEST).read_text())
    assert written["files"] == {
        "golden/0.png": {"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "bytes": 3}
    }


def test_a_missing_package_error_says_what_to_install() -> None:
    error = MissingPackage("openvino", "This bundle", "openvino")
    assert isinstance(error, EdgesegError)
    assert error.exit_code == 2
    assert str(error) == (
        "This bundle needs the package openvino, which is not installed.\n"
        "Install it with: pip install 'edgeseg[openvino]'"
    )

"""INT8 that is the same on every x86 CPU: the arithmetic, the files of both runtimes, and the kernels themselves."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.bundle import Bundle, seal
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.images import read_mask, write_image
from edgeseg.spec import Spec

onnx = pytest.importorskip("onnx")

from edgeseg.compile import compile_model  # noqa: E402
from edgeseg.quantization.rounding import to_int8  # noqa: E402
from edgeseg.quantization.saturation import safe_scale  # noqa: E402
from edgeseg.target import Target  # noqa: E402

LIMIT = 32767
BAND = 200.0


def pairs_in_16_bits(ints: np.ndarray) -> np.ndarray:
    """The extremes of 255 a + 255 b over the pairs that vpmaddubsw adds: inputs of an [O, I, kh, kw] kernel that lie
    side by side where they are walked first, [O, kh * kw * I]; a last one by itself."""
    flat = ints.astype(np.int64).transpose(0, 2, 3, 1).reshape(len(ints), -1)
    flat = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2)))
    pairs = flat.reshape(len(ints), -1, 2) * 255
    return np.maximum(np.abs(np.maximum(pairs, 0).sum(-1)), np.abs(np.minimum(pairs, 0).sum(-1)))


@given(st.integers(0, 10_000), st.integers(2, 7), st.sampled_from([1, 3]), st.sampled_from([0.0, 1.0, 3.0]))
def test_no_pair_of_products_leaves_16_bits(seed: int, inputs: int, size: int, mean: float) -> None:
    weights = np.random.default_rng(seed).normal(mean, 1, (4, inputs, size, size))
    scale = np.abs(weights).max((1, 2, 3), keepdims=True) / 127
    safe = safe_scale(weights, scale, 1)
    assert (pairs_in_16_bits(to_int8(weights, safe)) <= LIMIT).all()
    assert (safe >= scale).all() and (safe <= 2.01 * scale).all()
    if inputs % 2 == 0:  # each position by itself, as oneDNN packs them
        apart = to_int8(weights, safe)[:, :, 0, 0][..., None, None]
        assert (pairs_in_16_bits(apart) <= LIMIT).all()


def test_weights_that_would_saturate_are_found() -> None:
    weights = np.ones((1, 4, 1, 1))
    assert pairs_in_16_bits(to_int8(weights, np.full((1, 1, 1, 1), 1 / 127))).max() > LIMIT


def test_channels_without_such_pairs_keep_their_scale() -> None:
    weights = np.array([1.0, -1.0, 0.5, 0.4]).reshape(1, 4, 1, 1)
    scale = np.full((1, 1, 1, 1), 1 / 127)
    assert safe_scale(weights, scale, 1) == pytest.approx(scale)
    depthwise = np.ones((4, 1, 3, 3))
    assert (safe_scale(depthwise, np.full((4, 1, 1, 1), 1 / 127), 1) == 1 / 127).all()


def saturating(out: Path) -> Path:
    """A network of brightness bands, whose weights and activations lie near the ends of their ranges."""
    net = tiny.Net(3)
    bright = net.constant(net.random.uniform(0.1, 0.2, (16, 3, 3, 3)))
    x = net.add("Relu", net.add("Add", net.conv("image", 3, 16, stride=2, weight=bright), net.constant(6.0)))
    y = net.add("Relu", net.conv(x, 16, 32, weight=net.constant(net.random.uniform(0.7, 1.0, (32, 16, 3, 3)))))
    k = np.arange(8.0)  # argmax of k v - k^2 / 2 is the band of v, the mean of y in bands
    rising = net.constant(np.tile(k[:, None, None, None], (1, 32, 1, 1)) / 32 / BAND)
    bands = net.add("Sub", net.conv(y, 32, 8, size=1, weight=rising), net.constant((k**2 / 2)[None, :, None, None]))
    onnx.save(net.model(net.resize(bands), spec=tiny.SPEC), str(out))
    return out


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    for i, frame in enumerate(tiny.frames(20, seed=4)):
        write_image(folder / f"{i:02}.png", frame)
    return folder


MASKS = """
import sys
from pathlib import Path
import numpy as np
from edgeseg.images import list_images, read_image
from edgeseg.runtime import open_segmenter
with open_segmenter(Path(sys.argv[1])) as segmenter:
    np.save(sys.argv[3], np.stack([segmenter(read_image(f)).classmap for f in list_images(Path(sys.argv[2]))]))
"""


def masks(bundle: Path, frames: Path, out: Path, isa: str) -> np.ndarray:
    """Class maps by another process, whose oneDNN uses no instructions beyond `isa`."""
    words = [sys.executable, "-c", MASKS, str(bundle), str(frames), str(out)]
    subprocess.run(words, check=True, env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa}, timeout=120)
    return np.load(out)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 instructions")
@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu"])
def test_a_bundle_gives_the_same_masks_with_vnni_and_without(frames: Path, tmp_path: Path, target: str) -> None:
    if target == "openvino-cpu":
        pytest.importorskip("openvino")
    spec: Spec = tiny.SPEC
    bundle = compile_model(
        saturating(tmp_path / "net.onnx"), tmp_path / "bundle", Target.load(target), "int8", spec=spec,
        frames=tiny.frames(4, seed=1), calibration=CalibrationSet.choose(frames, 10), allow_loss=True,
    )  # fmt: skip
    plain = masks(bundle.path, frames, tmp_path / "a.npy", "ALL")
    assert np.array_equal(plain, masks(bundle.path, frames, tmp_path / "b.npy", "AVX2"))
    assert bundle.manifest.parity is not None and bundle.manifest.parity.agreement > 0.95


def test_older_int8_bundles_are_named_where_they_saturate(
    bundle_of: Callable[[str, str], Path], tmp_path: Path, edgeseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine may have VNNI, so the CPU is pretended, and one golden frame is not what the bundle computes."""
    old = Path(shutil.copytree(bundle_of("onnxruntime-cpu", "int8"), tmp_path / "old"))
    manifest = Bundle.load(old).manifest
    golden = old / "golden" / "0.mask.png"
    write_image(golden, (read_mask(golden) + 1) % np.uint8(8))
    assert manifest.any_cpu
    monkeypatch.setattr("edgeseg.runtime.adds_in_16_bits", lambda: True)
    seal(old, manifest)
    ran = edgeseg("verify", old)
    assert ran.code == 2 and "compile on it again" in ran.err and "VNNI" not in ran.err
    seal(old, replace(manifest, any_cpu=False))
    ran = edgeseg("verify", old)
    assert ran.code == 2 and "This CPU is the cause: it has no VNNI" in ran.err
    assert "loses accuracy on this CPU" in ran.err

"""compile --probe: the normalization that a network was trained with comes first, whatever the network takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from edgeseg.cli.models import find_spec  # noqa: E402
from edgeseg.errors import OptionError  # noqa: E402
from edgeseg.images import Image, read_image, write_image  # noqa: E402
from edgeseg.probe import SCALES, candidates, kappa, probe  # noqa: E402
from edgeseg.results.probe import ProbeResult  # noqa: E402
from edgeseg.spec import ONNX_KEY, Spec  # noqa: E402
from edgeseg.synth.street import CLASSES, Street  # noqa: E402

STUDENT = Path(__file__).parents[2] / "models/street/street.onnx"
SIZE = Spec(224, 384, CLASSES.names, CLASSES.palette)


def taking(name: str, color: str, path: Path, kind: int = onnx.TensorProto.FLOAT) -> Path:
    """The shipped student behind a few nodes that turn another normalization into its own; it does not say which."""
    model = onnx.load(str(STUDENT))
    graph, entry = model.graph, model.graph.input[0]
    mean, std = SCALES[name] if kind == onnx.TensorProto.FLOAT else ((0.0,) * 3, (1 / 255,) * 3)
    own_mean, own_std = SCALES["ImageNet's"]
    order = [0, 1, 2] if color == "RGB" else [2, 1, 0]
    factor = np.array(std, np.float32) / np.array(own_std, np.float32)
    offset = (np.array(mean, np.float32) - np.array(own_mean, np.float32)) / np.array(own_std, np.float32)
    weights = {"order": np.array(order), "factor": factor.reshape(1, 3, 1, 1), "offset": offset.reshape(1, 3, 1, 1)}
    graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in weights.items())
    steps = [("Cast", ["pixels"], "floats", {"to": 1}), ("Gather", ["floats", "order"], "swapped", {"axis": 1}),
             ("Mul", ["swapped", "factor"], "scaled", {}), ("Add", ["scaled", "offset"], entry.name, {})]  # fmt: skip
    for op, names, out, attributes in reversed(steps):
        graph.node.insert(0, onnx.helper.make_node(op, names, [out], **attributes))
    entry.name, entry.type.tensor_type.elem_type = "pixels", kind
    kept = [item for item in model.metadata_props if item.key != ONNX_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def frames() -> list[Image]:
    return [Street(seed, height=224, width=384).frame(0)[0] for seed in (40, 41)]


@pytest.mark.parametrize(
    ("name", "color"),
    [pytest.param("0 to 255, mean taken off", "RGB", marks=pytest.mark.slow), ("0 to 1", "BGR")],
)
def test_the_right_normalization_comes_first(name: str, color: str, frames: list[Image], tmp_path: Path) -> None:
    found = probe(taking(name, color, tmp_path / "net.onnx"), SIZE, frames).result
    assert (found.rows[0].name, found.rows[0].color) == (name, color)
    assert found.ahead == 2 and not found.close
    assert len(found.rows) == 10 and found.rows[0].score > 0.9 > found.rows[2].score
    assert [row.score for row in found.rows] == sorted((row.score for row in found.rows), reverse=True)


def test_a_network_that_is_sure_of_one_class_is_not_preferred(frames: list[Image]) -> None:
    """Values of 0 to 255 saturate its softmax."""
    rows = {row.name: row for row in probe(STUDENT, SIZE, frames, any_color=False).result.rows}
    right, wrong = rows["ImageNet's"], rows["0 to 255"]
    assert wrong.confidence > right.confidence and wrong.classes < right.classes / 2
    assert next(iter(rows)) == "ImageNet's" and wrong.score < 0.85


def test_what_is_given_is_kept_and_another_normalization_of_the_file_is_tried_too() -> None:
    odd = replace(SIZE, mean=(0.1, 0.2, 0.3), std=(0.4, 0.4, 0.4), color="BGR")
    names = candidates(odd, any_color=False)
    assert {spec.color for _, spec in names} == {"BGR"} and len(names) == 6
    assert names[-1] == ("as given", odd)
    gray = candidates(replace(SIZE, color="GRAY"))
    assert {spec.color for _, spec in gray} == {"GRAY"} and len(gray) == 5
    assert {spec.color for _, spec in candidates(replace(SIZE, color="BGRA"))} == {"RGBA", "BGRA"}


def test_a_network_that_takes_bytes_is_asked_for_its_color_order_only(frames: list[Image], tmp_path: Path) -> None:
    model = taking("", "BGR", tmp_path / "net.onnx", onnx.TensorProto.UINT8)
    found = probe(model, SIZE, frames).result
    assert [(row.name, row.color) for row in found.rows] == [("the network's own", c) for c in ("BGR", "RGB")]
    with pytest.raises(OptionError, match="takes uint8 and normalizes it itself"):
        probe(model, SIZE, frames, any_color=False)


@pytest.fixture
def folder(frames: list[Image], tmp_path: Path) -> Path:
    for i, frame in enumerate(frames):
        write_image(tmp_path / "frames" / f"{i}.png", frame)
    return tmp_path / "frames"


def test_the_command_shows_what_to_give_and_writes_no_bundle(
    edgeseg: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    model = taking("-1 to 1", "BGR", tmp_path / "net.onnx")
    ran = edgeseg(
        "compile", model, "--probe", folder, "--color", "BGR", "-o", tmp_path / "m.png", "--json", tmp_path / "p.json"
    )
    assert ran.code == 0 and "most likely: -1 to 1, BGR, ahead of the next one on 2 of 2 frames" in ran.out
    assert "compile it with: --color BGR --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5" in ran.out and "GUESS" not in ran.err
    result = ProbeResult.load(tmp_path / "p.json")
    assert (result.model, result.frames, len(result.rows)) == ("net.onnx", 2, 5)
    assert read_image(tmp_path / "m.png").shape[1] == 2 * 246 + 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frames", "m.png", "net.onnx", "p.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--probe", "{none}"], "Image folder {none} does not exist"),
        (["--probe", "{frames}", "--out", "{none}"], "--out is a picture of the masks, and {none} is none"),
    ],
)
def test_bad_input(words: list[str], message: str, edgeseg: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    places = {"frames": folder, "none": tmp_path / "none"}
    ran = edgeseg("compile", STUDENT, *(word.format(**places) for word in words))
    assert ran.code == 2 and message.format(**places) in ran.err


def test_a_guess_offers_the_probe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = taking("0 to 1", "RGB", tmp_path / "net.onnx")
    find_spec(model, {})
    assert f"or see which suits it: edgeseg compile {model} --probe FRAMES" in caplog.text


@given(st.integers(0, 5), st.integers(2, 5))
def test_kappa_is_1_for_equal_maps_and_about_0_for_unrelated_ones(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.integers(0, classes, (2, 200, 200))
    assert kappa(a, a, classes) == pytest.approx(1)
    assert abs(kappa(a, b, classes)) < 0.05
    assert kappa(a * 0, a * 0, classes) == 0

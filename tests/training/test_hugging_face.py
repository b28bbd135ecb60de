"""Hugging Face folders: exported, compiled and compared with what transformers itself computes from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_hugging_face import NAMES, PROCESSOR, saved
from typer.testing import CliRunner

from edgeseg.bundle import Bundle
from edgeseg.cli import app
from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.onnx_graph.metadata import hugging_face_metadata
from edgeseg.training.hugging_face import export_hugging_face, load

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("hub") / "segformer", "segformer")[0]


def semantic(model: Any, image: torch.Tensor) -> torch.Tensor:
    """What transformers' image processors make of a network's outputs, before the argmax."""
    with torch.inference_mode():
        found = model(pixel_values=image)
    if hasattr(found, "logits"):
        small = found.logits
    else:
        classes = found.class_queries_logits.softmax(-1)[..., :-1]
        small = torch.einsum("bqc,bqhw->bchw", classes, found.masks_queries_logits.sigmoid())
    return torch.nn.functional.interpolate(small, size=image.shape[-2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("kind", ["segformer", "eomt", "mask2former", "upernet", "dpt"])
def test_every_family_computes_what_transformers_does(kind: str, tmp_path: Path) -> None:
    folder, model = saved(tmp_path / kind, kind)
    onnx_file = export_hugging_face(folder, tmp_path / "model.onnx")
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))

    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": image.numpy()})[0]

    expected = semantic(model, image).numpy()
    assert np.abs(found - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("kind", ["segformer", "eomt", "mask2former"])
def test_compile_takes_a_folder(kind: str, tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / kind, kind)
    result = CliRunner().invoke(app, ["compile", str(folder), "--out", str(tmp_path / "bundle")])

    assert result.exit_code == 0, result.output
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.spec.classes == tuple(NAMES)
    assert (bundle.spec.height, bundle.spec.width) == (128, 128)
    assert bundle.manifest.parity is not None and bundle.manifest.parity.agreement > 0.999


@pytest.mark.slow
def test_an_eomt_whose_masks_are_annealed_away_goes_to_tflite(tmp_path: Path) -> None:
    """As the authors publish them; with masks, TFLite has no ScatterND."""
    _, model = saved(tmp_path / "eomt", "eomt")
    arguments = ["compile", str(tmp_path / "eomt"), "--target", "tflite-cpu", "--out", str(tmp_path / "bundle")]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code != 0 and "operator ScatterND" in str(refused.exception)

    model.get_buffer("attn_mask_probs").zero_()
    model.save_pretrained(tmp_path / "eomt")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    parity = Bundle.load(tmp_path / "bundle").manifest.parity
    assert parity is not None and parity.agreement > 0.999


def test_masks_of_attention_do_not_break_int8(tmp_path: Path) -> None:
    """Mask2Former's hold minus infinity: its INT8 agreed on 25 % of pixels, or found no range at all."""
    folder, _ = saved(tmp_path / "mask2former", "mask2former")
    runner = CliRunner()
    assert (
        runner.invoke(app, ["synth", str(tmp_path / "streets"), "--train", "12", "--val", "1", "--test", "1"]).exit_code
        == 0
    )
    arguments = ["compile", str(folder), "--precision", "int8", "--calibration", str(tmp_path / "streets")]
    for target in ("openvino-cpu", "jetson-orin"):
        result = runner.invoke(app, [*arguments, "--target", target, "--out", str(tmp_path / target)])
        assert result.exit_code == 0, (result.output, result.exception)
        kept = Bundle.load(tmp_path / target).manifest.kept
        assert any("cross_attn" in layer for layer in kept)


def test_another_input_size(segformer: Path) -> None:
    model, spec = load(segformer, (96, 160))
    assert (spec.height, spec.width) == (96, 160)
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 96, 160)).shape == (1, len(NAMES), 96, 160)


def test_a_fixed_size_is_said(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "eomt", "eomt")
    with pytest.raises(OptionError, match=r"(?s)does not take 160x96.*Leave out --input-size"):
        load(folder, (96, 160))


def test_channels_that_are_swapped(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "do_flip_channel_order": True}))
    found = hugging_face_metadata(tmp_path / "model.safetensors")
    assert found is not None and found.to_spec()["color"] == "BGR"


def edited(segformer: Path, tmp_path: Path, name: str, **changes: object) -> Path:
    """A copy of the folder with other values in one of its JSON files."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in segformer.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changes}))
    return folder


def test_a_network_of_another_task(segformer: Path, tmp_path: Path) -> None:
    folder = edited(segformer, tmp_path, "config.json", architectures=["SegformerForImageClassification"])
    with pytest.raises(OptionError, match=r"SegformerForImageClassification, not a segmentation network"):
        load(folder)


def test_a_network_that_is_not_known(segformer: Path, tmp_path: Path) -> None:
    folder = edited(segformer, tmp_path, "config.json", model_type="something_new")
    with pytest.raises(FileError, match=r"config.json cannot be used"):
        load(folder)


def test_weights_of_another_architecture(segformer: Path, tmp_path: Path) -> None:
    folder = edited(segformer, tmp_path, "config.json", depths=[2, 1, 1, 1])
    with pytest.raises(FileError, match=r"lack \d+ tensors of SegformerForSemanticSegmentation"):
        load(folder)


def test_weights_of_another_size(segformer: Path, tmp_path: Path) -> None:
    folder = edited(segformer, tmp_path, "config.json", decoder_hidden_size=48)
    with pytest.raises(FileError, match=r"weights of .* cannot be loaded"):
        load(folder)


def test_names_of_another_number_of_classes(segformer: Path, tmp_path: Path) -> None:
    folder = edited(
        segformer, tmp_path, "config.json", id2label={"0": "road", "1": "car"}, label2id={"road": 0, "car": 1}
    )
    with pytest.raises(EdgesegError, match=r"cannot be loaded|5 outputs and 2 names"):
        load(folder)


def test_pickles_are_refused(segformer: Path, tmp_path: Path) -> None:
    folder = edited(segformer, tmp_path, "config.json")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileError, match=r"(?s)has no model.safetensors.*pickles"):
        load(folder)


def test_damaged_weights(segformer: Path, tmp_path: Path) -> None:
    folder = edited(segformer, tmp_path, "config.json")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(FileError, match=r"(?s)weights of .* cannot be loaded.*damaged"):
        load(folder)


def test_no_preprocessing(segformer: Path, tmp_path: Path) -> None:
    folder = edited(segformer, tmp_path, "config.json")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(FileError, match=r"has no preprocessor_config.json"):
        load(folder)

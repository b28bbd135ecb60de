"""Networks of transformers trained from recipes: from folders, for other classes, as teachers, and what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny_hugging_face import NAMES, saved
from training_helpers import CLASSES, SPEC, recipe

from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.recipe import NetConfig, Recipe, Settings
from edgeseg.spec import Spec
from edgeseg.training import checkpoint, hugging_face_folder, nets, onnx_export, optim, stages
from edgeseg.training.hugging_face import load
from edgeseg.training.hugging_face_nets import LogQueries
from edgeseg.training.objectives.objective import Objective
from edgeseg.training.stage_models import initial_model

pytest.importorskip("transformers")

IMAGE = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
COLORS = tuple((i, i, i) for i in range(len(NAMES)))
STREET = Spec(64, 96, tuple(NAMES), COLORS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    for kind in ("segformer", "eomt"):
        saved(root / kind, kind)
    return root


def with_teacher(folder: Path, arch: str, **settings: object) -> Recipe:
    return recipe(teacher={"arch": arch, "weights": str(folder), "epochs": 1, "batch": 4, **settings})


def test_the_folders_network_is_where_training_starts(folders: Path) -> None:
    spec = STREET
    model = hugging_face_folder.pretrained(str(folders / "segformer"), "segformer", spec)
    expected, _ = load(folders / "segformer", (64, 96))
    with torch.inference_mode():
        assert torch.equal(model(IMAGE), expected(IMAGE))


def test_logits_of_queries_are_logarithms_of_the_scores(folders: Path) -> None:
    spec = Spec(128, 128, tuple(NAMES), COLORS)
    model = hugging_face_folder.pretrained(str(folders / "eomt"), "eomt", spec)
    scores, _ = load(folders / "eomt")
    image = torch.randn(1, 3, 128, 128)
    assert isinstance(model, LogQueries)
    with torch.inference_mode():
        torch.testing.assert_close(model.scores(image), scores.scores(image))  # type: ignore[operator]
        assert torch.equal(model(image)[..., 2::4, 2::4].argmax(1), model(image)[..., 2::4, 2::4].softmax(1).argmax(1))


def test_scores_near_zero_do_not_magnify_rounding(folders: Path) -> None:
    """A trained network is sure: its ONNX differed by 5e-4 of the largest logit."""
    model: Any = hugging_face_folder.pretrained(str(folders / "eomt"), "eomt", STREET)
    with torch.no_grad():
        model.model.class_predictor.weight.mul_(60)
        model.model.mask_head.fc3.weight.mul_(60)
        assert model(IMAGE).min() < -6.5
    assert onnx_export.parity(model, onnx_export.to_onnx(model, STREET), STREET) < 1e-4


def test_positions_of_a_vit_are_interpolated(folders: Path) -> None:
    """Learned for 8x8 patches, wanted for 4x6; exported, too."""
    spec = STREET
    model = hugging_face_folder.pretrained(str(folders / "eomt"), "eomt", spec)
    assert model(IMAGE).shape == (1, len(NAMES), 64, 96)
    assert onnx_export.parity(model, onnx_export.to_onnx(model, spec), spec) < 1e-5


def test_classes_that_are_known_by_name_keep_their_weights(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    classes = ("sky", "bicycle", "road")
    with caplog.at_level(logging.WARNING):
        model: Any = hugging_face_folder.pretrained(
            str(folders / "eomt"), "eomt", Spec(64, 96, classes, COLORS[: len(classes)])
        )
    assert "predicts 5 classes, the dataset has 3: the weights for bicycle of its class head are new" in caplog.text
    old = safetensors.torch.load_file(folders / "eomt" / "model.safetensors")["class_predictor.weight"]
    new = model.model.class_predictor.weight
    assert torch.equal(new[0], old[NAMES.index("sky")]) and torch.equal(new[2], old[NAMES.index("road")])
    assert torch.equal(new[3], old[5])  # no object
    assert not any(torch.equal(new[1], row) for row in old)


def test_as_many_classes_by_other_names(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = Spec(64, 96, tuple("abcde"), COLORS)
    with caplog.at_level(logging.WARNING):
        model: Any = hugging_face_folder.pretrained(str(folders / "segformer"), "segformer", spec)
    assert "all weights of its class head are new" in caplog.text
    old = safetensors.torch.load_file(folders / "segformer" / "model.safetensors")
    assert not torch.equal(model.model.decode_head.classifier.weight, old["decode_head.classifier.weight"])
    key = "decode_head.linear_fuse.weight"
    assert torch.equal(model.model.state_dict()[key], old[key])


def test_other_normalization_is_said(folders: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = copied(folders / "segformer", tmp_path)
    table = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**table, "image_mean": [0.5, 0.5, 0.5]}))
    with caplog.at_level(logging.WARNING):
        hugging_face_folder.pretrained(str(folder), "segformer", STREET)
    assert "trained on RGB frames with mean (0.5, 0.5, 0.5)" in caplog.text


def test_teacher_student_and_export(folders: Path, root: Path, tmp_path: Path) -> None:
    """A folder is trained on other classes, distilled into a student, and exported."""
    own = with_teacher(folders / "eomt", "eomt")
    teacher = stages.train_teacher(own, root, tmp_path)
    model, net, spec, _ = checkpoint.load(teacher)
    assert (net.arch, spec.classes) == ("eomt", CLASSES.names)
    stages.distill_student(own, teacher, root, tmp_path)
    file = stages.export_onnx(teacher, tmp_path / "teacher.onnx")
    assert onnx_export.parity(model, file.read_bytes(), spec) < 1e-5


def test_the_encoder_has_its_own_learning_rate(folders: Path) -> None:
    model = hugging_face_folder.pretrained(str(folders / "eomt"), "eomt", STREET)
    groups = optim.optimizer(model, Settings(encoder_lr=0.1)).param_groups
    scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    inner: Any = model.model
    assert scale[id(inner.layers[0].attention.q_proj.weight)] == 0.1
    assert scale[id(inner.class_predictor.weight)] == 1.0


def test_a_checkpoint_needs_no_folder(folders: Path, tmp_path: Path) -> None:
    spec = STREET
    model = hugging_face_folder.pretrained(str(folders / "segformer"), "segformer", spec)
    path = checkpoint.save(tmp_path / "m.pt", model, NetConfig("segformer", weights="gone"), spec)
    loaded, net, *_ = checkpoint.load(path)
    assert net.weights == "gone"
    with torch.inference_mode():
        assert torch.equal(loaded(IMAGE), model(IMAGE))


def test_a_checkpoint_with_another_config(folders: Path, tmp_path: Path) -> None:
    model: Any = hugging_face_folder.pretrained(str(folders / "eomt"), "eomt", STREET)
    model.transformers = model.transformers.replace('"hidden_size": 32', '"hidden_size": 64')
    with pytest.raises(FileError, match="does not fit its own net"):
        checkpoint.load(checkpoint.save(tmp_path / "m.pt", model, NetConfig("eomt"), STREET))
    with pytest.raises(FileError, match="its network has 5 classes, its Spec 3"):
        checkpoint.load(checkpoint.save(tmp_path / "m.pt", model, NetConfig("eomt"), SPEC))


def copied(folder: Path, to: Path) -> Path:
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_weights_of_another_architecture(folders: Path) -> None:
    with pytest.raises(OptionError, match=r"holds the architecture 'segformer', the recipe says 'eomt'"):
        hugging_face_folder.pretrained(str(folders / "segformer"), "eomt", SPEC)


def test_weights_of_another_task(folders: Path, tmp_path: Path) -> None:
    folder = copied(folders / "segformer", tmp_path)
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**table, "architectures": ["SegformerForImageClassification"]}))
    with pytest.raises(OptionError, match="SegformerForImageClassification, not a segmentation network"):
        hugging_face_folder.pretrained(str(folder), "segformer", SPEC)


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(FileError, match=r"(?s)folder nvidia/segformer of weights does not exist.*write hf:OWNER/NAME"):
        hugging_face_folder.pretrained("nvidia/segformer", "segformer", SPEC)


def test_a_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(name: str, **options: object) -> str:
        raise ConnectionError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(EdgesegError, match=r"(?s)nvidia/mit of the hub could not be downloaded.*fetch the folder"):
        own = recipe(teacher={"arch": "segformer", "weights": "hf:nvidia/mit"})
        initial_model(own, own.teacher, SPEC)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (NetConfig("eomt", "huge"), r"Unknown size of eomt 'huge'\.\nKnown: base, large, small, tiny"),
        (NetConfig("eomt", "tiny", "folder/"), r"of size 'tiny' with weights .*\n.*leave out encoder"),
        (NetConfig("eomt", "", "folder/", 0.5), r"with width 0\.5\.\nThe weights' folder says the width"),
        (NetConfig("eomd", "", "folder/"), r"Unknown architecture 'eomd'\.\nDid you mean 'eomt'"),
    ],
)
def test_a_net_that_does_not_exist(net: NetConfig, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        nets.check(net)


def test_what_cannot_be_pruned() -> None:
    with pytest.raises(OptionError, match=r"neither be pruned nor be compared"):
        nets.head(nets.build(NetConfig("eomt", width=0.125), 3))


def test_matching_needs_queries(root: Path, tmp_path: Path) -> None:
    own = recipe(teacher={"matching": 1.0, "epochs": 1})
    with pytest.raises(OptionError, match=r"matching = 1 for a net without queries"):
        stages.train_teacher(own, root, tmp_path)


def test_queries_learn_by_matching(folders: Path) -> None:
    """Also from a frame without any label."""
    model = hugging_face_folder.pretrained(str(folders / "eomt"), "eomt", STREET).train()
    labels = torch.full((2, 64, 96), 255)
    labels[0, :, :40], labels[0, :, 40:] = 0, 3
    objective = Objective(Settings(ce=0.0, matching=1.0, stride=1), len(NAMES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(0)
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = objective(model, IMAGE.repeat(2, 1, 1, 1), labels)
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]

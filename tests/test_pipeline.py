"""The pipeline on a tiny recipe: every stage real, skipped when nothing changed, continued after an interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseg import pipeline
from edgeseg.bundle import Bundle
from edgeseg.data.sharding import write_shards
from edgeseg.recipe import Recipe
from edgeseg.report.page import write
from edgeseg.results.pipeline import PipelineResult
from edgeseg.synth.files import write_dataset

pytest.importorskip("torch")

RECIPE = """
name = "tiny"
[data]
synthetic = { train = 10, val = 2, test = 4, seed = 5 }
size = [64, 96]
[teacher]
width = 0.5
epochs = 1
[student]
width = 0.25
epochs = 1
[prune]
epochs = 1
[quantize]
frames = 8
max_drop = 100.0
[targets]
compile = ["openvino-cpu:fp32", "openvino-cpu:int8", "onnxruntime-cpu:int8"]
golden = "synthetic"
"""
STAGES = ["render", "teacher", "student", "distilled", "pruned"]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Figures of a second are enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "BENCH_SECONDS", 0.4)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe and a finished run."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "recipe.toml").write_text(RECIPE)
    pipeline.run(Recipe.load(folder / "recipe.toml"), folder / "run", lambda text: None)
    return folder


def again(folder: Path, recipe: str, tmp_path: Path) -> list[str]:
    """Run a copy of a finished run with another recipe; the stages that had work to do."""
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "recipe.toml").write_text(recipe)
    messages: list[str] = []
    pipeline.run(Recipe.load(tmp_path / "recipe.toml"), tmp_path / "run", messages.append)
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    return [name for name in ledger if name in messages]


def test_every_stage_is_measured_and_every_target_has_a_bundle(finished: Path) -> None:
    report = json.loads((finished / "run" / "report.json").read_text())
    assert [row["stage"] for row in report["stages"]] == list(pipeline.STAGES)
    assert {"miou", "pixel_accuracy", "latency_ms", "fps"} <= set(report)
    assert report["best"] in ("tiny-fp32", "tiny-int8"), "the headline is the first target's"
    assert report["stages"][3]["macs"] < report["stages"][2]["macs"]
    for row in [*report["stages"], *report["bundles"]]:
        assert 0 <= row["miou"] <= 1 and row["fps"] > 0 and row["bytes"] > 0
    names = [row["name"] for row in report["bundles"]]
    assert names == ["tiny-fp32", "tiny-int8", "tiny-onnxruntime-cpu-int8"]
    for name in names:
        manifest = Bundle.load(finished / "run" / "bundles" / name).manifest
        assert manifest.recipe["name"] == "tiny"
        assert manifest.metrics.split == "test"
    assert all((finished / "run" / row["file"]).is_file() for row in report["pictures"])


@pytest.mark.slow
def test_shards_go_the_whole_way_like_files(tmp_path: Path) -> None:
    """The same figures in every stage and bundle, but speed."""
    rows = []
    write_dataset(tmp_path / "files", train=10, val=2, test=4, seed=5, height=64, width=96)
    write_shards(tmp_path / "files", tmp_path / "shards", 1 << 16)
    for name in ("files", "shards"):
        text = RECIPE.replace("synthetic = { train = 10, val = 2, test = 4, seed = 5 }", f'root = "{name}"')
        (tmp_path / f"{name}.toml").write_text(text)
        pipeline.run(Recipe.load(tmp_path / f"{name}.toml"), tmp_path / f"run-{name}", lambda message: None)
        report = json.loads((tmp_path / f"run-{name}" / "report.json").read_text())
        rows.append([(row["name"], row["miou"], row["bytes"]) for row in report["bundles"]])
        rows[-1] += [(row["stage"], row["miou"], row["macs"]) for row in report["stages"]]
    assert rows[0] == rows[1]


def test_a_second_run_has_nothing_to_do(finished: Path, tmp_path: Path) -> None:
    assert again(finished, RECIPE, tmp_path) == []


def test_a_change_reruns_only_what_depends_on_it(finished: Path, tmp_path: Path) -> None:
    worked = again(finished, RECIPE.replace("[prune]", "[prune]\nmacs = 0.6"), tmp_path)
    assert not {"render", "teacher", "student", "distilled", "measure teacher"} & set(worked)
    assert {"pruned", "measure pruned", "compile tiny-int8"} <= set(worked)


def test_int8_comes_from_quantization_aware_training_where_the_recipe_has_it(finished: Path, tmp_path: Path) -> None:
    worked = again(finished, RECIPE + "[qat]\nepochs = 1\n", tmp_path)
    assert set(worked) == {"qat", "export qat", "compile tiny-int8", "compile tiny-onnxruntime-cpu-int8"}
    for name in ("tiny-int8", "tiny-onnxruntime-cpu-int8"):
        manifest = Bundle.load(tmp_path / "run" / "bundles" / name).manifest
        assert manifest.parent.file == "tiny-qat.onnx" and manifest.calibration is None
        assert any("came quantized" in note for note in manifest.graph.notes)


def test_a_damaged_output_is_rebuilt(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    target = tmp_path / "copy" / "run" / "bundles" / "tiny-int8" / "bundle.json"
    target.write_text(target.read_text().replace("tiny-int8", "other"))
    assert again(tmp_path / "copy", RECIPE, tmp_path / "new") == ["compile tiny-int8"]


def test_an_interrupted_stage_continues(tmp_path: Path) -> None:
    completed: list[str] = []

    def work(name: str) -> dict[str, str]:
        completed.append(name)
        if name == "broken":
            raise KeyboardInterrupt
        (tmp_path / "out").write_text("made")
        return {"made": name}

    with pytest.raises(KeyboardInterrupt):
        pipeline.Ledger(tmp_path, lambda text: None).stage(
            "first", [1], [tmp_path / "out"], dict, lambda: work("broken")
        )
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "last.pt").write_text("half way")
    ledger = pipeline.Ledger(tmp_path, lambda text: None)
    assert ledger.stage("first", [1], [tmp_path / "out"], dict, lambda: work("good")) == {"made": "good"}
    assert (tmp_path / "first" / "last.pt").exists(), "what the interrupted stage left must be there to continue from"
    assert ledger.stage("first", [1], [tmp_path / "out"], dict, lambda: work("never")) == {"made": "good"}
    assert ledger.stage("first", [2], [tmp_path / "out"], dict, lambda: work("changed")) == {"made": "changed"}
    assert not (tmp_path / "first").exists(), "other inputs must not continue from the old folder"
    assert completed == ["broken", "good", "changed"]


def test_a_pipeline_publishes_and_reports(finished: Path, tmp_path: Path) -> None:
    report = PipelineResult.load(finished / "run" / "report.json")
    pipeline.publish(report, finished / "run", tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"tiny.onnx", "tiny-fp32", "tiny-int8", "card.md"}
    Bundle.load(tmp_path / "tiny-int8")
    card = (tmp_path / "card.md").read_text()
    assert "10 training, 2 validation and 4 test frames" in card and "| distilled |" in card
    write([(finished / "run" / "report.json", report)], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == len(report.pictures) and "src='http" not in page

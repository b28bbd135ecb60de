"""edgeseg loop: a whole turn on real parts, interrupted everywhere, refused, and with what may be missing meanwhile."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from training_helpers import CLASSES, SPEC, scene, write_scenes

from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model, spec_of
from edgeseg.data.dataset import Dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.images import read_image, write_image
from edgeseg.loop import ledger, turn
from edgeseg.loop.settings import LoopSettings
from edgeseg.monitoring.ring import Ring
from edgeseg.recipe import Recipe
from edgeseg.result import Frame, Result
from edgeseg.results.loop import LoopResult
from edgeseg.target import Target
from edgeseg.training import stages

STEPS = ["select", "export", "import", "dataset", "train", "compile", "gate", "promote"]
RECIPE = """
name = "tiny"
[data]
root = "data"
size = [64, 96]
[student]
width = 0.25
epochs = 1
batch = 4
"""
LOOP = """
deployed = "deployed"
checkpoint = "student.pt"
recipe = "recipe.toml"
data = "data"
collected = ["collected"]
frames = 6
format = "masks"
held_out = 0.4
max_drop = 100
min_gain = -100
"""


def quiet(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployed bundle with its checkpoint, recipe and data, and eight collected frames."""
    folder = tmp_path_factory.mktemp("site")
    write_scenes(folder / "data", {"train": 8, "val": 2, "test": 4})
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "loop.toml").write_text(LOOP)
    stages.train_student(Recipe.load(folder / "recipe.toml"), folder / "data", folder)
    stages.export_onnx(folder / "student.pt", folder / "student.onnx")
    spec, _ = spec_of(folder / "student.onnx", {})
    frames = [scene(seed)[0] for seed in range(4)]
    target = Target.load("openvino-cpu")
    compile_model(folder / "student.onnx", folder / "deployed", target, "fp32", spec=spec, frames=frames)
    ring = Ring(folder / "collected", SPEC, 10**8)
    for i in range(8):
        wrong = np.zeros((SPEC.height, SPEC.width), np.uint8)
        result = Result(Frame(scene(100 + i)[0], i), wrong, {"infer": 0.01}, None, SPEC)
        ring.add(result, "front", {"uncertain": 0.9 + i / 100}, 1.8e9)
    return folder


@pytest.fixture
def place(site: Path, tmp_path: Path) -> Path:
    """A copy of the site."""
    shutil.copytree(site, tmp_path / "site")
    return tmp_path / "site"


def settings(place: Path, **changes: object) -> LoopSettings:
    lines = [line for line in LOOP.splitlines() if line.split(" =")[0] not in changes]
    lines += [f"{key} = {json.dumps(value)}" for key, value in changes.items()]
    (place / "loop.toml").write_text("\n".join(lines))
    return LoopSettings.load(place / "loop.toml")


def label(place: Path, number: int = 1, count: int = 100) -> Path:
    """What people do: correct the exported masks, and put them where the loop looks."""
    folder = place / "loop" / f"turn-{number:03d}"
    shutil.copytree(folder / "export", folder / "labels")
    for i, path in enumerate(sorted((folder / "labels").rglob("masks/*.png"))):
        if i >= count:
            path.unlink()
            continue
        mask = scene(100 + int(path.stem.rsplit("-", 1)[1]))[1]
        write_image(path, np.where(mask == CLASSES.ignore_index, np.uint8(255), mask))
    return folder


def digests(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_whole_turn_and_the_next_one(place: Path, edgeseg: Callable[..., Any]) -> None:
    file, old, before = place / "loop.toml", digests(place / "data"), Bundle.load(place / "deployed").digest
    assert json.loads(edgeseg("loop", file, "--status", "--json", "-").out)["state"] == "new"
    ran = edgeseg("loop", file, "--json", "-")
    waiting = json.loads(ran.out)
    assert ran.code == 0 and waiting["state"] == "waiting" and "turn-001/labels.zip" in waiting["note"]
    folder = label(place)
    ran = edgeseg("loop", file, "--json", "-")
    assert ran.code == 0, ran.err
    result = LoopResult.from_dict(json.loads(ran.out))
    assert result.state == "promoted" and [step.name for step in result.turns[0].steps] == STEPS
    assert digests(place / "data") == old, "the old dataset is not touched"
    made = {split: Dataset.open(folder / "dataset", split) for split in ("train", "val", "test")}
    assert [len(part) for part in made.values()] == [8 + 4, 2, 4 + 2]
    new = Dataset.open(folder / "new", "test")
    held = {image.name for image in new.images}
    assert held < {image.name for image in made["test"].images}
    assert not held & {image.name for image in made["train"].images}
    stem = new.images[0].stem.removeprefix("turn-001-")
    assert (new.mask(0) == scene(100 + int(stem.rsplit("-", 1)[1]))[1]).all(), "ignored pixels keep the dataset's id"
    deployed = Bundle.load(place / "deployed")
    assert deployed.digest == result.turns[0].step("promote").digests["deployed"] != before
    assert (deployed.target, deployed.precision.value) == ("openvino-cpu", "fp32")
    assert Bundle.load(place / "deployed.before-turn-001").digest == before
    figures = result.turns[0].step("gate").figures
    assert (figures["old_frames"], figures["new_frames"], figures["old"], figures["new"]) == (4, 2, "pass", "pass")
    again = ledger.run(settings(place), quiet)
    assert again.state == "waiting" and again.note.startswith("2 of 6 new frames are collected")
    assert ledger.run(settings(place, frames=4, collected=["collected", "data"]), quiet).state == "waiting"
    following = ledger.status(settings(place)).turns[1]
    assert following.number == 2 and following.step("select").figures["candidates"] == 2 + 14
    work = turn.Turn(settings(place), 3, (*again.turns[:1], following), quiet)
    assert work.checkpoint == folder / "train" / "student.pt" and work.data == folder / "dataset"


def test_a_run_that_ends_anywhere_is_gone_on_with(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step's work is done, and the program ends before that is recorded; then once more after it was."""
    save, ended = ledger._Run._save, []

    def dies(self: Any, state: str, note: str) -> LoopResult:
        name = self.turn.steps[-1].name if self.turn.steps else ""
        when = (name, state)
        if when not in ended:
            ended.append(when)
            raise KeyboardInterrupt
        result = save(self, state, note)
        if state == "unfinished" and (*when, "after") not in ended:
            ended.append((*when, "after"))
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(ledger._Run, "_save", dies)
    result = None
    for _ in range(60):
        try:
            result = ledger.run(settings(place), quiet)
        except KeyboardInterrupt:
            continue
        if result.state == "waiting":
            label(place)
        else:
            break
    assert result is not None and result.state == "promoted"
    assert [step.name for step in result.turns[0].steps] == STEPS and len(result.turns) == 1
    assert {when[0] for when in ended} == set(STEPS)
    assert Bundle.load(place / "deployed").digest == result.turns[0].step("compile").digests["bundle"]


def test_a_promotion_that_ends_between_its_renames_is_completed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.run(settings(place), quiet)
    label(place)
    rename = Path.rename

    def dies(self: Path, target: Path) -> Path:
        if target == place / "deployed":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            ledger.run(settings(place), quiet)
    assert not (place / "deployed").exists() and ledger.status(settings(place)).state == "unfinished"
    assert ledger.run(settings(place), quiet).state == "promoted"
    assert Bundle.load(place / "deployed").digest != Bundle.load(place / "deployed.before-turn-001").digest
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []


def test_the_gate_refuses_and_the_labels_are_kept_for_the_next_turn(place: Path, edgeseg: Callable[..., Any]) -> None:
    before = Bundle.load(place / "deployed").digest
    strict = settings(place, min_gain=99)
    ledger.run(strict, quiet)
    label(place)
    ran = edgeseg("loop", place / "loop.toml", "--json", "-")
    result = json.loads(ran.out)
    assert ran.code == 1 and result["state"] == "refused" and result["note"].startswith("new frames: fail: ")
    assert Bundle.load(place / "deployed").digest == before and not (place / "deployed.before-turn-001").exists()
    following = turn.Turn(strict, 2, ledger.status(strict).turns, quiet)
    assert following.data == place / "loop/turn-001/dataset" and following.checkpoint == place / "student.pt"


def test_another_bundle_that_is_deployed_meanwhile_passes_the_gate_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.run(settings(place), quiet)
    label(place)

    def dies(self: Any, figures: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(turn.Turn, "verdict", dies)
        with pytest.raises(KeyboardInterrupt):
            ledger.run(settings(place), quiet)
    spec, _ = spec_of(place / "student.onnx", {})
    shutil.rmtree(place / "deployed")
    frames = [scene(50)[0]]
    target = Target.load("openvino-cpu")
    other = compile_model(place / "student.onnx", place / "deployed", target, "fp32", spec=spec, frames=frames)
    messages: list[str] = []
    result = ledger.run(settings(place), messages.append)
    assert "another bundle was deployed since the gate: it is passed again" in messages
    assert result.turns[0].step("gate").digests["deployed"] == other.digest and result.state == "promoted"


def test_frames_that_are_removed_meanwhile_are_left_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the budget of collect while they are selected; from the turn's own folder while people label."""
    choose = turn.choose

    def removes(*words: Any) -> Any:
        chosen = choose(*words)
        chosen[0].image.unlink()
        return chosen

    monkeypatch.setattr(turn, "choose", removes)
    result = ledger.run(settings(place), quiet)
    assert result.turns[0].step("select").figures["frames"] == 5
    folder = label(place)
    next((folder / "collection/train/images").iterdir()).unlink()
    for name in ("collected", "loop/turn-001/export"):
        shutil.rmtree(place / name)
    result = ledger.run(settings(place, least_labeled=0.5), quiet)
    assert result.state == "promoted" and result.turns[0].step("import").figures["frames"] == 4


def test_too_few_labels_are_waited_for_and_those_that_do_not_fit_are_told(place: Path) -> None:
    ledger.run(settings(place), quiet)
    folder = label(place, count=2)
    result = ledger.run(settings(place), quiet)
    assert result.state == "waiting" and "Labels of 2 of 6 frames are in" in result.note
    shutil.rmtree(folder / "labels")
    label(place)
    for path in (folder / "labels").rglob("masks/*.png"):
        if "0000000" in path.name and path.stem[-1] in "34567":
            write_image(path, np.zeros((32, 48), np.uint8))
    with pytest.raises(FileError, match=r"do not fit: .*Its labels are for 48x32, the frame is 96x64"):
        ledger.run(settings(place), quiet)
    shutil.rmtree(folder / "labels")
    label(place)
    for path in (folder / "labels").rglob("masks/*.png"):
        write_image(path, np.full((64, 96), 255, np.uint8))
    with pytest.raises(FileError, match=r"have 6 errors: .*Every pixel is ignored\.\n.*check\.json"):
        ledger.run(settings(place), quiet)


def test_uncertain_and_different_frames_are_chosen(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "c", SPEC, 10**8)
    black, white = np.zeros((64, 96, 3), np.uint8), np.full((64, 96, 3), 255, np.uint8)
    shown = [(black, 1.0), (black, 0.99), (black, 0.98), (white, 0.91), (white // 2, 0.9)]
    for i, (image, worth) in enumerate(shown):
        result = Result(Frame(image, i), np.zeros((64, 96), np.uint8), {}, None, SPEC)
        ring.add(result, "front", {"uncertain": worth}, 1.8e9)
    found = turn.candidates([tmp_path / "c", tmp_path / "none"])
    chosen = turn.choose(found, 3, 3, "uncertain", 1)
    assert [int(c.image.stem[-1]) for c in chosen] == [0, 3, 4]
    drawn = [[c.image.stem for c in turn.choose(found, 3, 3, "random", seed)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    found[0].image.write_bytes(b"damaged")
    found[3].image.unlink()
    chosen = turn.choose(found, 9, 3, "uncertain", 1)
    assert sorted(int(c.image.stem[-1]) for c in chosen) == [1, 2, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": 3}, r"Unknown key 'frame'.*\nDid you mean 'frames'"),
        ({"select": "best"}, r"select is 'best'.*\nExpected 'uncertain' or 'random'"),
        ({"frames": 1}, r"frames is 1, out of range"),
        ({"collected": []}, r"collected is \[\]"),
        ({"format": "cvta"}, r"cvta.*\nDid you mean 'cvat'"),
        ({"deployed": "none"}, r"none is not a folder"),
        ({"checkpoint": "none.pt"}, r"Checkpoint .*none\.pt does not exist"),
        ({"recipe": "none.toml"}, r"Recipe .*none\.toml does not exist"),
        ({"data": "none"}, r"Dataset .*none does not exist"),
    ],
)
def test_what_cannot_be_used_is_told_before_any_work(
    change: dict[str, object], message: str, place: Path, edgeseg: Callable[..., Any]
) -> None:
    with pytest.raises(Exception, match=message):
        ledger.run(settings(place, **change), quiet)
    assert edgeseg("loop", place / "loop.toml").code == 2
    assert not (place / "loop" / "turn-001").exists()


@pytest.mark.parametrize("name", ["data", "collected"])
def test_other_classes_are_told(name: str, place: Path) -> None:
    path = place / name / "classes.txt"
    path.write_text(path.read_text().replace("disc", "ball"))
    with pytest.raises(OptionError, match=rf"{name} has the classes ground, box, ball; the bundle deployed has"):
        ledger.run(settings(place), quiet)


def test_another_input_size_is_told(place: Path) -> None:
    (place / "recipe.toml").write_text(RECIPE.replace("[64, 96]", "[64, 128]"))
    with pytest.raises(OptionError, match=r"data.size is \[64, 128\], .*deployed has \[64, 96\]"):
        ledger.run(settings(place), quiet)


def test_two_runs_at_once_and_a_damaged_ledger_are_told(place: Path) -> None:
    ledger.run(settings(place), quiet)
    with (place / "loop/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OptionError, match=r"Another run is at work"):
            ledger.run(settings(place), quiet)
    (place / "loop/turns.json").write_text("{")
    with pytest.raises(FileError, match=r"turns\.json"):
        ledger.status(settings(place))


def test_golden_frames_are_none_that_were_collected(place: Path) -> None:
    ledger.run(settings(place), quiet)
    label(place)
    ledger.run(settings(place), quiet)
    first = Dataset.open(place / "data", "test").images[0]
    golden, _ = next(Bundle.load(place / "deployed").golden())
    assert (golden == read_image(first)).all()


def test_an_int8_bundle_is_replaced_by_one(place: Path) -> None:
    spec, _ = spec_of(place / "student.onnx", {})
    shutil.rmtree(place / "deployed")
    calibration = CalibrationSet.choose(place / "data", 8, 1)
    target, frames = Target.load("openvino-cpu"), [scene(seed)[0] for seed in range(4)]
    compile_model(
        place / "student.onnx", place / "deployed", target, "int8", spec=spec, frames=frames, calibration=calibration,
        allow_loss=True,
    )  # fmt: skip
    with (place / "recipe.toml").open("a") as file:
        file.write('[quantize]\nframes = 8\nranges = "minmax"\n')
    ledger.run(settings(place), quiet)
    label(place)
    result = ledger.run(settings(place), quiet)
    assert result.state == "promoted", result.note
    manifest = Bundle.load(place / "deployed").manifest
    assert manifest.precision.is_int8 and manifest.calibration is not None and manifest.calibration.frames == 8


def test_the_examples_of_the_documentation_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/loop.md").read_text()
    example = re.search(r"```toml\n(.*?)```", page, re.S)
    assert example is not None
    (tmp_path / "loop.toml").write_text(example[1])
    found = LoopSettings.load(tmp_path / "loop.toml")
    given = {"deployed", "checkpoint", "recipe", "data", "collected", "seed", "folder"}
    for row in fields(LoopSettings):
        assert row.name == "seed" or row.name == "folder" or f"\n{row.name} = " in example[1]
        assert row.name in given or getattr(found, row.name) == row.default, "the page shows the defaults"
    job = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.S)[1])
    container = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert job["kind"] == "CronJob" and container["command"][-4:] == ["loop", "loop.toml", "--json", "turn.json"]

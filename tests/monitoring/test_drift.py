"""`edgeseg drift` and the sink drift:// on real bundles and rendered streets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgeseg.bundle import REFERENCE, Bundle
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model
from edgeseg.errors import BundleError, FileError, OptionError
from edgeseg.images import read_image, write_image
from edgeseg.monitoring.reference import load, of_bundle, picture_of, require
from edgeseg.monitoring.statistics import measure, names
from edgeseg.results.drift import DriftResult
from edgeseg.runtime import open_segmenter
from edgeseg.stream import sinks
from edgeseg.target import Target

STREET = Path(__file__).parents[2] / "models" / "street" / "street-int8"
DAY = "synthetic://street?seed=3&size=192x112&frames=450"
NIGHT = DAY.replace("frames=450", "frames=300&night=1")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Statistics of a rendered day, of the shipped bundle."""
    from edgeseg.stream.drift import reference_from

    path = tmp_path_factory.mktemp("reference") / "day.json"
    with open_segmenter(STREET, margin=True) as segmenter:
        reference_from(segmenter, DAY).save(path)
    return path


def test_a_day_raises_no_alarm_and_the_night_does_with_pictures(
    edgeseg: Callable[..., Any], reference: Path, tmp_path: Path
) -> None:
    words = ("drift", STREET, "--reference", reference, "--json", "-")
    day = edgeseg(*words, "--source", DAY.replace("frames=450", "frames=200"))
    assert day.code == 0 and json.loads(day.out)["alarms"] == [], day.err
    night = edgeseg(*words, "--source", NIGHT, "--pictures", tmp_path / "seen")
    assert night.code == 0, night.err
    result = DriftResult.from_dict(json.loads(night.out))
    first = result.alarms[0]
    assert 165 <= first.frame < 300 and first.statistic in names(Bundle.load(STREET).spec.classes)
    assert not first.low <= first.value <= first.high and first.bound > result.bound / 1000
    assert first.what in night.err and "a false alarm comes once in 7 days or less often" in night.err
    picture = read_image(tmp_path / "seen" / first.picture)
    assert picture.shape[1] > 600 and picture[40:200, :400].mean() > 1.5 * picture[40:200, -400:].mean()  # day, night
    assert result.bundle is not None and result.bundle.name == STREET.name and result.scores[first.statistic] == 1


def test_the_frames_of_a_folder_are_a_reference(
    edgeseg: Callable[..., Any], street: Path, bundle: Path, tmp_path: Path
) -> None:
    few = edgeseg("drift", bundle, "--reference", street / "test" / "images", "--out", tmp_path / "r.json")
    assert few.code == 2 and "4 frames are too few for reference statistics." in few.err
    for i, frame in enumerate(tiny.frames(20)):
        write_image(tmp_path / "frames" / f"{i}.png", frame)
    made = edgeseg("drift", bundle, "--reference", tmp_path / "frames", "--out", tmp_path / "r.json")
    assert made.code == 0, made.err
    found = load(tmp_path / "r.json", tiny.SPEC.classes)
    assert found.frames == 20 and not found.sequence and picture_of(found) is not None
    plain = edgeseg("drift", bundle, "--reference", tmp_path / "frames", "--no-picture", "--out", tmp_path / "p.json")
    assert plain.code == 0 and picture_of(load(tmp_path / "p.json", tiny.SPEC.classes)) is None


def test_compiling_with_calibration_frames_stores_their_statistics(
    network: Path, edgeseg: Callable[..., Any], tmp_path: Path
) -> None:
    for i, frame in enumerate(tiny.frames(20)):
        write_image(tmp_path / "frames" / f"{i}.png", frame)
    made = compile_model(
        network, tmp_path / "b", Target.load("openvino-cpu"), "fp32", spec=tiny.SPEC, frames=tiny.frames(4, seed=1),
        calibration=CalibrationSet.choose(tmp_path / "frames", 20),
    )  # fmt: skip
    found = require(made)
    assert found.frames == 20 and not found.picture and REFERENCE in made.manifest.files
    with open_segmenter(made, margin=True) as segmenter:
        again = [measure(segmenter(frame), len(tiny.SPEC.classes)) for frame in tiny.frames(20)]
    assert np.allclose(sorted(row[0] for row in found.rows), sorted(row[0] for row in again), atol=1e-4)
    assert edgeseg("verify", tmp_path / "b").code == 0
    watched = edgeseg("drift", tmp_path / "b", "--source", tmp_path / "frames", "--json", "-")
    assert watched.code == 0 and json.loads(watched.out)["reference"] == 20


def test_a_bundle_without_reference_says_how_to_make_one(
    edgeseg: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    assert of_bundle(Bundle.load(bundle)) is None
    refused = edgeseg("drift", bundle, "--source", DAY)
    assert refused.code == 2 and f"Bundle {bundle} has no reference statistics." in refused.err
    assert f"edgeseg drift {bundle} --reference FRAMES --out FILE.json" in refused.err
    with pytest.raises(BundleError, match=r"no reference statistics to watch for drift\.\nMake some .*reference=ref"):
        sinks.open(f"drift://{tmp_path}/x/", sinks.Info(tiny.SPEC))
    assert not (tmp_path / "x").exists()


def test_a_reference_of_another_model_or_a_damaged_one(edgeseg: Callable[..., Any], reference: Path, tmp_path: Path):
    with pytest.raises(OptionError, match=r"are of a model with the classes road, pavement, .*\nExpected: cat, dog"):
        load(reference, ("cat", "dog"))
    document = json.loads(reference.read_text())
    document["rows"][3] = ["a"]
    (tmp_path / "r.json").write_text(json.dumps(document))
    with pytest.raises(FileError, match=r"not a complete reference result: .*\nMake it again: edgeseg drift BUNDLE"):
        load(tmp_path / "r.json", ("cat",))
    (tmp_path / "r.json").write_text("{")
    damaged = edgeseg("drift", STREET, "--reference", tmp_path / "r.json", "--source", DAY)
    assert damaged.code == 2 and "is not JSON of edgeseg" in damaged.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Nothing to do."),
        (("--out", "x.json"), "--out needs frames to make statistics of."),
        (("--source", "nowhere.mp4", "--reference", "{reference}"), "nowhere.mp4"),
    ],
)
def test_options_that_do_not_fit(edgeseg: Callable[..., Any], reference: Path, words: tuple[str, ...], message: str):
    refused = edgeseg("drift", STREET, *(word.format(reference=reference) for word in words))
    assert refused.code == 2 and message in refused.err


def test_a_run_with_a_drift_sink_exports_scores_and_outlives_its_folder(
    edgeseg: Callable[..., Any], reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeseg.stream.sinks import drift

    keep = drift.Drift._keep

    def removed(self: drift.Drift, alarm: object) -> None:
        shutil.rmtree(tmp_path / "gone", ignore_errors=True)
        (tmp_path / "gone").write_text("a file where the folder was")
        keep(self, alarm)  # type: ignore[arg-type]

    monkeypatch.setattr(drift.Drift, "_keep", removed)
    done = edgeseg(
        "run", STREET, "--source", NIGHT, "--sink", f"drift://{tmp_path}/gone/?reference={reference}", "--json", "-"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["frames"] == 300 and any("gone" in w for w in json.loads(done.out)["warnings"])
    monkeypatch.undo()
    done = edgeseg("run", STREET, "--source", NIGHT, "--sink", f"drift://{tmp_path}/kept/?reference={reference}")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "kept" / "alarms.jsonl").read_text().splitlines()]
    assert lines and all((tmp_path / "kept" / line["picture"]).is_file() for line in lines)

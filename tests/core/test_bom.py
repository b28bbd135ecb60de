"""The bill of materials: valid CycloneDX, true, the same for the same bundle, and nothing in it that nobody stated."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgeseg import bom, packages
from edgeseg.bundle import BOM, MANIFEST, Bundle, Manifest, seal
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model
from edgeseg.data.dataset import Dataset
from edgeseg.errors import BundleError, FileError, OptionError
from edgeseg.files import sha256
from edgeseg.recipe import Recipe
from edgeseg.target import Target

pytest.importorskip("onnx")
Edgeseg = Callable[..., Any]
STATED = """source = "Vans of Ünïcode & Co."
license = "CC BY-NC 4.0"
sensitive = "Faces"
classification = "Confidential"
"""


@pytest.fixture(scope="module")
def stated(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with a datasheet."""
    root = Path(shutil.copytree(street, tmp_path_factory.mktemp("stated") / "vans"))
    (root / "datasheet.toml").write_text(STATED, encoding="utf-8")
    return root


def compiled(network: Path, out: Path, root: Path, **more: Any) -> Bundle:
    return compile_model(
        network,
        out,
        Target.load("openvino-cpu"),
        "int8",
        spec=tiny.SPEC,
        frames=tiny.frames(2, seed=1),
        calibration=CalibrationSet.choose(root, 10),
        dataset=Dataset.open(root, "test"),
        **more,
    )


@pytest.fixture(scope="module")
def full(network: Path, stated: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of which everything is known."""
    table = {"name": "vans", "data": {"root": "vans", "size": [64, 96]}, "student": {"arch": "lite"},
             "card": {"license": "MIT", "use": "Counting vans."}}  # fmt: skip
    recipe = Recipe.from_dict(table, stated.parent / "recipe.toml").to_dict()
    return compiled(network, tmp_path_factory.mktemp("full") / "vans-int8", stated, recipe=recipe, trained_on=stated)


def bill(bundle: Bundle) -> dict[str, Any]:
    document = json.loads(bundle.files[BOM])
    assert isinstance(document, dict)
    return document


def manifest(path: Path) -> Manifest:
    """Also of a bundle whose files were altered."""
    return Manifest.from_dict(json.loads((path / MANIFEST).read_text()), path)


def properties(part: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["value"] for row in part["properties"]}


def test_it_is_valid_cyclonedx(full: Bundle, bundle: Path) -> None:
    schema = pytest.importorskip("cyclonedx.schema", reason="needs cyclonedx-python-lib[json-validation]")
    validation = pytest.importorskip("cyclonedx.validation.json")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    for one in (full, Bundle.load(bundle)):
        assert validator.validate_str(one.files[BOM].decode()) is None
    broken = full.files[BOM].decode().replace('"machine-learning-model"', '"model"')
    assert validator.validate_str(broken) is not None


def test_the_model_its_files_and_its_parent(full: Bundle, network: Path) -> None:
    model = bill(full)["metadata"]["component"]
    assert (model["type"], model["name"]) == ("machine-learning-model", "vans-int8")
    assert model["licenses"] == [{"license": {"name": "MIT"}}]
    files = {part["name"]: part["hashes"] for part in model["components"]}
    assert set(files) == {"model.bin", "model.xml"}
    assert all(hashes == [{"alg": "SHA-256", "content": sha256(full.path / name)}] for name, hashes in files.items())
    ancestor = model["pedigree"]["ancestors"][0]
    assert (ancestor["name"], ancestor["hashes"][0]["content"]) == ("tiny.onnx", sha256(network))
    about = properties(model)
    assert (about["edgeseg:target"], about["edgeseg:precision"]) == ("openvino-cpu", "int8")


def test_the_model_card(full: Bundle) -> None:
    card, measured = bill(full)["metadata"]["component"]["modelCard"], full.manifest.metrics
    parameters = card["modelParameters"]
    assert (parameters["task"], parameters["architectureFamily"]) == ("semantic segmentation", "lite")
    metrics = {
        (row["type"], row.get("slice")): row["value"] for row in card["quantitativeAnalysis"]["performanceMetrics"]
    }
    assert measured is not None and measured.miou is not None
    assert float(metrics["mIoU", "vans test"]) == pytest.approx(measured.miou, abs=1e-6)
    assert ("IoU", "vans test, road") in metrics
    assert card["considerations"] == {"useCases": ["Counting vans."]}, "the default for limits is no statement"
    assert json.loads(properties(card)["edgeseg:spec:classes"]) == list(tiny.SPEC.classes)


def test_the_data_with_license_and_classification(full: Bundle, stated: Path) -> None:
    document = bill(full)
    (data,) = document["components"]
    assert (data["name"], data["description"]) == ("vans", "Vans of Ünïcode & Co.")
    assert data["licenses"] == [{"license": {"name": "CC BY-NC 4.0"}}]
    uses = {row["name"]: row for row in data["data"]}
    assert set(uses) == {"training", "calibration", "evaluation (test)"}
    assert all((row["classification"], row["sensitiveData"]) == ("Confidential", ["Faces"]) for row in uses.values())
    calibration = properties(uses["calibration"]["contents"])
    assert full.manifest.calibration is not None
    assert calibration == {"edgeseg:frames": "10", "edgeseg:digest": full.manifest.calibration.digest}
    assert "properties" not in data, "nobody stated consent"
    used = document["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"]
    assert used == [{"ref": data["bom-ref"]}]


def test_the_packages_that_made_it(full: Bundle) -> None:
    tools = {part["name"]: part for part in bill(full)["metadata"]["tools"]["components"]}
    assert {"edgeseg", "numpy", "openvino", "onnx", "nncf"} <= set(tools)
    found = packages.find("numpy")
    assert found is not None
    assert (tools["numpy"]["version"], tools["numpy"]["purl"]) == (found.version, f"pkg:pypi/numpy@{found.version}")
    assert all(part["licenses"] for part in tools.values())


def test_what_nobody_stated_is_absent(bundle: Path) -> None:
    document = bill(Bundle.load(bundle))
    model = document["metadata"]["component"]
    assert "components" not in document and not {"version", "licenses", "description"} & set(model)
    assert set(model["modelCard"]["modelParameters"]) == {"task", "inputs", "outputs"}
    assert "considerations" not in model["modelCard"] and "timestamp" not in document["metadata"]
    text = Bundle.load(bundle).files[BOM].decode()
    assert "null" not in text and '""' not in text


def test_the_same_bundle_has_the_same_bill(full: Bundle, network: Path, stated: Path, tmp_path: Path) -> None:
    # Not of OpenVINO, whose file of the same network has other names each time.
    target, frames = Target.load("onnxruntime-cpu"), tiny.frames(2, seed=1)
    first, second = (
        compile_model(network, tmp_path / name / "x", target, "fp32", spec=tiny.SPEC, frames=frames, trained_on=stated)
        for name in "ab"
    )
    assert first.files[BOM] == second.files[BOM] and first.digest == second.digest
    assert bill(first)["serialNumber"].startswith("urn:uuid:")
    assert bill(first)["serialNumber"] != bill(full)["serialNumber"]


def test_a_datasheet_without_a_license(
    network: Path, stated: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(shutil.copytree(stated, tmp_path / "cars"))
    (root / "datasheet.toml").write_text('source = "A car"\n')
    with caplog.at_level(logging.WARNING):
        made = compiled(network, tmp_path / "out", root)
    (data,) = bill(made)["components"]
    assert data["description"] == "A car" and "licenses" not in data
    assert "states no license: the bill of materials has none for cars" in caplog.text


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [("licence = 'MIT'", OptionError, "Did you mean 'license'"), ("source = ", FileError, "is not valid TOML")],
)
def test_a_faulty_datasheet(
    text: str, error: type[Exception], message: str, network: Path, stated: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(stated, tmp_path / "cars"))
    (root / "datasheet.toml").write_text(text)
    with pytest.raises(error, match=message):
        compiled(network, tmp_path / "out", root)
    assert not (tmp_path / "out").exists()


def test_training_data_that_is_not_there(network: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("compile", network, "--trained-on", tmp_path / "none", "-o", tmp_path / "out")
    assert result.code == 2 and "none is not a folder" in result.err and "datasheet.toml" in result.err


@pytest.fixture
def copy(full: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(full.path, tmp_path / "copy"))


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_an_altered_bill_is_refused(copy: Path) -> None:
    edited(copy / BOM, "CC BY-NC 4.0", "CC0-1.0")
    with pytest.raises(BundleError, match=r"bom\.cdx\.json differs from its digest"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"name": "model.bin"', '"name": "other.bin"', "is the bill of materials of other files"),
        ('"specVersion": "1.6"', '"specVersion": "9"', r"is CycloneDX 9\.\s+Expected CycloneDX 1\.6"),
        ('"bomFormat"', '"format"', "cannot be read"),
        ("{", "[", "cannot be read"),
    ],
)
def test_verify_reads_it(old: str, new: str, message: str, copy: Path, edgeseg: Edgeseg) -> None:
    assert "bill of materials" in edgeseg("verify", copy).out
    edited(copy / BOM, old, new)
    seal(copy, manifest(copy))
    with pytest.raises(BundleError, match=message):
        bom.check(Bundle.load(copy))
    result = edgeseg("verify", copy)
    assert result.code == 2 and "Traceback" not in result.err


def test_a_bundle_without_one_is_valid(copy: Path, edgeseg: Edgeseg) -> None:
    (copy / BOM).unlink()
    seal(copy, manifest(copy))
    assert not bom.check(Bundle.load(copy))
    result = edgeseg("verify", copy)
    assert result.code == 0 and "bill of materials" not in result.out


def test_a_new_name_keeps_what_is_known_of_the_data(copy: Path, full: Bundle) -> None:
    sealed = seal(copy, replace(full.manifest, name="other"))
    bom.renew(copy, sealed)
    seal(copy, sealed)
    renamed, before = bill(Bundle.load(copy)), bill(full)
    assert renamed["metadata"]["component"]["name"] == "other"
    assert renamed["components"] == before["components"]
    assert renamed["metadata"]["tools"] == before["metadata"]["tools"]
    assert renamed["serialNumber"] != before["serialNumber"]


def test_size_counts_the_model_only(full: Bundle) -> None:
    assert full.size == sum(len(full.files[name]) for name in ("model.bin", "model.xml"))

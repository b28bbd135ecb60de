"""datasheet.toml: shown by data stats and data check, quoted in model cards, refused where it says something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeseg.data.checking import check_dataset
from edgeseg.data.datasheet import read_datasheet
from edgeseg.data.exporting import export_dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.recipe import Recipe
from edgeseg.report.model_card import model_card
from edgeseg.results.check import CheckResult
from edgeseg.results.datasheet import Datasheet
from edgeseg.results.pipeline import PipelineData

Edgeseg = Callable[..., Any]
TEXT = """source = "Vans of [red]Ünïcode[/red] | Co."
license = '''
Internal
use only'''
sensitive = "Faces"
"""
LINES = [
    "source: Vans of [red]Ünïcode[/red] | Co.",
    "license: Internal use only",
    "consent: not stated",
    "sensitive content: Faces",
    "classification: not stated",
]


@pytest.fixture
def stated(street: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(street, tmp_path / "stated"))
    (root / "datasheet.toml").write_text(TEXT, encoding="utf-8")
    return root


def test_statements_are_lines(stated: Path, street: Path) -> None:
    sheet = read_datasheet(stated)
    assert sheet is not None and sheet.lines() == LINES
    assert read_datasheet(street) is None


@pytest.mark.parametrize("verb", ["stats", "check"])
def test_verbs_show_it(verb: str, stated: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("data", verb, stated, "--json", tmp_path / "r.json")
    assert all(line in result.out.splitlines() for line in LINES)
    assert json.loads((tmp_path / "r.json").read_text())["datasheet"]["sensitive"] == "Faces"
    assert "license" not in edgeseg("data", verb, street, "--json", tmp_path / "r.json").out
    assert json.loads((tmp_path / "r.json").read_text())["datasheet"] is None


def test_the_report_of_a_check_shows_it(stated: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    edgeseg("data", "check", stated, "--skip", "copies", "--report", tmp_path / "r.html")
    assert "Vans of [red]Ünïcode[/red] | Co." in (tmp_path / "r.html").read_text(encoding="utf-8")
    result = check_dataset(stated, skip=["copies"])
    assert CheckResult.from_dict(json.loads(json.dumps(result.to_dict()))).datasheet == result.datasheet is not None


def test_a_new_split_keeps_it(stated: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    edgeseg("data", "split", stated, "--out", tmp_path / "new", "--copies", "ignore")
    assert (tmp_path / "new" / "datasheet.toml").read_text(encoding="utf-8") == TEXT


def test_an_import_takes_it_from_beside_the_labels(
    stated: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg
) -> None:
    """Beside a file of labels, beside the only folder, and in an archive; what cannot be read is refused before."""
    export_dataset(stated, "coco", tmp_path / "coco")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "coco")
    shutil.copytree(street, tmp_path / "around" / "inner")
    shutil.copy(stated / "datasheet.toml", tmp_path / "around")
    for i, source in enumerate((tmp_path / "coco", tmp_path / "packed.zip", tmp_path / "around")):
        result = edgeseg("data", "import", source, "--out", tmp_path / f"out{i}", "--json", tmp_path / "r.json")
        assert result.code == 0, result.err
        assert read_datasheet(tmp_path / f"out{i}") == read_datasheet(stated), source
        assert json.loads((tmp_path / "r.json").read_text())["datasheet"] is True
    (tmp_path / "coco" / "datasheet.toml").write_text("licence = 'MIT'")
    result = edgeseg("data", "import", tmp_path / "coco", "--out", tmp_path / "wrong")
    assert result.code == 2 and "Did you mean 'license'" in result.err and not (tmp_path / "wrong").exists()


def test_an_export_keeps_it(stated: Path, street: Path, tmp_path: Path) -> None:
    export_dataset(stated, "voc", tmp_path / "with")
    export_dataset(street, "voc", tmp_path / "without")
    assert (tmp_path / "with" / "datasheet.toml").read_text(encoding="utf-8") == TEXT
    assert not (tmp_path / "without" / "datasheet.toml").exists()


def test_a_model_card_quotes_it(stated: Path, street: Path) -> None:
    def card(root: Path) -> str:
        table = {"name": "x", "data": {"root": root.name, "size": [64, 96]}}
        return model_card(Recipe.from_dict(table, root.parent / "recipe.toml"), [])

    text = card(stated)
    assert "| source | Vans of [red]Ünïcode[/red] \\| Co. |" in text and "| consent | not stated |" in text
    assert "consent" not in card(street)


def test_reports_of_before_are_read() -> None:
    assert PipelineData(1, {}).datasheet is None


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("licence = 'MIT'", OptionError, "Did you mean 'license'"),
        ("[source]\nurl = 'x'", OptionError, "Expected a string"),
        ("consent = true", OptionError, r"consent is True\.\nExpected a string"),
        ("source = 3", OptionError, "Expected a string"),
        ("source = ", FileError, "is not valid TOML"),
        ("", FileError, "is empty"),
    ],
)
def test_what_it_may_not_say(text: str, error: type[Exception], message: str, stated: Path, edgeseg: Edgeseg) -> None:
    (stated / "datasheet.toml").write_text(text)
    with pytest.raises(error, match=message):
        read_datasheet(stated)
    for verb in ("stats", "check"):
        result = edgeseg("data", verb, stated)
        assert result.code == 2 and "datasheet.toml" in result.err


def test_all_keys_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "dataset.md").read_text()
    assert all(f"\n{key} = " in page for key in vars(Datasheet()))

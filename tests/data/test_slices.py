"""slices.toml: parts of a split by name or by a column, measured by themselves, printed, in JSON and in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.data.dataset import Dataset
from edgeseg.data.slices import FrameSlice, read_slices
from edgeseg.errors import EdgesegError
from edgeseg.evaluation.evaluate import slice_scores
from edgeseg.evaluation.metrics import Counts

Edgeseg = Callable[..., Any]
NAMES = ["a_night_1", "a_day_2", "b_dusk_3", "b_4"]


def put(folder: Path, text: str, table: str = "") -> Path:
    (folder / "frames.csv").write_text(table or "file,site,camera\n" + "".join(f"{n}.png,{n[0]},1\n" for n in NAMES))
    (folder / "slices.toml").write_text(text)
    return folder / "slices.toml"


def test_slices_by_patterns_and_columns(tmp_path: Path) -> None:
    path = put(
        tmp_path, 'table = "frames.csv"\ncolumns = ["site"]\n[patterns.time]\nnight = "night|dusk"\nday = "day"\n'
    )
    assert read_slices(path, NAMES) == (
        FrameSlice("site: a", (0, 1)),
        FrameSlice("site: b", (2, 3)),
        FrameSlice("time: day", (1,)),
        FrameSlice("time: night", (0, 2)),
        FrameSlice("time: other", (3,)),
    )


def test_the_first_pattern_that_matches_counts(tmp_path: Path) -> None:
    path = put(tmp_path, '[patterns.time]\nnight = "night"\nall = "."\n')
    assert [part.frames for part in read_slices(path, NAMES)] == [(1, 2, 3), (0,)]


def test_scores_of_a_slice_by_hand() -> None:
    """Two frames of 4 pixels: the first all right, in the second one of two pixels of class 1 is taken for 0."""
    counts = Counts(3)
    truth = np.array([[0, 0], [1, 1]], np.uint8)
    counts.add(truth, truth)
    counts.add(truth, np.array([[0, 0], [0, 1]], np.uint8))
    names = ("a", "b", "c")
    right = slice_scores(FrameSlice("x: 1", (0,)), counts.tables(), names)
    assert (right.miou, right.pixel_accuracy, right.iou) == (1, 1, {"a": 1, "b": 1, "c": None})
    wrong = slice_scores(FrameSlice("x: 2", (1,)), counts.tables(), names)
    assert wrong.pixel_accuracy == 0.75 and wrong.iou == {"a": pytest.approx(2 / 3), "b": 0.5, "c": None}
    both = slice_scores(FrameSlice("x", (0, 1)), counts.tables(), names)
    assert both.iou["b"] == 0.75 and both.interval is not None and both.interval[0] < both.interval[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("columns = []\n", "names no slices"),
        ("pattern = 1\n", "unknown key 'pattern'"),
        ('table = "frames.csv"\n', "columns is"),
        ('columns = ["site"]\n', "table is None"),
        ('table = "frames.csv"\ncolumns = ["cite"]\n', "Did you mean 'site'"),
        ('table = "none.csv"\ncolumns = ["site"]\n', "none.csv does not exist"),
        ("patterns = 3\n", "patterns is 3"),
        ("[patterns]\ntime = 3\n", "patterns is"),
        ('[patterns.time]\nnight = "("\n', "patterns.time.night is '('"),
        ("[patterns.time]\nnight = 3\n", "patterns.time.night is 3"),
        ('table = "frames.csv"\ncolumns = ["site"]\n#few', "does not list b_4"),
    ],
)
def test_files_that_say_something_else(text: str, message: str, tmp_path: Path) -> None:
    few = "file,site\n" + "".join(f"{n}.png,{n[0]}\n" for n in NAMES[:3])
    path = put(tmp_path, text, few if text.endswith("#few") else "")
    with pytest.raises(EdgesegError, match=r"(?s).*" + message.replace("(", r"\(").replace("[", r"\[")):
        read_slices(path, NAMES)


def test_a_column_of_single_frames_is_no_slice(tmp_path: Path) -> None:
    names = [f"f{i}" for i in range(300)]
    path = put(tmp_path, 'table = "frames.csv"\ncolumns = ["id"]', "file,id\n" + "".join(f"{n},{n}\n" for n in names))
    with pytest.raises(EdgesegError, match="id has 300 values"):
        read_slices(path, names)


def test_eval_measures_them(bundle: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    names = [image.stem for image in Dataset.open(street, "test").images]
    path = put(
        tmp_path,
        f'table = "frames.csv"\ncolumns = ["site"]\n[patterns.all]\neverything = "."\nnever = "{names[0]}"\n',
        "file,site\n" + "".join(f"{n}.png,{'north' if i else 'south'}\n" for i, n in enumerate(names)),
    )
    ran = edgeseg(
        *(
            "eval",
            bundle,
            "--data",
            street,
            "--slices",
            path,
            "--json",
            tmp_path / "e.json",
            "--page",
            tmp_path / "e.html",
        )
    )
    assert ran.code == 0, ran.err
    assert "site: north" in ran.out
    written = json.loads((tmp_path / "e.json").read_text())
    rows = {row["slice"]: row for row in written["slices"]}
    assert list(rows) == ["site: north", "site: south", "all: everything"]
    assert rows["site: south"]["frames"] == 1 and rows["site: north"]["frames"] == len(names) - 1
    assert rows["all: everything"]["miou"] == pytest.approx(written["miou"], abs=1e-9)
    assert rows["all: everything"]["pixel_accuracy"] == pytest.approx(written["pixel_accuracy"], abs=1e-9)
    assert edgeseg("report", tmp_path / "e.json", "--out", tmp_path / "r.md").code == 0
    for page in ("e.html", "r.md"):
        assert "By slice" in (tmp_path / page).read_text() and "site: south" in (tmp_path / page).read_text()
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'name = "x"\n[data]\nroot = "{street}"\nsize = [64, 96]\n')
    assert edgeseg("bench", bundle, "--seconds", "1", "--json", tmp_path / "b.json").code == 0
    for measured in ((tmp_path / "e.json",), (tmp_path / "e.json", tmp_path / "b.json")):
        assert edgeseg("model-card", recipe, *measured, "--out", tmp_path / "card.md").code == 0
        assert (tmp_path / "card.md").read_text().count("| site: south |") == 1
    missing = edgeseg("eval", bundle, "--data", street, "--slices", tmp_path / "none.toml")
    assert missing.code == 2 and "none.toml does not exist" in missing.err

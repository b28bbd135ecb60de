"""Reports drawn from results that the command line wrote: complete, offline, escaped; and what cannot be drawn."""

from __future__ import annotations

import copy
import html
import html.parser
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import FileError, OptionError
from edgeseg.images import write_image
from edgeseg.recipe import Recipe
from edgeseg.report import page as report_page
from edgeseg.report.charts import NAME_PX, Scatter
from edgeseg.report.model_card import model_card
from edgeseg.report.page import KINDS, parse
from edgeseg.results.search import pareto_front

Ran = Any
Edgeseg = Callable[..., Ran]


def write(documents: list[tuple[Path, dict[str, Any]]], out: Path) -> None:
    """Draw JSON documents, as `edgeseg report` does with files."""
    report_page.write([(path, parse(document, path)) for path, document in documents], out)


class Page(html.parser.HTMLParser):
    """What a browser would load, and the text it would show."""

    VOID = ("meta", "img", "line", "rect", "polyline")

    def __init__(self, text: str):
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for key, value in attrs if key in ("src", "href", "data", "action", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def results(bundle: Path, network: Path, street: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Results as the command line writes them, and a pipeline's report made of their figures."""
    from typer.testing import CliRunner

    from edgeseg.cli import app

    folder = tmp_path_factory.mktemp("results")
    files = {kind: folder / f"{kind}.json" for kind in ("eval", "bench", "run", "control", "autotune", "check")}
    options = ["-t", "onnxruntime-cpu", "--calibration", street, "--data", street, "--max-drop", "90"]
    options += ["--seconds", "0.2"]
    images = street / "test" / "images"
    for words in (
        ["eval", bundle, "--data", street, "--json", files["eval"], "--pictures", folder / "worst"],
        ["bench", bundle, "--seconds", "1", "--size", "160x96", "--json", files["bench"]],
        ["run", bundle, "--source", images, "--sink", folder / "masks", "--json", files["run"]],
        ["data", "check", street, "--json", files["check"]],
        ["control", network, *options, "--out", folder / "chosen", "--json", files["control"]],
        ["autotune", network, *options, "--out", folder / "tuned", "--json", files["autotune"]],
    ):
        completed = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
        assert completed.exit_code == 0, completed.output
    gate = ["gate", bundle, "--data", street, "--max-p99", "10s", "--json", folder / "gate.json"]
    assert CliRunner().invoke(app, [str(w) for w in gate]).exit_code == 0
    files["gate"] = folder / "gate.json"
    files["accuracy"] = folder / "accuracy.json"
    field = ["accuracy", bundle, "--labels", collected(street, folder / "field"), "--min-miou", "90", "--json"]
    assert CliRunner().invoke(app, [str(w) for w in [*field, files["accuracy"]]]).exit_code == 1
    files["benches"] = folder / "benches.json"
    one = json.loads(files["bench"].read_text())
    files["benches"].write_text(json.dumps({"kind": "benches", "hosts": [{**one, "host": h} for h in ("near", "far")]}))
    files["pipeline"] = folder / "pipeline.json"
    files["pipeline"].write_text(
        json.dumps(pipeline_of(*(json.loads(files[k].read_text()) for k in ("eval", "bench"))))
    )
    return files


def collected(street: Path, root: Path) -> Path:
    """The dataset as if a camera had drawn its frames at random, twelve on one day and six on the next."""
    shutil.copytree(street, root)
    names = [path.stem for split in ("train", "val", "test") for path in sorted((root / split / "images").iterdir())]
    for number, path in enumerate(sorted(root.rglob("images/*.png"))):  # the splits have the same names
        for kind in ("images", "masks"):
            old = path.parents[1] / kind / path.name
            old.rename(old.with_name(f"f{number:02d}.png"))
    times = [1.78e9 + 3600.0 * i if i < 12 else 1.7801e9 + 3600.0 * i for i in range(len(names))]
    rows = [{"name": f"f{i:02d}", "stream": "gate", "time": t, "why": {"random": 1.0}} for i, t in enumerate(times)]
    (root / "collected.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def recipe(**sections: Any) -> dict[str, Any]:
    """A resolved recipe, as a report contains it."""
    return Recipe.from_dict({"name": "tiny", "data": {"root": "x", "size": [64, 96]}, **sections}, Path("r")).to_dict()


def pipeline_of(evaluation: dict[str, Any], bench: dict[str, Any]) -> dict[str, Any]:
    """A pipeline's report (see edgeseg.pipeline.run) of one stage and two bundles."""
    speed = {k: bench[k] for k in ("fps", "latency_ms", "pure_fps", "stages_ms")}
    accuracy = {k: evaluation[k] for k in ("miou", "pixel_accuracy", "boundary_f1", "per_class")}
    parity = {"frames": 12, "agreement": 0.999, "worst": 0.99, "reference": "x"}
    about = {"target": "openvino-cpu", "bytes": 123456, "parity": parity, **speed, **accuracy}
    bundles = [{"path": f"b/{p}", "name": f"tiny-{p}", "precision": p, **about} for p in ("fp32", "int8")]
    stage = {"stage": "teacher", "name": "teacher-fp32", "path": "m/teacher-fp32", "precision": "fp32", "macs": 10**9,
             "params": 10**6, "val_miou": 0.5, "seconds": 3.0, **about}  # fmt: skip
    return {
        "kind": "pipeline",
        "name": "tiny",
        "best": "tiny-int8",
        **{k: about[k] for k in ("miou", "pixel_accuracy", "latency_ms", "fps")},
        "calibration": {"frames": 8, "digest": "d" * 64},
        "seconds": {"teacher": 3.0},
        "pictures": [],
        "recipe": recipe(card={"use": "Tests.", "license": "Apache-2.0"}),
        "machine": bench["machine"],
        "data": {"test_frames": 4, "digests": {"train": "a" * 64, "val": "b" * 64, "test": "c" * 64}},
        "stages": [stage],
        "bundles": bundles,
        "int8": [{"name": "tiny-int8", "drop": 1.5, "allowed": 1.0, "ok": False}],
    }


def document(results: dict[str, Path], kind: str) -> dict[str, Any]:
    return json.loads(results[kind].read_text())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_result_names_its_kind(results: dict[str, Path], kind: str) -> None:
    assert document(results, kind)["kind"] == kind


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("eval", ("Accuracy: openvino-cpu-fp32 on street test", "pedestrian", "Pictures", "over 4 frames")),
        ("bench", ("Speed: openvino-cpu-fp32 (openvino-cpu fp32)", "network alone", "resize", "Python 3")),
        ("run", ("Stream", "4 frames at", "infer")),
        ("gate", ("Gate: openvino-cpu-fp32", "PASS on 4 frames", "latency p99")),
        ("benches", ("At a glance", "on near", "on far")),
        ("accuracy", ("Accuracy in the field: openvino-cpu-fp32", "drawn at random", "Over time", "gate", "fail")),
        (
            "control",
            ("Accuracy control: every layer in INT8", "90 allowed: held", "2 frames of street val", "0 (chosen)"),
        ),
        ("autotune", ("Autotune for onnxruntime-cpu", "is chosen", "tiny-96x64-int8", "Of 3 candidates none")),
        (
            "pipeline",
            ("Pipeline tiny", "From teacher to student", "(OVER 1.0)", "tiny-int8", "mIoU, %", "IoU per class"),
        ),
    ],
)
def test_every_kind_of_result_draws_a_page(
    results: dict[str, Path], tmp_path: Path, edgeseg: Edgeseg, kind: str, words: tuple[str, ...]
) -> None:
    for suffix in ("html", "md"):
        result = edgeseg("report", results[kind], "--out", tmp_path / f"r.{suffix}")
        assert result.code == 0, result.err
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert all(load.startswith("data:image/") for load in page.loads)
    assert not re.search(r"https?://|@import|url\(", text)
    markdown = (tmp_path / "r.md").read_text()
    for word in words:
        assert word in page.text, word
        assert word in markdown or word == "mIoU, %"
    assert "None" not in page.text and "nan" not in page.text
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) >= 3
    assert ("img" in page.tags) == (kind == "eval")
    assert ("svg" in page.tags) == (kind in ("pipeline", "bench", "benches", "autotune", "accuracy"))


def test_one_page_holds_all_results(results: dict[str, Path], tmp_path: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("report", *results.values(), "--out", tmp_path / "all.html")
    assert result.code == 0, result.err
    text = Page((tmp_path / "all.html").read_text()).text
    assert all(word in text for word in ("Accuracy:", "Speed:", "Stream", "Pipeline tiny"))


def test_tables_of_markdown_keep_their_columns(results: dict[str, Path], tmp_path: Path) -> None:
    """A class called a|b stays in its cell."""
    d = document(results, "eval")
    d["per_class"] = {"a|b": d["per_class"]["road"], "sky": d["per_class"]["sky"]}
    d["interval"]["iou"]["a|b"] = None
    d.pop("pictures")
    write([(tmp_path / "x.json", d)], tmp_path / "r.md")
    rows = [line for line in (tmp_path / "r.md").read_text().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}


HOSTILE = "<script>alert(1)</script>'\"&"


def test_text_from_results_is_escaped(results: dict[str, Path], tmp_path: Path) -> None:
    documents = []
    for kind in KINDS:
        d = document(results, kind)
        if kind == "gate":
            d.update(bundle=HOSTILE, against=HOSTILE)
            d["checks"][0].update(name=HOSTILE, text=HOSTILE)
        elif kind in ("control", "autotune"):
            d.update(bundle=HOSTILE, chosen=HOSTILE, why=[HOSTILE], measured_by=HOSTILE, target=HOSTILE)
            d["data"].update(root=HOSTILE)
        elif kind == "accuracy":
            d.update(limit_from=HOSTILE, notes=[HOSTILE], problems=[{"frame": HOSTILE, "what": HOSTILE}])
            for row in (*d["cameras"], *d["windows"]):
                row.update(camera=HOSTILE)
        elif "bundle" in d:
            d["bundle"].update(name=HOSTILE, target=HOSTILE, precision=HOSTILE)
        for row in [*d.get("stages", []), *d.get("bundles", [])] if kind == "pipeline" else []:
            row.update(name=HOSTILE, target=HOSTILE)
            row.update(stage=HOSTILE) if "stage" in row else None
        if "per_class" in d:
            d["per_class"] = {HOSTILE: next(iter(d["per_class"].values()))}
            d["interval"]["iou"][HOSTILE] = [0.1, 0.2]
        for row in d.get("bundles", []):
            row["per_class"] = {HOSTILE: next(iter(row["per_class"].values()))}
        if "machine" in d:
            d["machine"].update(cpu=HOSTILE, versions={HOSTILE: HOSTILE})
        for row in d.get("pictures", []):
            row["title"] = HOSTILE
        d.update(result=HOSTILE, name=HOSTILE, best=HOSTILE)
        documents.append((results[kind], d))
    write(documents, tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text())
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 12
    assert all(load.startswith("data:image/") for load in page.loads)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_any_missing_key_is_reported(results: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """Every key taken away, emptied or replaced in turn: a page, or a FileError that names the file."""
    whole = document(results, kind)
    broken = 0
    for key in whole:
        if key == "kind":
            continue
        for value in (..., None, [], {}, "x", 0):
            d = copy.deepcopy(whole)
            if value is ...:
                del d[key]
            else:
                d[key] = value
            try:
                write([(results[kind], d)], tmp_path / "r.html")
            except FileError as error:
                broken += 1
                assert str(results[kind]) in error.what
    assert broken >= 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("{", "is not JSON of edgeseg"),
        ("[]", "is not JSON of edgeseg: not an object"),
        ("[" * 100_000, "is not JSON of edgeseg"),
        ("{}", "is not a result of edgeseg (kind None)"),
        ('{"kind": "evil"}', "is not a result of edgeseg (kind 'evil')"),
        ('{"kind": ["eval"]}', "is not a result of edgeseg (kind ['eval'])"),
        ('{"kind": "eval"}', "is not a complete eval result"),
        ('{"kind": "bench", "latency_ms": 3}', "is not a complete bench result"),
        ('{"kind": "run", "stages": []}', "is not a run summary"),
        ('{"kind": "pipeline", "bundles": []}', "is not a complete pipeline result"),
    ],
)
def test_results_that_cannot_be_drawn_are_rejected(tmp_path: Path, edgeseg: Edgeseg, text: str, message: str) -> None:
    (tmp_path / "result.json").write_text(text)
    outcome = edgeseg("report", tmp_path / "result.json", "--out", tmp_path / "r.html")
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "r.html").exists()


def test_bytes_that_are_not_text_are_rejected(tmp_path: Path, edgeseg: Edgeseg) -> None:
    (tmp_path / "result.json").write_bytes(b"\xff\xfe\x00\x01")
    outcome = edgeseg("report", tmp_path / "result.json", "--out", tmp_path / "r.html")
    assert outcome.code == 2 and "is not JSON of edgeseg" in outcome.err


def test_a_missing_picture_is_an_error(results: dict[str, Path], tmp_path: Path) -> None:
    d = document(results, "eval")
    d["pictures"][0]["file"] = "gone.jpg"
    with pytest.raises(FileError, match=r"names the picture gone\.jpg, which is gone"):
        write([(tmp_path / "eval.json", d)], tmp_path / "r.html")


@pytest.mark.parametrize("pictures", [3, [3], [{}], [{"file": 3, "title": "x"}], {"file": "x"}])
def test_invalid_pictures_are_rejected(results: dict[str, Path], tmp_path: Path, pictures: Any) -> None:
    d = {**document(results, "eval"), "pictures": pictures}
    with pytest.raises(FileError, match="not a complete eval result"):
        write([(tmp_path / "eval.json", d)], tmp_path / "r.html")


def test_pictures_lie_beside_their_result(results: dict[str, Path], tmp_path: Path) -> None:
    write_image(tmp_path / "pictures" / "a.png", tiny.frames(1)[0])
    d = {**document(results, "eval"), "pictures": [{"title": "a frame", "file": "pictures/a.png"}]}
    write([(tmp_path / "eval.json", d)], tmp_path / "r.html")
    assert "data:image/png;base64," in (tmp_path / "r.html").read_text()


def test_a_file_that_is_not_an_image_is_not_embedded_in_the_page(results: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("the password")
    d = {**document(results, "eval"), "pictures": [{"title": "x", "file": "secret.txt"}]}
    with pytest.raises(FileError, match=r"secret\.txt"):
        write([(tmp_path / "eval.json", d)], tmp_path / "r.html")


@pytest.mark.parametrize("name", ["r.pdf", "r", "r.HTML"])
def test_unknown_types_of_report_are_rejected(results: dict[str, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="Unknown report type"):
        write([(results["eval"], document(results, "eval"))], tmp_path / name)


def test_missing_figures_are_drawn_as_a_dash(results: dict[str, Path], tmp_path: Path) -> None:
    d = document(results, "eval")
    d.update(boundary_f1=None)
    d.pop("pictures")
    write([(results["eval"], d)], tmp_path / "r.md")
    assert (tmp_path / "r.md").read_text().splitlines()[-1].endswith("| - |")


def test_a_card_holds_what_was_measured_and_says_what_was_not_stated(results: dict[str, Path]) -> None:
    d = document(results, "pipeline")
    text = model_card(Recipe.from_dict(d["recipe"], Path("r")), [parse(d, "report.json")])
    assert text.startswith("# Model card: tiny\n")
    assert "License of the weights: Apache-2.0." in text
    assert "sha256 of the splits: train `aaaaaaaaaaaaaaaa`" in text
    assert "| tiny-int8 |" in text
    silent = model_card(Recipe.from_dict(recipe(), Path("r")), [parse(d, "report.json")])
    assert "License of the weights: Not stated by the recipe's author." in silent


def test_a_card_quotes_the_datasheet_of_the_data_that_was_trained_on(results: dict[str, Path]) -> None:
    d = document(results, "pipeline")
    d["data"]["datasheet"] = {"source": "Our vans", "consent": "In\nwriting"}
    text = model_card(Recipe.from_dict(d["recipe"], Path("r")), [parse(d, "report.json")])
    assert "| source | Our vans |\n| license | not stated |\n| consent | In writing |" in text


def test_drawing_from_zero_latency_does_not_divide_by_it(results: dict[str, Path], tmp_path: Path) -> None:
    d = document(results, "pipeline")
    for row in [*d["stages"], *d["bundles"]]:
        row["latency_ms"] = {"p50": 0.0, "p90": 0.0, "p99": 0.0}
        row["miou"] = float(np.float64(0.5))
    write([(results["pipeline"], d)], tmp_path / "r.html")
    assert "nan" not in Page((tmp_path / "r.html").read_text()).text


def test_figures_of_different_machines_are_compared_with_a_warning(results: dict[str, Path], tmp_path: Path) -> None:
    here = document(results, "bench")
    there = {**here, "machine": {**here["machine"], "id": "other", "cpu": "Cortex-A78AE"}}
    write([(results["bench"], here), (results["bench"], there)], tmp_path / "r.html")
    text = Page((tmp_path / "r.html").read_text()).text
    assert "The speeds come from 2 different set-ups and are not one ranking" in text
    assert "openvino-cpu-fp32 @ Cortex-A78AE" in text
    write([(results["bench"], here), (results["bench"], here)], tmp_path / "same.html")
    assert "not one ranking" not in (tmp_path / "same.html").read_text()
    first = document(results, "eval")
    second = {**first, "data": {"root": "elsewhere", "split": "test"}}
    write([(results["eval"], first), (results["eval"], second)], tmp_path / "data.md")
    assert "The accuracies come from different data" in (tmp_path / "data.md").read_text()


def test_the_front_is_what_no_other_point_beats_in_both() -> None:
    points = [("slow", 9.0, 80.0), ("fast", 1.0, 70.0), ("bad", 5.0, 69.0), ("middle", 4.0, 75.0), ("tie", 4.0, 74.0)]
    assert [name for name, _, _ in pareto_front(points)] == ["fast", "middle", "slow"]
    assert all(f">{name}</text>" in Scatter("", "", "", points).html() for name, _, _ in points)


@given(st.lists(st.tuples(st.floats(0.1, 50), st.floats(0, 100)), min_size=1, max_size=60, unique=True))
def test_names_of_points_do_not_cover_each_other(points: list[tuple[float, float]]) -> None:
    named = [(f"candidate {i} & more", x, y) for i, (x, y) in enumerate(points)]
    page = Scatter("", "", "", named).html()
    assert [n for n, _, _ in named if f"<title>{html.escape(n)}</title>" not in page] == []
    names = re.findall(r"<text x=([\d.]+) y=([\d.]+)>candidate", page)
    at = [(float(x), float(y)) for x, y in names]
    assert min(len(points), 2) <= len(at) <= len(points)
    width = NAME_PX * len("candidate 1 & more")
    assert not any(abs(a[0] - b[0]) < width - 1 and abs(a[1] - b[1]) < 11 for a, b in itertools.combinations(at, 2))
    assert all(x > 60 and x + width < 721 for x, _ in at)


def test_a_card_of_single_results_through_the_command_line(
    results: dict[str, Path], tmp_path: Path, edgeseg: Edgeseg
) -> None:
    toml = tmp_path / "recipe.toml"
    toml.write_text('name = "tiny"\n[data]\nroot = "x"\nsize = [64, 96]\n[card]\nlimits = "Toys only."\n')
    trained = {
        "kind": "stage",
        "stage": "teacher",
        "macs": 10**9,
        "params": 10**6,
        "val_miou": 0.5,
        "seconds": 90.0,
        "history": [
            {"epoch": i, "loss": loss, "val_miou": miou, "val_accuracy": 0.5, "lr": 0.1, "seconds": 45.0}
            for i, (loss, miou) in enumerate(((2.0, 0.4), (1.25, 0.5)), 1)
        ],
    }
    (tmp_path / "teacher.json").write_text(json.dumps({**trained, "recipe": recipe()}))
    words = [results["eval"], results["bench"], tmp_path / "teacher.json"]
    outcome = edgeseg("model-card", toml, *words, "--out", tmp_path / "card.md")
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "card.md").read_text()
    assert "teacher, training loss / val mIoU after epochs 1, 2: 2.00 / 40.0, 1.25 / 50.0." in text
    digest = document(results, "eval")["bundle"]["digest"][:16]
    for word in ("Toys only.", "| teacher | lite |", "| openvino-cpu-fp32 |", f"`{digest}`", "Speeds on "):
        assert word in text, word
    (tmp_path / "half.json").write_text('{"kind": "eval"}')
    outcome = edgeseg("model-card", toml, tmp_path / "half.json", "--out", tmp_path / "no.md")
    assert outcome.code == 2 and "is not a complete eval result" in outcome.err and not (tmp_path / "no.md").exists()


CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
# What a person would see: errors, pictures that did not load, text too small, a page wider than the screen.
PROBE = """<script>window.errors=[];addEventListener('error',e=>errors.push(String(e.message)),true);
addEventListener('load',()=>{const small=[...document.querySelectorAll('p,td,th,b,figcaption,text')].filter(e=>
e.textContent.trim()&&e.getBoundingClientRect().width&&parseFloat(getComputedStyle(e).fontSize)<11).length;
document.title=JSON.stringify({errors,wide:document.documentElement.scrollWidth-innerWidth,small,
pictures:[...document.images].filter(i=>i.naturalWidth>50).length,all:document.images.length,
charts:document.querySelectorAll('svg,.bars,.stack,.heat').length,width:innerWidth})})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [1200, 500])
def test_a_real_browser_renders_the_page(
    results: dict[str, Path], tmp_path: Path, edgeseg: Edgeseg, bundle: Path, street: Path, width: int
) -> None:
    """500 CSS pixels is the narrowest window headless Chromium opens."""
    one = tmp_path / "errors.json"
    evaluated = edgeseg("eval", bundle, "--data", street, "--page", tmp_path / "errors.html", "--json", one)
    assert evaluated.code == 0, evaluated.err
    page = tmp_path / "all.html"
    result = edgeseg("report", one, results["bench"], results["run"], results["pipeline"], "--out", page)
    assert result.code == 0, result.err
    page.write_text(page.read_text().replace("<head>", f"<head>{PROBE}"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--dump-dom"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    shown = subprocess.run(
        [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path}/profile", f"--window-size={width},900", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search(r"<title>(\{.*?\})</title>", shown.stdout)
    assert title, shown.stderr[-500:]
    observed = json.loads(html.unescape(title[1]))
    assert observed["errors"] == [] and observed["small"] == 0
    assert observed["wide"] <= 0, "the page itself scrolls sideways"
    assert observed["pictures"] == observed["all"] == 4
    assert observed["charts"] >= 6
    assert abs(observed["width"] - width) < 20

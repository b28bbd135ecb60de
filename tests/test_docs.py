"""The documentation is complete, matches the program, and builds into a site that needs no network."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import test_imports

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["recipe.md", "targets.md", "json.md", "metrics.md"])
def test_generated_pages_match_the_program(name: str) -> None:
    pages = {path.name: (path, text) for path, text in script("reference_pages").pages()}
    path, text = pages[name]
    assert path.read_text() == text, "write it again: make docs"


def test_every_recipe_key_has_a_meaning() -> None:
    rows = [
        line.split(" | ") for line in script("reference_pages").recipe_keys().splitlines() if line.startswith("| `")
    ]
    assert len(rows) > 70
    assert [row[0] for row in rows if len(row) == 4 and len(row[3].strip(" |")) < 5] == []


def test_every_kind_of_result_has_a_section() -> None:
    from edgeseg.results.bench import BenchResult
    from edgeseg.results.stage import StageResult

    text = script("reference_pages").result_files()
    for kind in (BenchResult, StageResult):
        assert f"\n## {kind.KIND}\n" in text
    assert "| `history[].val_miou` | number |" in text


def test_the_architecture_page_has_the_layers_that_are_tested() -> None:
    rows = re.findall(r"^\| ((?:`[a-z_]+` ?)+)\|", (DOCS / "architecture.md").read_text(), re.M)
    assert [row.replace("`", "").split() for row in rows] == [row.split() for row in test_imports.LAYERS]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; warnings (broken links, pages that are in no menu) fail."""
    pytest.importorskip("material", reason="the site needs the extra edgeseg[docs]")
    pytest.importorskip("mkdocstrings")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(out)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def test_the_site_has_every_page(site: Path) -> None:
    pages = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    assert len(pages) > 20
    assert pages == {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")} - {Path("404")}


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r"<(?:script|img|link)\b[^>]*(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)")
    for page in site.rglob("*.html"):
        assert loaded.findall(page.read_text()) == [], page


def test_public_names_are_in_the_python_reference(site: Path) -> None:
    import edgeseg

    text = (site / "reference" / "python.html").read_text()
    assert [name for name in edgeseg.__all__ if name != "__version__" and f">{name}<" not in text] == []


def test_a_release_is_named_by_version_and_accuracy() -> None:
    from edgeseg import __version__
    from edgeseg.bundle import Bundle
    from edgeseg.errors import BundleError

    notes, models = script("release_notes"), ROOT / "models"
    tag, text = notes.tag_and_notes(models / "street/street-int8", (ROOT / "CHANGELOG.md").read_text())
    bundle = Bundle.load(models / "street/street-int8")
    assert bundle.manifest.metrics is not None and bundle.manifest.metrics.miou is not None
    assert tag == f"street-int8-{__version__}-miou{100 * bundle.manifest.metrics.miou:.2f}"
    assert bundle.digest in text and text.count("\n## ") == 1 and "### Added" in text
    assert re.fullmatch(r"[A-Za-z0-9][\w.-]*", tag) and not tag.startswith("v")
    with pytest.raises(BundleError, match="holds no measured mIoU"):
        notes.tag_and_notes(models / "camvid/camvid-int8", "")

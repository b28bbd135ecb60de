"""Licenses of an install: read from real package metadata, copyleft found by name and inside wheels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeseg import packages
from edgeseg.licenses import STRONG, WEAK, Install, kind_of, of_install

Edgeseg = Callable[..., Any]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """install("name", "Key: value", ..., files=[...]): the metadata of an installed package."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, *lines: str, files: tuple[str, ...] = ()) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-1.2.dist-info"
        folder.mkdir()
        text = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.2", *lines])
        (folder / "METADATA").write_text(text + "\n\nAbout it.\n")
        (folder / "RECORD").write_text("".join(f"{file},,\n" for file in files))

    return write


@pytest.fixture
def program(install: Callable[..., None]) -> Install:
    extras = ("Provides-Extra: video", "Provides-Extra: more", "Provides-Extra: all")
    install("zz-program", *extras, "Requires-Dist: zz_core[fast] (>=1)", "Requires-Dist: zz-old; python_version < '3'",
            "Requires-Dist: zz-video>=2 ; extra == 'video'", "Requires-Dist: zz-absent; extra == 'more'",
            'Requires-Dist: zz-program[video]; extra == "all"')  # fmt: skip
    install("zz-core", "License-Expression: MIT", "Provides-Extra: fast", "Requires-Dist: zz-fast; extra == 'fast'",
            "Requires-Dist: zz-slow; extra == 'slow'", "Requires-Dist: zz-program")  # fmt: skip
    install(
        "zz-fast", "License: UNKNOWN", "Classifier: License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)"
    )
    install("zz-slow", "License: MIT")
    install("zz-video", "License: BSD-3-Clause", files=("zz.libs/libx264-1a2b.so.165", "zz/libx265.py"))
    return of_install("zz-program")


def test_each_extra_brings_what_it_needs(program: Install) -> None:
    assert {row.package.name: row.extras for row in program.packages} == {
        "zz-core": ("", "video", "more"), "zz-fast": ("", "video", "more"), "zz-video": ("video",)
    }  # fmt: skip
    assert program.missing == ("more",), "zz-old is for another Python"


def test_a_permissive_package_may_hold_a_copyleft_library(program: Install) -> None:
    rows = {row.package.name: row for row in program.packages}
    assert rows["zz-video"].kind == STRONG
    assert rows["zz-video"].libraries == ("libx264 (GPL-2.0-or-later)",)
    assert rows["zz-fast"].kind == WEAK
    assert rows["zz-core"].kind == ""


def test_what_packages_state(install: Callable[..., None]) -> None:
    install("zz-a", "License-Expression: Apache-2.0 AND MIT", "License: ignored")
    install("zz-b", "License: " + "x" * 200, "Classifier: License :: OSI Approved :: BSD License")
    install("zz-c")
    found = [packages.find(f"zz-{letter}") for letter in "abcd"]
    assert found[0] == packages.Package("zz-a", "1.2", "Apache-2.0 AND MIT", spdx=True)
    assert found[1] is not None and found[1].license == "BSD License"
    assert found[2] is not None and found[2].license == "" and found[3] is None


@pytest.mark.parametrize(
    ("license", "kind"),
    [("GPL-3.0-or-later", STRONG), ("AGPL-3.0", STRONG), ("GNU General Public License v3 (GPLv3)", STRONG),
     ("LGPL-2.1-or-later", WEAK), ("GNU Lesser General Public License v3", WEAK), ("MPL-2.0 AND MIT", WEAK),
     ("MIT", ""), ("Apache-2.0 WITH LLVM-exception", ""), ("", ""), ("LGPL-3.0 OR GPL-2.0", STRONG)],
)  # fmt: skip
def test_kinds(license: str, kind: str) -> None:
    assert kind_of(license) == kind


def test_a_program_that_is_not_installed() -> None:
    assert of_install("zz-nowhere") == Install(())


def test_doctor_lists_them(tmp_path: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("doctor", "--licenses", "--json", tmp_path / "r.json")
    assert result.code == 0 and "numpy" in result.out and "BSD-3-Clause" in result.out
    rows = {row["package"]: row for row in json.loads((tmp_path / "r.json").read_text())["packages"]}
    assert rows["typer"]["extras"][0] == "" and rows["typer"]["license"] == "MIT"


def test_pyav_carries_the_gpl_libraries_that_the_page_names(edgeseg: Edgeseg) -> None:
    rows = {row.package.name: row for row in of_install().packages}
    if "av" not in rows or not rows["av"].libraries:
        pytest.skip("needs PyAV's own wheel")
    page = (Path(__file__).parents[2] / "docs" / "project" / "licenses.md").read_text()
    assert rows["av"].kind == STRONG and "libx264 (GPL-2.0-or-later)" in rows["av"].libraries
    assert "x264 and x265, which are GPL" in page


def test_the_page_has_every_extra() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "project" / "licenses.md").read_text()
    section = (root / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = {line.split(" = ")[0] for line in section.splitlines() if " = [" in line} - {"all"}
    assert len(extras) > 15 and [extra for extra in extras if f"| `{extra}` |" not in page] == []

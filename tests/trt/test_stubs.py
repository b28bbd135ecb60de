"""The script that checks our calls against the real bindings repairs stubs without losing signatures."""

from __future__ import annotations

import ast

import pytest
import stubs


def test_a_signature_that_is_not_python_is_repaired_and_the_rest_unchanged() -> None:
    odd = "    def f(self, a: <B in x>) -> int:\n        ...\n"
    plain = "    def g(self, b: int) -> int:\n        ...\n"
    text = f"import typing\nbool: int\nclass A:\n{odd}{plain}"
    repaired, broken = stubs.repaired(text)
    assert broken == ["f"]
    [made] = [n for n in ast.parse(repaired).body if isinstance(n, ast.ClassDef)]
    assert stubs.members(made, {"f", "g"}) == {"f": [[]], "g": [[["b", "int", False]]]}
    assert "bool:" not in repaired


def test_a_stub_beyond_repair_ends_the_run() -> None:
    with pytest.raises(SystemExit):
        stubs.repaired("class A:\n    def f(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:\n    )\n")

"""Any text behind the flags that describe a model is a Spec or a user's error."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from hypothesis import example, given
from hypothesis import strategies as st

from edgeseg.cli.common import size
from edgeseg.cli.models import spec_flags
from edgeseg.compile import spec_of
from edgeseg.errors import FileError, OptionError

pytest.importorskip("onnx")
KEYS = ("size", "classes", "color", "mean", "std", "head")
WORDS = st.text(max_size=12) | st.lists(st.sampled_from(["a", "b", "0.5", "nan", "1e999", "", " "])).map(",".join)


@given(st.dictionaries(st.sampled_from(KEYS), WORDS))
@example({"classes": "c" * 5000})
@example({"classes": "a\0b"})
@example({"classes": "/"})
@example({"classes": ",".join(f"c{i}" for i in range(300))})
@example({"mean": "1e999,0,0"})
@example({"size": "-5x5"})
def test_any_text_as_an_option_value_is_accepted_or_rejected(network: Path, flags: dict[str, str]) -> None:
    try:
        spec, _ = spec_of(network, spec_flags({key: flags.get(key) for key in KEYS}))
    except (OptionError, FileError) as error:
        assert error.what and error.hint
        return
    for key in ("classes", "color", "head"):
        if flags.get(key):
            assert getattr(spec, key) != "", key
    assert 8 <= spec.height <= 16384 and len(spec.palette) == len(spec.classes)


@given(st.integers(1, 99999), st.integers(1, 99999), st.sampled_from("xX"))
def test_any_size_is_parsed_or_rejected(width: int, height: int, by: str) -> None:
    assert size(f"{width}{by}{height}") == (height, width)


@pytest.mark.parametrize(
    "text", ["", "x", "96", "96x", "x64", "96x64x3", "96 x 64", "+96x64", "96.0x64", "9" * 20 + "x1"]
)
def test_invalid_sizes_are_rejected(text: str) -> None:
    with pytest.raises(OptionError, match="Expected WIDTHxHEIGHT"):
        size(text)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [("a,b,c,d,e,f,g,h", tuple("abcdefgh")), (" a , b,c,d,e,f,g,h ", tuple("abcdefgh"))],
)
def test_class_names_keep_their_colors(network: Path, classes: str, expected: tuple[str, ...]) -> None:
    spec, assumed = spec_of(network, spec_flags(dict.fromkeys(KEYS) | {"classes": classes}))
    assert (spec.classes, spec.palette, assumed) == (expected, tiny.SPEC.palette, [])

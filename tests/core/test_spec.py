"""Spec: valid ones, and the error of every kind of invalid one."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import OptionError
from edgeseg.spec import Spec, default_palette

GOOD: dict[str, Any] = {"height": 64, "width": 96, "classes": ["road", "sky", "car"]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def test_defaults_are_imagenet_rgb_argmax() -> None:
    spec = Spec.from_dict(GOOD)
    assert (spec.color, spec.head, spec.ignore_index) == ("RGB", "argmax", 255)
    assert spec.classes == ("road", "sky", "car")
    assert spec.palette == default_palette(3)


def test_a_spec_survives_json() -> None:
    spec = Spec.from_dict({**GOOD, "mean": [0, 0.1, 0.2], "color": "BGR", "ignore_index": None})
    assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("count", [2, 19, 255])
def test_the_default_palette_has_distinct_colors(count: int) -> None:
    palette = default_palette(count)
    assert len(set(palette)) == count
    assert all(0 <= v <= 255 for color in palette for v in color)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 7}, "height is 7"),
        ({"height": 16385}, "height is 16385"),
        ({"width": 96.0}, "width is 96.0"),
        ({"width": "96"}, "width is '96'"),
        ({"width": None}, "width is None"),
        ({"height": True}, "height is True"),
        ({"classes": ["road"]}, "1 classes"),
        ({"classes": [f"c{i}" for i in range(256)]}, "256 classes"),
        ({"classes": "road"}, "class names"),
        ({"classes": ["road", ""]}, "class names"),
        ({"classes": ["road", 3]}, "class names"),
        ({"classes": ["road", "sky", "road"]}, "class names"),
        ({"classes": 3}, "not usable"),
        ({"color": "rgb"}, "Did you mean 'RGB'"),
        ({"color": ["RGB"]}, "color order"),
        ({"head": "softmax"}, "Known: argmax, threshold"),
        ({"head": "threshold"}, "'threshold' with 3 classes"),
        ({"mean": [0.1, 0.2]}, "Expected three numbers"),
        ({"mean": [0.1, 0.2, math.nan]}, "Expected three numbers"),
        ({"mean": ["a", "b", "c"]}, "Expected three numbers"),
        ({"std": [1, 1, 0]}, "std above 0"),
        ({"std": [1, 1, math.inf]}, "Expected three numbers"),
        ({"std": [1, 1, 1, 1]}, "Expected three numbers"),
        ({"palette": [[0, 0, 0]]}, "1 colors for 3 classes"),
        ({"palette": [[0, 0, 0], [1, 1, 1], [2, 2, 256]]}, "0 to 255"),
        ({"palette": [[0, 0, 0], [1, 1, 1], [2, 2, math.inf]]}, "not usable"),
        ({"palette": [[0, 0], [1, 1], [2, 2]]}, "not usable"),
        ({"ignore_index": 256}, "ignore_index is 256"),
        ({"ignore_index": -1}, "ignore_index is -1"),
        ({"ignore_index": "255"}, "ignore_index is '255'"),
        ({"heigth": 64}, "Unknown Spec key 'heigth'.\nDid you mean 'height'"),
    ],
    ids=str,
)
def test_invalid_values_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Spec.from_dict({**GOOD, **changes})
    assert message in str(caught.value)


@pytest.mark.parametrize("missing", ["height", "width", "classes"])
def test_missing_keys_are_rejected(missing: str) -> None:
    with pytest.raises(OptionError, match=missing):
        Spec.from_dict({key: value for key, value in GOOD.items() if key != missing})


@pytest.mark.parametrize("data", [None, [], [1], "spec", 3])
def test_anything_but_a_table_is_rejected(data: Any) -> None:
    with pytest.raises(OptionError, match="Spec"):
        Spec.from_dict(data)


@given(st.dictionaries(st.sampled_from([*Spec.__dataclass_fields__, "other"]), JSON))
def test_any_json_is_a_spec_or_an_option_error(changes: dict[str, Any]) -> None:
    try:
        spec = Spec.from_dict({**GOOD, **changes})
    except OptionError:
        return
    assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert len(spec.palette) == len(spec.classes)

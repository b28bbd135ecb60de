"""Quantization schemes: one module each, found by its file name, imported on first use.

A scheme module exports SCHEME (see scheme.py) and imports no other scheme; code that two of them share is in a module
whose name starts with an underscore.
"""

from __future__ import annotations

from edgeseg import plugins
from edgeseg.quantization.scheme import Scheme


def names() -> list[str]:
    return plugins.names(__name__)


def get(name: str) -> Scheme:
    """The scheme called `name`; OptionError if there is none."""
    scheme: Scheme = plugins.get(__name__, "quantizer", name).SCHEME
    return scheme

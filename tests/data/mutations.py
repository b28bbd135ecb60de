"""Damage to label files: what people's disks, scripts and attackers do to them."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 3, 255, 1.5, 2**40, 2**70, 1e300, float("nan"), float("inf"), "", "x", "é" * 300,
    "../../etc/passwd", "a\0b", [], {}, [1], [[]], [[1, 2]], [None, None], {"a": 1}, "12", "[", [1e9] * 8,
    list(range(9)),
)  # fmt: skip
DOCUMENTS = (".json", ".xml", ".txt", ".yaml", ".csv")


def damage(root: Path, rng: random.Random) -> str:
    """Change one file of a folder; says what it did."""
    files = sorted(p for p in root.rglob("*") if p.is_file())
    documents = [p for p in files if p.suffix in DOCUMENTS]
    path = rng.choice(documents if documents and rng.random() < 0.8 else files)
    data = path.read_bytes()
    how = rng.choice(("cut", "flip", "value", "value", "value", "value", "drop", "empty"))
    if how == "value" and path.suffix == ".json":
        changed = json.dumps(_with_junk(json.loads(data), rng)).encode()
    elif how == "value" and path.suffix in DOCUMENTS:
        changed = _word_changed(data.decode(), rng).encode()
    elif how == "cut":
        changed = data[: rng.randrange(len(data) + 1)]
    elif how == "empty":
        changed = b""
    elif how == "drop":
        at = rng.randrange(len(data) or 1)
        changed = data[:at] + data[at + rng.randrange(1, 40) :]
    else:
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
    path.write_bytes(bytes(changed))
    return f"{how} {path.relative_to(root)}"


def _with_junk(document: Any, rng: random.Random) -> Any:
    """The document with one value, at any depth, replaced or removed."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            places.append((node, key))
            walk(value)

    walk(document)
    if not places or rng.random() < 0.05:
        return rng.choice(JUNK)
    node, key = rng.choice(places[: 40 if rng.random() < 0.7 else None])
    if isinstance(node, dict) and rng.random() < 0.2:
        del node[key]
    else:
        node[key] = rng.choice(JUNK)
    return document


def _word_changed(text: str, rng: random.Random) -> str:
    words = list(re.finditer(r"[^\s<>=\"',:;]+", text))
    if not words:
        return text
    word = rng.choice(words)
    return text[: word.start()] + str(rng.choice(JUNK)) + text[word.end() :]

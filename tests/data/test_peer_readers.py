"""What we write for CVAT and Label Studio, read by the packages that their makers publish: not one pixel differs.

datumaro and label-studio-sdk do not fit into one environment with edgeseg's tests (they pin other versions of OpenCV
and hold 70 packages), so they run in environments of their own: EDGESEG_PEERS=DIR1/bin/python:DIR2/bin/python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.data.dataset import Dataset, open_splits, read_classes
from edgeseg.data.labelmap import IGNORED_LABELS
from edgeseg.images import write_image

pytest.importorskip("pycocotools", reason="needs edgeseg[data]")
Edgeseg = Callable[..., Any]
CLASSES = "0 wet road 128 64 128\n1 Gehweg & <Wiese> 244 35 232\n2 sky 70 130 180\n3 \u6811 0 128 0\n"
SIZES = {"train": [(64, 96), (33, 47), (5, 7)], "val": [(40, 40)], "test": [(1, 9), (64, 96)]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Odd sizes, lone pixels, ignored ones, regions with holes, one class alone."""
    root, random = tmp_path_factory.mktemp("peers") / "data", np.random.default_rng(7)
    (root).mkdir()
    (root / "classes.txt").write_text(f"# id name r g b  (id 255 = ignore)\n{CLASSES}", encoding="utf-8")
    for split, sizes in SIZES.items():
        for number, (height, width) in enumerate(sizes):
            coarse = random.integers(0, 4, (3, 4)).astype(np.uint8)
            mask = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
            lone = random.random(mask.shape) < 0.05
            mask[lone] = random.choice([0, 1, 2, 3, 255], int(lone.sum()))
            write_image(root / split / "masks" / f"{number}.png", mask)
            write_image(root / split / "images" / f"{number}.png", np.stack([mask] * 3, 2))
    write_image(root / "val" / "masks" / "0.png", np.full((40, 40), 2, np.uint8))
    return root


def peer(package: str, script: str, *words: object) -> None:
    """Run a script of peers/ with an interpreter that has the package; skip where none is named."""
    named = [sys.executable, *filter(None, os.environ.get("EDGESEG_PEERS", "").split(os.pathsep))]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for python in named:
        found = subprocess.run([python, "-c", f"import {package}"], env=clean, capture_output=True)
        if found.returncode == 0:
            path = Path(__file__).parent / "peers" / script
            done = subprocess.run([python, path, *map(str, words)], env=clean, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return
    pytest.skip(f"needs an environment with {package}: EDGESEG_PEERS=DIR/bin/python")


def different(root: Path, masks: Path) -> tuple[int, int]:
    """Pixels of all splits whose label differs from what the peer read, and how many there are."""
    labels, classes = json.loads((masks / "labels.json").read_text()), read_classes(root / "classes.txt")
    ids = {name: number for number, name in enumerate(classes.names)} | {IGNORED_LABELS[0]: classes.ignore_index}
    table = np.array([ids[name] for name in labels] + [-1])  # -1: no label
    wrong = total = 0
    for split in SIZES:
        data = Dataset.open(root, split)
        for number, image in enumerate(data.images):
            found = next(path for path in masks.rglob("*.npy") if path.parts[-2:] in _names(split, image))
            read = table[np.load(found)]
            wrong, total = wrong + int((read != data.mask(number)).sum()), total + read.size
    return wrong, total


def _names(split: str, image: Path) -> set[tuple[str, str]]:
    return {(split, f"{image.stem}.npy"), (split, f"{image.name}.npy")}


def test_cvat_zips_are_read_by_datumaro(dataset: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    assert edgeseg("data", "export", dataset, "--format", "cvat", "--out", tmp_path / "cvat").code == 0
    peer("datumaro", "datumaro_cvat.py", tmp_path / "cvat", tmp_path / "masks", tmp_path / "again")
    assert different(dataset, tmp_path / "masks") == (0, sum(h * w for sizes in SIZES.values() for h, w in sizes))


def test_what_datumaro_writes_for_cvat_is_imported(dataset: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    assert edgeseg("data", "export", dataset, "--format", "cvat", "--out", tmp_path / "cvat").code == 0
    peer("datumaro", "datumaro_cvat.py", tmp_path / "cvat", tmp_path / "masks", tmp_path / "again")
    classes = read_classes(dataset / "classes.txt")
    for split in SIZES:  # one XML file each
        result = edgeseg("data", "import", tmp_path / "again" / f"{split}.xml", "--out", tmp_path / split)
        assert result.code == 0, result.err
        (back,) = [data for data in open_splits(tmp_path / split) if len(data)]
        names, truth = back.classes.names, Dataset.open(dataset, split)
        table = np.full(256, 255)
        for number, name in enumerate(names):
            # background is what has no label
            table[number] = classes.names.index(name) if name in classes.names else 255
        for number in range(len(truth)):
            assert np.array_equal(table[back.mask(number)], truth.mask(number)), (split, number)


def test_label_studio_tasks_are_read_by_its_sdk(dataset: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    assert edgeseg("data", "export", dataset, "--format", "label_studio", "--out", tmp_path / "ls").code == 0
    peer("label_studio_sdk", "label_studio_brushes.py", tmp_path / "ls", tmp_path / "masks")
    assert different(dataset, tmp_path / "masks") == (0, sum(h * w for sizes in SIZES.values() for h, w in sizes))

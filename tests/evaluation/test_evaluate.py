"""evaluate() on real bundles, and parity of a bundle with its parent."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from edgeseg.data.dataset import Dataset
from edgeseg.errors import EdgesegError, OptionError
from edgeseg.evaluation import parity
from edgeseg.evaluation.evaluate import evaluate
from edgeseg.evaluation.metrics import Counts
from edgeseg.evaluation.pictures import strips
from edgeseg.files import write_bytes
from edgeseg.fit import unfit
from edgeseg.images import write_image
from edgeseg.results.common import DataIdentity
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter


def test_it_measures_the_class_maps_of_the_segmenter(bundle: Path, street: Path) -> None:
    dataset = Dataset.open(street, "test")
    updates: list[tuple[int, int]] = []
    with open_segmenter(bundle, threads=1) as segmenter:
        result = evaluate(segmenter, dataset, lambda done, total: updates.append((done, total)))
        counts = Counts(len(dataset.classes.names))
        right = []
        for i in range(len(dataset)):
            frame, label = dataset[i]
            classmap = segmenter(frame).classmap
            counts.add(label, classmap)
            right.append(float((classmap == label).mean()))
    assert result.confusion == tuple(map(tuple, counts.confusion.tolist()))
    assert result.miou == counts.metrics(dataset.classes.names).miou
    assert result.frames == 4
    assert updates == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [row.index for row in result.worst] == np.argsort(right).tolist()
    assert result.worst[0].pixel_accuracy == pytest.approx(min(right))
    assert 0 < result.latency_ms.p50 <= result.latency_ms.p90 <= result.latency_ms.p99
    assert result.fps > 0
    assert result.data == DataIdentity(street.name, "test")


def test_both_modes_measure_the_same(bundle: Path, street: Path) -> None:
    dataset = Dataset.open(street, "train")
    results = []
    for mode in ("latency", "throughput"):
        with open_segmenter(bundle, mode) as segmenter:
            results.append(evaluate(segmenter, dataset))
    assert results[0].confusion == results[1].confusion
    assert results[0].worst == results[1].worst


def labeled(root: Path, height: int, width: int, model: Segmenter, classes: str) -> Dataset:
    """A dataset whose labels are the predictions of `model`, with some pixels ignored (id 99)."""
    for i, frame in enumerate(tiny.frames(3, 5, height, width)):
        label = unfit(model(frame).classmap, model.spec, height, width).copy()
        label[: height // 8] = 99
        write_image(root / "test" / "images" / f"{i}.png", frame)
        write_image(root / "test" / "masks" / f"{i}.png", label)
    write_bytes(root / "classes.txt", classes.encode())
    return Dataset.open(root, "test")


def class_list(names: tuple[str, ...]) -> str:
    return "# (id 99 = ignore)\n" + "".join(f"{i} {name} {i} 0 0\n" for i, name in enumerate(names))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (150, 200), (256, 384), (40, 30)])
def test_labels_of_another_size_than_the_model(bundle: Path, tmp_path: Path, height: int, width: int) -> None:
    """The class map is resized to the label, nearest neighbor; the model is right by construction."""
    with open_segmenter(bundle) as segmenter:
        dataset = labeled(tmp_path, height, width, segmenter, class_list(tiny.SPEC.classes))
        result = evaluate(segmenter, dataset)
    assert result.pixel_accuracy == result.miou == 1
    assert sum(map(sum, result.confusion)) == 3 * width * (height - height // 8)


@pytest.mark.parametrize(
    "names",
    [tiny.SPEC.classes[::-1], tiny.SPEC.classes[:-1], (*tiny.SPEC.classes, "extra")],
    ids=["another order", "one less", "one more"],
)
def test_another_class_list_is_refused(bundle: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    with open_segmenter(bundle) as segmenter:
        dataset = labeled(tmp_path, 64, 96, segmenter, class_list(tiny.SPEC.classes))
        write_bytes(tmp_path / "classes.txt", class_list(names).encode())
        dataset = Dataset.open(tmp_path, "test")
        with pytest.raises(OptionError) as caught:
            evaluate(segmenter, dataset)
    assert f"The model's classes are {', '.join(tiny.SPEC.classes)}; the dataset's {', '.join(names)}." in str(
        caught.value
    )


def test_pictures_show_frame_truth_prediction_and_differences(bundle: Path, street: Path) -> None:
    dataset = Dataset.open(street, "test")
    with open_segmenter(bundle) as segmenter:
        pictures = strips(segmenter, dataset, [2, 0])
        frame, truth = dataset[2]
        wrong = segmenter(frame).classmap != truth
    assert [p.shape for p in pictures] == [(224, 4 * 336 + 3 * 4, 3)] * 2
    red = np.all(pictures[0][:, -336:] == (60, 60, 255), axis=2)
    assert red.mean() == pytest.approx(wrong.mean(), abs=0.1)
    assert not np.array_equal(pictures[0], pictures[1])


def test_parity_with_the_parent_and_with_another_network(bundle: Path, network: Path, tmp_path: Path) -> None:
    frames = tiny.frames(3, seed=4)
    other = tiny.network(tmp_path / "other.onnx", seed=9)
    with open_segmenter(bundle) as segmenter:
        same = parity.compare(segmenter, parity.reference(network, tiny.SPEC, frames)[0], frames)
        different = parity.compare(segmenter, parity.reference(other, tiny.SPEC, frames)[0], frames)
    assert same.agreement >= 0.999 and same.frames == 3
    assert different.agreement < 0.9
    assert different.worst <= different.agreement


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_either_runtime_is_a_reference(network: Path, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    frame = tiny.frames(1, seed=4)[0]
    expected = tiny.parent_says(onnx.load(str(network)), frame, tiny.SPEC)
    if runtime == "openvino":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    classmaps, name = parity.reference(network, tiny.SPEC, [frame])
    assert name.split()[0] == runtime
    assert np.mean(classmaps[0] == expected) >= 0.999


def test_a_parent_that_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(EdgesegError, match="itself does not run at 96x64"):
        parity.reference(tmp_path / "broken.onnx", tiny.SPEC, tiny.frames(1))

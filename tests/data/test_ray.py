"""Import, check and pre-labels on a real local Ray: the same files and the same reports as without."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from label_files import box, dump

from edgeseg.data.checking import check_dataset
from edgeseg.data.frame_map import CHUNK, LOCAL, each_frame
from edgeseg.data.importing import ImportResult, import_dataset
from edgeseg.errors import EdgesegError, FileError, MissingPackage, OptionError
from edgeseg.images import read_image, write_image

FRAMES = 2 * CHUNK + 5


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Shapes on many frames; one image is broken, and shapes overlap."""
    root = tmp_path / "source"
    for i in range(FRAMES):
        name = f"f{i:03}"
        write_image(root / f"{name}.png", np.random.default_rng(i).integers(0, 255, (40, 60, 3), np.uint8))
        boxes = {"car": box(5, 5, 30, 20), "dog": box(20 - i % 9, 10, 50, 30)}
        shapes = [{"label": label, "points": points, "shape_type": "polygon"} for label, points in boxes.items()]
        size = {"imageHeight": 40, "imageWidth": 60}
        dump(root / f"{name}.json", {"shapes": shapes, "imagePath": f"{name}.png", "imageData": None, **size})
    (root / "f007.png").write_bytes(b"no image")
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def ray_is_there() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="the package ray is not installed")
    yield
    assert not ray.is_initialized(), "it is shut down"


@pytest.mark.usefixtures("ray_is_there")
def test_the_result_is_the_same(source: Path, tmp_path: Path) -> None:
    results: list[ImportResult] = []
    steps: list[int] = []
    for name, where in (("one", ""), ("other", LOCAL)):
        results.append(
            import_dataset(source, tmp_path / name, "labelme", progress=lambda d, t: steps.append(d), ray=where)
        )
    assert dataclasses.asdict(results[0]) == dataclasses.asdict(results[1])
    assert results[0].frames == FRAMES - 1 and "f007" in results[0].problems[0].file and results[0].losses
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    assert steps == [*range(1, FRAMES + 1)] * 2, "in order"
    with pytest.raises(FileError, match=r"f007\.png cannot be decoded"):
        import_dataset(source, tmp_path / "strict", "labelme", strict=True, ray=LOCAL)
    assert not (tmp_path / "strict").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_is_there")
def test_a_check_finds_the_same(street: Path, bundle_of: Callable[[str, str], Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(street, tmp_path / "street"))
    frames, tests = sorted((root / "train" / "images").iterdir()), root / "test"
    write_image(tests / "images" / "copy.png", np.ascontiguousarray(read_image(frames[3])[4:, 6:]))
    write_image(tests / "masks" / "copy.png", np.zeros((60, 90), np.uint8))
    frames[5].write_bytes(b"no image")
    bundle, results = bundle_of("onnxruntime-cpu", "fp32"), []
    for where in ("", LOCAL):
        result = check_dataset(root, bundle, ray=where)
        results.append(dataclasses.replace(result, seconds=0.0))
    assert results[0] == results[1]
    assert {"leak", "unreadable"} <= {finding.kind for finding in results[0].errors}
    assert {"label-error", "single-class"} & {finding.kind for finding in results[0].warnings}


@pytest.mark.usefixtures("ray_is_there")
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "Ray at 127.0.0.1:1 cannot be reached: "),
        ("ray://127.0.0.1:1", "Ray at ray://127.0.0.1:1 cannot be reached: "),
        ("127.0.0.1:99999", "cannot be reached"),
        ("nonsense", r"--ray 'nonsense' is no address\.\nExpected local"),
        ("host:port", "is no address"),
    ],
)
def test_a_cluster_that_is_not_there(address: str, message: str) -> None:
    with pytest.raises(EdgesegError, match=message):
        list(each_frame(str, [1, 2], address))


def test_without_ray_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install 'edgeseg\[ray\]'"):
        list(each_frame(str, [1, 2], LOCAL))
    assert list(each_frame(str, [1, 2])) == ["1", "2"]


def test_threads_keep_the_order_and_hand_on_what_goes_wrong() -> None:
    assert list(each_frame(str, range(100), threads=3)) == [str(i) for i in range(100)]
    with pytest.raises(ZeroDivisionError):
        list(each_frame(lambda i: 1 // (i - 30), range(100), threads=3))


@pytest.mark.parametrize("error", [FileError("a", "b"), OptionError("a"), MissingPackage("p", "Work", "extra")])
def test_errors_travel_between_processes(error: EdgesegError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and (again.what, again.hint) == (error.what, error.hint)
    assert str(again) == str(error) and again.exit_code == 2

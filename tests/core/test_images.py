"""Images and masks as files: written ones are read back, and the error for a broken one names it and what to try."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeseg.errors import FileError
from edgeseg.files import write_bytes
from edgeseg.images import list_images, read_image, read_mask, resize, write_image

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mask=arrays.arrays(np.uint8, SIZES))
def test_a_mask_survives_writing_and_reading(tmp_path: Path, mask: np.ndarray) -> None:
    write_image(tmp_path / "mask.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)
    assert [p.name for p in tmp_path.iterdir()] == ["mask.png"]  # no temporary file is left


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(image=arrays.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))))
def test_an_image_survives_writing_and_reading(tmp_path: Path, image: np.ndarray) -> None:
    write_image(tmp_path / "image.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), image)


def png(height: int = 40, width: int = 60) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (height, width), np.uint8)
    return bytes(cv2.imencode(".png", noise)[1])


@pytest.mark.parametrize("read, what", [(read_image, "Image"), (read_mask, "Mask")])
@pytest.mark.parametrize(
    "content, message",
    [
        (None, "does not exist"),
        (b"", "is empty (0 bytes)"),
        (b"this is no picture", "cannot be decoded"),
        (png()[:40], "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "cannot be decoded"),
    ],
    ids=["missing", "empty", "text", "truncated", "zeros"],
)
def test_the_error_for_a_broken_file_names_it(
    tmp_path: Path, read, what: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        read(path)
    assert caught.value.what.startswith(f"{what} {path} ")
    assert message in caught.value.what
    assert caught.value.hint


def test_a_truncated_image_is_an_error(tmp_path: Path) -> None:
    """Half a file must not become a frame or class map whose lower half is gray."""
    noise = np.random.default_rng(0).integers(0, 255, (200, 300), np.uint8)
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".tif"):
        whole = bytes(cv2.imencode(suffix, noise)[1])
        (tmp_path / f"half{suffix}").write_bytes(whole[: len(whole) // 2])
        for read in (read_image, read_mask):
            with pytest.raises(FileError, match="cannot be decoded"):
                read(tmp_path / f"half{suffix}")


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    "mask, message",
    [
        (np.zeros((4, 5, 3), np.uint8), r"shape \(4, 5, 3\) and type uint8"),
        (np.zeros((4, 5), np.uint16), r"shape \(4, 5\) and type uint16"),
    ],
    ids=["color", "16 bit"],
)
def test_a_mask_has_one_channel_of_bytes(tmp_path: Path, mask: np.ndarray, message: str) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    with pytest.raises(FileError, match=message) as caught:
        read_mask(tmp_path / "mask.png")
    assert "convert color masks to ids" in caught.value.hint


def test_an_oversized_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "big.png").write_bytes(png())
    monkeypatch.setattr("edgeseg.images.MAX_PIXELS", 100)
    with pytest.raises(FileError, match=r"is 60x40"):
        read_image(tmp_path / "big.png")


def test_writing_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(FileError, match="Cannot write") as caught:
        write_image(tmp_path / "taken" / "image.png", np.zeros((4, 4), np.uint8))
    assert caught.value.hint == "Choose a folder you may write."


def test_writing_to_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileError, match="Cannot write"):
        write_bytes(tmp_path / "taken", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_an_unknown_suffix_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="Cannot encode") as caught:
        write_image(tmp_path / "image.xyz", np.zeros((4, 4), np.uint8))
    assert ".png" in caught.value.hint


def test_images_are_listed_by_name_without_hidden_or_other_files(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in list_images(tmp_path)] == ["a.JPG", "b.png"]


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No images in"):
        list_images(tmp_path)
    with pytest.raises(FileError, match="does not exist"):
        list_images(tmp_path / "nowhere")


def test_resize_takes_height_then_width_and_may_reuse_memory() -> None:
    frame, into = np.full((10, 20, 3), 7, np.uint8), np.empty((4, 6, 3), np.uint8)
    assert resize(frame, 4, 6, into) is into
    assert (into == 7).all()

"""Images and masks as files: written ones are read back, and the error for a broken one names it and what to try."""

import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeseg.errors import FileError
from edgeseg.files import write_bytes
from edgeseg.images import list_images, read_image, read_mask, resize, turn, write_image

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
        (np.full((4, 5), 700, np.uint16), "has 16 bits"),
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


def test_resize_takes_height_then_width() -> None:
    assert resize(np.full((10, 20, 3), 7, np.uint8), 4, 6).shape == (4, 6, 3)


CASES = Path(__file__).parents[3] / "shared/cases/masks"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def packed_png(ids: np.ndarray, depth: int, palette: bytes = b"", *others: tuple[bytes, bytes]) -> bytes:
    """A PNG of `depth` bits a pixel, gray or with a palette, written by hand: the samples are `ids`."""
    height, width = ids.shape
    bits = np.unpackbits(ids[:, :, None], axis=2)[:, :, 8 - depth :].reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    header = struct.pack(">IIBBBBB", width, height, depth, 3 if palette else 0, 0, 0, 0)
    parts = [(b"IHDR", header), *([(b"PLTE", palette)] if palette else []), *others]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*p) for p in (*parts, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("palette, transparent", [(False, False), (True, False), (True, True)])
def test_a_mask_is_its_stored_samples(tmp_path: Path, depth: int, palette: bool, transparent: bool) -> None:
    """Whatever OpenCV makes of few bits, palettes, transparency and gamma."""
    ids = np.random.default_rng(depth).integers(0, 2**depth, (7, 13)).astype(np.uint8)
    others = [(b"gAMA", struct.pack(">I", 45455))] if not transparent else [(b"tRNS", bytes(range(2**depth)))]
    colors = np.random.default_rng(0).bytes(3 * 2**depth) if palette else b""
    (tmp_path / "mask.png").write_bytes(packed_png(ids, depth, colors, *others))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), ids)


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize("name", ["b1", "pal", "ptrns"])
def test_the_shared_mask_cases(name: str) -> None:
    pil = pytest.importorskip("PIL.Image", reason="an independent reader: pip install pillow")
    with pil.open(CASES / f"{name}.png") as image:
        np.testing.assert_array_equal(read_mask(CASES / f"{name}.png"), np.array(image).astype(np.uint8))


@pytest.mark.parametrize("cut", [20, 30, 45])
def test_a_palette_mask_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    (tmp_path / "mask.png").write_bytes(packed_png(np.ones((9, 9), np.uint8), 2, bytes(12))[:cut])
    with pytest.raises(FileError, match="cannot be decoded"):
        read_mask(tmp_path / "mask.png")


def exif(orientation: int, order: str = "<") -> bytes:
    """A TIFF header and a directory with one entry: the orientation."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def with_exif(data: bytes, orientation: int, order: str = "<") -> bytes:
    """A JPEG or PNG that has to be turned."""
    tag = exif(orientation, order)
    if data.startswith(b"\xff\xd8"):
        body = b"Exif\0\0" + tag
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    return data[:33] + chunk(b"eXIf", tag) + data[33:]


PATCHES = np.kron(np.random.default_rng(1).integers(0, 255, (2, 3, 3)), np.ones((16, 16, 1))).astype(np.uint8)
# What a viewer shows, by EXIF orientation: `stored` seen in a mirror, upside down, from behind...
SEEN = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.rot90(np.fliplr(a), 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.fliplr(a), -1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix, order", [(".jpg", "<"), (".jpg", ">"), (".png", "<")])
def test_an_image_is_turned_by_its_exif_orientation(tmp_path: Path, orientation: int, suffix: str, order: str) -> None:
    data = bytes(cv2.imencode(suffix, PATCHES, [cv2.IMWRITE_JPEG_QUALITY, 100])[1])
    (tmp_path / f"image{suffix}").write_bytes(with_exif(data, orientation, order))
    image, expected = read_image(tmp_path / f"image{suffix}"), SEEN[orientation](PATCHES)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 8  # what JPEG loses; a wrong turn is above 50
    np.testing.assert_array_equal(turn(PATCHES, orientation), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_too(tmp_path: Path, orientation: int) -> None:
    pil = pytest.importorskip("PIL.Image", reason="it writes the orientation: pip install pillow")
    tags = pil.Exif()
    tags[274] = orientation
    pil.fromarray(PATCHES[:, :, ::-1]).save(tmp_path / "image.tif", exif=tags)
    np.testing.assert_array_equal(read_image(tmp_path / "image.tif"), SEEN[orientation](PATCHES))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_bits_in_the_lower_part_of_16_are_scaled(tmp_path: Path, bits: int, suffix: str) -> None:
    image = np.random.default_rng(bits).integers(0, 2**bits, (9, 8, 3)).astype(np.uint16)
    image[0, 0] = 2**bits - 1
    cv2.imwrite(str(tmp_path / f"image{suffix}"), image)
    np.testing.assert_array_equal(read_image(tmp_path / f"image{suffix}"), image >> (bits - 8))


def test_bits_in_the_upper_part_of_16_are_not_scaled_twice(tmp_path: Path) -> None:
    dark = (np.arange(72, dtype=np.uint16) << 4).reshape(8, 9)
    cv2.imwrite(str(tmp_path / "image.png"), dark)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png")[:, :, 0], dark >> 8)


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "image.tif"), np.full((4, 5, 3), 0.5, np.float32))
    with pytest.raises(FileError, match=r"samples of type float32\.\nExpected 8 or 16 bits"):
        read_image(tmp_path / "image.tif")


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "tif"])
def test_the_size_is_checked_before_memory_is_taken(tmp_path: Path, kind: str) -> None:
    """A small file that says 20000 x 20000 (1.2 GB decoded), in a process that may have 1 GB."""
    small, path = bytes(cv2.imencode(f".{kind}", np.zeros((16, 16, 3), np.uint8))[1]), tmp_path / f"huge.{kind}"
    side = {"png": ">I", "jpg": ">H", "bmp": "<i", "tif": "<H"}[kind]
    at = {"png": (16, 20), "jpg": (small.find(b"\xff\xc0") + 5, small.find(b"\xff\xc0") + 7), "bmp": (18, 22)}.get(kind)
    at = at or tuple(small.find(struct.pack("<HH", tag, 3)) + 8 for tag in (256, 257))
    data = bytearray(small)
    for place in at:
        struct.pack_into(side, data, place, 20000)
    if kind == "png":
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    code = "import sys; from pathlib import Path; from edgeseg.images import read_image; read_image(Path(sys.argv[1]))"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))

    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, preexec_fn=limit)
    assert f"{path} is 20000x20000.\nAt most" in done.stderr


def test_webp_headers_are_understood(tmp_path: Path) -> None:
    from edgeseg.image_header import read_header

    for quality in (50, 101):  # lossy and lossless are stored differently
        data = bytes(cv2.imencode(".webp", PATCHES, [cv2.IMWRITE_WEBP_QUALITY, quality])[1])
        header = read_header(data)
        assert header is not None and (header.width, header.height) == (48, 32)


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=200),
    kind=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF\0\0\0\0WEBP", b"BM", b"II*\0"]),
)
def test_no_header_breaks_the_reader(data: bytes, kind: bytes) -> None:
    from edgeseg.image_header import read_header

    read_header(kind + data)


def test_a_png_with_a_chunk_that_is_longer_than_the_file_costs_no_memory(tmp_path: Path) -> None:
    """OpenCV takes as much memory as a chunk says it has, which was seconds and gigabytes."""
    write_image(tmp_path / "a.png", np.zeros((4, 6, 3), np.uint8))
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"IEND") - 4
    for damaged in (data[:at] + b"\x7f\xff\xff\x00" + data[at + 4 :], data[:at]):
        (tmp_path / "a.png").write_bytes(damaged)
        started = time.monotonic()
        with pytest.raises(FileError, match="cannot be decoded"):
            read_image(tmp_path / "a.png")
        assert time.monotonic() - started < 1

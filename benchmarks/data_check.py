"""Planted faults and `edgeseg data check`: how many it finds, how often it is wrong.

python benchmarks/data_check.py faults DATASET OUT   ten faults of each kind in a copy of DATASET
python benchmarks/data_check.py copies DATASET OUT   altered copies of every test frame put into train
python benchmarks/data_check.py many OUT [FRAMES]    seconds and memory on a set of many small frames
"""

from __future__ import annotations

import argparse
import resource
import shutil
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edgeseg.data.checking import check_dataset, open_context
from edgeseg.data.checks import load_sample
from edgeseg.data.checks.copies import Copies
from edgeseg.data.dataset import read_classes
from edgeseg.images import read_image, read_mask
from edgeseg.results.check import CheckResult, Finding

EACH = 10
DOTS = 120  # in a mask: CamVid and rendered streets have up to 80 of their own
rng = np.random.default_rng(7)


def exif_jpeg(frame: np.ndarray, orientation: int) -> bytes:
    data = cv2.imencode(".jpg", frame)[1].tobytes()
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, orientation, 0) + b"\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def replace_image(image: Path, suffix: str, data: bytes) -> str:
    image.unlink()
    image.with_suffix(suffix).write_bytes(data)
    return image.with_suffix(suffix).name


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def jpeg(frame: np.ndarray, quality: int = 90) -> bytes:
    return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def crop(frame: np.ndarray, share: float) -> np.ndarray:
    height, width = frame.shape[:2]
    h, w = round(height * share), round(width * share)
    y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    return frame[y : y + h, x : x + w]


def shifted(mask: np.ndarray, x: int, y: int) -> np.ndarray:
    move = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(mask, move, mask.shape[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


def ragged(mask: np.ndarray) -> np.ndarray:
    """Outlines that wander by up to 3 % of the height."""
    height, width = mask.shape
    amplitude = 0.03 * height
    coarse = [cv2.resize(rng.uniform(-1, 1, (8, 10)).astype(np.float32), (width, height)) for _ in range(2)]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(mask, x + amplitude * coarse[0], y + amplitude * coarse[1], cv2.INTER_NEAREST,
                     borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


def specked(mask: np.ndarray, classes: int) -> np.ndarray:
    mask = mask.copy()
    for y, x in zip(rng.integers(0, mask.shape[0], DOTS), rng.integers(0, mask.shape[1], DOTS)):
        mask[y, x] = (mask[y, x] + 1) % classes
    return mask


def plants(classes: int, ignore: int) -> dict[str, Callable[[Path, Path], str]]:
    """kind: plant(image, mask) -> the name of the file that must be named."""

    def on_mask(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, Path], str]:
        def plant(image: Path, mask: Path) -> str:
            mask.write_bytes(png(change(read_mask(mask))))
            return mask.name

        return plant

    def on_image(suffix: str, change: Callable[[np.ndarray], bytes]) -> Callable[[Path, Path], str]:
        return lambda image, mask: replace_image(image, suffix, change(read_image(image)))

    def cut(data: bytes) -> bytes:
        return data[: len(data) // 2]

    def remove(path: Path) -> str:
        path.unlink()
        return ""

    return {
        "unreadable": on_image(".png", lambda f: b"no image at all" * 20),
        "truncated": on_image(".jpg", lambda f: cut(jpeg(f))),
        "exif-rotated": on_image(".jpg", lambda f: exif_jpeg(np.rot90(f), 6)),
        "16-bit": on_image(".png", lambda f: png(f.astype(np.uint16) * 257)),
        "alpha": on_image(".png", lambda f: png(np.dstack([f, np.full(f.shape[:2], 200, np.uint8)]))),
        "grayscale": on_image(".png", lambda f: png(cv2.cvtColor(f, cv2.COLOR_BGR2GRAY))),
        "no-mask": lambda image, mask: remove(mask) + image.name,
        "no-image": lambda image, mask: remove(image) + mask.name,
        "size": on_mask(lambda m: m[:-8]),
        "unknown-id": on_mask(lambda m: np.where(np.arange(m.shape[0])[:, None] < 9, 99, m).astype(np.uint8)),
        "empty-mask": on_mask(lambda m: np.full_like(m, ignore)),
        "single-class": on_mask(lambda m: np.full_like(m, 1)),
        "specks": on_mask(lambda m: specked(m, classes)),
        "shifted-mask": on_mask(lambda m: shifted(m, max(6, m.shape[1] // 40), max(4, m.shape[0] // 60))),
        "ragged-boundary": on_mask(ragged),
        "unreadable-mask": lambda image, mask: (mask.write_bytes(cut(mask.read_bytes())), mask.name)[1],
    }


def faults(source: Path, out: Path) -> None:
    """Each fault in frames of its own; a finding of that kind elsewhere is a false alarm unless it is there without."""
    clean = {(f.kind, f.file) for f in all_findings(check_dataset(source))}
    copy(source, out)
    classes = read_classes(out / "classes.txt")
    images = [p for split in ("train", "test", "val") for p in sorted((out / split / "images").iterdir())]
    chosen = iter(rng.permutation(len(images)))
    planted: dict[str, set[str]] = {}
    for kind, plant in plants(len(classes.names), classes.ignore_index or 255).items():
        if kind == "empty-mask" and classes.ignore_index is None:
            continue
        planted[kind] = set()
        while len(planted[kind]) < EACH:
            image = images[next(chosen)]
            planted[kind].add(plant(image, image.parent.parent / "masks" / f"{image.stem}.png"))
    result = check_dataset(out)
    touched = set().union(*planted.values())
    print(f"{result.frames} frames, {result.seconds:.1f} s; in the clean set: {Counter(k for k, _ in clean)}")
    for kind, names in planted.items():
        found = [f for f in all_findings(result) if f.kind == kind]
        hits = {Path(f.file).name for f in found} & names
        new = [f for f in found if Path(f.file).name not in names and (f.kind, f.file) not in clean]
        elsewhere = [f for f in new if Path(f.file).name in touched]
        print(f"{kind:16} found {len(hits)} of {len(names)}, false alarms {len(new) - len(elsewhere)}, "
              f"on frames with another fault {len(elsewhere)}")  # fmt: skip


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG, quality 30": lambda f: np.asarray(cv2.imdecode(np.frombuffer(jpeg(f, 30), np.uint8), 1)),
    "half the size": lambda f: cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "brightness x 0.6": lambda f: (f * 0.6).astype(np.uint8),
    "brightness x 1.4": lambda f: np.clip(f * 1.4, 0, 255).astype(np.uint8),
    "gamma 2": lambda f: (255 * (f / 255.0) ** 2).astype(np.uint8),
    "mirrored": lambda f: f[:, ::-1].copy(),
    "crop 95 %": lambda f: crop(f, 0.95),
    "crop 90 %": lambda f: crop(f, 0.9),
    "crop 80 %": lambda f: crop(f, 0.8),
    "crop 80 %, enlarged": lambda f: cv2.resize(crop(f, 0.8), f.shape[1::-1]),
    "crop 70 %": lambda f: crop(f, 0.7),
}


def copies(source: Path, out: Path) -> None:
    """The check of copies alone; what it keeps of the dataset itself is computed once."""
    context = open_context(source)
    base = Copies(context)
    for split, images in context.images.items():
        for image in images:
            base.frame(load_sample(context, split, image))
    tests = context.images["test"]
    for name, change in COPIES.items():
        shutil.rmtree(out, ignore_errors=True)
        (out / "train" / "images").mkdir(parents=True)
        check = Copies(replace(context, root=Path("/")))
        check.frames = [(split, path.resolve()) for split, path in base.frames]
        check.index.__dict__.update({key: list(kept) for key, kept in vars(base.index).items()})
        for i, image in enumerate(tests):
            path = out / "train" / "images" / f"zz{i}copy.jpg"
            path.write_bytes(jpeg(change(read_image(image))))
            check.frame(load_sample(replace(context, root=out), "train", path))
        pairs = [(Path(f.file).name, Path(other).name) for f in check.end() if f.kind == "leak" for other in f.others]
        found = {n for pair in pairs for n in pair if n.startswith("zz")}
        right = {b for a, b in pairs if b.startswith("zz") and tests[int(b[2:-8])].name == a}  # copies come last
        shares = " % ".join(f"{100 * len(names) / len(tests):6.2f}" for names in (found, right))
        false = sum(not b.startswith("zz") for _, b in pairs)
        print(f"{name:22} found, original named: {shares} % of {len(tests)}; false alarms {false}", flush=True)


def many(out: Path, frames: int) -> None:
    from edgeseg.synth.files import write_dataset

    if not out.exists():
        write_dataset(out.with_name("seed"), train=200, val=10, test=10, seed=3, height=96, width=160)
        for split in ("train", "val", "test"):
            for kind in ("images", "masks"):
                (out / split / kind).mkdir(parents=True)
        shutil.copy(out.with_name("seed") / "classes.txt", out)
        seeds = sorted((out.with_name("seed") / "train" / "images").iterdir())
        for i in range(frames):
            image = seeds[i % len(seeds)]
            split = "train" if i < 0.8 * frames else "val" if i < 0.9 * frames else "test"
            x, y = rng.integers(0, 40), rng.integers(0, 24)
            frame = read_image(image)[y : y + 72, x : x + 120] ^ rng.integers(0, 8, (72, 120, 3), np.uint8)
            mask = read_mask(image.parent.parent / "masks" / f"{image.stem}.png")[y : y + 72, x : x + 120]
            (out / split / "images" / f"{i:06}.jpg").write_bytes(jpeg(frame))
            (out / split / "masks" / f"{i:06}.png").write_bytes(png(mask))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    result = check_dataset(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds, kinds = time.perf_counter() - started, Counter(f.kind for f in all_findings(result))
    print(f"{result.frames} frames: {seconds:.0f} s, peak {peak:.0f} MB ({before:.0f} MB before); {kinds}")


def all_findings(result: CheckResult) -> tuple[Finding, ...]:
    return (*result.errors, *result.warnings)


def copy(source: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("verb", choices=("faults", "copies", "many"))
    parser.add_argument("first", type=Path, help="the dataset; for many, the folder to write")
    parser.add_argument("out", nargs="?", type=Path, default=Path("checked"), help="the folder to write")
    parser.add_argument("--frames", type=int, default=10_000, help="of many")
    given = parser.parse_args()
    if given.verb == "many":
        many(given.first, given.frames)
    else:
        {"faults": faults, "copies": copies}[given.verb](given.first, given.out)

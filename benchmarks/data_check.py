"""Planted faults and `edgeseg data check`: how many it finds, how often it is wrong.

faults DATASET --out OUT            ten faults of each kind in a copy of DATASET
copies DATASET --out OUT            altered copies of every test frame put into train
labels DATASET --bundle B --out OUT one region of every second test frame gets another class
many OUT --frames N                 seconds and memory on a set of many small frames
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

from edgeseg.data import checks
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
    context = replace(open_context(source.resolve()), root=Path("/"))
    looking = Copies(context)
    places = [(split, number) for split, images in context.images.items() for number in range(len(images))]
    base = [looking.look(load_sample(context, *place)) for place in places]
    tests = context.images["test"]
    for name, change in COPIES.items():
        shutil.rmtree(out, ignore_errors=True)
        (out / "train" / "images").mkdir(parents=True)
        more = [(out / "train" / "images" / f"zz{i}copy.jpg").resolve() for i in range(len(tests))]
        for path, image in zip(more, tests):
            path.write_bytes(jpeg(change(read_image(image))))
        together = replace(context, images={**context.images, "train": (*context.images["train"], *more)})
        check, first = Copies(together), len(context.images["train"])
        for i in range(len(tests)):
            check.frame(check.look(load_sample(together, "train", first + i)))
        for seen in base:
            check.frame(seen)
        leaks = {Path(f.file).name: f for f in check.end() if f.kind == "leak"}
        found = [n for n in leaks if n.startswith("zz")]
        right = [n for n in found if any(o.endswith(tests[int(n[2:-8])].name) for o in leaks[n].others)]
        shares = " % ".join(f"{100 * len(names) / len(tests):6.2f}" for names in (found, right))
        false = len(leaks) - len(found)
        print(f"{name:22} found, original named: {shares} % of {len(tests)}; false alarms {false}", flush=True)


def many(out: Path, frames: int) -> None:
    if not out.exists():
        draw_scenes(out, frames)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    result = check_dataset(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds, kinds = time.perf_counter() - started, Counter(f.kind for f in all_findings(result))
    print(f"{result.frames} frames: {seconds:.0f} s, peak {peak:.0f} MB ({before:.0f} MB before); {kinds}")


def draw_scenes(out: Path, frames: int) -> None:
    """Different frames of 160x96: ellipses and boxes of eight classes, with texture and noise."""
    palette = rng.integers(30, 220, (8, 3))
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (out / split / kind).mkdir(parents=True)
    (out / "classes.txt").write_text("\n".join(f"{i} class{i} {r} {g} {b}" for i, (r, g, b) in enumerate(palette)))
    for i in range(frames):
        mask = np.zeros((96, 160), np.uint8)
        for _ in range(14):
            x, y, w, h, color = rng.integers((0, 0, 12, 12, 0), (160, 96, 70, 50, 8)).tolist()
            if rng.random() < 0.5:
                cv2.rectangle(mask, (x, y), (x + w, y + h), color, -1)
            else:
                cv2.ellipse(mask, (x, y), (w, h), 0, 0, 360, color, -1)
        texture = cv2.resize(rng.normal(0, 12, (12, 20, 3)), (160, 96)) + rng.normal(0, 4, (96, 160, 3))
        split = "train" if i < 0.8 * frames else "val" if i < 0.9 * frames else "test"
        frame = np.clip(palette[mask] + texture, 0, 255).astype(np.uint8)
        (out / split / "images" / f"{i:06}.jpg").write_bytes(jpeg(frame))
        (out / split / "masks" / f"{i:06}.png").write_bytes(png(mask))


def labels(source: Path, bundle: Path, out: Path) -> None:
    """One region of every second test frame gets another class; findings that hit one, by their score."""
    copy_split(source, out, "test")
    classes = read_classes(out / "classes.txt")
    planted: dict[str, np.ndarray] = {}
    for mask in sorted((out / "test" / "masks").iterdir())[::2]:
        stored = read_mask(mask)
        if (region := any_region(stored, len(classes.names))) is not None:
            others = set(range(len(classes.names))) - {int(stored[region][0])}
            stored[region] = rng.choice(sorted(others))
            planted[f"test/masks/{mask.name}"] = region
            mask.write_bytes(png(stored))
    skipped = [name for name in checks.names() if name != "label_errors"]
    clean = {(f.file, f.box) for f in check_dataset(source, bundle, skipped).warnings}
    result = check_dataset(out, bundle, skipped)
    for least in (0.4, 0.5, 0.6, 0.7, 0.8):
        found = [f for f in result.warnings if f.score >= least]
        hits = [f for f in found if f.file in planted and hit(planted[f.file], f.box)]
        recall, precision = len({f.file for f in hits}) / len(planted), len(hits) / max(1, len(found))
        known = sum((f.file, f.box) in clean for f in found if f not in hits)
        print(f"score {least}: recall {recall:.3f} of {len(planted)}, precision {precision:.3f} of {len(found)}; "
              f"{known} of the others are found without planting")  # fmt: skip


def any_region(mask: np.ndarray, classes: int) -> np.ndarray | None:
    """A connected region of 0.3 to 20 % of the frame."""
    regions = []
    for class_id in range(classes):
        number, parts, stats, _ = cv2.connectedComponentsWithStats((mask == class_id).astype(np.uint8), connectivity=4)
        regions += [parts == i for i in range(1, number) if 0.003 <= stats[i, 4] / mask.size <= 0.2]
    return regions[rng.integers(len(regions))] if regions else None


def hit(region: np.ndarray, box: tuple[int, int, int, int] | None) -> bool:
    if box is None:
        return False
    x, y, w, h = box
    inside = region[y : y + h, x : x + w]
    return bool(inside.sum() >= 0.5 * region.sum() or inside.mean() > 0.4)


def copy_split(source: Path, out: Path, split: str) -> None:
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source / split, out / split)
    shutil.copy(source / "classes.txt", out)


def all_findings(result: CheckResult) -> tuple[Finding, ...]:
    return (*result.errors, *result.warnings)


def copy(source: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("faults", "copies", "labels", "many"))
    parser.add_argument("dataset", type=Path, help="for many, the folder to write")
    parser.add_argument("--out", type=Path, default=Path("checked"), help="the folder to write")
    parser.add_argument("--bundle", type=Path, help="of labels: a model of the dataset's classes")
    parser.add_argument("--frames", type=int, default=10_000, help="of many")
    given = parser.parse_args()
    if given.verb == "many":
        many(given.dataset, given.frames)
    elif given.verb == "labels":
        if given.bundle is None:
            parser.error("labels needs --bundle")
        labels(given.dataset, given.bundle, given.out)
    else:
        {"faults": faults, "copies": copies}[given.verb](given.dataset, given.out)

"""Result: one frame and what its pixels are, in the frame's geometry, ready to draw, store or count."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import FileError, MissingPackage
from edgeseg.files import write_bytes
from edgeseg.fit import OUTSIDE, Detail, framed, place, seen_part, unfit
from edgeseg.geometry import rle, trace
from edgeseg.geometry.regions import Region
from edgeseg.images import Image, palette_png, write_image
from edgeseg.motion import Motion
from edgeseg.overlay import Overlay
from edgeseg.panoptic import PanopticMap
from edgeseg.spec import Spec

PICTURES = (".jpg", ".jpeg", ".webp")
SHOWN = 3  # classes in a repr
MOST_MOTIONS = 30  # of dropped frames: a second or so, after which the picture is another one


@dataclass(frozen=True)
class Frame:
    """An image of a source: [H, W, 3] uint8 BGR, its number, and when it was captured (time.monotonic seconds).

    `pts`: its place on the media's own time axis in seconds, where the source has one. `age_from` says what `captured`
    is: `capture` (the camera's own clock), `arrival` (of its data here) or `read` (from a file). `motion`: what the
    decoder knows of how it moved since the frame before, of frames that were dropped in between, too; None where it
    knows nothing. `stream`: the name of the stream of a run.
    """

    image: Image
    index: int = 0
    captured: float = field(default_factory=time.monotonic)
    source: str = ""
    pts: float | None = None
    age_from: str = "read"
    motion: tuple[Motion, ...] | None = None
    stream: str = ""

    def after(self, dropped: Frame) -> Frame:
        """This frame where the one before it was dropped: its motion is that of both."""
        if self.motion is None:
            return self
        motion = None if dropped.motion is None else (*dropped.motion, *self.motion)
        return replace(self, motion=motion if motion and len(motion) <= MOST_MOTIONS else None)


@dataclass(frozen=True)
class Decision:
    """Whether a person has to look at a result. `confidence`: mean over the frame, 0 to 1, None where unknown.
    `reasons`: `confidence`, `class NAME`; none for a result that is decided. `levels`: the confidence of the frame or
    of the class that each reason is about. See monitoring/undecided.py."""

    confidence: float | None
    reasons: tuple[str, ...] = ()
    levels: tuple[float, ...] = ()

    @property
    def undecided(self) -> bool:
        return bool(self.reasons)

    def __str__(self) -> str:
        return ", ".join(f"{reason} ({level:.2f})" for reason, level in zip(self.reasons, self.levels))


@dataclass(frozen=True)
class Polygon:
    """One connected piece of a class: corners [N, 2] (x, y) in pixels of the frame, along the edges of its pixels.

    `exterior` encloses it, each of `holes` is left out. `area`: pixels.
    """

    class_id: int
    name: str
    exterior: NDArray[np.int64]
    holes: tuple[NDArray[np.int64], ...]
    area: int


@dataclass(frozen=True, repr=False)
class Result:
    """A frame, its class map ([spec.height, spec.width] uint8) and the seconds each stage took.

    `times`: resize, infer (from start to finish, waiting behind other requests included), mask. `margin` (if the
    Segmenter was opened with it): by how much each pixel's best logit beats the second, like classmap but float32.
    `reused`: how many frames before this one went through the network; 0 where this one did. `decision`: whether a
    person has to look at it, None where nobody asked. `panoptic`: the segments, of the class map's size, where the task
    has any.
    What the methods give is in the geometry of the frame: padding is gone, and pixels that the network did not see
    (Spec.fit "crop") are fit.OUTSIDE and belong to no class.
    """

    frame: Frame
    classmap: Image
    times: dict[str, float]
    margin: NDArray[np.float32] | None = None
    spec: Spec | None = None
    reused: int = 0
    detail: Detail | None = field(default=None, compare=False)
    panoptic: PanopticMap | None = field(default=None, compare=False)
    decision: Decision | None = None

    def __repr__(self) -> str:
        height, width = self.frame.image.shape[:2]
        largest = sorted(self.areas().items(), key=lambda item: -item[1])[:SHOWN] if self.spec else ()
        shares = ", ".join(f"{name} {share:.0%}" for name, share in largest)
        return f"Result({width}x{height}{': ' * bool(shares)}{shares}, {1e3 * sum(self.times.values()):.1f} ms)"

    def at_frame_size(self) -> Image:
        """The class map [H, W] uint8 of the frame's size: from the logits themselves where the segmenter kept them
        (`detail`), else stretched, nearest neighbor."""
        return self._at_frame_size

    @cached_property
    def _at_frame_size(self) -> Image:
        size = self.frame.image.shape[:2]
        if self.detail is None:
            return unfit(self.classmap, self._spec, *size)
        placed = place(self._spec, *size)
        return framed(self.detail(placed), placed.seen, *size)

    @property
    def _spec(self) -> Spec:
        if self.spec is None:
            raise ValueError("this result was made without a Spec")
        return self.spec

    def confidence(self) -> Image:
        """[H, W] uint8 of the frame's size: 255 * tanh(margin / 2), 0 where the network did not see it.

        For logits, p1 - p2 of a softmax over each pixel's best two classes alone: 0 where they tie, 255 where sure.
        ValueError for a result without a margin.
        """
        if self.margin is None:
            raise ValueError("this result was made without a margin: open the bundle with margin=True")
        gray = np.rint(255 * np.tanh(self.margin / 2)).astype(np.uint8)
        height, width = self.frame.image.shape[:2]
        gray = unfit(gray, self._spec, height, width)
        return np.where(self.at_frame_size() == OUTSIDE, 0, gray).astype(np.uint8) if self._spec.fit == "crop" else gray

    def plot(self, alpha: float = 0.5, caption: str = "") -> Image:
        """[H, W, 3] uint8 BGR: the class colors over the frame, with a legend. `alpha`: of the colors, 0 to 1."""
        return Overlay(self._spec, alpha).draw(self.frame.image, self.classmap, caption)

    def save(self, path: Path | str) -> Path:
        """Write what the suffix says: .png the class map (ids, with a palette), .jpg or .webp the plot, .json to_json;
        returns the path. FileError for another suffix."""
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".png":
            write_bytes(path, palette_png(self.at_frame_size(), self._spec.palette), durable=False)
        elif suffix == ".json":
            write_bytes(path, self.to_json().encode(), durable=False)
        elif suffix in PICTURES:
            write_image(path, self.plot())
        else:
            raise FileError(
                f"{path}: results are not written as {suffix or 'a file without a suffix'}.",
                f"Expected .png (class map), {', '.join(PICTURES)} (picture) or .json.",
            )
        return path

    def areas(self, exact: bool = True) -> dict[str, float]:
        """{class: its share of the part that the network saw, 0 to 1}, without absent classes. Of the frame's own
        pixels; not `exact`: of the network's, which is cheaper."""
        size = self.frame.image.shape[:2]
        if exact and self.detail is not None:
            return class_shares(place(self._spec, *size).seen.of(self.at_frame_size()), self._spec)
        return class_shares(seen_part(self.classmap, self._spec, *size), self._spec)

    def milliseconds(self) -> dict[str, float]:
        """`times`, to be read."""
        return {stage: round(1e3 * seconds, 3) for stage, seconds in self.times.items()}

    def masks(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """(class id, [H, W] where it is) of every class that is there."""
        classmap = self.at_frame_size()
        for class_id in map(int, np.flatnonzero(np.bincount(classmap.ravel(), minlength=256))):
            if class_id < len(self._spec.classes):
                yield class_id, classmap == class_id

    def polygons(self, min_area: int = 0) -> list[Polygon]:
        """Every connected piece of a class of at least `min_area` pixels; pixels that touch at a corner are apart."""
        found = []
        for class_id, mask in self.masks():
            pixels = mask.view(np.uint8)
            count, labels, stats, _ = cv2.connectedComponentsWithStats(pixels, connectivity=4, ltype=cv2.CV_32S)
            for i in range(1, count):
                x, y, width, height, area = map(int, stats[i])
                if area >= min_area:
                    piece = labels[y : y + height, x : x + width] == i
                    found.append(self._polygon(class_id, piece, (x, y), area))
        return found

    def _polygon(self, class_id: int, piece: NDArray[np.bool_], corner: tuple[int, int], area: int) -> Polygon:
        exterior, *holes = sorted(trace.rings(piece), key=lambda ring: -_extent(ring))
        shifted = [ring + np.array(corner) for ring in (exterior, *holes)]
        return Polygon(class_id, self._spec.classes[class_id], shifted[0], tuple(shifted[1:]), area)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `size` [width, height], `classes` of those that are there (id, name, share, and the mask as
        COCO's compressed `rle`), `ms` of each stage."""
        height, width = self.frame.image.shape[:2]
        shares, names = self.areas(), self._spec.classes
        classes = [
            {"id": i, "name": names[i], "share": round(shares[names[i]], 6), "rle": _coco_rle(mask)}
            for i, mask in self.masks()
        ]
        return {
            "schema": 1,
            "kind": "result",
            "size": [width, height],
            "classes": classes,
            "ms": self.milliseconds(),
        }

    def to_json(self) -> str:
        """to_dict as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_coco(self, image_id: int = 1, first_id: int = 1) -> list[dict[str, Any]]:
        """COCO annotations, one for each class that is there: `category_id` is the class id, `segmentation` compressed
        RLE, `bbox` [x, y, width, height]."""
        return [
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": i,
                "segmentation": _coco_rle(mask),
                "area": int(mask.sum()),
                "bbox": list(cv2.boundingRect(mask.view(np.uint8))),
                "iscrowd": 0,
            }
            for number, (i, mask) in enumerate(self.masks())
        ]

    def to_supervision(self) -> Any:
        """supervision.Detections, one mask for each class that is there; MissingPackage without that package."""
        try:
            import supervision
        except ImportError as error:
            raise MissingPackage("supervision", "Result.to_supervision", "supervision") from error
        ids, masks = zip(*found) if (found := list(self.masks())) else ((), ())
        boxes = np.array([cv2.boundingRect(mask.view(np.uint8)) for mask in masks], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        stacked = np.array(masks, bool).reshape(-1, *self.frame.image.shape[:2])
        names = np.array([self._spec.classes[i] for i in ids])
        return supervision.Detections(xyxy=boxes, mask=stacked, class_id=np.array(ids, int), data={"class_name": names})


def class_shares(classmap: Image, spec: Spec) -> dict[str, float]:
    """{class: share of the [H, W] class map, 0 to 1}, without absent classes."""
    counts = cv2.calcHist([classmap], [0], None, [256], [0, 256]).reshape(-1)  # OpenCV 4 gives a column
    return {name: float(counts[i]) / classmap.size for i, name in enumerate(spec.classes) if counts[i]}


def _extent(ring: NDArray[np.int64]) -> int:
    """The area of a ring's bounding box: of the rings of one piece, the outer one has the largest."""
    width, height = ring.max(0) - ring.min(0)
    return int(width * height)


def _coco_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    runs: Sequence[int] = rle.coco_runs(Region(0, 0, mask), *mask.shape)
    return {"size": list(mask.shape), "counts": rle.coco_text(runs)}

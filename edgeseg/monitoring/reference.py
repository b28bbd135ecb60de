"""Reference statistics: made from results of frames that are as they should be, and found in a bundle or a file."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from edgeseg.bundle import REFERENCE, Bundle
from edgeseg.errors import BundleError, OptionError
from edgeseg.images import Image
from edgeseg.monitoring import statistics
from edgeseg.monitoring.ranges import MIN_FRAMES
from edgeseg.records import parse_json
from edgeseg.result import Result
from edgeseg.results.drift import ReferenceStatistics

PICTURE_WIDTH = 320
MOST_FRAMES = 2000  # more rows only make the file larger
ADD = "Make some from frames that are as they should be: edgeseg drift {} --reference FRAMES --out FILE.json"


def collect_reference(
    results: Iterable[Result], classes: tuple[str, ...], sequence: bool = False, picture: bool = True
) -> ReferenceStatistics:
    """The statistics of results whose margin was measured, at most MOST_FRAMES of them; `picture`: keep the most
    typical frame, small. OptionError for fewer than MIN_FRAMES."""
    rows, thumbnails = [], []
    for result in results:
        rows.append(statistics.measure(result, len(classes)))
        if picture:
            thumbnails.append(_small(result.frame.image))
        if len(rows) == MOST_FRAMES:
            break
    if len(rows) < MIN_FRAMES:
        raise OptionError(
            f"{len(rows)} frames are too few for reference statistics.",
            f"Expected at least {MIN_FRAMES}; some hundred of what the camera sees on all days are better.",
        )
    values = np.array(rows)
    spread = np.abs(values - np.median(values, 0)) / (values.std(0) + 1e-9)
    typical = int(spread.max(1).argmin())
    return ReferenceStatistics(
        names=statistics.names(classes),
        rows=tuple(tuple(round(float(v), 5) for v in row) for row in rows),
        classes=classes,
        sequence=sequence,
        picture=base64.b64encode(thumbnails[typical]).decode() if picture else "",
    )


def of_bundle(bundle: Bundle) -> ReferenceStatistics | None:
    """Those that were stored when the bundle was compiled; None where there are none."""
    return (
        parse(bundle.files[REFERENCE], bundle.path / REFERENCE, bundle.spec.classes)
        if REFERENCE in bundle.files
        else None
    )


def require(bundle: Bundle) -> ReferenceStatistics:
    """Those of the bundle; BundleError that says how to make some."""
    found = of_bundle(bundle)
    if found is None:
        raise BundleError(f"Bundle {bundle.path} has no reference statistics.", ADD.format(bundle.path) + ".")
    return found


def load(path: Path, classes: tuple[str, ...]) -> ReferenceStatistics:
    """Those of a file that `edgeseg drift --out` wrote; OptionError where they are of other classes."""
    return _checked(ReferenceStatistics.load(path), path, classes)


def given(path: str, stored: bytes | None, classes: tuple[str, ...]) -> ReferenceStatistics | None:
    """Those of the file that a user names, else the `stored` ones of the bundle; None where there are neither."""
    if path:
        return load(Path(path), classes)
    return parse(stored, Path(REFERENCE), classes) if stored else None


def parse(data: bytes, name: Path, classes: tuple[str, ...]) -> ReferenceStatistics:
    """Those in a file with this content."""
    try:
        document = parse_json(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} cannot be read: {error}.", "Compile the bundle again.") from error
    return _checked(ReferenceStatistics.from_dict(document, name), name, classes)


def _checked(found: ReferenceStatistics, name: Path, classes: tuple[str, ...]) -> ReferenceStatistics:
    expected = statistics.names(classes)
    if found.names != expected or any(len(row) != len(expected) for row in found.rows):
        raise OptionError(
            f"The reference statistics {name} are of a model with the classes {', '.join(found.classes)[:200]}.",
            f"Expected: {', '.join(classes)[:200]}. {ReferenceStatistics.HINT}",
        )
    return found


def picture_of(reference: ReferenceStatistics) -> Image | None:
    """[H, W, 3] uint8 BGR: its most typical frame, where it has one."""
    if not reference.picture:
        return None
    try:
        data = np.frombuffer(base64.b64decode(reference.picture), np.uint8)
        found = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (ValueError, cv2.error):
        found = None
    return None if found is None else np.asarray(found, np.uint8)


def _small(image: Image) -> bytes:
    height, width = image.shape[:2]
    scale = min(1.0, PICTURE_WIDTH / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()

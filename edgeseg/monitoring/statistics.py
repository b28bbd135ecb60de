"""What is watched of a frame: a few numbers of its picture, of its class map, and of the model's confidence."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.fit import fit_frame
from edgeseg.images import Image
from edgeseg.result import Result

PICTURE = ("brightness", "contrast", "sharpness", "red", "blue", "edges", "upper", "left")
MARGIN = "margin"
AREA = "area "
EVERY_ROWS = 2  # of the picture; the columns are all needed for its sharpness

WORDS = {
    "brightness": "brightness (mean, 0 to 255)",
    "contrast": "contrast (standard deviation)",
    "sharpness": "sharpness (gradient for its contrast, logarithm)",
    "red": "red against green",
    "blue": "blue against green",
    "edges": "edges that lie against those that stand (logarithm)",
    "upper": "brightness of the upper half against the lower",
    "left": "brightness of the left half against the right",
    MARGIN: "confidence (mean margin)",
}


def names(classes: Sequence[str]) -> tuple[str, ...]:
    """The statistics of a frame, in the order of `measure`."""
    return (*PICTURE, *(AREA + name for name in classes), MARGIN)


def measure(result: Result, classes: int) -> NDArray[np.float64]:
    """[8 + classes + 1]: the statistics of a frame as the network sees it; NaN for a margin that was not measured.

    Areas are square roots of shares, whose spread depends less on their size.
    """
    assert result.spec is not None
    counts = cv2.calcHist([result.classmap], [0], None, [256], [0, 256]).reshape(-1)[:classes]
    margin = np.nan if result.margin is None else float(result.margin.mean())
    areas = np.sqrt(counts / result.classmap.size)
    return np.array([*_picture(fit_frame(result.frame.image, result.spec)), *areas, margin], np.float64)


def _picture(image: Image) -> list[float]:
    small = image[::EVERY_ROWS]
    gray = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(gray))
    blue, green, red, _ = cv2.mean(small)
    across = cv2.mean(cv2.absdiff(gray[:, 1:], gray[:, :-1]))[0]
    down = cv2.mean(cv2.absdiff(gray[1:], gray[:-1]))[0]
    height, width = gray.shape
    upper, left = cv2.mean(gray[: height // 2])[0], cv2.mean(gray[:, : width // 2])[0]
    sharpness = float(np.log((across + 0.5) / (deviation + 1)))
    edges = float(np.log((down + 0.5) / (across + 0.5)))
    return [mean, deviation, sharpness, red - green, blue - green, edges, 2 * (upper - mean), 2 * (left - mean)]

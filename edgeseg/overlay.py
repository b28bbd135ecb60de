"""Overlay: the class map in color over the frame, with a legend of the classes that are there."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from edgeseg.fit import OUTSIDE, unfit
from edgeseg.images import Image
from edgeseg.spec import Rgb, Spec

SHARE = 0.005
FONT = cv2.FONT_HERSHEY_SIMPLEX
UNTINTED = "background"
AMBER = (0, 176, 255)  # BGR


class Overlay:
    """Draws for one Spec; 1.5 to 3 ms for a 1280x720 frame on one core."""

    def __init__(self, spec: Spec, alpha: float = 0.5):
        self.names = spec.classes
        self.palette = spec.palette
        self.alpha = alpha
        self._colors = np.zeros((256, 1, 3), np.uint8)  # ids outside the Spec stay black
        self._colors[: len(spec.palette), 0] = np.array(spec.palette, np.uint8)[:, ::-1]
        self._spec = spec
        plain = UNTINTED in spec.classes
        # Between two classes their colors mix, which looks smooth; with an untinted part they would leave a dark rim.
        self._edges = cv2.INTER_NEAREST if plain or spec.fit == "crop" else cv2.INTER_LINEAR
        self._plain = spec.classes.index(UNTINTED) if UNTINTED in spec.classes else None

    def draw(self, image: Image, classmap: Image, caption: str = "") -> Image:
        """[H, W, 3] BGR with the class map ([h, w], stretched to the frame) blended in, legend and caption."""
        height, width = image.shape[:2]
        if self._spec.fit != "stretch":
            classmap = unfit(classmap, self._spec, height, width)
        # Color at the class map's own size, then stretch: the same pixels, cheaper than the other way round.
        tint = cv2.resize(cv2.applyColorMap(classmap, self._colors), (width, height), interpolation=self._edges)
        out: Image = cv2.addWeighted(image, 1 - self.alpha, tint, self.alpha, 0)  # type: ignore[assignment]
        if self._plain is not None:
            plain = cv2.resize((classmap == self._plain).view(np.uint8), (width, height), None, 0, 0, cv2.INTER_NEAREST)
            cv2.copyTo(image, plain, out)
        if self._spec.fit == "crop":
            cv2.copyTo(image, (classmap == OUTSIDE).view(np.uint8), out)
        counts = cv2.calcHist([classmap], [0], None, [256], [0, 256]).reshape(-1)[: len(self.names)]
        present = np.flatnonzero(counts > SHARE * classmap.size)
        entries = tuple((self.names[i], self.palette[i]) for i in present if i != self._plain)
        scale = max(0.35, min(height, width) / 1000)
        _paste(out, _legend(entries, scale), scale)
        if caption:
            _write(out, caption, scale)
        return out


def mark_undecided(image: Image, reasons: str) -> Image:
    """A copy of [H, W, 3] BGR that nobody takes for a decided one: an amber frame, and why in the upper right."""
    out = image.copy()
    height, width = out.shape[:2]
    scale = max(0.35, min(height, width) / 1000)
    edge = max(2, round(8 * scale))
    cv2.rectangle(out, (0, 0), (width - 1, height - 1), AMBER, 2 * edge - 1)
    text = f"UNDECIDED: {reasons}".encode("ascii", "replace").decode()
    (wide, high), below = cv2.getTextSize(text, FONT, scale, 1)
    left, bottom = max(0, width - wide - 3 * edge), high + below + 3 * edge
    cv2.rectangle(out, (left, 0), (width - 1, bottom), AMBER, cv2.FILLED)
    cv2.putText(out, text, (left + edge, high + 2 * edge), FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return out


@lru_cache(maxsize=64)
def _legend(entries: tuple[tuple[str, Rgb], ...], scale: float) -> Image:
    """Color chips and names on a dark panel, one line each."""
    line = round(30 * scale)
    widths = [cv2.getTextSize(name, FONT, scale, 1)[0][0] for name, _ in entries]
    panel = np.full((line * len(entries) + line // 2, max(widths, default=0) + 2 * line, 3), 32, np.uint8)
    for i, (name, (r, g, b)) in enumerate(entries):
        top = line // 4 + i * line
        cv2.rectangle(panel, (line // 3, top + line // 5), (line, top + line * 4 // 5), (b, g, r), cv2.FILLED)
        at = (line + line // 3, top + line * 3 // 4)
        cv2.putText(panel, name, at, FONT, scale, (240, 240, 240), 1, cv2.LINE_AA)
    return panel


def _paste(out: Image, panel: Image, scale: float) -> None:
    """The panel, slightly see-through, in the upper left corner; cut where the frame is smaller."""
    margin = round(10 * scale)
    under = out[margin : margin + panel.shape[0], margin : margin + panel.shape[1]]
    panel = panel[: under.shape[0], : under.shape[1]]
    if panel.size:
        under[:] = cv2.addWeighted(under, 0.25, panel, 0.75, 0)


def _write(out: Image, text: str, scale: float) -> None:
    """`text` in the lower left corner on a dark strip."""
    (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
    margin = round(10 * scale)
    bottom = out.shape[0] - margin
    top = max(bottom - height - below - 2 * margin, 0)
    strip = out[top:bottom, margin : 3 * margin + width]
    if strip.size:
        strip[:] = cv2.convertScaleAbs(strip, alpha=0.25)
        cv2.putText(out, text, (2 * margin, top + margin + height), FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)

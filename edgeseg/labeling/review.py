"""Review: collected frames in a browser, one after another: accept, reject, or give a region another class.

The collection stays as it is; accepted frames go to a dataset of their own, with their fixed masks. Every decision is a
line of OUT/review.jsonl, so that a review goes on where it was left.
"""

from __future__ import annotations

import json
import shutil
import threading
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.data.dataset import Classes, Dataset, open_files
from edgeseg.data.labelmap import IGNORE
from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.files import write_bytes
from edgeseg.images import Image, palette_png
from edgeseg.labeling import records
from edgeseg.labeling.selecting import reasons
from edgeseg.stream.http import Address, Handler, Server

PAGE = Path(__file__).with_name("review.html")
DECISIONS = ("accept", "reject")
MAX_BODY = 4096
TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp"}
POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True)
class ReviewSummary:
    """Frames by decision, all sessions counted; `left`: undecided."""

    accepted: int
    rejected: int
    left: int


class Review:
    """The frames of `collection` (a dataset) and what was decided about them, kept in `out`. FileError where one of the
    two cannot be used."""

    def __init__(self, collection: Path, out: Path):
        parts = open_files(collection, "label")
        self.classes = Classes(parts[0].classes.names, parts[0].classes.palette, IGNORE)
        self._frames = {image.stem: (part, i) for part in parts for i, image in enumerate(part.images)}
        self._why = reasons(collection)
        self._out = out
        self._fixed: dict[str, Image] = {}
        self._lock = threading.Lock()
        listed = out / "classes.txt"
        if listed.is_file() and listed.read_text() != self.classes.text():
            raise FileError(f"{out} is a dataset of other classes.", "Choose another folder.")
        write_bytes(listed, self.classes.text().encode())
        records.carry(collection, out)
        self._decided = self._read()

    def frames(self) -> dict[str, Any]:
        """What is not decided yet, and the classes, for the page."""
        names = [name for name in self._frames if name not in self._decided]
        colors = ["#" + bytes(color).hex() for color in self.classes.palette]
        return {
            "frames": [{"name": name, "why": self._why.get(name, {})} for name in names],
            "classes": [{"name": n, "color": c} for n, c in zip(self.classes.names, colors)],
        }

    def summary(self) -> ReviewSummary:
        made = [self._decided[name] for name in self._frames if name in self._decided]
        return ReviewSummary(made.count("accept"), made.count("reject"), len(self._frames) - len(made))

    def image(self, name: str) -> tuple[str, bytes]:
        """(content type, file) of a frame."""
        path = self._path(name)
        try:
            return TYPES.get(path.suffix.lower(), "application/octet-stream"), path.read_bytes()
        except OSError as error:
            raise FileError(f"{path.name} was removed meanwhile.", "Go on with the next one.") from error

    def overlay(self, name: str) -> bytes:
        """The mask as a PNG in its colors."""
        colors = [*self.classes.palette, *((0, 0, 0) for _ in range(256 - len(self.classes.palette)))]
        return palette_png(self._mask(name), colors)

    def fix(self, name: str, x: float, y: float, class_id: int) -> None:
        """Give the region at (x, y), shares of the frame, another class."""
        if not (0 <= x < 1 and 0 <= y < 1 and 0 <= class_id < len(self.classes.names)):
            raise OptionError("That is no place in the frame, or no class.", "")
        with self._lock:
            mask = self._mask(name).copy()
            row, column = int(y * mask.shape[0]), int(x * mask.shape[1])
            region = (mask == mask[row, column]).astype(np.uint8)
            _, pieces = cv2.connectedComponents(region, connectivity=4)
            mask[pieces == pieces[row, column]] = class_id
            self._fixed[name] = mask

    def undo(self, name: str) -> None:
        self._path(name)
        with self._lock:
            self._fixed.pop(name, None)

    def decide(self, name: str, decision: str) -> None:
        """Accept a frame, which writes it to the dataset, or reject it."""
        if decision not in DECISIONS:
            raise OptionError(f"Unknown decision {decision[:20]!r}.", f"Known: {', '.join(DECISIONS)}.")
        with self._lock:
            path = self._path(name)
            if decision == "accept":
                self._write(name, path)
            line = json.dumps({"name": name, "decision": decision, "fixed": name in self._fixed}) + "\n"
            try:
                with (self._out / "review.jsonl").open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                raise FileError(f"The decision cannot be kept: {error.strerror}.", "Free some space.") from error
            self._decided[name] = decision
            self._fixed.pop(name, None)

    def _write(self, name: str, path: Path) -> None:
        if not path.is_file():
            raise FileError(f"{path.name} was removed meanwhile.", "Go on with the next one.")
        split = self._frames[name][0].split
        place = self._out / split / "images" / path.name
        mask = palette_png(self._mask(name), self.classes.palette)
        write_bytes(self._out / split / "masks" / f"{name}.png", mask)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        except OSError as error:
            raise FileError(f"{path.name} cannot be copied: {error.strerror}.", "Was it removed meanwhile?") from error

    def _mask(self, name: str) -> Image:
        if name in self._fixed:
            return self._fixed[name]
        part, index = self._entry(name)
        mask, ignore = part.mask(index), part.classes.ignore_index
        return mask if ignore in (None, IGNORE) else np.where(mask == ignore, np.uint8(IGNORE), mask)

    def _path(self, name: str) -> Path:
        part, index = self._entry(name)
        return part.images[index]

    def _entry(self, name: str) -> tuple[Dataset, int]:
        if name not in self._frames:
            raise OptionError(f"There is no frame {name[:60]!r}.", "")
        return self._frames[name]

    def _read(self) -> dict[str, str]:
        decided: dict[str, str] = {}
        with suppress(FileNotFoundError):
            for line in (self._out / "review.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, KeyError, TypeError):  # a line that a power cut left unfinished
                    row = json.loads(line)
                    decided[str(row["name"])] = str(row["decision"])
        return decided


class ReviewServer:
    """The review as a web page at HOST:PORT, on this machine, until closed. OptionError if that port is taken."""

    def __init__(self, review: Review, port: int):
        self.review = review
        self._server = Server(Address("127.0.0.1", port), _Handler, self, "review")
        self.port = self._server.port

    def __enter__(self) -> ReviewServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop()


class _Handler(Handler):
    def get(self, path: str, query: dict[str, list[str]]) -> None:
        review: Review = self.server.owner.review
        name = query.get("name", [""])[0]
        try:
            if path == "/":
                self.reply(200, "text/html; charset=utf-8", PAGE.read_bytes())
            elif path == "/frames":
                self._json(200, review.frames())
            elif path == "/image":
                self.reply(200, *review.image(name))
            elif path == "/overlay":
                self.reply(200, "image/png", review.overlay(name))
            else:
                self._json(404, {"error": "There is no such page."})
        except EdgesegError as error:
            self._json(404, {"error": error.what})

    def do_POST(self) -> None:
        review: Review = self.server.owner.review
        try:
            body = self._body()
            name = str(body["name"])
            if self.path == "/decide":
                review.decide(name, str(body["decision"]))
            elif self.path == "/fix":
                review.fix(name, float(body["x"]), float(body["y"]), int(body["class"]))
            elif self.path == "/undo":
                review.undo(name)
            else:
                self._json(404, {"error": "There is no such page."})
                return
            self._json(200, {"ok": True})
        except EdgesegError as error:
            self._json(409, {"error": error.what})
        except (ValueError, KeyError, TypeError):
            self._json(400, {"error": "The request is not understood."})

    def _body(self) -> dict[str, Any]:
        """The request's JSON; OptionError for one that another site's page sent."""
        origin = self.headers.get("Origin")
        foreign = origin is not None and urllib.parse.urlsplit(origin).netloc != self.headers.get("Host")
        if foreign or not self._named_rightly() or self.headers.get_content_type() != "application/json":
            raise OptionError("This request does not come from the review page.", "")
        length = int(self.headers.get("Content-Length", "0"))
        if not 0 < length <= MAX_BODY:
            raise ValueError
        body = json.loads(self.rfile.read(length))
        if not isinstance(body, dict):
            raise ValueError
        return body

    def _json(self, status: int, value: object) -> None:
        self.reply(status, "application/json", json.dumps(value).encode())

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

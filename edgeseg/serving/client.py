"""Client: a server's models as if they were here. Needs the standard library only, beside what edgeseg needs itself."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.files import require_file
from edgeseg.fit import Detail, Placement
from edgeseg.image_header import PNG
from edgeseg.images import Image, decode_image, decode_mask
from edgeseg.result import Frame, Result
from edgeseg.spec import Spec

SENT_AS_THEY_ARE = (PNG, b"\xff\xd8")  # and WebP
AGAIN = (429, 503)  # the server may answer a moment later
DEFAULT_WAIT = 0.2
TIMES = "X-Edgeseg-Times"  # milliseconds of each stage: resize=0.3,infer=4.1
UNDECIDED = "X-Edgeseg-Undecided"  # why a person has to look at the image, percent-encoded
BUNDLE = "X-Edgeseg-Bundle"  # digest of the bundle that answered


class ServerError(EdgesegError):
    """What a server answered instead of a result. `status`: of HTTP, 0 where it could not be reached."""

    def __init__(self, status: int, what: str, hint: str = ""):
        super().__init__(what, hint)
        self.status = status


@dataclass(frozen=True)
class _Response:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Client:
    """`Client("http://127.0.0.1:8080")(image)` gives what `open_segmenter(bundle)(image)` gives where the bundle is.

    `model`: its name on the server; "" for the first one. `token`: what the server asks for. `timeout`: seconds until
    an image has its result, waiting for a busy server included. `ca`: a PEM file of the authority that signed the
    server's certificate, where the system does not know it. Several threads may use one client; each has a connection
    of its own.
    """

    def __init__(self, url: str, model: str = "", token: str = "", timeout: float = 30.0, ca: Path | str | None = None):
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.username is not None:
            raise OptionError("The address of the server is not usable.", "Expected http://HOST:PORT or https://HOST.")
        if not all(32 < ord(character) < 127 for character in token):
            raise OptionError("The token is not usable.", "Expected ASCII characters without spaces.")
        self.model = model
        self.timeout = timeout
        self._place = parts.path.rstrip("/")
        self._host, self._port = parts.hostname, port
        self._tls = _context(ca) if parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._local = threading.local()
        self._specs: dict[str, Spec] = {}

    def __call__(self, image: Path | str | Image) -> Result:
        """Segment an image file, or [H, W, 3] uint8 BGR.

        Waits and asks again where the server is busy. ServerError where it does not answer with a result in time,
        FileError or ValueError for what is no image.
        """
        deadline = time.monotonic() + self.timeout
        pixels, data = _encoded(image)
        for _ in range(3):
            answer = self._segment(data, "model", deadline)
            digest = answer.headers.get(BUNDLE, "")
            spec = self._specs.get(digest) or self._learn(digest, deadline)
            if spec:
                frame = Frame(pixels, source="" if isinstance(image, np.ndarray) else str(image))
                return Result(frame, _class_map(answer), _times(answer), spec=spec, detail=self._detail(data, digest))
        raise ServerError(0, "The server's bundle changed at every request.", "Ask again.")

    def _segment(self, data: bytes, size: str, deadline: float) -> _Response:
        query = {"format": "png", "size": size, **({"model": self.model} if self.model else {})}
        return self._ask("POST", "/v1/segment?" + urllib.parse.urlencode(query), data, deadline)

    def _detail(self, data: bytes, digest: str) -> Detail:
        """Asks again, if it is needed: most need no class map of the frame's own size."""

        def detail(placed: Placement) -> Image:
            answer = self._segment(data, "frame", time.monotonic() + self.timeout)
            if answer.headers.get(BUNDLE, "") != digest:
                raise ServerError(0, "The server has another bundle by now.", "Segment the image again.")
            return placed.seen.of(_class_map(answer))

        return detail

    def models(self) -> list[str]:
        """Names of the models that are served."""
        document = self._json("/v1/models", time.monotonic() + self.timeout)
        return [str(model["name"]) for model in document["models"]]

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection:
            connection.close()
            self._local.connection = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _learn(self, digest: str, deadline: float) -> Spec | None:
        """The Spec of the bundle; None where the server has loaded another one since."""
        if self.model:
            model = self._json("/v1/models/" + urllib.parse.quote(self.model, safe=""), deadline)
        else:
            model = self._json("/v1/models", deadline)["models"][0]
        self._specs[model["bundle"]["digest"]] = Spec.from_dict(model["spec"])
        return self._specs.get(digest)

    def _json(self, path: str, deadline: float) -> Any:
        answer = self._ask("GET", path, None, deadline)
        try:
            return json.loads(answer.body)
        except ValueError:
            raise ServerError(answer.status, "The server's answer is not JSON.", "Is it edgeseg serve?") from None

    def _ask(self, method: str, path: str, body: bytes | None, deadline: float) -> _Response:
        """The answer to a request, which is sent again while the server is busy and there is time."""
        while True:
            answer = self._once(method, path, body, deadline)
            if answer.status == 200:
                return answer
            wait = _retry_after(answer)
            if answer.status not in AGAIN or time.monotonic() + wait > deadline:
                raise _refusal(answer)
            time.sleep(wait)

    def _once(self, method: str, path: str, body: bytes | None, deadline: float) -> _Response:
        kept = getattr(self._local, "connection", None)
        try:
            if kept:
                try:
                    return self._exchange(kept, method, path, body, deadline)
                except (http.client.RemoteDisconnected, ConnectionError):  # it was closed since the request before
                    self.close()
            return self._exchange(self._connect(), method, path, body, deadline)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = (
                "it took too long" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or error
            )
            raise ServerError(
                0, f"The server {self._host} does not answer: {reason}.", "Check its address, and that it runs."
            ) from error

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port)
        self._local.connection = connection
        return connection

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, deadline: float
    ) -> _Response:
        left = max(0.01, deadline - time.monotonic())
        connection.timeout = left
        if connection.sock:
            connection.sock.settimeout(left)
        connection.request(method, self._place + path, body, {**self._headers, "Accept": "*/*"})
        response = connection.getresponse()
        return _Response(response.status, response.headers, response.read())


def _context(ca: Path | str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(require_file(Path(ca), "Certificate")) if ca else None)
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"The certificate {ca} cannot be used: {error}.", "Expected a PEM file.") from error


def _encoded(image: Path | str | Image) -> tuple[Image, bytes]:
    """The pixels and what to send: a file as it is where servers read its kind, else a PNG, which loses nothing."""
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image is {image.shape} {image.dtype}; expected [H, W, 3] uint8 BGR")
        return image, _png(image)
    data = require_file(Path(image), "Image").read_bytes()
    pixels = decode_image(data, Path(image))
    known = data.startswith(SENT_AS_THEY_ARE) or data[8:12] == b"WEBP"
    return pixels, data if known else _png(pixels)


def _png(image: Image) -> bytes:
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise FileError("The image cannot be encoded.", "Expected [H, W, 3] uint8 BGR.")
    return data.tobytes()


def _class_map(answer: _Response) -> Image:
    return decode_mask(answer.body, Path("of the server"))


def _times(answer: _Response) -> dict[str, float]:
    """Seconds of each stage on the server."""
    pairs = (part.split("=") for part in answer.headers.get(TIMES, "").split(",") if "=" in part)
    return {stage: float(ms) / 1e3 for stage, ms in pairs}


def _retry_after(answer: _Response) -> float:
    try:
        return max(0.0, float(answer.headers.get("Retry-After", DEFAULT_WAIT)))
    except ValueError:  # a date
        return DEFAULT_WAIT


def _refusal(answer: _Response) -> ServerError:
    """The server's own words, where they are edgeseg's."""
    try:
        error = json.loads(answer.body)["error"]
        return ServerError(answer.status, f"The server refuses: {error['what']}", str(error["hint"]))
    except (ValueError, KeyError, TypeError):
        return ServerError(answer.status, f"The server answered with status {answer.status}.", "Is it edgeseg serve?")

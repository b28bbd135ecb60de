"""`mjpeg://127.0.0.1:8090` shows the overlay in any browser: `/` a page, `/stream` the video, `/frame.jpg` one frame.

Frames are encoded only while a viewer is connected; a slow viewer misses frames and delays nobody. `?allow=NAME` lets
viewers call this machine by a name, `&token=...` asks them for a token (http.py).
"""

from __future__ import annotations

import threading
import urllib.parse

import cv2

from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.stream.http import ACCESS, Address, Handler, Server
from edgeseg.stream.sinks import Info, Sink
from edgeseg.stream.uri import Uri, whole

FORMS = "mjpeg://127.0.0.1:8090"
MAX_VIEWERS = 8
VIEWER_TIMEOUT = 5.0
PAGE = b"""<!doctype html><meta charset=utf-8><title>edgeseg</title>
<style>body{margin:0;background:#111;display:grid;place-items:center;height:100vh}img{max-width:100%;max-height:100vh}</style>
<img src=/stream alt="live segmentation">"""


def claims(uri: Uri) -> bool:
    return uri.scheme == "mjpeg"


def open(uri: Uri, info: Info) -> Sink:
    text, options = uri.split({"quality": whole(1, 100), **ACCESS})
    quality = options.pop("quality", 80)
    return Mjpeg(Address.parse(text, uri.text, "mjpeg://127.0.0.1:8090", **options), quality)


class Mjpeg(Sink):
    needs_image = True

    def __init__(self, address: Address, quality: int = 80):
        super().__init__()
        self._quality = quality
        self._image: Image | None = None
        self._number = 0
        self._closed = False
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._jpeg: tuple[int, bytes] = (0, b"")
        self.viewers = threading.Semaphore(MAX_VIEWERS)
        self._server = Server(address, Viewer, self, "images")
        self.port = self._server.port

    def write(self, result: Result, image: Image | None) -> None:
        with self._changed:
            self._image, self._number = image, self._number + 1
            self._changed.notify_all()

    def newest(self, after: int, timeout: float) -> tuple[int, bytes] | None:
        """(number, JPEG) of a frame newer than `after`; None if the sink is closed or none comes in `timeout` s."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > after or self._closed, timeout)
            number, image = self._number, self._image
            if self._closed or image is None or number <= after:
                return None
        with self._encoding:  # viewers share one encoding of each frame
            if self._jpeg[0] < number:
                _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, self._quality))
                self._jpeg = (number, data.tobytes())
            return self._jpeg

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        if self._closed:
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.stop()


class Viewer(Handler):
    timeout = VIEWER_TIMEOUT

    def get(self, path: str, query: dict[str, list[str]]) -> None:
        if path == "/":
            token = urllib.parse.urlencode({"token": query["token"][0]}) if "token" in query else ""
            self.reply(200, "text/html", PAGE.replace(b"/stream", f'"/stream?{token}"'.encode()) if token else PAGE)
        elif path == "/frame.jpg":
            found = self.server.owner.newest(0, VIEWER_TIMEOUT)
            self.reply(200, "image/jpeg", found[1]) if found else self.reply(503, "text/plain", b"no frame yet\n")
        elif path != "/stream":
            self.reply(404, "text/plain", b"expected: / /stream /frame.jpg\n")
        elif not self.server.owner.viewers.acquire(blocking=False):
            self.reply(503, "text/plain", b"too many viewers\n")
        else:
            try:
                self._send_stream()
            finally:
                self.server.owner.viewers.release()

    def _send_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        seen = 0
        while not self.server.owner.closed:
            found = self.server.owner.newest(seen, 1.0)
            if found:
                seen, jpeg = found
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")

"""Reading requests: their bytes within limits of size and time, multipart forms, and images before they are decoded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import ClientDisconnect, Request

from edgeseg.errors import FileError
from edgeseg.image_header import PNG, ImageHeader, read_header
from edgeseg.images import Image, decode_image
from edgeseg.serving.errors import (
    BAD_REQUEST,
    REQUEST_TIMEOUT,
    TOO_LARGE,
    TOO_MANY,
    UNPROCESSABLE,
    UNSUPPORTED,
    HttpError,
)
from edgeseg.serving.settings import Settings

KINDS = "Expected the content of a JPEG, PNG or WebP file."
BYTES_PER_PIXEL = 3
MAX_PARTS = 64
BOUNDARY = re.compile(r'boundary="?([\w\'()+,./:=? -]{1,70})"?')
FILE_NAME = re.compile(r'filename="((?:[^"\\]|\\.)*)"')


class Memory:
    """The bytes that all requests together may hold."""

    def __init__(self, limit: int):
        self.limit = limit
        self.used = 0

    @contextmanager
    def held(self) -> Iterator[Share]:
        """One request's share, given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.used -= share.size


class Share:
    def __init__(self, memory: Memory):
        self._memory = memory
        self.size = 0

    def take(self, size: int) -> None:
        """HttpError 429 where all requests together would hold too much."""
        if self._memory.used + size > self._memory.limit:
            raise HttpError(TOO_MANY, "The memory for requests is used up.", "Ask again in 1 s.", 1)
        self._memory.used += size
        self.size += size


@dataclass(frozen=True)
class Upload:
    """One image as it came. `name`: as the client called it, for answers and errors only."""

    name: str
    data: bytes


async def read(request: Request, settings: Settings, share: Share) -> bytes:
    """The body; HttpError where it is too large, comes too slowly or in a coding."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(UNSUPPORTED, "The body has a content coding.", "Send it uncompressed; images are already.")
    length = request.headers.get("content-length", "0")
    if not re.fullmatch("[0-9]{1,18}", length) or int(length) > settings.max_bytes:
        raise _too_large(settings)
    try:
        return await asyncio.wait_for(_read(request, settings, share), settings.body_seconds)
    except asyncio.TimeoutError:
        raise HttpError(
            REQUEST_TIMEOUT, f"The body did not come within {settings.body_seconds:g} s.", "Send it faster."
        ) from None
    except ClientDisconnect:
        raise HttpError(BAD_REQUEST, "The body was not sent completely.") from None


async def _read(request: Request, settings: Settings, share: Share) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > settings.max_bytes:
            raise _too_large(settings)
        share.take(len(chunk))
        body += chunk
    return bytes(body)


def _too_large(settings: Settings) -> HttpError:
    return HttpError(TOO_LARGE, f"The body has more than {settings.max_bytes} bytes.", "Send smaller or fewer images.")


def uploads(body: bytes, content_type: str) -> list[Upload]:
    """The images of a body: one, or those of a multipart form."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        return list(_parts(body, content_type))
    if kind and not kind.startswith("image/") and kind not in ("application/octet-stream", CURL_DEFAULT):
        raise HttpError(UNSUPPORTED, f"The content type is {kind[:80]!r}.", f"{KINDS} Or a multipart form of several.")
    return [Upload("", body)]


CURL_DEFAULT = "application/x-www-form-urlencoded"  # of curl --data-binary


def _parts(body: bytes, content_type: str) -> Iterator[Upload]:
    """RFC 2046: parts between lines of the boundary; those of a form that are no files are left out."""
    found = BOUNDARY.search(content_type)
    if not found:
        raise HttpError(BAD_REQUEST, "The multipart form has no boundary.", "Use an HTTP library's way to send files.")
    mark = b"\r\n--" + found[1].rstrip().encode()
    pieces = (b"\r\n" + body).split(mark, MAX_PARTS + 1)
    if len(pieces) > MAX_PARTS + 1 or len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise HttpError(BAD_REQUEST, "The multipart form is cut off, empty or has too many parts.", "Send it again.")
    for piece in pieces[1:-1]:
        head, blank, content = piece.partition(b"\r\n\r\n")
        if not blank:
            raise HttpError(BAD_REQUEST, "A part of the multipart form has no header.", "Send it again.")
        name = FILE_NAME.search(head.decode("utf-8", "replace"))
        if name or b"content-type: image/" in head.lower():
            yield Upload(name[1] if name else "", content)


def check(upload: Upload, settings: Settings) -> ImageHeader:
    """The header of an image; HttpError for what is none, or has too many pixels."""
    known = upload.data.startswith((PNG, b"\xff\xd8")) or upload.data[8:12] == b"WEBP"
    header = read_header(upload.data) if known else None
    if header is None or header.width < 1 or header.height < 1:
        raise HttpError(UNSUPPORTED, f"{_called(upload)} is no image that is read here, or damaged.", KINDS)
    if header.pixels > settings.max_pixels:
        raise HttpError(
            TOO_LARGE,
            f"{_called(upload)} is {header.width}x{header.height}.",
            f"At most {settings.max_pixels} pixels; send a smaller one.",
        )
    return header


def memory_of(header: ImageHeader) -> int:
    """Bytes that the decoded image takes."""
    return header.pixels * BYTES_PER_PIXEL * (2 if header.depth > 8 else 1)


def decode(upload: Upload) -> Image:
    """[H, W, 3] uint8 BGR; HttpError for an image that is damaged."""
    try:
        return decode_image(upload.data, Path(upload.name or "of the request"))
    except FileError as error:
        raise HttpError.of(error, UNPROCESSABLE) from error


def _called(upload: Upload) -> str:
    return f"Image {upload.name[:100]!r}" if upload.name else "The image"

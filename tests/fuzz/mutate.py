"""Mutations of files. Everything follows from a random.Random, so that a case can be made again from its number."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 7, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64, 10**30, 10**400)
FLOATS = ("1e308", "1e999", "-1e-320", "nan", "inf", "NaN", "Infinity", "-0.0", "0x" + "f" * 5000, "9" * 5000)
TEXTS = ("", "[/x]", "[bold]", "\ud800", "a" * 300, "a" * 70_000, "../../etc/passwd", "/dev/zero", "\0", "x\ny",
         "<script>", "%s%n", "\u202e", "{}", ":car:", "é" * 200)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    [0] * 300,
    *NUMBERS,
    0.5,
    -0.5,
    1e308,
    *TEXTS,
)


def data(content: bytes, name: str, random: Random) -> bytes:
    """`content`, the file `name`, changed in a way that its format may notice late."""
    kinds: list[Callable[[bytes, Random], bytes]] = [damaged]
    if name.endswith((".json", ".toml", ".txt", ".xml", ".sig", ".pem")):
        kinds += [words] * 2
    if name.endswith(".json"):
        kinds += [values] * 4
    if name.endswith(".png"):
        kinds += [chunks] * 3
    if name.endswith(".pt"):
        kinds += [entries] * 3
    return random.choice(kinds)(content, random)


def damaged(content: bytes, random: Random) -> bytes:
    """One to four blows that know nothing of the format."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        random.choice((_flip, _cut, _repeat, _insert, _number, _truncate, _swap))(changed, random)
    return bytes(changed)


def _place(changed: bytearray, random: Random) -> int:
    """Anywhere, more often near the beginning, where headers are."""
    size = max(1, len(changed))
    return random.randrange(size if random.random() < 0.5 else min(size, 256))


def _flip(changed: bytearray, random: Random) -> None:
    for _ in range(random.choice((1, 1, 8, 64))):
        if changed:
            changed[_place(changed, random)] ^= 1 << random.randrange(8)


def _cut(changed: bytearray, random: Random) -> None:
    at = _place(changed, random)
    del changed[at : at + random.choice((1, 2, 4, 64, 4096))]


def _repeat(changed: bytearray, random: Random) -> None:
    at, size = _place(changed, random), random.choice((1, 4, 64, 1024))
    changed[at:at] = changed[at : at + size] * random.choice((1, 2, 100))


def _insert(changed: bytearray, random: Random) -> None:
    at = _place(changed, random)
    changed[at:at] = random.choice((b"\0", b"\xff", b"\0" * 16, random.randbytes(16), b"\n", b"\xef\xbb\xbf"))


def _number(changed: bytearray, random: Random) -> None:
    """A whole number of 1 to 8 bytes, at a place where one may be."""
    size = random.choice((1, 2, 4, 4, 8))
    value = random.choice(NUMBERS) & (1 << 8 * size) - 1
    at = _place(changed, random) // random.choice((1, 2, 4)) * 4 % max(1, len(changed))
    changed[at : at + size] = value.to_bytes(size, random.choice(("little", "big")))


def _truncate(changed: bytearray, random: Random) -> None:
    del changed[_place(changed, random) :]


def _swap(changed: bytearray, random: Random) -> None:
    a, b, size = _place(changed, random), _place(changed, random), random.choice((1, 4, 32))
    changed[a : a + size], changed[b : b + size] = changed[b : b + size], changed[a : a + size]


def words(content: bytes, random: Random) -> bytes:
    """One token of a text replaced: a number, a quoted text, a word, or a line that is doubled or gone."""
    text = content.decode(errors="surrogateescape")
    kind = random.choice(("number", "quoted", "word", "line"))
    pattern = {"number": r"-?\d+(\.\d+)?", "quoted": r'"[^"\n]*"', "word": r"[A-Za-z_]\w*", "line": r"[^\n]*\n"}[kind]
    found = list(re.finditer(pattern, text))
    if not found:
        return damaged(content, random)
    spot = random.choice(found)
    new = {
        "number": lambda: random.choice((*map(str, NUMBERS), *FLOATS)),
        "quoted": lambda: json.dumps(random.choice(TEXTS), ensure_ascii=random.random() < 0.5),
        "word": lambda: random.choice((*TEXTS, "true", "null", "[", "{", random.choice(found)[0])),
        "line": lambda: random.choice(("", spot[0] * 2, "[" * 3000 + "\n", random.choice(found)[0])),
    }[kind]()
    return (text[: spot.start()] + new + text[spot.end() :]).encode(errors="surrogatepass")


def values(content: bytes, random: Random) -> bytes:
    """One value of a JSON document replaced, doubled, renamed or removed."""
    try:
        document = json.loads(content)
    except ValueError:
        return damaged(content, random)
    for _ in range(random.choice((1, 1, 2, 5))):
        holders = list(_holders(document))
        if not holders:
            break
        holder = random.choice(holders)
        key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        action = random.choice(("replace", "replace", "remove", "rename", "repeat"))
        if action == "remove":
            del holder[key]
        elif action == "rename" and isinstance(holder, dict):
            holder[random.choice(TEXTS)] = holder.pop(key)
        elif action == "repeat" and isinstance(holder, list):
            holder += [holder[key]] * random.choice((1, 100))
        else:
            holder[key] = deepcopy(random.choice(VALUES))
    return json.dumps(document, allow_nan=True).encode()


def _holders(value: Any) -> list[Any]:
    """Every list and dict that holds something, the outer ones first."""
    found, waiting = [], [value]
    while waiting and len(found) < 5000:
        one = waiting.pop(0)
        if isinstance(one, (dict, list)) and one:
            found.append(one)
            waiting.extend(one.values() if isinstance(one, dict) else one)
    return found


def chunks(content: bytes, random: Random) -> bytes:
    """A PNG whose chunks were changed, with checksums that fit: decoders look no further otherwise."""
    parts, at = [], 8
    while at + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        parts.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    if not parts:
        return damaged(content, random)
    for _ in range(random.choice((1, 1, 2))):
        i = random.choice((0, 0, random.randrange(len(parts))))
        kind, body = parts[i]
        if kind == b"IHDR" and random.random() < 0.7:  # a size, a depth or a color type
            fields = list(struct.unpack(">IIBBBBB", body[:13].ljust(13, b"\0")))
            which = random.randrange(7)
            fields[which] = random.choice(NUMBERS) & (0xFFFFFFFF if which < 2 else 0xFF)
            parts[i] = (kind, struct.pack(">IIBBBBB", *fields))
        elif random.random() < 0.5:
            parts[i] = (kind, damaged(body, random))
        else:
            other = random.choice((b"PLTE", b"tRNS", b"gAMA", b"eXIf", b"IEND", b"acTL", b"fcTL", kind))
            parts.insert(i, (other, random.choice((b"", body, random.randbytes(26)))))
    packed = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts)
    return content[:8] + packed


def entries(content: bytes, random: Random) -> bytes:
    """A zip of which an entry was changed, with checksums that fit."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            infos = old.infolist()
            pickles = [info for info in infos if info.filename.endswith(".pkl")]
            chosen = random.choice(pickles * len(infos) + infos)
            packing = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            with zipfile.ZipFile(out, "w", packing) as new:
                for info in infos:
                    body = old.read(info)
                    new.writestr(info.filename, damaged(body, random) if info is chosen else body)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, IndexError):
        return damaged(content, random)
    return out.getvalue()

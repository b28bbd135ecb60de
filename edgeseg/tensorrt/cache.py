"""The cache of engines built on this device, under the key of everything that they depend on.

An engine is an executable artifact: only a file that this user wrote, under exactly this key, with the digest it was
written with, is given to TensorRT. Anything else is refused, with the reason, and built again.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from edgeseg import user_cache
from edgeseg.errors import EdgesegError, FileError
from edgeseg.files import write_bytes

T = TypeVar("T")
Key = dict[str, str | int]
Log = Callable[[str], None]
MAX_HEAD = 1 << 16


def default_folder() -> Path:
    return user_cache.folder("engines")


def path_of(folder: Path, key: Key) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder / f"{digest[:40]}.engine"


def obtain(
    folder: Path, key: Key, build: Callable[[], bytes], use: Callable[[bytes], T], log: Log = lambda t: None
) -> T:
    """The result of `use` on the engine for `key`: a cached one, else a new one from `build`, which is then cached.

    `use` opens an engine and verifies it; when it raises EdgesegError, a cached engine is built again and a new one is
    not cached. Of several processes one builds; the others wait for it and read its engine from the cache.
    """
    path = path_of(user_cache.private(folder), key)
    with user_cache.locked(path.with_suffix(".lock"), log):
        try:
            engine = read(path, key)
            if engine is not None:
                return use(engine)
        except EdgesegError as error:
            log(f"refused {path}: {error.what} Building it again.")
        for stale in folder.glob(f".{path.name}.*.tmp"):  # of a process that was killed while it wrote
            with suppress(OSError):
                stale.unlink()
        engine = build()
        opened = use(engine)
        write(path, key, engine)
        return opened


def read(path: Path, key: Key) -> bytes | None:
    """The engine in `path`, None if there is no file; FileError if it is not the one that was written for `key`."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            line, engine = file.readline(MAX_HEAD), file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"Engine {path} cannot be read: {error.strerror}.", "Remove it.") from error
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise FileError(f"Engine {path} could have been written by another user.", "Remove it.")
    try:
        head = json.loads(line)
        stored_key, size, digest = head["key"], head["bytes"], head["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f"Engine {path} is not one of ours.", "Remove it.") from error
    if stored_key != json.loads(json.dumps(key)):
        changed = sorted(
            k for k in {*key, *stored_key} if not isinstance(stored_key, dict) or stored_key.get(k) != key.get(k)
        )
        raise FileError(f"Engine {path} was built for another device or model ({', '.join(changed)}).", "Remove it.")
    if len(engine) != size or hashlib.sha256(engine).hexdigest() != digest:
        raise FileError(f"Engine {path} is damaged: it differs from its digest.", "Remove it.")
    return engine


def write(path: Path, key: Key, engine: bytes) -> None:
    """Write an engine into the cache, atomically."""
    head = {"key": key, "bytes": len(engine), "sha256": hashlib.sha256(engine).hexdigest()}
    write_bytes(path, json.dumps(head).encode() + b"\n" + engine)
    path.chmod(0o600)

"""The same work for every frame: in threads of this process, or on a Ray cluster."""

from __future__ import annotations

import re
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from edgeseg.cpus import usable_cpus
from edgeseg.errors import EdgesegError, MissingPackage, OptionError, first_line

T = TypeVar("T")
R = TypeVar("R")
LOCAL = "local"
CHUNK = 16  # frames that a worker gets at a time
CONNECT_SECONDS = 5.0
ADDRESSES = "Expected local, auto, HOST:PORT or ray://HOST:PORT."
READ_AHEAD = 2  # frames for each thread, or chunks for each worker: results come in order, and wait for the slowest


def each_frame(work: Callable[[T], R], frames: Sequence[T], ray: str = "", threads: int = 1) -> Iterator[R]:
    """work(frame) of each of `frames`, in their order.

    `ray`: "" for this process and its `threads`, LOCAL for a Ray of its own on this machine, or the address of a
    cluster (HOST:PORT, ray://HOST:PORT, auto), whose machines see the same files and have the same edgeseg. `work` must
    be possible to pickle, and must not raise. MissingPackage without Ray, EdgesegError for a cluster that cannot be
    reached.
    """
    if ray:
        yield from _on_ray(work, frames, ray)
    elif threads > 1:
        yield from _in_threads(work, frames, threads)
    else:
        yield from map(work, frames)


def _in_threads(work: Callable[[T], R], frames: Sequence[T], threads: int) -> Iterator[R]:
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for frame in frames:
                waiting.append(pool.submit(work, frame))
                if len(waiting) > READ_AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _Worker:
    """Has the work and all frames, so that neither is sent again with every chunk."""

    def __init__(self, work_and_frames: tuple[Callable[[Any], Any], Sequence[Any]]):
        import cv2

        cv2.setNumThreads(1)  # there is a worker for every CPU
        self.work, self.frames = work_and_frames

    def run(self, start: int) -> list[Any]:
        return [self.work(frame) for frame in self.frames[start : start + CHUNK]]


def _on_ray(work: Callable[[T], R], frames: Sequence[T], address: str) -> Iterator[R]:
    try:
        import ray
    except ImportError as error:
        raise MissingPackage("ray", "Work on a Ray cluster", "ray") from error
    _connect(ray, address)
    try:
        count = max(1, min(int(ray.cluster_resources().get("CPU", 1)), -(-len(frames) // CHUNK)))
        shared = ray.put((work, frames))
        worker = ray.remote(num_cpus=1)(_Worker)
        workers = [worker.remote(shared) for _ in range(count)]
        waiting: deque[Any] = deque()
        for number, first in enumerate(range(0, len(frames), CHUNK)):
            waiting.append(workers[number % count].run.remote(first))
            if len(waiting) > READ_AHEAD * count:
                yield from ray.get(waiting.popleft())
        while waiting:
            yield from ray.get(waiting.popleft())
    except ray.exceptions.RayError as error:
        raise EdgesegError(
            f"Ray at {address} failed: {first_line(error)}.",
            "Its machines need this version of edgeseg, and the same files under the same paths.",
        ) from error
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    if address not in (LOCAL, "auto"):
        _require_listener(address)
    size = {"num_cpus": usable_cpus(), "include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **size)
    except Exception as error:  # what Ray raises where a busy machine does not start it in time is nothing narrower
        reason = first_line(error).rstrip(".")
        raise EdgesegError(f"Ray at {address} cannot be reached: {reason}.", ADDRESSES) from error


def _require_listener(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port):
        raise OptionError(f"--ray {address!r} is no address.", ADDRESSES)
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise EdgesegError(f"Ray at {address} cannot be reached: {first_line(error)}.", ADDRESSES) from error

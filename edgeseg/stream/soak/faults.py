"""The faults of a soak, each as what begins it and what ends it."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from edgeseg.stream.soak.objectives import RECOVER_SECONDS
from edgeseg.stream.soak.rig import SoakSetup, sample

FLAPS = 4


def inject(setup: SoakSetup, kind: str, seconds: float) -> None:
    """Begin, wait, end, and measure how long it takes until an image comes that was taken after the end."""
    begin, end = FAULT_STEPS[kind]
    setup.extra = 0.0
    began_well = begin(setup)
    sample(setup, seconds)
    ended = time.monotonic()
    ended_well = end(setup)
    ended = max(ended, setup.settled)
    _record(setup, kind, ended, began_well is not False and ended_well is not False)


def _record(setup: SoakSetup, kind: str, ended: float, well: bool = True) -> None:
    """Wait for an image that was taken after `ended`, and note how long that took; never, unless all went `well`."""
    while setup.observers[0].stamped < ended and time.monotonic() < ended + RECOVER_SECONDS and not setup.stop.is_set():
        sample(setup, 0.05)
    recovered = time.monotonic() - ended + setup.extra if well and setup.observers[0].stamped >= ended else None
    if recovered is not None or not setup.stop.is_set():
        setup.measured.faults.setdefault(kind, []).append(recovered)


def _wait(setup: SoakSetup, condition: Callable[[], bool], seconds: float = RECOVER_SECONDS) -> bool:
    """Whether `condition` came true within `seconds`."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until and not setup.stop.is_set():
        sample(setup, 0.05)
    return condition()


def _start_front(setup: SoakSetup) -> None:
    setup.front.start()
    setup.settled = time.monotonic()  # its start takes a while, and is not ours to recover from


def _restart_front(setup: SoakSetup, path: str) -> None:
    """The camera reboots with another address."""
    setup.front.kill()
    setup.front.path = path
    _start_front(setup)


def _flap(setup: SoakSetup) -> None:
    """The camera drops again and again while it is hardly back."""
    for _ in range(FLAPS):
        setup.front.kill()
        sample(setup, 0.3)
        _start_front(setup)
        _record(setup, "flap", setup.settled)
        sample(setup, 1.5)
    setup.front.kill()


def _begin_frozen(setup: SoakSetup) -> bool:
    """H.264 of one picture: it must be found out, though no two frames of it are the same."""
    _restart_front(setup, "/h264")
    if not _wait(setup, lambda: setup.observers[0].stamped >= setup.settled):
        return False
    sample(setup, 1.0)
    stalls = setup.front_source.visits["STALLED"]
    setup.front.set_mode("still")
    return _wait(setup, lambda: setup.front_source.visits["STALLED"] > stalls)


def _end_h264(setup: SoakSetup) -> None:
    _restart_front(setup, "/stream")


def _remove_folder(setup: SoakSetup) -> bool:
    """The folder of a sink goes away; its file must be back with new lines."""
    shutil.rmtree(setup.log.parent)
    removed = time.monotonic()
    back = _wait(setup, lambda: setup.log.exists() and setup.log.stat().st_size > 0)
    setup.extra = time.monotonic() - removed
    return back


SETTLING = 12  # frames until those from before the image stood still have passed, also where the machine is busy


def _damage(setup: SoakSetup, how: Callable[[Path, bytes], None]) -> bool:
    """Overwrite or truncate the model's largest file under the engine: the masks of one image must stay as they are."""
    path = max((p for p in setup.bundle.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    whole = path.read_bytes()
    setup.front.set_mode("still")
    seen = setup.observers[0].frames
    if not _wait(setup, lambda: setup.observers[0].frames > seen + SETTLING):
        return False
    before = setup.observers[0].classmap
    how(path, whole)
    frames = setup.observers[0].frames
    more = _wait(setup, lambda: setup.observers[0].frames > frames + 20)
    after = setup.observers[0].classmap
    path.write_bytes(whole)
    setup.front.set_mode("normal")
    return more and before is not None and after is not None and bool((before == after).all())


def _overwrite(path: Path, whole: bytes) -> None:
    with path.open("r+b") as file:
        file.write(random.Random(0).randbytes(len(whole)))


def _truncate(path: Path, whole: bytes) -> None:
    os.truncate(path, len(whole) // 2)


Step = Callable[[SoakSetup], object]  # False: what must happen did not


def _mode(name: str) -> tuple[Step, Step]:
    return lambda setup: setup.front.set_mode(name), lambda setup: setup.front.set_mode("normal")


def _nothing(setup: SoakSetup) -> None:
    pass


FAULT_STEPS: dict[str, tuple[Step, Step]] = {
    "absent": (_nothing, _start_front),
    "kill": (lambda setup: setup.front.kill(), _start_front),
    **{name: _mode(name) for name in ("freeze", "still", "corrupt", "resize")},
    "slow": (lambda setup: setup.faulty.slow.set(), lambda setup: setup.faulty.slow.clear()),
    "full": (lambda setup: setup.faulty.full.set(), lambda setup: setup.faulty.full.clear()),
    "flap": (_flap, _start_front),
    "gop250": (lambda setup: _restart_front(setup, "/h264"), _end_h264),
    "frozen_h264": (_begin_frozen, _end_h264),
    "folder_removed": (_remove_folder, _nothing),
    "model_overwritten": (lambda setup: _damage(setup, _overwrite), _nothing),
    "model_truncated": (lambda setup: _damage(setup, _truncate), _nothing),
}
FAULTS = tuple(kind for kind in FAULT_STEPS if kind != "absent")

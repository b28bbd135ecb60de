"""A bundle to a fleet: canaries first, the others if all of those are well; every step in the ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from edgeseg.errors import EdgesegError, FileError
from edgeseg.files import alone
from edgeseg.fleet.config import Device, Fleet
from edgeseg.fleet.connection import Lost, Parcel, Refused, deploy, undo
from edgeseg.results.fleet import WELL, DeviceState, FleetState
from edgeseg.stream.redact import redact

AT_ONCE = 8  # devices
Update = Callable[[str], None]


def roll_out(
    fleet: Fleet, devices: Sequence[Device], parcel: Parcel, first: int, update: Update, ssh: Sequence[str] = ()
) -> FleetState:
    """Bring the bundle to `devices`, to the `first` of them before the others. What `ssh` is given is options.

    The result is what the ledger says then. A rollout of the same bundle that was broken off goes on: a device that
    runs the bundle is left alone, and a canary of before is rolled back, too, where another one fails.
    """
    with _locked(fleet.ledger):
        ledger = Ledger(fleet, parcel)
        ledger.begin(devices[:first])
        work = _Worker(ledger, parcel, update, ssh)
        if not work.all(devices[:first]):
            ledger.end("stopped")
            work.back([device for device in devices if ledger.changed(device)])
        else:
            ledger.end("done" if work.all(devices[first:]) else "incomplete")
        return ledger.state


def read_ledger(fleet: Fleet) -> FleetState:
    """What the ledger says; a device that is not in it waits for its first rollout."""
    state = FleetState.load(fleet.ledger) if fleet.ledger.exists() else FleetState()
    waiting = DeviceState(state="waiting")
    return replace(state, devices={d.name: state.devices.get(d.name, waiting) for d in fleet.devices})


class Ledger:
    """The ledger file, written after every change."""

    def __init__(self, fleet: Fleet, parcel: Parcel):
        self.path, self.parcel = fleet.ledger, parcel
        self.state = read_ledger(fleet)
        self._lock = threading.Lock()

    def begin(self, canaries: Sequence[Device]) -> None:
        bundle = self.parcel.bundle
        resumed = self.state.state == "running" and self.state.digest == bundle.digest
        names = {device.name for device in canaries}
        devices = {
            name: replace(entry, canary=name in names, changed=entry.changed and resumed)
            for name, entry in self.state.devices.items()
        }
        self._save(replace(self.state, bundle=bundle.name, digest=bundle.digest, state="running", devices=devices))

    def end(self, state: str) -> None:
        self._save(replace(self.state, state=state))

    def changed(self, device: Device) -> bool:
        entry = self.state.devices[device.name]
        return entry.changed and entry.state == WELL and entry.digest == self.parcel.bundle.digest

    def set(self, device: Device, **values: object) -> None:
        at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._lock:
            entry = replace(self.state.devices[device.name], at=at, **values)  # type: ignore[arg-type]
            self._save(replace(self.state, devices={**self.state.devices, device.name: entry}))

    def _save(self, state: FleetState) -> None:
        self.state = state
        state.save(self.path)


class _Worker:
    def __init__(self, ledger: Ledger, parcel: Parcel, update: Update, ssh: Sequence[str]):
        self.ledger, self.parcel, self.update, self.ssh = ledger, parcel, update, ssh

    def all(self, devices: Sequence[Device]) -> bool:
        """Bring the bundle to these devices, several at once; whether all of them are well."""
        return all(self._each(self._deploy, devices))

    def back(self, devices: Sequence[Device]) -> None:
        """Roll these back, because another canary failed."""
        self._each(lambda device: self._undo(device, "Another canary failed."), devices)

    def _each(self, job: Callable[[Device], bool], devices: Sequence[Device]) -> list[bool]:
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            return list(pool.map(job, devices))
        finally:  # Ctrl-C: devices that have not begun do not begin; ssh gets it, too
            pool.shutdown(cancel_futures=True)

    def _deploy(self, device: Device) -> bool:
        bundle = self.parcel.bundle

        def update(step: str) -> None:
            self.update(f"{device.name}: {step}")
            if step == "healthy":  # noted before the device may keep it: a resumed rollout can go back
                self.ledger.set(device, state="switching", changed=True)

        try:
            done = deploy(device, self.parcel, self.ssh, update)
        except Refused as error:
            self.ledger.set(device, state="rolled back", changed=False, why=_shown(error))
            return False
        except Lost as error:
            if error.touched:
                self._undo(device, _shown(error))
            else:
                self.ledger.set(device, state="unreachable", why=_shown(error))
            return False
        entry = self.ledger.state.devices[device.name]
        self.ledger.set(
            device,
            state=WELL,
            bundle=bundle.name,
            digest=bundle.digest,
            previous=done.previous if done.changed else entry.previous,
            changed=done.changed or entry.changed,
            why="",
        )
        return True

    def _undo(self, device: Device, why: str) -> bool:
        try:
            current = undo(device, self.parcel, self.ssh)
        except EdgesegError as error:
            self.ledger.set(device, state="unknown", digest="", bundle="", why=f"{why} Going back: {_shown(error)}")
            return False
        entry = self.ledger.state.devices[device.name]
        same = entry.digest == current
        name = entry.bundle if same else ""
        self.ledger.set(device, state="rolled back", digest=current, bundle=name, previous="", changed=False, why=why)
        return True


def _shown(error: EdgesegError) -> str:
    return redact(" ".join(error.what.split()))


def _locked(ledger: Path) -> AbstractContextManager[None]:
    """One rollout of a fleet at a time; FileError where another one is at work."""
    what, hint = f"Another rollout works with {ledger}.", "Wait for it to end; edgeseg rollout --status shows it."
    return alone(ledger.with_name(f".{ledger.name}.lock"), FileError(what, hint))

"""What runs on the devices of a fleet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgeseg.records import Record

WELL = "well"


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """How a rollout ended on a device.

    `state`: "well" (runs the bundle), "rolled back" (runs what it ran before), "unreachable" (nothing was done),
    "unknown" (the connection was lost and it could not be asked since), "switching" or "waiting". `changed`: this
    rollout switched it. `previous`: digest of the bundle before, which is kept there. `why`: what went wrong.
    `digest`: of the bundle that runs, "" where that is not known. `at`: UTC, ISO 8601.
    """

    state: str
    bundle: str = ""
    digest: str = ""
    previous: str = ""
    canary: bool = False
    changed: bool = False
    why: str = ""
    at: str = ""


@dataclass(frozen=True, kw_only=True)
class FleetState(Record):
    """The ledger of a fleet: its latest rollout, and every device by name. `state`: "running" (or broken off), "done",
    "stopped" (a canary failed) or "incomplete" (another device failed)."""

    KIND: ClassVar[str] = "fleet"
    HINT: ClassVar[str] = "Remove that file; the next rollout writes it anew."

    bundle: str = ""
    digest: str = ""
    state: str = "done"
    devices: dict[str, DeviceState] = field(default_factory=dict)

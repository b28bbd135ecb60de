"""rollout: a bundle to a fleet of devices."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, results, resumable, status, styled, table
from edgeseg.errors import OptionError

if TYPE_CHECKING:
    from edgeseg.fleet.config import Device
    from edgeseg.fleet.connection import Parcel
    from edgeseg.results.fleet import FleetState

app = typer.Typer()
log = logging.getLogger(__name__)
EXAMPLE = "Example: edgeseg rollout street-int8 --fleet fleet.toml --canary 10% --key public.pem"
COLORS = {"well": "green", "waiting": "yellow"}


@app.command(rich_help_panel=options.RUN, epilog=EXAMPLE)
def rollout(
    bundle: Annotated[
        Path | None, typer.Argument(help="Folder of the bundle; none with --status.", show_default=False)
    ] = None,
    fleet_file: Annotated[Path, typer.Option("--fleet", help="The devices (TOML).")] = Path("fleet.toml"),
    group: Annotated[str | None, typer.Option(help="Only the devices of this group.")] = None,
    canary: Annotated[str, typer.Option(help="How many devices come first: a share (10%) or a number.")] = "10%",
    key: Annotated[Path | None, typer.Option(help="Public key: devices refuse a bundle it did not sign.")] = None,
    health: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long a device's health is watched after the switch.", min=0)
    ] = 30.0,
    show: Annotated[bool, typer.Option("--status", help="Show what runs where, from the ledger; do nothing.")] = False,
    json_to: options.Json = None,
) -> None:
    """Bring a bundle to many devices over ssh: canaries first, verified there, watched, rolled back where it fails.

    For operators. Run it again to resume one that was broken off. Exits 1 unless every device is well. See
    docs/how-to/rollout.md.
    """
    from edgeseg.fleet.config import Fleet, canaries
    from edgeseg.fleet.rollout import read_ledger, roll_out

    fleet = Fleet.load(fleet_file)
    devices = fleet.group(group)
    if show:
        if bundle is not None:
            raise OptionError("--status shows the ledger, and takes no bundle.", "Leave out one of them.")
        _show(read_ledger(fleet), devices, json_to)
        return
    if bundle is None:
        raise OptionError("There is no bundle to roll out.", "Give its folder, or --status to see what runs where.")
    first = canaries(canary, len(devices))
    parcel = _parcel(bundle, key, health)
    if first == len(devices) > 1:
        log.warning("All %d devices are canaries: none is spared where the bundle is bad.", first)
    with resumable(), status(f"rolling out {parcel.bundle.name} to {len(devices)} devices") as update:
        state = roll_out(fleet, devices, parcel, first, update)
    _show(state, devices, json_to)
    ill = [device.name for device in devices if state.devices[device.name].state != "well"]
    for name in ill:
        log.error("%s: %s. %s", name, state.devices[name].state, state.devices[name].why)
    if ill:
        raise typer.Exit(1)


def _parcel(bundle: Path, key: Path | None, health: float) -> Parcel:
    """What is sent, after the checks that need no device."""
    from edgeseg import signature
    from edgeseg.bundle import Bundle
    from edgeseg.files import require_file
    from edgeseg.fleet.connection import Parcel

    loaded = Bundle.load(bundle)
    if key is None:
        return Parcel(loaded, window=health)
    signature.require(loaded, signature.Required(key))
    return Parcel(loaded, require_file(key, "Key").read_text(encoding="utf-8"), health)


def _show(state: FleetState, devices: tuple[Device, ...], json_to: str | None) -> None:
    title = f"{state.bundle} {state.digest[:12]}: {state.state}" if state.digest else "no rollout yet"
    shown = table(title, "device", "group", "state", "runs", "since", "")
    for device in devices:
        entry = state.devices[device.name]
        runs = f"{entry.bundle} {entry.digest[:12]}".strip() or "-"
        name = f"{device.name} (canary)" if entry.canary else device.name
        shown.add_row(
            name, device.group, styled(entry.state, COLORS.get(entry.state, "bold red")), runs, entry.at, entry.why
        )
    for column in shown.columns:
        column.justify = "left"
    results(json_to).print(shown)
    emit(state, json_to)

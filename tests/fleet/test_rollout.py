"""Rollouts to several devices, which are folders behind one real sshd on loopback; skipped where there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny
from sshd import Server, needs_sshd

from edgeseg import signature
from edgeseg.bundle import Bundle
from edgeseg.fleet.config import Fleet
from edgeseg.fleet.connection import Parcel
from edgeseg.fleet.rollout import read_ledger, roll_out
from edgeseg.results.fleet import DeviceState, FleetState

pytestmark = needs_sshd
ROOT = Path(__file__).parents[2]
EDGESEG = f"env PYTHONPATH={ROOT} {sys.executable} -m edgeseg"
# What kills the sshd that serves the session which runs it.
DIE = """p=$$
while ! grep -q '^sshd' /proc/$p/comm; do p=$(awk '{print $4}' /proc/$p/stat); done
kill -9 $p; sleep 5
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("sshd"))
    yield running
    running.process.terminate()
    running.process.wait(10)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ours, private and public, and the public one of somebody else."""
    folder = tmp_path_factory.mktemp("keys")
    ours = signature.new_key(folder / "ours.pem")
    return {"private": folder / "ours.pem", "ours": ours, "other": signature.new_key(folder / "other.pem")}


@pytest.fixture(scope="module")
def bundles(bundle_of: Callable[..., Path], keys: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An old and a new bundle, both signed."""
    folder = tmp_path_factory.mktemp("signed")
    for name, precision in (("old", "fp32"), ("new", "int8")):
        shutil.copytree(bundle_of("openvino-cpu", precision), folder / name)
        signature.sign(folder / name, keys["private"])
    return {name: Bundle.load(folder / name) for name in ("old", "new")}


class Fleets:
    """A fleet.toml whose devices are folders of this machine, and rollouts to it."""

    def __init__(self, folder: Path, server: Server):
        self.folder, self.server = folder, server
        self.path = folder / "fleet.toml"
        self.steps: list[str] = []

    def write(self, *names: str, **more: dict[str, object]) -> None:
        rows = []
        for name in names:
            keys: dict[str, object] = {
                "name": name, "host": "127.0.0.1", "port": self.server.port, "folder": str(self.folder / name),
                "python": sys.executable, "command": EDGESEG, **more.get(name, {}),
            }  # fmt: skip
            rows.append("[[devices]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))
        self.path.write_text("\n".join(rows))

    def roll_out(self, bundle: Bundle, first: int = 1, key: Path | None = None, window: float = 0) -> FleetState:
        fleet = Fleet.load(self.path)
        parcel = Parcel(bundle, key.read_text() if key else "", window)
        self.steps = []
        return roll_out(fleet, fleet.devices, parcel, first, self.steps.append, self.server.ssh())

    def runs(self, name: str) -> str | None:
        link = self.folder / name / "current"
        return str(link.readlink()) if link.is_symlink() else None

    def left(self, name: str) -> set[str]:
        """What lies in a device's folder."""
        return {path.name for path in (self.folder / name).iterdir()} - {".rollout.lock"}

    def script(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)
        return str(path)


@pytest.fixture
def fleets(tmp_path: Path, server: Server) -> Fleets:
    return Fleets(tmp_path, server)


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    assert condition()


def test_every_device_gets_it_and_keeps_the_one_before(fleets: Fleets, bundles: Any, keys: dict[str, Path]) -> None:
    fleets.write("a", "b", "c")
    old, new = bundles["old"], bundles["new"]
    state = fleets.roll_out(old, key=keys["ours"])
    assert state.state == "done" and {d.state for d in state.devices.values()} == {"well"}
    state = fleets.roll_out(new, key=keys["ours"])
    assert state.state == "done"
    for name in "abc":
        assert fleets.left(name) == {"current", "previous", old.digest, new.digest}
        assert fleets.runs(name) == new.digest
        assert Bundle.load(fleets.folder / name / "current").digest == new.digest
        assert Bundle.load(fleets.folder / name / "previous").digest == old.digest
        assert state.devices[name].previous == old.digest and state.devices[name].digest == new.digest
    assert [state.devices[name].canary for name in "abc"] == [True, False, False]
    canary = fleets.steps.index("a: kept")
    assert all(step.startswith("a:") for step in fleets.steps[: canary + 1])
    assert read_ledger(Fleet.load(fleets.path)) == state
    fleets.roll_out(new)
    assert sorted(fleets.steps) == ["a: already", "b: already", "c: already"]


def test_each_fault_is_told_and_leaves_the_device_as_it_was(
    fleets: Fleets, bundles: Any, keys: dict[str, Path]
) -> None:
    """One refuses its signature, one fails its golden frames, two die in the middle, one cannot be reached."""
    old, new = bundles["old"], bundles["new"]
    names = ("good", "stranger", "golden", "dies", "dies-early", "gone", "last")
    fleets.write(*names)
    assert fleets.roll_out(old, first=7).state == "done"
    strict = fleets.script("strict", f'exec {EDGESEG} "$@" --minimum 1.01\n')
    fleets.write(
        *names,
        stranger={"key": str(keys["other"])},
        golden={"command": strict},
        dies={"health": fleets.script("die", DIE)},
        gone={"port": 1},
        **{"dies-early": {"command": fleets.script("die-early", DIE)}},
    )
    state = fleets.roll_out(new, key=keys["ours"], window=1)
    assert state.state == "incomplete"
    expected = {
        "good": ("well", ""),
        "stranger": ("rolled back", "altered after signing"),
        "golden": ("rolled back", "golden frame agrees on"),
        "dies": ("rolled back", "was lost in the middle"),
        "dies-early": ("rolled back", "was lost in the middle"),
        "gone": ("unreachable", "cannot be reached"),
        "last": ("well", ""),
    }
    for name, (ended, why) in expected.items():
        entry = state.devices[name]
        assert entry.state == ended and why in entry.why, (name, entry)
        runs = new if ended == "well" else old
        assert fleets.runs(name) == runs.digest == entry.digest
        kept = {"previous", old.digest, new.digest} if ended == "well" else {old.digest}
        assert fleets.left(name) == {"current", *kept}, name


def test_a_bad_canary_stops_it_and_takes_the_other_canaries_back(fleets: Fleets, bundles: Any) -> None:
    old, new = bundles["old"], bundles["new"]
    fleets.write("a", "b", "c")
    fleets.roll_out(old)
    fleets.write("a", "b", "c", b={"health": "echo no >&2; exit 3"})
    state = fleets.roll_out(new, first=2)
    assert state.state == "stopped"
    assert [fleets.runs(name) for name in "abc"] == [old.digest] * 3
    assert [fleets.left(name) for name in "ab"] == [{"current", old.digest}] * 2
    assert "Another canary failed" in state.devices["a"].why
    assert "did not become healthy within 0 s: The health command failed (3): no" in state.devices["b"].why
    assert not [step for step in fleets.steps if step.startswith("c:")]


def test_a_device_without_an_earlier_bundle_has_none_after_a_failure(fleets: Fleets, bundles: Any) -> None:
    fleets.write("a", a={"health": "false"})
    assert fleets.roll_out(bundles["new"]).devices["a"].state == "rolled back"
    assert fleets.left("a") == set()


def test_the_restart_command_runs_after_the_switch_and_after_going_back(fleets: Fleets, bundles: Any) -> None:
    log = fleets.folder / "log"
    restart = f"readlink {fleets.folder}/a/current >> {log}"
    fleets.write("a", a={"restart": restart})
    fleets.roll_out(bundles["old"])
    fleets.write("a", a={"restart": restart, "health": "false"})
    fleets.roll_out(bundles["new"])
    digests = [bundles[name].digest for name in ("old", "new", "old")]
    assert log.read_text().split() == digests
    fleets.write("a", a={"restart": "echo broken unit; exit 1"})
    state = fleets.roll_out(bundles["new"])
    assert "The restart command failed (1): broken unit" in state.devices["a"].why
    assert fleets.runs("a") == bundles["old"].digest


def test_health_over_http(fleets: Fleets, bundles: Any) -> None:
    """Unhealthy at first, as a service is that starts; then well; another one does not stay well."""
    asked = {"/readyz": 0, "/flaps": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[self.path] += 1
            well = asked[self.path] >= 2 if self.path == "/readyz" else asked[self.path] == 1
            self.send_response(200 if well else 503)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{web.server_port}"
        fleets.write("a", "b", a={"health": f"{url}/readyz"}, b={"health": f"{url}/flaps"})
        state = fleets.roll_out(bundles["new"], window=2)
    finally:
        web.shutdown()
        web.server_close()
    assert state.devices["a"].state == "well" and asked["/readyz"] >= 3
    assert state.devices["b"].state == "rolled back"
    assert "It was healthy, and then no longer: the health URL answered 503" in state.devices["b"].why


def has(device: DeviceState, bundle: Bundle) -> bool:
    return device.state == "well" and device.digest == bundle.digest


def test_a_rollout_that_is_killed_goes_back_and_resumes(fleets: Fleets, bundles: Any) -> None:
    """The first process is killed while a device's health is watched; the canary before it stays, and a failure in the
    second process takes that canary back, too."""
    old, new = bundles["old"], bundles["new"]
    fleets.write("a", "b")
    fleets.roll_out(old)
    started = fleets.folder / "started"
    fleets.write("a", "b", b={"health": f"touch {started}"})
    code = f"""
from pathlib import Path
from edgeseg.bundle import Bundle
from edgeseg.fleet.config import Fleet
from edgeseg.fleet.connection import Parcel
from edgeseg.fleet.rollout import roll_out
fleet = Fleet.load(Path({str(fleets.path)!r}))
parcel = Parcel(Bundle.load(Path({str(new.path)!r})), "", 600)
roll_out(fleet, fleet.devices, parcel, 2, print, {fleets.server.ssh()!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        wait(lambda: started.exists() and has(read_ledger(Fleet.load(fleets.path)).devices["a"], new))
    finally:
        process.kill()
        process.wait()
    wait(lambda: fleets.runs("b") == old.digest)
    assert fleets.runs("a") == new.digest and read_ledger(Fleet.load(fleets.path)).state == "running"
    fleets.write("a", "b", b={"health": "false"})
    state = fleets.roll_out(new, first=2)
    assert "a: already" in fleets.steps
    assert state.state == "stopped" and [fleets.runs(name) for name in "ab"] == [old.digest] * 2
    fleets.write("a", "b")
    assert fleets.roll_out(new, first=2).state == "done"
    assert [fleets.runs(name) for name in "ab"] == [new.digest] * 2


def test_what_a_power_cut_left_is_undone_first(fleets: Fleets, bundles: Any) -> None:
    old, new = bundles["old"], bundles["new"]
    fleets.write("a")
    fleets.roll_out(old)
    folder = fleets.folder / "a"
    shutil.copytree(old.path, folder / f".{new.digest}.incoming")
    (folder / ".rollout.json").write_text(json.dumps({"before": old.digest, "digest": new.digest}))
    (folder / "current").unlink()
    (folder / "current").symlink_to(new.digest)  # which was never finished
    assert fleets.roll_out(new).state == "done"
    assert fleets.left("a") == {"current", "previous", old.digest, new.digest}


def test_a_bundle_whose_golden_frames_are_wrong_reaches_no_device(fleets: Fleets, bundles: Any, tmp_path: Path) -> None:
    fleets.write("a", "b")
    fleets.roll_out(bundles["old"])
    bad = shutil.copytree(bundles["new"].path, tmp_path / "bad")
    (bad / "bundle.sig").unlink()
    masks = sorted((bad / "golden").glob("*.mask.png"))
    masks[0].write_bytes(_inverted(masks[0]))
    tiny.reseal(bad)
    state = fleets.roll_out(Bundle.load(bad))
    assert state.state == "stopped" and "golden frame" in state.devices["a"].why
    assert [fleets.runs(name) for name in "ab"] == [bundles["old"].digest] * 2


def _inverted(path: Path) -> bytes:
    import cv2

    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return bytes(cv2.imencode(".png", (mask + 1) % len(tiny.SPEC.classes))[1])


def test_something_else_in_the_place_of_the_link(fleets: Fleets, bundles: Any) -> None:
    fleets.write("a")
    (fleets.folder / "a" / "current").mkdir(parents=True)
    state = fleets.roll_out(bundles["new"])
    assert "current is not a link" in state.devices["a"].why
    assert fleets.left("a") == {"current"}


def test_the_command_line(
    fleets: Fleets, bundles: Any, keys: dict[str, Path], edgeseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = shutil.which("ssh")
    words = " ".join(fleets.server.ssh())
    (fleets.folder / "bin").mkdir()
    fleets.script("bin/ssh", f'exec {ssh} {words} "$@"\n')
    monkeypatch.setenv("PATH", f"{fleets.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    secret = "http://me:hunter22@127.0.0.1:1/readyz?token=hunter33"
    fleets.write("a", "b", a={"group": "gates"}, b={"group": "yard", "health": secret})
    common = ("--fleet", fleets.path, "--key", keys["ours"], "--health", "0")
    done = edgeseg("rollout", bundles["new"].path, *common, "--group", "gates", "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["devices"]["a"]["state"] == "well"
    failed = edgeseg("rollout", bundles["new"].path, *common, "--canary", "50 %")
    assert failed.code == 1
    assert "b: rolled back. It did not become healthy" in failed.err
    shown = edgeseg("rollout", "--status", "--fleet", fleets.path)
    assert shown.code == 0 and "incomplete" in shown.out and "rolled back" in shown.out
    ledger = Fleet.load(fleets.path).ledger.read_text()
    for text in (done.err, failed.err, failed.out, shown.out, ledger):
        assert "hunter" not in text
    refused = edgeseg("rollout", bundles["new"].path, "--fleet", fleets.path, "--key", keys["other"])
    assert refused.code == 2 and "sign" in refused.err

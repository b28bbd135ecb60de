"""fleet.toml, and what the user can get wrong."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_imports import imports

from edgeseg.bench.remote import Host
from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.fleet import agent
from edgeseg.fleet.config import Fleet, canaries

GOOD = '[[devices]]\nname = "a"\nhost = "me@gate-1"\nfolder = "/srv/edgeseg"\n'


def load(tmp_path: Path, text: str) -> Fleet:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return Fleet.load(path)


def test_groups_say_what_their_devices_share(tmp_path: Path) -> None:
    fleet = load(
        tmp_path,
        GOOD + 'port = 2222\ngroup = "gates"\n[[devices]]\nname = "b"\nhost = "b"\ngroup = "gates"\n'
        '[groups.gates]\nfolder = "~/bundles"\nhealth = "http://127.0.0.1:9090/readyz"\n',
    )
    a, b = fleet.group("gates")
    assert (a.folder, b.folder) == ("/srv/edgeseg", "~/bundles")
    assert a.health == b.health == "http://127.0.0.1:9090/readyz"
    assert a.address == Host("gate-1", "me", 2222) and b.address == Host("b")
    assert fleet.ledger == tmp_path / "fleet.ledger.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty"),
        ("x = 1", r"Unknown key 'x'"),
        ("[[device]]\nname = 'a'", r"Unknown key 'device'.\nDid you mean 'devices'"),
        ("[groups]", r"has no devices"),
        ("devices = 3", r"has no devices"),
        ("devices = [3]", r"devices is 3"),
        ("[devices", r"is not valid TOML"),
        (GOOD + 'helth = "true"', r"Unknown key 'devices.helth'.\nDid you mean 'devices.health'"),
        (GOOD + "port = 70000", r"devices.port is 70000, out of range"),
        (GOOD + "port = true", r"devices.port is True"),
        (GOOD.replace("folder", "#"), r"folder is missing"),
        (GOOD + GOOD, r"two devices are called 'a'"),
        (GOOD + GOOD.replace('"a"', '"b"'), r"a and b are one folder of one host"),
        (GOOD.replace('"a"', '"a b"'), r"devices.name is 'a b'"),
        (GOOD.replace("me@gate-1", "-oProxyCommand=x"), r"host of a is not one that ssh can be given"),
        (GOOD.replace("me@gate-1", "-Ffile@gate"), r"host of a is not one that ssh can be given"),
        (GOOD.replace("me@gate-1", "a b"), r"host of a is not one"),
        (GOOD.replace("/srv", "srv"), r"folder of a is 'srv/edgeseg'.\nExpected an absolute path"),
        (GOOD + 'python = "-c x"', r"python of a is '-c x'"),
        (GOOD + '[groups.gats]\nfolder = "/x"', r"no device is in the group 'gats'"),
        (GOOD + 'group = "g"\n[groups.g]\nname = "/x"', r"Unknown key 'groups.g.name'"),
        (GOOD + 'group = "g"\n[groups]\ng = 3', r"groups.g is not a table"),
    ],
)
def test_a_file_that_cannot_be_used(
    text: str, message: str, tmp_path: Path, edgeseg: Callable[..., Any], bundle: Path
) -> None:
    with pytest.raises((OptionError, FileError), match=message):
        load(tmp_path, text)
    assert edgeseg("rollout", bundle, "--fleet", tmp_path / "fleet.toml").code == 2


def test_a_password_in_a_host_is_refused_and_not_shown(
    tmp_path: Path, edgeseg: Callable[..., Any], bundle: Path
) -> None:
    (tmp_path / "fleet.toml").write_text(GOOD.replace("me@", "me:hunter22@"))
    result = edgeseg("rollout", bundle, "--fleet", tmp_path / "fleet.toml")
    assert result.code == 2 and "jump hosts belong into ~/.ssh/config" in result.err
    assert "hunter22" not in result.err + result.out


@pytest.mark.parametrize(
    ("text", "devices", "expected"), [("10%", 25, 3), ("10 %", 3, 1), ("100%", 4, 4), ("0.5%", 10, 1), ("2", 4, 2)]
)
def test_how_many_come_first(text: str, devices: int, expected: int) -> None:
    assert canaries(text, devices) == expected


@pytest.mark.parametrize("text", ["0%", "101%", "-5%", "0", "5", "-1", "", "%", "ten", "1e1%", "10%%", "nan%"])
def test_shares_that_are_none(text: str, tmp_path: Path, edgeseg: Callable[..., Any], bundle: Path) -> None:
    with pytest.raises(OptionError, match=r"--canary is .*\nExpected a share such as 10%"):
        canaries(text, 4)
    (tmp_path / "fleet.toml").write_text(GOOD)
    assert edgeseg("rollout", bundle, "--fleet", tmp_path / "fleet.toml", f"--canary={text}").code == 2


@given(st.text(max_size=12), st.integers(1, 1000))
def test_any_share_is_a_count_or_an_error(text: str, devices: int) -> None:
    try:
        assert 1 <= canaries(text, devices) <= devices
    except EdgesegError as error:
        assert "--canary" in error.what


def test_what_a_command_needs(tmp_path: Path, edgeseg: Callable[..., Any], bundle: Path) -> None:
    (tmp_path / "fleet.toml").write_text(GOOD + 'group = "gates"')
    fleet = ("--fleet", tmp_path / "fleet.toml")
    for words, message in (
        (("rollout", *fleet), "no bundle to roll out"),
        (("rollout", tmp_path, *fleet), "has no bundle.json"),
        (("rollout", bundle, *fleet, "--status"), "takes no bundle"),
        (("rollout", bundle, *fleet, "--group", "gate"), "Did you mean 'gates'"),
        (("rollout", bundle, "--fleet", tmp_path / "none.toml"), "does not exist"),
        (("rollout", bundle, *fleet, "--key", tmp_path / "none.pem"), "none.pem"),
    ):
        result = edgeseg(*words)
        assert result.code == 2 and message in result.err, (words, result.err)
    status = edgeseg("rollout", "--status", *fleet)
    assert status.code == 0 and "waiting" in status.out
    (tmp_path / "fleet.ledger.json").write_text("{}}")
    broken = edgeseg("rollout", "--status", *fleet)
    assert broken.code == 2 and "fleet.ledger.json" in broken.err


def test_the_program_that_is_sent_needs_python_3_9_alone() -> None:
    """It imports nothing but the standard library, and runs where edgeseg is in a container only."""
    path = Path(agent.__file__)
    ast.parse(path.read_text(), feature_version=(3, 9))
    names = {name.split(".")[0] for name in imports(ast.parse(path.read_text()))}
    assert names <= set(sys.stdlib_module_names)

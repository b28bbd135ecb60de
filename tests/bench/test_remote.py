"""bench --host against a real sshd on loopback; skipped where there is none."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sshd import Server, needs_sshd

from edgeseg.bench.remote import Host, bench_on, pack
from edgeseg.bundle import Bundle
from edgeseg.cpus import usable_cpus
from edgeseg.errors import EdgesegError, OptionError


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("sshd"))
    yield running
    running.process.terminate()
    running.process.wait(10)


def bench(server: Server, bundle: Path, **options: Any) -> Any:
    """One short bench on the server."""
    settings = {"python": sys.executable, "ssh": server.ssh(), **options}
    (outcome,) = bench_on([server.host], bundle, ["--seconds", "1", "--size", "96x64"], **settings)
    return outcome


@needs_sshd
def test_the_result_comes_back_and_nothing_is_left_on_the_host(server: Server, bundle: Path) -> None:
    result = bench(server, bundle)
    assert not isinstance(result, EdgesegError), str(result)
    assert result.host == "127.0.0.1" and result.fps > 0
    assert result.machine.cores == usable_cpus()
    assert server.left() == []


@needs_sshd
def test_several_hosts_at_once_and_one_is_unreachable(server: Server, bundle: Path) -> None:
    hosts = [server.host, Host("127.0.0.1", "nobody", 1)]
    good, bad = bench_on(hosts, bundle, ["--seconds", "1", "--size", "96x64"], sys.executable, server.ssh())
    assert not isinstance(good, EdgesegError) and good.fps > 0
    assert isinstance(bad, EdgesegError) and "cannot be reached" in bad.what


@needs_sshd
def test_a_wrong_key(server: Server, bundle: Path) -> None:
    result = bench(server, bundle, ssh=server.ssh(server.stranger))
    assert isinstance(result, EdgesegError)
    assert "127.0.0.1 refused the key" in result.what and "ssh-copy-id" in result.hint


@needs_sshd
def test_a_full_disk(server: Server, bundle: Path, tmp_path: Path) -> None:
    """A tiny file system as the other machine's temporary folder."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", server.temporary]).returncode:
        pytest.skip("mounting needs root")
    try:
        result = bench(server, bundle)
        assert isinstance(result, EdgesegError)
        assert "127.0.0.1 has no space left" in result.what and "TMPDIR" in result.hint
        assert server.left() == []
    finally:
        subprocess.run(["umount", server.temporary], check=True)


@needs_sshd
def test_a_connection_lost_in_the_middle(server: Server, bundle: Path, tmp_path: Path) -> None:
    """The session's process there is killed while the bench runs; its folder is still removed."""
    killer = tmp_path / "python"
    killer.write_text(f'#!/bin/sh\ncase "$*" in *bench*) kill -9 $(cat {tmp_path}/session); sleep 2;; esac\n')
    killer.chmod(0o755)
    authorized = server.folder / "authorized"
    before = authorized.read_text()
    # The forced command notes the id of the sshd process that serves this session, then runs the requested command.
    authorized.write_text(f'command="echo $PPID > {tmp_path}/session; eval \\"$SSH_ORIGINAL_COMMAND\\"" {before}')
    try:
        result = bench(server, bundle, python=str(killer))
    finally:
        authorized.write_text(before)
    assert isinstance(result, EdgesegError)
    assert "was lost in the middle" in result.what, result.what
    end = time.monotonic() + 20
    while server.left() and time.monotonic() < end:  # the bench there ends first
        time.sleep(0.1)
    assert server.left() == []


@needs_sshd
def test_a_host_without_the_packages(server: Server, bundle: Path) -> None:
    result = bench(server, bundle, python="/usr/bin/python3" if Path("/usr/bin/python3").exists() else "python9")
    assert isinstance(result, EdgesegError)
    assert "lacks a package" in result.what or "has no such Python" in result.what, result.what
    assert "has no such Python" in bench(server, bundle, python="python9").what
    assert server.left() == []


@pytest.mark.parametrize(
    "uri", ["device", "http://device", "ssh://", "ssh://a b", "ssh://-oProxyCommand=x", "ssh://-Ffile@a", "ssh://a:b"]
)
def test_invalid_hosts_are_rejected(uri: str, edgeseg: Callable[..., Any], bundle: Path) -> None:
    with pytest.raises(OptionError, match=r"is not a host\.\nExpected ssh://user@device"):
        Host.parse(uri)
    assert edgeseg("bench", bundle, "--host", uri).code == 2


def test_hosts_are_read_as_ssh_reads_them() -> None:
    assert Host.parse("ssh://me@box.local:2222") == Host("box.local", "me", 2222)
    assert Host.parse("ssh://box").command()[-1] == "box"


def test_an_option_cannot_become_a_command(bundle: Path) -> None:
    (result,) = bench_on([Host("127.0.0.1", port=1)], bundle, ["--seconds", "1;rm"])
    assert isinstance(result, OptionError)


def test_one_device_twice(edgeseg: Callable[..., Any], bundle: Path) -> None:
    result = edgeseg("bench", bundle, "--host", "ssh://a", "--host", "ssh://a")
    assert result.code == 2 and "names one device twice" in result.err


def test_the_parcel_holds_the_bundle_and_no_compiled_code(bundle: Path) -> None:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(pack(bundle))) as archive:
        names = archive.getnames()
    manifest = Bundle.load(bundle).manifest
    assert {f"bundle/{name}" for name in manifest.files} < set(names)
    assert "src/edgeseg/segmenter.py" in names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]

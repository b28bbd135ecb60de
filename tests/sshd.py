"""A real sshd on loopback, for tests of what goes over ssh."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from edgeseg.bench.remote import Host

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
needs_sshd = pytest.mark.skipif(
    not (Path(SSHD).is_file() and shutil.which("ssh") and shutil.which("ssh-keygen")), reason="no OpenSSH here"
)


class Server:
    """sshd for this user on a port of its own, with keys and a temporary folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.key, self.stranger = folder / "key", folder / "stranger"
        for name in ("host", "key", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "key.pub", folder / "authorized")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        (folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
            f"PasswordAuthentication no\nPidFile {folder}/pid\nSetEnv TMPDIR={self.temporary}\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.05)

    @property
    def host(self) -> Host:
        return Host("127.0.0.1", getpass.getuser(), self.port)

    def ssh(self, key: Path | None = None) -> list[str]:
        known = ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self.folder}/known"]
        return ["-F", "none", "-o", "IdentitiesOnly=yes", "-i", str(key or self.key), *known]

    def left(self) -> list[str]:
        return [path.name for path in self.temporary.iterdir()]

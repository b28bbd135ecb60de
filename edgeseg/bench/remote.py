"""Bench on another machine over ssh: the bundle and this edgeseg are sent, the result comes back.

What the other machine must have: Python >= 3.10 with numpy, OpenCV, typer, rich and the bundle's runtime. edgeseg is
sent along (the class-map kernel is built there, where there is a C compiler), so both sides run one version.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import edgeseg
from edgeseg.errors import EdgesegError, OptionError
from edgeseg.results.bench import BenchResult

# Unpack into a fresh folder, remove it however this ends (a lost connection too), run, print the result.
REMOTE = (
    'set -e; work=$(mktemp -d "${TMPDIR:-/tmp}/edgeseg.XXXXXX"); trap \'rm -rf "$work"\' EXIT HUP INT TERM; '
    'cd "$work"; tar xzf -; export PYTHONDONTWRITEBYTECODE=1; '
    "{ test ! -f src/setup.py || (cd src && %(python)s setup.py -q build_ext --inplace >/dev/null 2>&1) || true; }; "
    'PYTHONPATH="$work/src" %(python)s -m edgeseg bench bundle %(options)s --json result.json >&2; cat result.json'
)


@dataclass(frozen=True)
class Host:
    """ssh://[user@]name[:port]; everything else (keys, jump hosts) belongs into ~/.ssh/config."""

    name: str
    user: str = ""
    port: int = 0

    @classmethod
    def parse(cls, uri: str) -> Host:
        match = re.fullmatch(
            r"ssh://(?:([A-Za-z0-9_][A-Za-z0-9._-]*)@)?([A-Za-z0-9][A-Za-z0-9._-]*)(?::(\d{1,5}))?/?", uri
        )
        if not match:
            raise OptionError(f"--host {uri[:80]!r} is not a host.", "Expected ssh://user@device or ssh://device:2222.")
        return cls(match[2], match[1] or "", int(match[3] or 0))

    def command(self, options: Sequence[str] = ()) -> list[str]:
        where = f"{self.user}@{self.name}" if self.user else self.name
        port = ["-p", str(self.port)] if self.port else []
        # No questions: a host that asks for a password or has a new key is an error, not a hang.
        quiet = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]
        return ["ssh", *quiet, "-o", "ServerAliveCountMax=3", *port, *options, where]


def bench_on(
    hosts: Sequence[Host],
    bundle: Path,
    options: Sequence[str] = (),
    python: str = "python3",
    ssh: Sequence[str] = (),
    timeout: float = 3600,
) -> list[BenchResult | EdgesegError]:
    """The bench of each host, in order; an EdgesegError in place of one that failed.

    `options` go to `edgeseg bench` there, `ssh` to ssh. All hosts work at the same time.
    """
    parcel = pack(bundle)

    def one(host: Host) -> BenchResult | EdgesegError:
        try:
            return _bench(host, parcel, options, python, ssh, timeout)
        except EdgesegError as error:
            return error

    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return list(pool.map(one, hosts))


def pack(bundle: Path) -> bytes:
    """bundle/ and src/ (this package, without compiled files) as tar.gz."""
    from edgeseg.bundle import MANIFEST, Bundle

    loaded = Bundle.load(bundle)
    package = Path(edgeseg.__file__).parent
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        for name, data in {MANIFEST: loaded.text, **loaded.files}.items():
            entry = tarfile.TarInfo(f"bundle/{name}")
            entry.size, entry.mode = len(data), 0o755 if name.endswith(".sh") else 0o644
            archive.addfile(entry, io.BytesIO(data))
        for path in sorted(package.rglob("*")):
            inside = path.relative_to(package)
            if path.is_file() and "__pycache__" not in inside.parts and path.suffix != ".so":
                archive.add(path, f"src/edgeseg/{inside.as_posix()}")
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            if (package.parent / name).is_file() and (package.parent / "setup.py").is_file():
                archive.add(package.parent / name, f"src/{name}")
    return buffer.getvalue()


def _bench(
    host: Host, parcel: bytes, options: Sequence[str], python: str, ssh: Sequence[str], timeout: float
) -> BenchResult:
    if not all(re.fullmatch(r"[A-Za-z0-9_./:=,-]+", word) for word in (python, *options)):
        raise OptionError(
            "An option for the other machine holds a space or a character that the shell interprets.", "Leave it out."
        )
    script = REMOTE % {"python": python, "options": " ".join(options)}
    try:
        process = subprocess.run([*host.command(ssh), script], input=parcel, capture_output=True, timeout=timeout)
    except FileNotFoundError:
        raise EdgesegError("There is no ssh on this machine.", "Install it: apt install openssh-client") from None
    except subprocess.TimeoutExpired:
        raise EdgesegError(
            f"{host.name} did not answer within {timeout:.0f} s.", "Log in with ssh to see whether it hangs."
        ) from None
    if process.returncode:
        raise failure(host, process.returncode, process.stderr.decode(errors="replace"))
    try:
        result = BenchResult.from_dict(json.loads(process.stdout), f"The output of {host.name}")
    except (ValueError, EdgesegError) as error:
        reason = error.what if isinstance(error, EdgesegError) else f"{error}."
        raise EdgesegError(
            f"{host.name} printed something that is not a result: {reason}",
            "Look at its shell's greeting: it must print nothing.",
        ) from None
    return replace(result, host=host.name)


def failure(host: Host, code: int, stderr: str, job: str = "bench") -> EdgesegError:
    """The error for what ssh or the remote shell wrote to `stderr`, with what to do about it."""
    last = (stderr.strip().splitlines() or [f"exit status {code}"])[-1][:300]
    for pattern, what, do in (
        (r"Permission denied", "refused the key", "Add your key there (ssh-copy-id), or name it in ~/.ssh/config."),
        (r"Host key verification failed", "has an unknown host key", "Connect once by hand: ssh " + host.name),
        (r"Could not resolve", "is not a name that can be resolved", "Check the name, or use its address."),
        (r"Connection refused|timed out|No route", "cannot be reached", "Is it on, and does sshd run there?"),
        (r"No space left|Disk quota", "has no space left", "Free some there, or set TMPDIR in its profile."),
        (r"closed by remote|Broken pipe|not responding|Connection reset", "was lost in the middle", "Run it again."),
        (r"No module named '?(\w+)", "lacks a package", "Install there what edgeseg and the bundle's runtime need."),
        (r"python\S*: (command )?not found", "has no such Python", "Name it: --python /path/to/python3"),
    ):  # fmt: skip
        if re.search(pattern, stderr):
            return EdgesegError(f"{host.name} {what}: {last}.", do)
    return EdgesegError(f"The {job} on {host.name} failed ({code}): {last}.", "Run it there by hand to see more.")

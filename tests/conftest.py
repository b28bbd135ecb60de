"""What every test can use: a tiny network, a tiny dataset, bundles compiled from them once, and the command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
from hypothesis import HealthCheck, settings

from edgeseg.bundle import Bundle

pytest_plugins = ["fragile_nets"]

# The same examples every time; no deadlines on a machine that others share.
settings.register_profile(
    "edgeseg",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("edgeseg")

# A shell starts jobs in the background, and nohup starts any, with signals ignored, and so do their children then.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@dataclass(frozen=True)
class Ran:
    """The exit status and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file of eight classes with its Spec inside."""
    return tiny.network(tmp_path_factory.mktemp("network") / "tiny.onnx")


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of the same classes: 12 + 2 + 4 frames of 96x64."""
    from edgeseg.synth.files import write_dataset

    root = tmp_path_factory.mktemp("data") / "street"
    write_dataset(root, train=12, val=2, test=4, height=tiny.HEIGHT, width=tiny.WIDTH)
    return root


@pytest.fixture(scope="session")
def bundle_of(network: Path, street: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """bundle_of(target, precision): the tiny network's bundle, compiled on first use. Copy it before changing it."""
    from edgeseg.calibration.frames import CalibrationSet
    from edgeseg.compile import compile_model
    from edgeseg.precision import Precision
    from edgeseg.target import Target

    folder = tmp_path_factory.mktemp("bundles")
    compiled: dict[tuple[str, str], Bundle] = {}

    def get(target: str, precision: str) -> Path:
        if (target, precision) not in compiled:
            compiled[target, precision] = compile_model(
                network,
                folder / f"{target}-{precision}",
                Target.load(target),
                precision,
                spec=tiny.SPEC,
                frames=tiny.frames(4, seed=1),
                calibration=CalibrationSet.choose(street, 10) if Precision(precision).is_int8 else None,
            )
        return compiled[target, precision].path

    return get


@pytest.fixture(scope="session")
def bundle(bundle_of: Callable[[str, str], Path]) -> Path:
    """The OpenVINO bundle in fp32."""
    return bundle_of("openvino-cpu", "fp32")


@pytest.fixture
def edgeseg(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """edgeseg("verb", "--option", ...): run the command line in this process, as `edgeseg.cli.main` does."""
    from edgeseg.cli import main

    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> Ran:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["edgeseg", *map(str, words)])
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        messages = capsys.readouterr()
        assert isinstance(code, int)
        return Ran(code, messages.out, messages.err)

    return run

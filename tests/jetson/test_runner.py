"""The runner for old Pythons: its syntax, its masks, its program over a real network, and build.sh with a stand-in
trtexec. TensorRT itself is not here: ONNX Runtime takes the engine's place."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg import mask, runner
from edgeseg.files import sha256

FOLDER = Path(runner.__file__).parent
OLDEST = (3, 6)


def module() -> Any:
    spec = importlib.util.spec_from_file_location("runner_file", FOLDER / "runner.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


RUNNER = module()


class Network:
    """In place of the engine: the bundle's model under ONNX Runtime."""

    def __init__(self, bundle: Path):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        return self.session.run(["logits"], {"frame": frame[None]})[0][0]


@pytest.fixture
def board(bundle_of: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle for a Nano: the tiny network, a plan, build.sh and runner.py."""
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_of("onnxruntime-cpu", "fp32"), folder)
    assert runner.add(folder) == ["build.sh", "runner.py"]
    replan(folder, {"precision": "fp16", "workspace_mb": 256, "dla": -1, "golden_agreement": 0.99})
    return folder


def replan(board: Path, plan: dict[str, Any]) -> None:
    (board / "plan.json").write_text(json.dumps(plan, indent=1) + "\n")
    tiny.reseal(board)


def engine_of(board: Path, tmp_path: Path) -> Path:
    """Where build.sh puts this bundle's engine."""
    return tmp_path / "cache" / "runner" / sha256(board / "bundle.json")[:40] / "model.engine"


def run(board: Path, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = RUNNER.main(["--bundle", str(board), *map(str, words)], Network(board))
    messages = capsys.readouterr()
    return code, messages.out, messages.err


def test_the_syntax_and_library_of_python_3_6() -> None:
    ast.parse((FOLDER / "runner.py").read_text(), feature_version=OLDEST)
    completed = subprocess.run(
        [Path(sys.executable).parent / "vermin", "--no-tips", "-t=3.6-", "--violations", FOLDER / "runner.py"],
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stdout


def test_it_imports_only_what_jetpack_installs() -> None:
    tree = ast.parse((FOLDER / "runner.py").read_text())
    names = {a.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    assert names - set(sys.stdlib_module_names) == {"cv2", "numpy", "tensorrt"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


def test_shellcheck_accepts_the_scripts() -> None:
    scripts = [*FOLDER.glob("*.sh"), *(Path(__file__).parents[2] / "jetson").glob("*.sh")]
    completed = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True, env=path_first())
    assert completed.returncode == 0, completed.stdout
    assert len(scripts) >= 2


def path_first(*folders: Path) -> dict[str, str]:
    here = [str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**os.environ, "PATH": ":".join([*map(str, folders), *here])}


@given(
    st.integers(2, 9),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(mask.UPSAMPLES[:3]),
    st.integers(0, 2**32 - 1),
)
def test_its_class_maps_equal_those_of_edgeseg(
    classes: int, h: int, w: int, height: int, width: int, how: str, seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (classes, h, w)).astype(np.float32).round(1)
    assert (RUNNER.class_map(logits, height, width, how) == mask.dense(logits, height, width, how)).all()


def test_golden_frames_are_checked_before_every_frame_reaches_every_sink(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(board, capsys, "--check")
    assert (code, json.loads(out)["golden_agreement"]) == (0, 1.0)
    video = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (160, 120))
    for frame in tiny.frames(7, 3, 120, 160):
        video.write(frame)
    video.release()
    sinks = [tmp_path / "out.mp4", tmp_path / "out.jsonl", f"{tmp_path}/masks/"]
    code, out, err = run(board, capsys, "--source", tmp_path / "in.avi", *(w for s in sinks for w in ("--sink", s)))
    assert code == 0, err
    assert json.loads(out)["frames"] == 7
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(7))
    assert all(sum(line["areas"].values()) == pytest.approx(1, abs=1e-3) for line in lines)
    masks = sorted((tmp_path / "masks").iterdir())
    assert len(masks) == 7
    assert cv2.imread(str(masks[0]), cv2.IMREAD_UNCHANGED).shape == (tiny.HEIGHT, tiny.WIDTH)
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 7


def edit(board: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((board / "bundle.json").read_text())
    change(manifest)
    (board / "bundle.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda b: (b / "model.onnx").write_bytes(b"x"), "model.onnx is missing or differs from its digest"),
        (lambda b: (b / "bundle.json").write_text("{"), "is not a bundle"),
        (lambda b: (b / "plan.json").unlink(), "plan.json is missing or differs from its digest"),
        (lambda b: (b / "golden" / "more.png").write_bytes(b"x"), "holds golden/more.png, which its manifest does not"),
        (lambda b: (b / "engine").mkdir() or (b / "engine" / "model.engine").write_bytes(b"x"), "engine/model.engine"),
        (lambda b: edit(b, lambda m: m.update(spec=3)), "is not a bundle for this runner"),
        (lambda b: edit(b, lambda m: m["files"].pop("plan.json")), "holds plan.json, which its manifest does not list"),
        (
            lambda b: (b / "bundle.json").write_text((b / "bundle.json").read_text().replace("model.onnx", "../x")),
            "names a file outside itself",
        ),
    ],
)
def test_a_damaged_bundle_is_rejected(
    board: Path, capsys: pytest.CaptureFixture[str], break_it: Callable[[Path], Any], message: str
) -> None:
    network = Network(board)
    break_it(board)
    assert RUNNER.main(["--bundle", str(board), "--check"], network) == 2
    assert message in capsys.readouterr().err


def test_an_engine_that_fails_the_golden_frames_never_sees_a_camera(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = RUNNER.main(
        ["--bundle", str(board), "--source", "none.mp4", "--sink", str(tmp_path / "o.jsonl")],
        lambda frame: np.zeros((8, 16, 24), np.float32),
    )
    assert code == 2
    assert "A golden frame agrees on" in capsys.readouterr().err
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "none.mp4"], "Source none.mp4 does not exist"),
        (["--source", "0", "--sink", "x.gif"], "Sink x.gif is not known"),
        (["--source", "0", "--sink", "/none/x.jsonl"], "No such file"),
    ],
)
def test_invalid_options_are_rejected(
    board: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, _, err = run(board, capsys, *words)
    assert code == 2 and message in err


def test_without_an_engine_the_error_says_how_to_build_one(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> str:
        assert RUNNER.main(["--bundle", str(board), "--check"]) == 2
        return capsys.readouterr().err

    assert "./build.sh" in refused()
    engine = engine_of(board, tmp_path)
    engine.parent.mkdir(parents=True, mode=0o700)
    engine.write_bytes(b"foreign")
    engine.with_name("model.engine.key").write_text("key\n" + "0" * 64 + "\n")
    assert "is not the engine that build.sh wrote" in refused()
    engine.parent.chmod(0o777)
    assert "can be written by other users" in refused()


# Signatures


@given(st.binary(max_size=80), st.binary(min_size=32, max_size=32), st.integers(0, 511), st.booleans())
def test_its_ed25519_agrees_with_a_library(message: bytes, seed: bytes, bit: int, other: bool) -> None:
    keys = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    private = keys.Ed25519PrivateKey.from_private_bytes(seed)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signature = private.sign(message)
    verifier = RUNNER.Ed25519(pem.decode())
    assert verifier.verifies(signature, message)
    damaged = bytearray(signature)
    damaged[bit // 8] ^= 1 << bit % 8
    assert not verifier.verifies(bytes(damaged), message)
    assert not verifier.verifies(signature, message + b"x")
    more = (int.from_bytes(signature[32:], "little") + RUNNER.Ed25519.ORDER).to_bytes(32, "little")
    assert not verifier.verifies(signature[:32] + more, message), "another form of the same number"


def test_a_required_signature(board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cryptography")
    from edgeseg import model_signing, signature

    public = signature.new_key(tmp_path / "k.pem")
    network = Network(board)

    def check(*words: object) -> tuple[int, str]:
        code = RUNNER.main(["--bundle", str(board), "--check", *map(str, words)], network)
        return code, capsys.readouterr().err

    required = ("--require-signature", public)
    assert "is not signed" in check(*required)[1]
    signature.sign(board, tmp_path / "k.pem")
    assert check(*required)[0] == 0
    model_signing.new_key(tmp_path / "oms.pem")
    model_signing.sign(board, tmp_path / "oms.pem")
    assert check(*required)[0] == 0, "model.sig is for other tools"
    assert "was not signed as version 2 or newer" in check(*required, "--min-version", 2)[1]
    signature.sign(board, tmp_path / "k.pem", "gate", 2)
    assert check(*required, "--min-version", 2, "--bundle-name", "gate")[0] == 0
    assert "was not signed as version 3" in check(*required, "--min-version", 3)[1]
    assert "was not signed as door" in check(*required, "--bundle-name", "door")[1]
    assert "without --require-signature" in check("--min-version", 2)[1]
    other = signature.new_key(tmp_path / "other.pem")
    assert "is not signed with this key" in check("--require-signature", other)[1]
    assert "is no public Ed25519 key" in check("--require-signature", tmp_path / "k.pem")[1]
    (board / "bundle.sig").write_text("zz")
    assert "is not a signature" in check(*required)[1]
    signature.sign(board, tmp_path / "k.pem")
    replan(board, {"precision": "fp16", "workspace_mb": 256, "dla": -1, "golden_agreement": 0.5})
    assert "was altered after signing" in check(*required)[1]


def test_passwords_are_not_printed() -> None:
    assert RUNNER.hide("rtsp://me:secret@camera/live") == "rtsp://..@camera/live"
    assert RUNNER.hide("rtsp://camera/live") == "rtsp://camera/live"


TRTEXEC = """#!/bin/sh
case "$*" in *--help*) echo "  %s"; exit 0;; esac
echo "$*" >> "$CALLS"
sleep ${SLEEP:-0}
for word; do case $word in --saveEngine=*) echo "engine of $$" > "${word#--saveEngine=}";; esac; done
exit ${FAIL:-0}
"""


def build(
    board: Path, tmp_path: Path, knows: str = "--memPoolSize --skipInference", again: bool = False, **env: str
) -> Any:
    """build.sh with a trtexec whose --help knows these options."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "trtexec").write_text(TRTEXEC % knows)
    (tools / "trtexec").chmod(0o755)
    env = {**path_first(tools), "CALLS": str(tmp_path / "calls"), **env}
    words = [board / "build.sh", *(["--again"] if again else [])]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []


def test_the_engine_is_built_once_and_rebuilt_after_it_was_altered(board: Path, tmp_path: Path) -> None:
    for _ in range(2):
        completed = build(board, tmp_path)
        assert completed.wait(30) == 0, completed.stderr.read()
    assert len(calls(tmp_path)) == 1
    engine = engine_of(board, tmp_path)
    assert RUNNER.find_engine(RUNNER.Bundle(str(board))) == engine.read_bytes()
    assert engine.parent.stat().st_mode & 0o777 == 0o700 and not (board / "engine").exists()
    engine.write_bytes(b"foreign")
    assert build(board, tmp_path).wait(30) == 0
    (board / "model.onnx").write_bytes(b"another graph")
    refused = build(board, tmp_path)
    assert refused.wait(30) == 2 and "model.onnx differs from its digest" in refused.stderr.read()
    tiny.reseal(board)
    assert build(board, tmp_path).wait(30) == 0
    assert len(calls(tmp_path)) == 3


def test_engines_are_not_built_where_others_can_write(board: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "runner").mkdir(parents=True)
    (tmp_path / "cache" / "runner").chmod(0o777)
    refused = build(board, tmp_path)
    assert refused.wait(30) == 2 and "can be written by other users" in refused.stderr.read()
    assert not calls(tmp_path)


def test_an_engine_is_built_again_on_request(board: Path, tmp_path: Path) -> None:
    assert build(board, tmp_path).wait(30) == 0
    assert build(board, tmp_path, again=True).wait(30) == 0
    assert len(calls(tmp_path)) == 2


@pytest.mark.parametrize(
    ("knows", "expected", "absent"),
    [
        ("--workspace --buildOnly", "--fp16 --workspace=256 --buildOnly", "memPoolSize"),
        ("--memPoolSize --skipInference", "--fp16 --memPoolSize=workspace:256 --skipInference", "--workspace"),
    ],
)
def test_the_options_of_each_trtexec(board: Path, tmp_path: Path, knows: str, expected: str, absent: str) -> None:
    assert build(board, tmp_path, knows).wait(30) == 0
    (call,) = calls(tmp_path)
    assert expected in call and absent not in call and "--int8" not in call and "DLA" not in call


def test_int8_on_a_dla(board: Path, tmp_path: Path) -> None:
    replan(board, {"precision": "int8", "workspace_mb": 512, "dla": 1, "golden_agreement": 0.97})
    assert build(board, tmp_path).wait(30) == 0
    assert "--int8 --fp16" in calls(tmp_path)[0] and "--useDLACore=1 --allowGPUFallback" in calls(tmp_path)[0]


def test_two_builds_at_once_build_one_engine(board: Path, tmp_path: Path) -> None:
    running = [build(board, tmp_path, SLEEP="1") for _ in range(2)]
    assert [one.wait(30) for one in running] == [0, 0]
    assert len(calls(tmp_path)) == 1


def test_a_build_that_fails_or_is_killed_leaves_no_engine(board: Path, tmp_path: Path) -> None:
    completed = build(board, tmp_path, FAIL="1")
    assert completed.wait(30) == 1 and "trtexec failed" in completed.stderr.read()
    killed = build(board, tmp_path, SLEEP="30")
    end = time.monotonic() + 20
    while len(calls(tmp_path)) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    killed.kill()
    killed.wait(30)
    assert not engine_of(board, tmp_path).exists()
    with pytest.raises(RUNNER.RunnerError, match="There is no engine"):
        RUNNER.find_engine(RUNNER.Bundle(str(board)))


def test_without_trtexec_the_error_says_how_to_install_it(board: Path) -> None:
    if Path("/usr/src/tensorrt/bin/trtexec").exists():
        pytest.skip("TensorRT is installed here")
    completed = subprocess.run([board / "build.sh"], capture_output=True, text=True)
    assert completed.returncode == 2 and "sudo apt install libnvinfer-bin" in completed.stderr

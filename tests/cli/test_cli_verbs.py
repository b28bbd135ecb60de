"""Every verb on real files: what it prints, where, and how it exits."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import typer

from edgeseg.bundle import Bundle, CalibrationDigest
from edgeseg.cli import app
from edgeseg.data.dataset import Dataset

Edgeseg = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]
VERBS = sorted(typer.main.get_command(app).commands)


def process(*words: object, **options: Any) -> subprocess.Popen[str]:
    """The command line as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from edgeseg.cli import main; main()", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        **options,
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(edgeseg: Edgeseg, verb: str) -> None:
    result = edgeseg(verb, "--help")
    assert result.code == 0
    assert re.search(rf"Usage: .*edgeseg {verb} \[OPTIONS\]", result.out)
    assert "Options" in result.out
    command = typer.main.get_command(app).commands[verb]
    assert command.help, "no description"
    assert not [p.name for p in command.params if p.param_type_name == "option" and not p.help], "options without help"


def test_no_arguments_show_the_verbs(edgeseg: Edgeseg) -> None:
    result = edgeseg()
    assert result.code in (0, 2)
    assert all(verb in result.out + result.err for verb in VERBS)
    assert edgeseg("--help").code == 0


def test_the_documentation_matches_the_program() -> None:
    result = importlib.util.spec_from_file_location("cli_docs", REPOSITORY / "docs" / "cli.py")
    assert result is not None and result.loader is not None
    module = importlib.util.module_from_spec(result)
    result.loader.exec_module(module)
    written = (REPOSITORY / "docs" / "cli.md").read_text()
    assert written == module.document(), "write it again: make docs"
    assert all(f"\n## {verb}" in written for verb in VERBS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compil"], "compile"),
        (["compile", "x.onnx", "--precission", "int8"], "--precision"),
        (["eval", "x", "--dataset", "y"], "--data"),
        (["bench", "x", "--seconds", "0.1"], "greater than or equal to 1"),
        (["bench", "x", "--seconds", "soon"], "'--seconds'"),
        (["compile"], "model"),
        (["calibrate", "x", "--out", "y", "--frames", "7"], "greater than or equal to 8"),
    ],
)
def test_unknown_values_are_rejected(edgeseg: Edgeseg, words: list[str], message: str) -> None:
    result = edgeseg(*words)
    assert (result.code, result.out) == (2, "")
    assert message.lower() in result.err.lower()


def test_compile_verify_eval_bench_in_a_row(network: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("compile", network, "--out", tmp_path / "b", "--data", street, "--json", tmp_path / "c.json")
    assert result.code == 0, result.err
    assert "agreement with parent" in result.out and "mIoU on street test" in result.out and "2 -> 0" in result.out
    assert f"wrote {tmp_path / 'b'}" in result.err
    compiled = json.loads((tmp_path / "c.json").read_text())
    assert compiled["bundle"] == str(tmp_path / "b") and compiled["metrics"]["frames"] == 4

    result = edgeseg("verify", tmp_path / "b")
    assert result.code == 0 and "9 digests, 3 golden frames, worst agreement 1.0000" in result.out

    result = edgeseg("eval", tmp_path / "b", "--data", street, "--split", "val", "--json", "-")
    assert result.code == 0, result.err
    assert json.loads(result.out)["frames"] == 2
    assert "pedestrian" in result.err and "pixel accuracy" in result.err

    result = edgeseg("bench", tmp_path / "b", "--seconds", "1", "--size", "96x64", "--json", "-")
    assert result.code == 0, result.err
    benched = json.loads(result.out)
    assert benched["miou"] == compiled["metrics"]["miou"]
    assert benched["bundle"]["digest"] == Bundle.load(tmp_path / "b").digest
    assert "FPS" in result.err and "network alone" in result.err


@pytest.mark.parametrize(
    "verb",
    ["compile", "quantize openvino-cpu", "quantize onnxruntime-cpu", "verify", "targets", "eval", "bench", "run"],
)
def test_json_on_standard_output_is_alone_there(
    verb: str, network: Path, bundle: Path, street: Path, tmp_path: Path
) -> None:
    verb, _, target = verb.partition(" ")
    words = {
        "compile": [network, "--out", tmp_path / "out"],
        "quantize": [
            *(network, "--calibration", street, "--calibration-frames", "8"),
            *("--target", target, "--out", tmp_path / "out"),
        ],
        "verify": [bundle],
        "targets": [],
        "eval": [bundle, "--data", street],
        "bench": [bundle, "--seconds", "1", "--size", "96x64"],
        "run": [bundle, "--source", street / "test" / "images"],
    }[verb]
    result = process(verb, *words, "--json", "-")
    out, err = result.communicate(timeout=120)
    assert result.returncode == 0, err
    assert isinstance(json.loads(out), dict)


def test_pictures_of_the_worst_frames(bundle: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("eval", bundle, "--data", street, "--pictures", tmp_path / "worst", "--json", "-")
    assert result.code == 0, result.err
    rows = json.loads(result.out)["pictures"]
    assert [Path(row["file"]).parent for row in rows] == [tmp_path / "worst"] * 4
    assert all(Path(row["file"]).stat().st_size > 1000 for row in rows)


def test_the_default_output_is_beside_the_model(network: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    shutil.copy(network, tmp_path / "net.onnx")
    assert edgeseg("compile", tmp_path / "net.onnx", "-p", "fp16").code == 0
    assert Bundle.load(tmp_path / "net-fp16").precision == "fp16"


def test_compile_uses_a_manifest_of_calibrate(network: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("calibrate", street, "--out", tmp_path / "c.json", "--frames", 9)
    assert result.code == 0, result.err
    digest = json.loads((tmp_path / "c.json").read_text())["digest"]
    assert re.search(rf"9 of \d+ frames of {street}, digest {digest[:16]}", " ".join(result.out.split()))
    words = ("-t", "onnxruntime-cpu", "-p", "int8", "--calibration", tmp_path / "c.json", "-o", tmp_path / "b")
    assert edgeseg("compile", network, *words).code == 0
    assert Bundle.load(tmp_path / "b").manifest.calibration == CalibrationDigest(9, digest)


def test_flags_describe_a_model_without_a_spec(tmp_path: Path, street: Path, edgeseg: Edgeseg) -> None:
    path = tiny.network(tmp_path / "foreign.onnx", spec=None)
    result = edgeseg("compile", path, "--out", tmp_path / "a")
    assert result.code == 0
    assert result.err.count("assumed") == 4
    words = ("--classes", street / "classes.txt", "--mean", "0.1,0.2,0.3", "--std", "0.4,0.5,0.6", "--color", "BGR")
    result = edgeseg("compile", path, *words, "--size", "96x64", "--out", tmp_path / "b")
    assert result.code == 0, result.err
    assert "assumed" not in result.err
    spec = Bundle.load(tmp_path / "b").spec
    assert spec.classes == Dataset.open(street, "test").classes.names
    assert (spec.mean, spec.std, spec.color) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "BGR")
    text = 'color = "BGR"\nmean = [0.1, 0.2, 0.3]\nstd = [0.4, 0.5, 0.6]\n'
    (tmp_path / "spec.toml").write_text(text + f"classes = {list(spec.classes)}\n")
    result = edgeseg("compile", path, "--spec", tmp_path / "spec.toml", "--std", "1,1,1", "--out", tmp_path / "c")
    assert result.code == 0, result.err
    again = Bundle.load(tmp_path / "c").spec
    assert (again.mean, again.std, again.color) == (spec.mean, (1.0, 1.0, 1.0), "BGR")


def test_a_long_list_of_class_names_is_not_taken_for_a_file_name(tmp_path: Path, edgeseg: Edgeseg) -> None:
    import onnx

    net = tiny.Net()
    onnx.save(net.model(net.resize(net.head("image", 150))), str(tmp_path / "many.onnx"))
    names = [f"a class with a long name {i}" for i in range(150)]
    result = edgeseg("compile", tmp_path / "many.onnx", "--classes", ",".join(names), "--out", tmp_path / "b")
    assert result.code == 0, result.err
    assert Bundle.load(tmp_path / "b").spec.classes == tuple(names)


def test_one_of_several_outputs(tmp_path: Path, edgeseg: Edgeseg) -> None:
    import onnx

    net = tiny.Net()
    main = net.resize(net.head("image", 5))
    aux = net.resize(net.head("image", 3))
    onnx.save(net.model(main, aux), str(tmp_path / "two.onnx"))
    result = edgeseg("compile", tmp_path / "two.onnx", "--output", aux, "--classes", "a,b,c", "--out", tmp_path / "b")
    assert result.code == 0, result.err
    assert Bundle.load(tmp_path / "b").spec.classes == ("a", "b", "c")
    result = edgeseg("compile", tmp_path / "two.onnx", "--output", aux, "--out", tmp_path / "c")
    assert result.code == 0, result.err  # the classes are counted at the requested output
    assert len(Bundle.load(tmp_path / "c").spec.classes) == 3
    result = edgeseg("compile", tmp_path / "two.onnx", "--output", "none", "--out", tmp_path / "d")
    assert result.code == 2 and f"Its outputs: {main}, {aux}" in result.err


RECIPE = """
name = "tiny"
[data]
root = "{street}"
size = [64, 96]
[teacher]
width = 0.25
epochs = 1
batch = 6
[student]
width = 0.25
epochs = 1
batch = 6
[prune]
epochs = 1
round_to = 2
[quantize]
frames = 8
[targets]
compile = ["onnxruntime-cpu:fp32", "onnxruntime-cpu:int8"]
"""


@pytest.fixture(scope="module")
def trained(street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipe.toml and the finished run of its pipeline."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    from edgeseg import pipeline
    from edgeseg.recipe import Recipe

    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.toml").write_text(RECIPE.format(street=street))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "BENCH_SECONDS", 0.2)
        pipeline.run(Recipe.load(folder / "recipe.toml"), folder / "run", lambda text: None)
    return folder


def test_a_checkpoint_is_exported_and_compiled(trained: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    shutil.copy(trained / "run" / "student.pt", tmp_path / "student.pt")
    result = edgeseg("compile", tmp_path / "student.pt", "--out", tmp_path / "b")
    assert result.code == 0, result.err
    assert Bundle.load(tmp_path / "b").manifest.parity.agreement >= 0.999


@pytest.mark.parametrize(("more", "code"), [(-0.5, 0), (0.5, 1)])
def test_a_drop_beyond_the_recipes_limit_exits_1(
    trained: Path, tmp_path: Path, edgeseg: Edgeseg, more: float, code: int
) -> None:
    """The ledger holds a better, or worse, float32 than was measured; no stage runs again."""
    shutil.copytree(trained / "run", tmp_path / "run")
    path = tmp_path / "run" / "ledger.json"
    rows = json.loads(path.read_text())
    rows["compile tiny-fp32"]["result"]["miou"] += more
    path.write_text(json.dumps(rows))
    outcome = edgeseg(
        "pipeline", trained / "recipe.toml", "--out", tmp_path / "run", "--json", tmp_path / "report.json"
    )
    assert outcome.code == code, outcome.err
    assert outcome.err.count(": unchanged") == len(rows)
    assert ("Error: tiny-int8 loses" in outcome.err) == (code == 1)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["ok"] for row in report["int8"]] == [code == 0]
    assert all((tmp_path / "run" / name).is_file() for name in ("report.json", "report.html", "report.md"))


def test_verify_detects_a_bundle_with_other_class_maps(bundle: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    """Another model under a manifest with its digests: only the golden frames detect it."""
    from edgeseg.compile import compile_model
    from edgeseg.target import Target

    other = compile_model(
        tiny.network(tmp_path / "other.onnx", seed=9),
        tmp_path / "other",
        Target.load("openvino-cpu"),
        "fp32",
        spec=tiny.SPEC,
        frames=tiny.frames(1),
    )
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    for name in ("model.xml", "model.bin", "bom.cdx.json"):
        shutil.copy(other.path / name, copy / name)
    result = edgeseg("verify", copy)
    assert result.code == 2 and "bom.cdx.json differs from its digest" in result.err
    tiny.reseal(copy)
    result = edgeseg("verify", copy)
    assert result.code == 2 and "a golden frame agrees on" in result.err and "Expected 99%" in result.err
    assert edgeseg("verify", copy, "--minimum", "0").code == 0


# Errors and their messages


def bad(name: str, content: bytes | None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        if content is not None:
            (folder / name).write_bytes(content)
        return folder / name

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad("m.onnx", None), "does not exist"),
        (bad("m.onnx", b""), "is empty (0 bytes)"),
        (bad("m.onnx", b"\x00garbage"), "cannot be read"),
        (lambda p: p, "is a folder"),
        (bad("m.pt", None), "does not exist"),
        (bad("m.pt", b""), "is empty (0 bytes)"),
        (bad("m.pt", b"\x00garbage"), "m.pt"),
        (bad("m.txt", b"hello"), "cannot be read"),
    ],
)
def test_invalid_models_are_rejected(
    tmp_path: Path, edgeseg: Edgeseg, make: Callable[[Path], Path], message: str
) -> None:
    (tmp_path / "in").mkdir()
    result = edgeseg("compile", make(tmp_path / "in"), "--out", tmp_path / "out")
    assert result.code == 2, result.err
    assert " Error: " in result.err and message in result.err
    assert len(result.err.strip().splitlines()) >= 2, "no hint"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "openvino_cpu"], "Did you mean 'openvino-cpu'"),
        (["--precision", "int4"], "Unknown precision 'int4'"),
        (["--target", "onnxruntime-cpu", "--precision", "bf16"], "It has: fp32, fp16, int8."),
        (["--precision", "int8"], "INT8 needs calibration frames"),
        (["--precision", "int8", "--calibration", "{empty}"], "No images in"),
        (["--precision", "int8", "--calibration", "{nowhere}"], "does not exist"),
        (["--precision", "int8", "--calibration", "{few}"], "holds 5 different frames"),
        (["--precision", "int8", "--calibration", "{file}"], "cannot be read"),
        (["--size", "100"], "is not a size"),
        (["--size", "axb"], "is not a size"),
        (["--size", "²x³"], "is not a size"),
        (["--size", "0x0"], "height is 0"),
        (["--size", "960x640"], "fixed at 96x64"),
        (["--size", "9" * 5000 + "x9"], "is not a size"),
        (["--classes", "a,b"], "Expected logits [1, 2, h, w]"),
        (["--classes", "a"], "1 classes"),
        (["--classes", "a,,c,d,e,f,g,h"], "none empty"),
        (["--classes", "a,a,c,d,e,f,g,h"], "class names that differ"),
        (["--classes", "{file}"], "cannot read"),
        (["--mean", "0.5"], "Expected three numbers"),
        (["--mean", "a,b,c"], "is not three numbers"),
        (["--mean", "nan,0,0"], "Expected three numbers"),
        (["--std", "0,1,1"], "std above 0"),
        (["--color", "rgb"], "Did you mean 'RGB'"),
        (["--head", "treshold"], "Did you mean 'threshold'"),
        (["--head", "threshold"], "'threshold' with 8 classes"),
        (["--spec", "{nowhere}"], "does not exist"),
        (["--spec", "{file}"], "is not valid TOML"),
        (["--spec", "{spec}"], "Did you mean 'height'"),
        (["--output", "masks"], "has no output 'masks'"),
        (["--data", "{nowhere}"], "does not exist"),
        (["--data", "{empty}"], "has no split 'test'"),
        (["--data", "{street}", "--split", "tset"], "Did you mean 'test'"),
        (["--out", "{file}"], "exists and holds something else"),
        (["--out", "{file}/inner"], "Cannot write"),
        (["--out", "{few}"], "exists and holds something else"),
        (["--json", "{file}/inner.json"], "Cannot write"),
        (["--json", "{empty}"], "Cannot write"),
        (["--json", ""], "Cannot write"),
    ],
)
def test_compile_rejects_invalid_options(
    network: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg, words: list[str], message: str
) -> None:
    from edgeseg.images import write_image

    places = {name: tmp_path / name for name in ("empty", "nowhere", "few", "file", "spec")} | {"street": street}
    places["empty"].mkdir()
    for i, frame in enumerate(tiny.frames(5)):
        write_image(places["few"] / f"{i}.png", frame)
    places["file"].write_text("this is = no list\n[")
    places["spec"].write_text("heigth = 64\n")
    values = [word.format(**places) for word in words]
    result = edgeseg("compile", network, *([] if "--out" in words else ["--out", tmp_path / "out"]), *values)
    assert result.code == 2, result.err
    assert message in result.err
    assert "Internal error" not in result.err and "Traceback" not in result.err
    assert (tmp_path / "out").exists() == ("--json" in words)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith((".tmp", ".old"))]


def corrupt(bundle: Path, folder: Path) -> Path:
    copy = Path(shutil.copytree(bundle, folder / "corrupt"))
    (copy / "model.xml").write_text("<net/>")
    return copy


@pytest.mark.parametrize("verb", ["verify", "eval", "bench", "run"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b, p: p / "nowhere", "is not a folder"),
        (lambda b, p: p, "it has no bundle.json"),
        (lambda b, p: b / "model.xml", "is not a folder"),
        (corrupt, "model.xml differs from its digest"),
    ],
)
def test_invalid_bundles_are_rejected(
    bundle: Path,
    street: Path,
    tmp_path: Path,
    edgeseg: Edgeseg,
    verb: str,
    make: Callable[[Path, Path], Path],
    message: str,
) -> None:
    more = {"eval": ["--data", street], "run": ["--source", street / "test" / "images"]}.get(verb, [])
    result = edgeseg(verb, make(bundle, tmp_path), *more)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_invalid_datasets_are_rejected(bundle: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    copy = Path(shutil.copytree(street, tmp_path / "copy"))
    (copy / "test" / "masks" / "00000.png").unlink()
    result = edgeseg("eval", bundle, "--data", copy)
    assert result.code == 2 and "has no mask" in result.err
    shutil.copy(copy / "test" / "images" / "00000.png", copy / "test" / "masks" / "00000.png")
    result = edgeseg("eval", bundle, "--data", copy)
    assert result.code == 2 and "Expected one channel of class ids" in result.err
    (copy / "classes.txt").write_text("0 road 1 2 3\n1 sky 1 2 3\n")
    result = edgeseg("eval", bundle, "--data", copy)
    assert result.code == 2 and "The model's classes are" in result.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        ("name = ", "not valid TOML"),
        ('name = "x"\n[data]\nroot = "."\nsize = [64, 96]\n[studnet]\n', "Did you mean 'student'"),
        ('name = "x"\n[data]\nroot = "nowhere"\nsize = [64, 96]\n', "does not exist"),
        ('name = "x"\n[data]\nroot = "."\nsize = [64, 96]\n[targets]\ncompile = ["openvino-cpu:int9"]\n', "int9"),
    ],
)
def test_invalid_recipes_are_rejected(tmp_path: Path, edgeseg: Edgeseg, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "recipe.toml").write_text(text)
    result = edgeseg("pipeline", tmp_path / "recipe.toml", "--out", tmp_path / "run")
    assert result.code == 2, result.err
    assert message in result.err


@pytest.mark.parametrize("size", ["0x0", "1000000x1000000", "96", "-1x5"])
def test_bench_rejects_invalid_sizes(bundle: Path, edgeseg: Edgeseg, size: str) -> None:
    result = edgeseg("bench", bundle, "--seconds", "1", "--size", size)
    assert result.code == 2, result.err
    assert "Internal error" not in result.err


def test_synth_rejects_a_folder_that_is_not_empty(street: Path, edgeseg: Edgeseg) -> None:
    before = sorted(street.rglob("*"))
    result = edgeseg("synth", street, "--train", 1, "--val", 1, "--test", 1)
    assert result.code == 2 and "already exists" in result.err
    assert sorted(street.rglob("*")) == before


# Exit codes of the process itself


def test_an_internal_error_is_reported_as_one_and_debug_shows_its_traceback(
    bundle: Path, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "load", lambda path: 1 / 0)
    result = edgeseg("verify", bundle)
    assert result.code == 70
    assert "Internal error: ZeroDivisionError" in result.err and "--debug" in result.err
    monkeypatch.setattr(sys, "argv", ["edgeseg", "--debug", "verify", str(bundle)])  # where main looks for it
    result = edgeseg("--debug", "verify", bundle)
    assert result.code == 70 and "Traceback" in result.err and "ZeroDivisionError: division by zero" in result.err


def test_debug_shows_the_traceback_of_a_user_error(tmp_path: Path) -> None:
    result = process("--debug", "verify", tmp_path / "nowhere")
    _, err = result.communicate(timeout=60)
    assert "Traceback" in err and "BundleError" in err
    assert result.returncode != 0
    result = process("verify", tmp_path / "nowhere")
    _, err = result.communicate(timeout=60)
    assert result.returncode == 2 and "Traceback" not in err


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("preexec", [None, ignore_interrupts], ids=["", "SIGINT ignored at the start"])
def test_an_interrupt_exits_130_and_leaves_nothing(tmp_path: Path, preexec: Callable[[], None] | None) -> None:
    """Also where SIGINT was ignored at the start, as in the background jobs of a script."""
    words = ("synth", tmp_path / "data", "--train", 5000, "--size", "384x224")
    result = process(*words, preexec_fn=preexec)
    try:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".data.*.tmp/train/images/*.png")) and time.monotonic() < deadline:
            time.sleep(0.05)
        result.send_signal(signal.SIGINT)
        _, err = result.communicate(timeout=30)
    finally:
        result.kill()
    assert result.returncode == 130, err
    assert "Traceback" not in err and "Internal error" not in err
    assert not any(tmp_path.iterdir())


def test_a_pipe_that_closes_early_is_not_an_internal_error(bundle: Path) -> None:
    result = process("targets", "--json", "-")
    assert result.stdout is not None and result.stderr is not None
    result.stdout.close()
    err = result.stderr.read()
    result.stderr.close()
    result.wait(timeout=30)
    assert "Internal error" not in err and "Traceback" not in err

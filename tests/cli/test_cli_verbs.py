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
    ran = edgeseg(verb, "--help")
    assert ran.code == 0
    assert re.search(rf"Usage: .*edgeseg {verb} \[OPTIONS\]", ran.out)
    assert "Options" in ran.out
    command = typer.main.get_command(app).commands[verb]
    assert command.help, "no description"
    assert not [p.name for p in command.params if p.param_type_name == "option" and not p.help], "options without help"


def test_no_arguments_show_the_verbs(edgeseg: Edgeseg) -> None:
    ran = edgeseg()
    assert ran.code in (0, 2)
    assert all(verb in ran.out + ran.err for verb in VERBS)
    assert edgeseg("--help").code == 0


def test_the_documentation_is_what_the_program_says() -> None:
    found = importlib.util.spec_from_file_location("cli_docs", REPOSITORY / "docs" / "cli.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
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
def test_words_that_are_no_words(edgeseg: Edgeseg, words: list[str], message: str) -> None:
    ran = edgeseg(*words)
    assert (ran.code, ran.out) == (2, "")
    assert message.lower() in ran.err.lower()


def test_compile_verify_eval_bench_in_a_row(network: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    ran = edgeseg("compile", network, "--out", tmp_path / "b", "--data", street, "--json", tmp_path / "c.json")
    assert ran.code == 0, ran.err
    assert "agreement with parent" in ran.out and "mIoU on street test" in ran.out and "2 -> 0" in ran.out
    assert f"wrote {tmp_path / 'b'}" in ran.err
    made = json.loads((tmp_path / "c.json").read_text())
    assert made["bundle"] == str(tmp_path / "b") and made["metrics"]["frames"] == 4

    ran = edgeseg("verify", tmp_path / "b")
    assert ran.code == 0 and "8 digests, 3 golden frames, worst agreement 1.0000" in ran.out

    ran = edgeseg("eval", tmp_path / "b", "--data", street, "--split", "val", "--json", "-")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["frames"] == 2
    assert "pedestrian" in ran.err and "pixel accuracy" in ran.err

    ran = edgeseg("bench", tmp_path / "b", "--seconds", "1", "--size", "96x64", "--json", "-")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["miou"] == made["metrics"]["miou"]
    assert found["bundle"]["digest"] == Bundle.load(tmp_path / "b").digest
    assert "FPS" in ran.err and "network alone" in ran.err


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
    ran = process(verb, *words, "--json", "-")
    out, err = ran.communicate(timeout=120)
    assert ran.returncode == 0, err
    assert isinstance(json.loads(out), dict)


def test_pictures_of_the_worst_frames(bundle: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    ran = edgeseg("eval", bundle, "--data", street, "--pictures", tmp_path / "worst", "--json", "-")
    assert ran.code == 0, ran.err
    rows = json.loads(ran.out)["pictures"]
    assert [Path(row["file"]).parent for row in rows] == [tmp_path / "worst"] * 4
    assert all(Path(row["file"]).stat().st_size > 1000 for row in rows)


def test_the_default_output_stands_beside_the_model(network: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    shutil.copy(network, tmp_path / "net.onnx")
    assert edgeseg("compile", tmp_path / "net.onnx", "-p", "fp16").code == 0
    assert Bundle.load(tmp_path / "net-fp16").precision == "fp16"


def test_a_manifest_of_calibrate_is_what_compile_uses(
    network: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg
) -> None:
    ran = edgeseg("calibrate", street, "--out", tmp_path / "c.json", "--frames", 9)
    assert ran.code == 0, ran.err
    digest = json.loads((tmp_path / "c.json").read_text())["digest"]
    assert re.search(rf"9 of \d+ frames of {street}, digest {digest[:16]}", " ".join(ran.out.split()))
    words = ("-t", "onnxruntime-cpu", "-p", "int8", "--calibration", tmp_path / "c.json", "-o", tmp_path / "b")
    assert edgeseg("compile", network, *words).code == 0
    assert Bundle.load(tmp_path / "b").manifest.calibration == CalibrationDigest(9, digest)


def test_flags_describe_a_foreign_model(tmp_path: Path, street: Path, edgeseg: Edgeseg) -> None:
    path = tiny.network(tmp_path / "foreign.onnx", spec=None)
    ran = edgeseg("compile", path, "--out", tmp_path / "a")
    assert ran.code == 0
    assert ran.err.count("assumed") == 4
    words = ("--classes", street / "classes.txt", "--mean", "0.1,0.2,0.3", "--std", "0.4,0.5,0.6", "--color", "BGR")
    ran = edgeseg("compile", path, *words, "--size", "96x64", "--out", tmp_path / "b")
    assert ran.code == 0, ran.err
    assert "assumed" not in ran.err
    spec = Bundle.load(tmp_path / "b").spec
    assert spec.classes == Dataset.open(street, "test").classes.names
    assert (spec.mean, spec.std, spec.color) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "BGR")
    text = 'color = "BGR"\nmean = [0.1, 0.2, 0.3]\nstd = [0.4, 0.5, 0.6]\n'
    (tmp_path / "spec.toml").write_text(text + f"classes = {list(spec.classes)}\n")
    ran = edgeseg("compile", path, "--spec", tmp_path / "spec.toml", "--std", "1,1,1", "--out", tmp_path / "c")
    assert ran.code == 0, ran.err
    again = Bundle.load(tmp_path / "c").spec
    assert (again.mean, again.std, again.color) == (spec.mean, (1.0, 1.0, 1.0), "BGR")


def test_a_long_list_of_class_names_is_no_file_name(tmp_path: Path, edgeseg: Edgeseg) -> None:
    import onnx

    net = tiny.Net()
    onnx.save(net.model(net.resize(net.head("image", 150))), str(tmp_path / "many.onnx"))
    names = [f"a class with a long name {i}" for i in range(150)]
    ran = edgeseg("compile", tmp_path / "many.onnx", "--classes", ",".join(names), "--out", tmp_path / "b")
    assert ran.code == 0, ran.err
    assert Bundle.load(tmp_path / "b").spec.classes == tuple(names)


def test_one_of_several_outputs(tmp_path: Path, edgeseg: Edgeseg) -> None:
    import onnx

    net = tiny.Net()
    main = net.resize(net.head("image", 5))
    aux = net.resize(net.head("image", 3))
    onnx.save(net.model(main, aux), str(tmp_path / "two.onnx"))
    ran = edgeseg("compile", tmp_path / "two.onnx", "--output", aux, "--classes", "a,b,c", "--out", tmp_path / "b")
    assert ran.code == 0, ran.err
    assert Bundle.load(tmp_path / "b").spec.classes == ("a", "b", "c")
    ran = edgeseg("compile", tmp_path / "two.onnx", "--output", aux, "--out", tmp_path / "c")
    assert ran.code == 0, ran.err  # the classes are counted at the output that was asked for
    assert len(Bundle.load(tmp_path / "c").spec.classes) == 3
    ran = edgeseg("compile", tmp_path / "two.onnx", "--output", "none", "--out", tmp_path / "d")
    assert ran.code == 2 and f"Its outputs: {main}, {aux}" in ran.err


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
    ran = edgeseg("compile", tmp_path / "student.pt", "--out", tmp_path / "b")
    assert ran.code == 0, ran.err
    assert Bundle.load(tmp_path / "b").manifest.parity.agreement >= 0.999


@pytest.mark.parametrize(("more", "code"), [(-0.5, 0), (0.5, 1)])
def test_a_drop_beyond_the_recipes_limit_exits_1(
    trained: Path, tmp_path: Path, edgeseg: Edgeseg, more: float, code: int
) -> None:
    """The ledger is told that float32 was better, or worse, than it was; nothing is made again."""
    shutil.copytree(trained / "run", tmp_path / "run")
    path = tmp_path / "run" / "ledger.json"
    rows = json.loads(path.read_text())
    rows["compile tiny-fp32"]["result"]["miou"] += more
    path.write_text(json.dumps(rows))
    ran = edgeseg("pipeline", trained / "recipe.toml", "--out", tmp_path / "run", "--json", tmp_path / "report.json")
    assert ran.code == code, ran.err
    assert ran.err.count(": unchanged") == len(rows)
    assert ("Error: tiny-int8 loses" in ran.err) == (code == 1)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["ok"] for row in report["int8"]] == [code == 0]
    assert all((tmp_path / "run" / name).is_file() for name in ("report.json", "report.html", "report.md"))


def test_verify_tells_a_bundle_that_says_something_else(bundle: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    """Another model under a manifest that is true of it: the golden frames give it away."""
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
    for name in ("model.xml", "model.bin"):
        shutil.copy(other.path / name, copy / name)
    ran = edgeseg("verify", copy)
    assert ran.code == 2 and "model.bin differs from its digest" in ran.err
    tiny.reseal(copy)
    ran = edgeseg("verify", copy)
    assert ran.code == 2 and "a golden frame agrees on" in ran.err and "Expected 99%" in ran.err
    assert edgeseg("verify", copy, "--minimum", "0").code == 0


# What goes wrong, and what is said


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
def test_models_that_are_none(tmp_path: Path, edgeseg: Edgeseg, make: Callable[[Path], Path], message: str) -> None:
    (tmp_path / "in").mkdir()
    ran = edgeseg("compile", make(tmp_path / "in"), "--out", tmp_path / "out")
    assert ran.code == 2, ran.err
    assert " Error: " in ran.err and message in ran.err
    assert len(ran.err.strip().splitlines()) >= 2, "no hint"
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
def test_what_compile_refuses(
    network: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg, words: list[str], message: str
) -> None:
    from edgeseg.images import write_image

    places = {name: tmp_path / name for name in ("empty", "nowhere", "few", "file", "spec")} | {"street": street}
    places["empty"].mkdir()
    for i, frame in enumerate(tiny.frames(5)):
        write_image(places["few"] / f"{i}.png", frame)
    places["file"].write_text("this is = no list\n[")
    places["spec"].write_text("heigth = 64\n")
    given = [word.format(**places) for word in words]
    ran = edgeseg("compile", network, *([] if "--out" in words else ["--out", tmp_path / "out"]), *given)
    assert ran.code == 2, ran.err
    assert message in ran.err
    assert "Internal error" not in ran.err and "Traceback" not in ran.err
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
def test_bundles_that_are_none(
    bundle: Path,
    street: Path,
    tmp_path: Path,
    edgeseg: Edgeseg,
    verb: str,
    make: Callable[[Path, Path], Path],
    message: str,
) -> None:
    more = {"eval": ["--data", street], "run": ["--source", street / "test" / "images"]}.get(verb, [])
    ran = edgeseg(verb, make(bundle, tmp_path), *more)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_data_that_is_none(bundle: Path, street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    copy = Path(shutil.copytree(street, tmp_path / "copy"))
    (copy / "test" / "masks" / "00000.png").unlink()
    ran = edgeseg("eval", bundle, "--data", copy)
    assert ran.code == 2 and "has no mask" in ran.err
    shutil.copy(copy / "test" / "images" / "00000.png", copy / "test" / "masks" / "00000.png")
    ran = edgeseg("eval", bundle, "--data", copy)
    assert ran.code == 2 and "one 8-bit channel" in ran.err
    (copy / "classes.txt").write_text("0 road 1 2 3\n1 sky 1 2 3\n")
    ran = edgeseg("eval", bundle, "--data", copy)
    assert ran.code == 2 and "The model's classes are" in ran.err


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
def test_recipes_that_are_none(tmp_path: Path, edgeseg: Edgeseg, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "recipe.toml").write_text(text)
    ran = edgeseg("pipeline", tmp_path / "recipe.toml", "--out", tmp_path / "run")
    assert ran.code == 2, ran.err
    assert message in ran.err


@pytest.mark.parametrize("size", ["0x0", "1000000x1000000", "96", "-1x5"])
def test_sizes_that_bench_refuses(bundle: Path, edgeseg: Edgeseg, size: str) -> None:
    ran = edgeseg("bench", bundle, "--seconds", "1", "--size", size)
    assert ran.code == 2, ran.err
    assert "Internal error" not in ran.err


def test_synth_refuses_a_folder_that_holds_something(street: Path, edgeseg: Edgeseg) -> None:
    before = sorted(street.rglob("*"))
    ran = edgeseg("synth", street, "--train", 1, "--val", 1, "--test", 1)
    assert ran.code == 2 and "already exists" in ran.err
    assert sorted(street.rglob("*")) == before


# Exit codes of the process itself


def test_an_internal_error_says_so_and_debug_shows_it(
    bundle: Path, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "load", lambda path: 1 / 0)
    ran = edgeseg("verify", bundle)
    assert ran.code == 70
    assert "Internal error: ZeroDivisionError" in ran.err and "--debug" in ran.err
    with pytest.raises(ZeroDivisionError):
        edgeseg("--debug", "verify", bundle)


def test_debug_shows_where_a_users_error_came_from(tmp_path: Path) -> None:
    ran = process("--debug", "verify", tmp_path / "nowhere")
    _, err = ran.communicate(timeout=60)
    assert "Traceback" in err and "BundleError" in err
    assert ran.returncode != 0
    ran = process("verify", tmp_path / "nowhere")
    _, err = ran.communicate(timeout=60)
    assert ran.returncode == 2 and "Traceback" not in err


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("preexec", [None, ignore_interrupts], ids=["", "SIGINT ignored at the start"])
def test_an_interrupt_exits_130_and_leaves_nothing(tmp_path: Path, preexec: Callable[[], None] | None) -> None:
    """Also where SIGINT was ignored at the start, as in the background jobs of a script."""
    words = ("synth", tmp_path / "data", "--train", 5000, "--size", "384x224")
    ran = process(*words, preexec_fn=preexec)
    try:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".data.*.tmp/train/images/*.png")) and time.monotonic() < deadline:
            time.sleep(0.05)
        ran.send_signal(signal.SIGINT)
        _, err = ran.communicate(timeout=30)
    finally:
        ran.kill()
    assert ran.returncode == 130, err
    assert "Traceback" not in err and "Internal error" not in err
    assert not any(tmp_path.iterdir())


def test_a_pipe_that_closes_early_is_no_bug(bundle: Path) -> None:
    ran = process("targets", "--json", "-")
    assert ran.stdout is not None and ran.stderr is not None
    ran.stdout.close()
    err = ran.stderr.read()
    ran.stderr.close()
    ran.wait(timeout=30)
    assert "Internal error" not in err and "Traceback" not in err

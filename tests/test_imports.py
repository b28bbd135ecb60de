"""What may import what: verified by blocking packages in fresh processes, and by reading every import statement."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgeseg as package
from edgeseg import backends

ROOT = Path(package.__file__).parent
HEAVY = ("torch", "torchvision", "timm", "segmentation_models_pytorch", "torch_pruning", "nncf", "onnx", "onnxruntime",
         "lightning_fabric", "mlflow", "tensorboard", "onnxslim", "scipy", "sklearn", "av", "gi", "cryptography",
         "ai_edge_litert", "ai_edge_quantizer", "tflite_runtime", "prometheus_client", "paho")  # fmt: skip
# A finder that comes first and refuses: as if the packages were not installed.
BLOCK = """
import sys
class Refuse:
    blocked = {blocked!r}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)
sys.meta_path.insert(0, Refuse())
"""


def python(code: str, blocked: tuple[str, ...], *words: object) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter without some packages."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=blocked) + code, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def edgeseg(blocked: tuple[str, ...], *words: object) -> subprocess.CompletedProcess[str]:
    """The command line without some packages."""
    return python("from edgeseg.cli import main; main()", blocked, *words)


def without(name: str) -> tuple[str, ...]:
    """Every optional package but one runtime."""
    return tuple(p for p in (*HEAVY, "openvino") if p != name)


@pytest.mark.parametrize(
    ("target", "runtime"),
    [("openvino-cpu", "openvino"), ("onnxruntime-cpu", "onnxruntime"), ("tflite-cpu", "ai_edge_litert")],
)
def test_a_device_needs_its_own_runtime_only(
    target: str, runtime: str, bundle_of: Callable[[str, str], Path], street: Path, tmp_path: Path
) -> None:
    bundle = bundle_of(target, "fp32")
    blocked = without(runtime)
    images = street / "test" / "images"
    result = edgeseg(
        blocked, "run", bundle, "--source", images, "--sink", tmp_path / "out", "--json", tmp_path / "r.json"
    )
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "r.json").read_text())["frames"] == 4
    assert len(list((tmp_path / "out").rglob("*.png"))) >= 4
    result = edgeseg(blocked, "verify", bundle, "--json", "-")
    assert result.returncode == 0, result.stderr
    assert min(json.loads(result.stdout)["golden_agreement"]) == 1
    result = edgeseg(blocked, "eval", bundle, "--data", street, "--json", tmp_path / "eval.json")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "eval.json").read_text())["frames"] == 4
    result = edgeseg(blocked, "bench", bundle, "--seconds", "1", "--size", "96x64", "--json", tmp_path / "bench.json")
    assert result.returncode == 0, result.stderr
    result = edgeseg(blocked, "report", tmp_path / "eval.json", tmp_path / "bench.json", "--out", tmp_path / "r.html")
    assert result.returncode == 0, result.stderr


def test_int8_for_openvino_needs_no_other_runtime(network: Path, street: Path, tmp_path: Path) -> None:
    """`make demo` installs [openvino,compress,camera]: ranges and biases need no ONNX Runtime, with equal results."""
    words = ("compile", network, "-p", "int8", "--calibration", street, "--equalize", "--json", "-", "-o")
    agreement = []
    for name, missing in (("lean", ("onnxruntime",)), ("full", ())):
        result = edgeseg(missing, *words, tmp_path / name)
        assert result.returncode == 0, result.stderr
        agreement.append(json.loads(result.stdout)["parity"]["agreement"])
    assert agreement[0] == pytest.approx(agreement[1], abs=0.01)


DEVICE = """backends stream bench evaluation data synth report runtime segmenter telemetry cli bundle errors
files images ledger machine mask recipe signature spec target timing toml""".split()


def modules() -> list[str]:
    return [m.name for m in pkgutil.walk_packages([str(ROOT)], "edgeseg.") if "._mask" not in m.name]


def test_every_device_module_imports_without_any_optional_package() -> None:
    expected = [m for m in modules() if m.split(".")[1] in DEVICE]
    assert len(expected) > 30
    code = f"""
import importlib
for name in {expected!r}:
    importlib.import_module(name)
leaked = sorted({{m.split(".")[0] for m in sys.modules}} & set(Refuse.blocked))
assert not leaked, leaked
"""
    result = python(code, without(""))
    assert result.returncode == 0, result.stderr


def test_the_kernel_may_be_missing() -> None:
    code = """
sys.modules["edgeseg._mask"] = None
import numpy as np
from edgeseg import mask
assert mask._mask is None
assert mask.class_map(np.eye(4, dtype=np.float32).reshape(4, 2, 2), 8, 8, "half_pixel").max() == 3
"""
    result = python(code, HEAVY)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("blocked", "words", "message"),
    [
        (("openvino",), ("verify", "{openvino}"), "pip install 'edgeseg[openvino]'"),
        (("onnxruntime",), ("verify", "{onnxruntime}"), "pip install 'edgeseg[onnxruntime]'"),
        (("openvino",), ("compile", "{network}", "-o", "{out}"), "pip install 'edgeseg[openvino]'"),
        (("onnx",), ("compile", "{network}", "-o", "{out}"), "pip install 'edgeseg[compress]'"),
        (
            ("nncf",),
            ("compile", "{network}", "-p", "int8", "--calibration", "{street}", "-o", "{out}"),
            "pip install 'edgeseg[compress,openvino]'",
        ),
        (
            ("onnxruntime",),
            ("compile", "{network}", "-t", "onnxruntime-cpu", "-o", "{out}"),
            "pip install 'edgeseg[onnxruntime]'",
        ),
        (
            ("ai_edge_litert",),
            ("compile", "{network}", "-t", "tflite-cpu", "-o", "{out}"),
            "pip install 'edgeseg[tflite]'",
        ),
        (
            ("ai_edge_quantizer",),
            ("compile", "{network}", "-t", "tflite-cpu", "-p", "int8", "--calibration", "{street}", "-o", "{out}"),
            "pip install 'edgeseg[compress,tflite]'",
        ),
        (("cryptography",), ("keygen", "{out}"), "pip install 'edgeseg[sign]'"),
        (("pycocotools",), ("data", "import", "{labels}", "--out", "{out}"), "pip install 'edgeseg[data]'"),
        (("yaml",), ("data", "import", "{yolo}", "--out", "{out}"), "pip install 'edgeseg[data]'"),
        (("torch",), ("compile", "{checkpoint}", "-o", "{out}"), "pip install 'edgeseg[train]'"),
        (("torch",), ("export", "{checkpoint}", "--out", "{out}"), "pip install 'edgeseg[train]'"),
        (("torch",), ("train", "{recipe}", "--role", "teacher", "--out", "{out}"), "pip install 'edgeseg[train]'"),
    ],
)
def test_a_missing_package_names_what_to_install(
    blocked: tuple[str, ...],
    words: tuple[str, ...],
    message: str,
    bundle_of: Callable[[str, str], Path],
    network: Path,
    street: Path,
    tmp_path: Path,
) -> None:
    places = {
        "network": network,
        "street": street,
        "out": tmp_path / "out",
        "checkpoint": tmp_path / "net.pt",
        "recipe": tmp_path / "recipe.toml",
    }
    places["checkpoint"].write_bytes(b"PK")
    places["labels"], places["yolo"] = tmp_path / "labels.json", tmp_path / "data.yaml"
    frame = next((street / "test/images").iterdir())
    image, annotation = {"id": 1, "file_name": frame.name, "width": 96, "height": 64}, {"image_id": 1, "category_id": 1}
    (tmp_path / frame.name).write_bytes(frame.read_bytes())
    places["labels"].write_text(
        json.dumps({"images": [image], "categories": [{"id": 1, "name": "car"}],
                    "annotations": [{**annotation, "segmentation": [[1, 1, 9, 1, 9, 9]]}]})
    )  # fmt: skip
    places["yolo"].write_text("names: [car]")
    places["recipe"].write_text(f'name = "x"\n[data]\nroot = "{street}"\nsize = [64, 96]\n')
    for runtime in ("openvino", "onnxruntime"):
        if f"{{{runtime}}}" in words:
            places[runtime] = bundle_of(f"{runtime}-cpu", "fp32")
    result = edgeseg(blocked, *(word.format(**places) for word in words))
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_targets_gives_the_reason_why_one_cannot_run_here() -> None:
    result = edgeseg(("openvino",), "targets", "--json", "-")
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert "pip install 'edgeseg[openvino]'" in rows["openvino-cpu"]["missing"]
    assert rows["onnxruntime-cpu"]["missing"] == ""


def test_int8_for_onnxruntime_needs_no_torch(network: Path, street: Path, tmp_path: Path) -> None:
    """Compiling works where nothing of training is installed, as on a laptop with [openvino,compress]."""
    words = ("compile", network, "-t", "onnxruntime-cpu", "-p", "int8", "--calibration", street, "-o", tmp_path / "out")
    result = edgeseg(("torch", "torchvision", "timm", "onnxslim", "scipy", "sklearn"), *words)
    assert result.returncode == 0, result.stderr


# The rules of the layout, read from the source

# Lowest layer first: a module imports from its own package and from the layers above it in this list, lazily or not.
# A package that does not exist yet already has its row.
LAYERS = [
    "errors plugins cpus packages licenses files directory user_cache image_header images toml ledger timing records",
    "precision spec fit geometry motion blur panoptic overlay segment_overlay result target recipe mask results heads "
    "bundle",
    "bom signature model_signing",
    "zoo",
    "onnx_graph",
    "segmenter reuse tiling",
    "tensorrt tflite runner",
    "backends",
    "runtime machine",
    "data",
    "synth",
    "bench",
    "evaluation",
    "telemetry monitoring",
    "stream serving",
    "report",
    "calibration",
    "quantization",
    "profiling",
    "compile exporters probe",
    "search",
    "training",
    "labeling",
    "fleet",
    "pipeline loop dvc",
    "cli",
]
RANK = {name: i for i, row in enumerate(LAYERS) for name in row.split()}
# What no module of these packages imports when it is loaded itself; they may inside a function.
LAZY = """torch torchvision timm segmentation_models_pytorch torch_pruning nncf openvino onnxruntime av gi cryptography
prometheus_client paho tensorrt cuda edgeseg.training""".split()
# What the packages that run on a device never import, not even inside a function.
DEVICE_SIDE = """segmenter tiling motion reuse runtime runner heads mask bundle data synth bench evaluation telemetry
monitoring stream serving""".split()
NEVER_ON_A_DEVICE = ("torch", "onnx", "nncf", "edgeseg.onnx_graph", "edgeseg.quantization", "edgeseg.training")
# Packages whose modules are found by file name and do not know each other.
PLUGINS = ("backends", "training.families", "stream.sources", "stream.sinks", "heads", "data.formats", "data.checks",
           "quantization.schemes", "exporters")  # fmt: skip


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_load(tree: ast.Module) -> Iterator[str]:
    """What is imported when the module is: not in functions, not for type checkers."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield from imports(node)


# Programs of their own: `python -m edgeseg`, and the file that bundles carry to boards without edgeseg.
PROGRAMS = ("edgeseg.__main__", "edgeseg.runner.runner")


def name_of(path: Path) -> str:
    return ".".join(("edgeseg", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


SOURCES = {name: ast.parse(p.read_text()) for p in ROOT.rglob("*.py") if (name := name_of(p)) not in PROGRAMS}


def module_of(name: str) -> str:
    """The module of edgeseg that `name`, a module or something in one, belongs to; "" for other packages."""
    while name and name not in SOURCES:
        name = name.rpartition(".")[0]
    return name


EDGES = {name: {module_of(n) for n in imports(tree)} - {"", "edgeseg", name} for name, tree in SOURCES.items()}


def package_of(module: str) -> str:
    return module.split(".")[1]


def inside(name: str, *places: str) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("module", sorted(set(SOURCES) - {"edgeseg"}))
def test_imports_follow_the_table(module: str) -> None:
    package, named = package_of(module), list(imports(SOURCES[module]))
    assert package in RANK, f"give {package} a row in LAYERS"
    upward = [other for other in EDGES[module] if RANK[package_of(other)] > RANK[package]]
    assert not upward, f"{module} is below {upward}"
    if package not in ("training", "cli", "pipeline", "loop"):
        assert not [n for n in named if inside(n, "torch", "timm", "edgeseg.training")], "torch lives in training only"
    if package != "training":
        assert not [n for n in at_load(SOURCES[module]) if inside(n, *LAZY)], "import it where it is used"
    if package in DEVICE_SIDE:
        assert not [n for n in named if inside(n, *NEVER_ON_A_DEVICE)], f"{package} runs on devices"
    home, _, own = module.removeprefix("edgeseg.").rpartition(".")
    if home in PLUGINS:
        others = {m for m in SOURCES if m.startswith(f"edgeseg.{home}.")}
        known = EDGES[module] & others
        assert not known - shared(home), f"{own} knows its neighbor {known}"


def shared(home: str) -> set[str]:
    """Modules of a plugin package that are helpers of the others: their names start with an underscore."""
    return {m for m in SOURCES if m.rpartition(".")[2].startswith("_") and m.startswith(f"edgeseg.{home}.")}


def test_no_import_cycles() -> None:
    """Lazy imports and those for type checkers count."""
    observed: dict[str, int] = {}  # 1: on the path, 2: done

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert observed.get(module) != 1, f"cycle: {' -> '.join((*path, module))}"
        if module in observed:
            return
        observed[module] = 1
        for other in sorted(EDGES[module]):
            visit(other, (*path, module))
        observed[module] = 2

    for module in sorted(EDGES):
        if module != "edgeseg":
            visit(module, ())


@pytest.mark.parametrize("module", sorted(m for m in SOURCES if not inside(m, "edgeseg.cli")))
def test_nothing_but_the_command_line_prints_exits_or_reads_the_environment(module: str) -> None:
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "sys.exit", "exit", "quit", "os.getenv"), f"{module}:{node.lineno} {called}"
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "os.environ", f"{module}:{node.lineno}"


def test_a_backend_is_named_in_its_own_file_and_tables_only() -> None:
    """Adding one is one new file: nothing else branches on its name."""
    for module, tree in SOURCES.items():
        if inside(module, "edgeseg.backends", "edgeseg.quantization", "edgeseg.cli"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                constants = [c.value for c in (node.left, *node.comparators) if isinstance(c, ast.Constant)]
                assert not set(constants) & set(backends.names()), f"{module}:{node.lineno}"

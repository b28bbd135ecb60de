"""Our TensorRT and CUDA code against the real bindings, without a GPU: python tests/trt/stubs.py FOLDER [--write]

The bindings' wheels install without NVIDIA's libraries; with empty libraries in their place they import, and
pybind11-stubgen reads their signatures. mypy then checks our modules against each release, and tests/tensorrt_api.json
must hold what these releases say about the names we use (--write makes it again): the fake runtime of the default
tests is derived from that file. Needs gcc and binutils.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODULES = ("edgeseg/backends/tensorrt.py", "edgeseg/tensorrt/builder.py")
API = ROOT / "tests" / "tensorrt_api.json"
RELEASES = {
    "8.6.1": "tensorrt-bindings==8.6.1",
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.16.1": "tensorrt-cu12-bindings==10.16.1.11",
    "11.4.0": "tensorrt-cu13-bindings==11.4.0.106",
}
CUDA = {"12": ["cuda-bindings==12.9.4"], "13": ["cuda-bindings==13.1.1"]}
CLASSES = """
    Builder BuilderFlag DataType DeviceType EngineInspector IBuilderConfig ICudaEngine IExecutionContext IHostMemory
    IInt8EntropyCalibrator2 ILogger ILogger.Severity INetworkDefinition IOptimizationProfile ITensor ITimingCache
    LayerInformationFormat MemoryPoolType NetworkDefinitionCreationFlag OnnxParser ParserError ProfilingVerbosity
    Runtime
"""
INI = """[mypy]
strict = true
python_version = 3.11
follow_imports = silent
warn_unused_ignores = false
[mypy-onnx.*,cuda.*,pycuda.*,onnxruntime.*]
ignore_missing_imports = true
"""


def run(*words: object, **environment: str) -> str:
    """A command's output; SystemExit with all of it when it fails."""
    ran = subprocess.run([str(w) for w in words], capture_output=True, text=True, env={**os.environ, **environment})
    if ran.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def install(folder: Path, *packages: str, dependencies: bool = False) -> Path:
    if not folder.is_dir():
        without = [] if dependencies else ["--no-deps"]
        run(sys.executable, "-m", "pip", "install", "-q", *without, "--target", folder, *packages)
    return folder


def empty_libraries(bindings: Path, folder: Path) -> Path:
    """The libraries that the bindings ask for, with the functions they name and nothing in them."""
    library = bindings / "tensorrt_bindings" / "tensorrt.so"
    needed = re.findall(r"\[(libnv\S+)\]", run("readelf", "-d", library))
    names = re.findall(r" U (\S+)", run("nm", "-D", "--undefined-only", library))
    ours = [n for n in names if re.match(r"create\w+_INTERNAL|get(Builder|Plugin|Nv)|initLib|_ZN\d+nv", n)]
    folder.mkdir(exist_ok=True)
    (folder / "empty.c").write_text("".join(f"void *{n}(void) {{ return 0; }}\n" for n in ours))
    for name in needed:
        run("gcc", "-shared", "-fPIC", "-o", folder / name, folder / "empty.c")
    return folder


def repaired(text: str) -> tuple[str, list[str]]:
    """A stub that parses, signatures that are not Python replaced by (*args, **kwargs); and the names of those."""
    lines, broken = text.splitlines(), []
    while True:
        try:
            ast.parse("\n".join(lines))
            kept = [line for line in lines if not line.startswith("bool:")]  # trt.bool would hide Python's
            return "\n".join(kept) + "\n__version__: str\n", broken
        except SyntaxError as error:
            at = (error.lineno or 1) - 1
            while not lines[at].lstrip().startswith("def "):
                at -= 1
            indent, name = re.match(r"(\s*)def (\w+)", lines[at]).groups()  # type: ignore[union-attr]
            if "*args: typing.Any, **kwargs" in lines[at]:
                raise SystemExit(f"line {at + 1} of a stub cannot be repaired: {lines[at]}") from error
            lines[at] = f"{indent}def {name}(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any:"
            broken.append(name)


def stub(version: str, package: str, work: Path) -> Path:
    """A folder with tensorrt/__init__.pyi of that release."""
    bindings = install(work / f"bindings-{version}", package)
    libraries = empty_libraries(bindings, work / f"libraries-{version}")
    generator = install(work / "stubgen", "pybind11-stubgen==3.0.0", dependencies=True)
    raw, made = work / f"raw-{version}", work / f"stubs-{version}"
    run(
        *(sys.executable, "-m", "pybind11_stubgen", "tensorrt_bindings.tensorrt", "--ignore-all-errors", "-o", raw),
        PYTHONPATH=f"{bindings}{os.pathsep}{generator}",
        LD_LIBRARY_PATH=str(libraries),
    )
    text, broken = repaired((raw / "tensorrt_bindings" / "tensorrt.pyi").read_text())
    if lost := set(broken) & used():
        raise SystemExit(f"the stub of {version} does not say what {sorted(lost)} take, which we call")
    (made / "tensorrt").mkdir(parents=True, exist_ok=True)
    (made / "tensorrt" / "__init__.pyi").write_text(text)
    return made


def check(stubs: Path, work: Path, sources: Path = ROOT) -> str:
    """mypy's errors in our modules, read from `sources`, against the stubs."""
    (work / "mypy.ini").write_text(INI)
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", work / "mypy.ini", *MODULES],
        capture_output=True,
        text=True,
        cwd=sources,
        env={**os.environ, "MYPYPATH": str(stubs)},
    )
    if ran.returncode > 1 or "prevented further checking" in ran.stdout:
        raise SystemExit(ran.stdout + ran.stderr)
    # The stubs have errors of their own; ours count.
    return "".join(f"{line}\n" for line in ran.stdout.splitlines() if line.startswith(MODULES))


def must_fail(stubs: Path, work: Path) -> None:
    """A test of the check itself: it must report a wrong name and a wrong number of arguments."""
    copy = work / "wrong"
    for old, new in (
        (".set_memory_pool_limit(", ".set_memory_pool_limits("),
        ("execute_async_v3(self.stream)", "execute_async_v3()"),
        ("trt.OnnxParser(network, log)", "trt.OnnxParser(network)"),
    ):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(ROOT / "edgeseg", copy / "edgeseg", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        hits = 0
        for name in MODULES:
            text = (copy / name).read_text()
            hits += text.count(old)
            (copy / name).write_text(text.replace(old, new))
        if not hits or not check(stubs, work, copy):
            raise SystemExit(f"mypy does not notice {new}: the stubs say nothing")


def used() -> set[str]:
    """Every attribute and every word in quotes of our modules: what could be a name of TensorRT's."""
    nodes = [n for name in MODULES for n in ast.walk(ast.parse((ROOT / name).read_text()))]
    words = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return words | {n.attr for n in nodes if isinstance(n, ast.Attribute)} | {"INT8", "FP16"}


def api(stubs: Path) -> dict[str, Any]:
    """Class -> member -> "enum", "property", "writable" or its signatures, of the names we use."""
    tree = ast.parse((stubs / "tensorrt" / "__init__.pyi").read_text())
    wanted, names = set(CLASSES.split()), used() | {"__init__"}
    found: dict[str, Any] = {}

    def visit(node: ast.ClassDef, prefix: str) -> None:
        if (path := f"{prefix}{node.name}") in wanted:
            found[path] = members(node, names)
        for inner in node.body:
            if isinstance(inner, ast.ClassDef):
                visit(inner, f"{path}.")

    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            visit(node, "")
    return found


def members(node: ast.ClassDef, names: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id in names:
            constant = "ClassVar" in ast.unparse(item.annotation)
            found[item.target.id] = "enum" if constant else "writable"
        elif isinstance(item, ast.FunctionDef) and item.name in names:
            marks = [ast.unparse(mark) for mark in item.decorator_list]
            if "property" in marks:
                found[item.name] = "property"
            elif any(mark.endswith(".setter") for mark in marks):
                found[item.name] = "writable"
            else:
                found.setdefault(item.name, []).append(signature(item))
    return dict(sorted(found.items()))


def signature(function: ast.FunctionDef) -> list[list[Any]]:
    """[name, annotation, has a default] of each argument but self."""
    arguments = function.args.args
    needed = len(arguments) - len(function.args.defaults)
    kinds = [ast.unparse(a.annotation) if a.annotation else "" for a in arguments]
    return [[a.arg, kind, i >= needed] for i, (a, kind) in enumerate(zip(arguments, kinds)) if a.arg != "self"]


def cuda_api(packages: list[str], work: Path, version: str) -> dict[str, Any]:
    """Function -> its arguments, or other name -> null, of cuda.bindings.runtime as tensorrt/cuda.py uses it."""
    source = (ROOT / "edgeseg" / "tensorrt" / "cuda.py").read_text()
    names = sorted(set(re.findall(r"\bcuda[A-Z]\w+", source)) - {"cudaMemcpyKind", "cudaStreamCaptureMode"})
    code = f"""
import inspect, json
from cuda.bindings import runtime
found = {{}}
for name in {names!r}:
    owner = next(o for o in (runtime, runtime.cudaMemcpyKind, runtime.cudaStreamCaptureMode) if hasattr(o, name))
    value = getattr(owner, name)
    found[name] = list(inspect.signature(value).parameters) if callable(value) and owner is runtime else None
properties = runtime.cudaDeviceProp()
assert all(hasattr(properties, n) for n in ("name", "major", "minor", "integrated"))
print(json.dumps(found))
"""
    folder = install(work / f"cuda-{version}", *packages, "cuda-pathfinder")
    return dict(json.loads(run(sys.executable, "-c", code, PYTHONPATH=str(folder))))


def main(work: Path, write: bool) -> None:
    work.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"tensorrt": {}, "cuda": {}}
    for version, package in RELEASES.items():
        stubs = stub(version, package, work)
        if told := check(stubs, work):
            raise SystemExit(f"against TensorRT {version}:\n{told}")
        must_fail(stubs, work)
        found["tensorrt"][version] = api(stubs)
        print(f"TensorRT {version}: our calls fit; three wrong ones were noticed")
    for version, packages in CUDA.items():
        found["cuda"][version] = cuda_api(packages, work, version)
        print(f"cuda.bindings {version}: every name we use is there")
    text = json.dumps(found, indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n"
    if write:
        API.write_text(text)
    elif json.loads(API.read_text()) != found:
        raise SystemExit(f"{API} differs from what the bindings say; look, then write it again with --write")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), "--write" in sys.argv)

"""OpenVINO: CPUs of Intel, AMD and Arm, Intel's GPUs and NPUs, and AUTO, which chooses among them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgeseg import user_cache
from edgeseg.cpus import limited, usable_cpus
from edgeseg.errors import BundleError, EdgesegError, MissingPackage, failed_frame, first_line
from edgeseg.files import STREAM_ERROR
from edgeseg.target import Target

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.precision import Precision

Arrays = dict[str, NDArray[Any]]
MAX_LISTED = 3  # nodes that a message names
ADDS_IN_16_BITS = True  # where the CPU has no dot products of INT8
Properties = dict[str, str | int]
log = logging.getLogger(__name__)
# What the layers that are not INT8 compute in, by device. On many CPUs OpenVINO's own default is bf16, and so is what
# it makes of an f16 hint; here nothing is silent. So fp16 on a CPU is a storage format of weights, computed in f32, and
# AUTO, which may end up on the CPU, asks for f32 everywhere. An NPU has no float32.
COMPUTE = {
    "CPU": {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32", "int8-bf16": "bf16"},
    "GPU": {"fp32": "f32", "fp16": "f16", "int8": "f16"},
    "NPU": {"fp16": "f16", "int8": "f16"},
    "AUTO": {"fp32": "f32", "fp16": "f32", "int8": "f32"},
}
SLOW_TO_COMPILE = ("GPU", "NPU")  # seconds to minutes: compiled models are always cached


def probe() -> str:
    try:
        import openvino
    except ImportError:
        return "the package openvino is not installed (pip install 'edgeseg[openvino]')"
    return "" if "CPU" in openvino.Core().available_devices else "OpenVINO finds no CPU device"


def probe_device(device: str) -> str:
    """Why `device` cannot be used here, or "". AUTO is a choice among the others."""
    available = sorted(_openvino("This bundle").Core().available_devices)
    if device == "AUTO" or any(name.split(".")[0] == device for name in available):
        return ""
    return f"OpenVINO finds no {device} here, only: {', '.join(available) or 'none'}"


def compile(graph: Path, out: Path, target: Target, precision: Precision) -> list[str]:
    """Write model.xml and model.bin from the deploy graph (for int8 already quantized: .xml or .onnx)."""
    ov = _openvino("Compiling for OpenVINO")
    try:
        model = ov.Core().read_model(graph)
        ov.save_model(model, out / "model.xml", compress_to_fp16=precision == "fp16")
    except (RuntimeError, ValueError) as error:
        if STREAM_ERROR in str(error):
            raise  # the disk is full; whoever made the folder says so
        raise EdgesegError(
            f"OpenVINO cannot compile the network: {refused_layer(str(error), graph)}.",
            "It was exported for another size (try --size), or OpenVINO lacks an operator of it (try another target).",
        ) from error
    return ["model.xml", "model.bin"]


def refused_layer(message: str, graph: Path) -> str:
    """What OpenVINO says of a graph that it cannot convert, with the operators and names of the ONNX nodes it means.

    Its own words name a node by an output or a number of its own, or only the kind of operator.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if missing := re.search(r"No conversion rule found for operations: (.+)", message):
        kinds = [re.sub(r"-\d+$", "", kind.strip()).rpartition(".")[2] for kind in missing[1].split(",")]
        nodes = _nodes(graph)
        return f"it has no {' and no '.join(_with_names(kind, nodes) for kind in kinds)}"
    if node := re.search(r"ONNX node '<Node\((\w+)\): ([^>]*)>'", message):
        end = next((i for i, line in enumerate(lines) if line.startswith("Summary")), len(lines))
        name = next((name for _, name, outputs in _nodes(graph) if node[2] in outputs), node[2])
        return f"{node[1]} {name}: {lines[end - 1].rstrip('.')[:200]}"
    return lines[-1][:200]


def _nodes(graph: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    """(operator, name, outputs) of the nodes of an ONNX file; none for an IR."""
    if graph.suffix != ".onnx":
        return []
    import onnx

    nodes = onnx.load(str(graph), load_external_data=False).graph.node
    return [(node.op_type, node.name or node.output[0], tuple(node.output)) for node in nodes]


def _with_names(kind: str, nodes: list[tuple[str, str, tuple[str, ...]]]) -> str:
    """An operator with the names of some of the nodes that are one."""
    names = [name for operator, name, _ in nodes if operator == kind]
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{kind} ({', '.join(names[:MAX_LISTED])}{more})" if names else kind


def open(bundle: Bundle, mode: str, threads: int = 0, cache: Path | None = None, device: str = "") -> OpenVinoEngine:
    """Load a bundle on its target's device. `threads` (of a CPU) 0: every one this process may use; `cache`: a folder
    that makes the next start faster. `device`: another one, to verify a bundle where its own is absent.
    """
    device = device or Target.load(bundle.target).device
    if reason := probe_device(device):
        raise EdgesegError(
            f"Bundle {bundle.path} is for another device: {reason}.",
            "Install that device's driver (its group of users, too), or compile for one that is here: edgeseg targets.",
        )
    model, weights = bundle.read("model.xml"), bundle.read("model.bin")
    if bundle.precision not in COMPUTE[device]:
        known = ", ".join(COMPUTE[device])
        raise BundleError(f"Bundle {bundle.path} has precision {bundle.precision!r}.", f"Known: {known}.")
    settings = properties(device, COMPUTE[device][bundle.precision], mode, threads)
    if device in SLOW_TO_COMPILE:
        cache = cache or user_cache.folder("openvino")
    if cache is None:
        return OpenVinoEngine(model, weights, device, settings, bundle.path)
    with user_cache.checked(cache / bundle.digest[:40], log.info) as folder:
        return OpenVinoEngine(model, weights, device, {**settings, **cached_in(folder)}, bundle.path)


def properties(device: str, compute: str, mode: str, threads: int = 0) -> Properties:
    """Properties of a compiled model: streams follow from the performance hint, precision from `compute`."""
    settings: Properties = {
        "PERFORMANCE_HINT": "LATENCY" if mode == "latency" else "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": compute,
    }
    if not threads and limited():  # OpenVINO knows the affinity, but not the quota of a container
        threads = usable_cpus()
    if threads and device == "CPU":
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


def cached_in(folder: Path) -> Properties:
    """Properties that make the next start faster. Mapped, a file that is replaced would change a running engine."""
    return {"CACHE_DIR": str(folder), "ENABLE_MMAP": False}


class OpenVinoEngine:
    """See segmenter.Engine. One slot in latency mode, one more than OpenVINO's own choice in throughput mode."""

    def __init__(self, model: bytes, weights: bytes, device: str, settings: Properties, path: Path):
        ov = _openvino("This bundle")
        core = ov.Core()
        core.set_property({"ENABLE_MMAP": False})
        try:
            loaded = core.read_model(model, weights)
            compiled = _in_its_own_thread(lambda: core.compile_model(loaded, device, settings))
        except (RuntimeError, ValueError) as error:
            raise BundleError(
                f"OpenVINO cannot load the model of {path}: {first_line(error)}.", "Compile the bundle again."
            ) from error
        # One more than OpenVINO works on at a time: the next frame is ready during the class map (1.05 to 1.23x).
        latency = settings["PERFORMANCE_HINT"] == "LATENCY"
        self.slots = 1 if latency else 1 + int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests = [compiled.create_infer_request() for _ in range(self.slots)]
        # The request's own memory: OpenVINO's share_inputs with temporary arrays corrupts frames.
        # OpenVINO merges tensors, which then have several names.
        ports = (compiled.inputs, compiled.outputs)
        self._inputs, self._outputs = (
            [{name: r.get_tensor(p).data[0] for p in side for name in p.get_names()} for r in self._requests]
            for side in ports
        )

    def inputs(self, slot: int) -> Arrays:
        return self._inputs[slot]

    def start(self, slot: int) -> None:
        try:
            self._requests[slot].start_async()
        except RuntimeError as error:
            raise failed_frame("OpenVINO", error) from error

    def wait(self, slot: int) -> Arrays:
        try:
            self._requests[slot].wait()
        except RuntimeError as error:
            raise failed_frame("OpenVINO", error) from error
        return self._outputs[slot]

    def close(self) -> None:
        self._inputs, self._outputs, self._requests = [], [], []


def _in_its_own_thread(work: Callable[[], Any]) -> Any:
    """OpenVINO gives the thread that compiles a model a stack for signals (sigaltstack), and frees it with the model:
    closed by another thread, it would leave the first one to be killed by its next signal. This one ends at once."""
    with ThreadPoolExecutor(1, thread_name_prefix="edgeseg-open") as thread:
        return thread.submit(work).result()


def _openvino(job: str) -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingPackage("openvino", job, "openvino") from error
    return openvino

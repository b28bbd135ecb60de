"""TFLite models on a CPU, through LiteRT (or, where only that is there, the older tflite-runtime)."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.cpus import usable_cpus
from edgeseg.errors import BundleError, MissingPackage, failed_frame, first_line

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.precision import Precision
    from edgeseg.target import Target

Arrays = dict[str, NDArray[Any]]
PACKAGE = "ai-edge-litert"
MODEL = "model.tflite"


def probe() -> str:
    try:
        _interpreter()
    except MissingPackage:
        return "the package ai-edge-litert is not installed (pip install 'edgeseg[tflite]')"
    return ""


def compile(graph: Path, out: Path, target: Target, precision: Precision) -> list[str]:
    """Write model.tflite from the deploy graph (for int8 already converted and quantized)."""
    if graph.suffix == ".tflite":
        shutil.copyfile(graph, out / MODEL)
        return [MODEL]
    import onnx

    from edgeseg.tflite.convert import convert

    data = convert(onnx.load(str(graph)), half=precision == "fp16")
    if precision == "dynamic":
        from edgeseg.tflite.quantize import dynamic

        data = dynamic(data)
    (out / MODEL).write_bytes(data)
    return [MODEL]


def open(bundle: Bundle, mode: str, threads: int = 0) -> TfliteEngine:
    """Load a bundle. `threads` 0: every CPU this process may use."""
    return TfliteEngine(bundle.read(MODEL), bundle.path, mode, threads)


class TfliteEngine:
    """See segmenter.Engine. One slot in latency mode; in throughput mode two interpreters that share the cores."""

    def __init__(self, model: bytes, path: Path, mode: str, threads: int = 0):
        interpreter = _interpreter()
        self.slots = 1 if mode == "latency" else 2
        each = max(1, (threads or usable_cpus()) // self.slots)
        try:
            self._networks = [interpreter(model_content=model, num_threads=each) for _ in range(self.slots)]
            for network in self._networks:
                network.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(
                f"LiteRT cannot load the model of {path}: {first_line(error)}.", "Compile the bundle again."
            ) from error
        # The names of the graph are those of its signature: quantizers rename tensors.
        signature = self._networks[0].get_signature_runner()
        entries = signature.get_input_details()
        self._entries = {name: entry["index"] for name, entry in entries.items()}
        self._ends = {name: end["index"] for name, end in signature.get_output_details().items()}
        # Not the interpreter's own memory: it refuses to run while a view of that exists.
        self._batches = [
            {name: np.zeros(entry["shape"], entry["dtype"]) for name, entry in entries.items()}
            for _ in range(self.slots)
        ]
        self._inputs = [{name: batch[0] for name, batch in batches.items()} for batches in self._batches]
        self._running: dict[int, Future[Arrays]] = {}
        self._pool = ThreadPoolExecutor(self.slots)

    def inputs(self, slot: int) -> Arrays:
        return self._inputs[slot]

    def start(self, slot: int) -> None:
        self._running[slot] = self._pool.submit(self._infer, slot)

    def wait(self, slot: int) -> Arrays:
        try:
            return self._running.pop(slot).result()
        except (ValueError, RuntimeError) as error:
            raise failed_frame("LiteRT", error) from error

    def close(self) -> None:
        self._pool.shutdown()

    def _infer(self, slot: int) -> Arrays:
        network = self._networks[slot]
        for name, index in self._entries.items():
            network.set_tensor(index, self._batches[slot][name])
        network.invoke()
        return {name: _channels_first(network.get_tensor(index)[0]) for name, index in self._ends.items()}


def _channels_first(output: NDArray[Any]) -> NDArray[np.float32]:
    """[h, w, C], as TFLite has it, to [C, h, w]; anything else as it is."""
    return np.ascontiguousarray(output.transpose(2, 0, 1) if output.ndim == 3 else output, np.float32)


def _interpreter() -> Any:
    """The Interpreter class: LiteRT's, else that of tflite-runtime (2.14 needs numpy < 2; INT8 is 10x slower)."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError as error:
            raise MissingPackage("ai-edge-litert", "This bundle", "tflite") from error
    return Interpreter

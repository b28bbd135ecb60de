"""ONNX Runtime on the CPU."""

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
ADDS_IN_16_BITS = True  # where the CPU has no dot products of INT8


def probe() -> str:
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return "the package onnxruntime is not installed (pip install 'edgeseg[onnxruntime]')"
    return ""


def compile(graph: Path, out: Path, target: Target, precision: Precision) -> list[str]:
    """Write model.onnx from the deploy graph (for int8 already quantized)."""
    if precision == "fp16":
        import onnx

        from edgeseg.onnx_graph.half_precision import half_weights

        onnx.save(half_weights(onnx.load(str(graph))), str(out / "model.onnx"))
    else:
        shutil.copyfile(graph, out / "model.onnx")
    return ["model.onnx"]


def open(bundle: Bundle, mode: str, threads: int = 0) -> OnnxRuntimeEngine:
    """Load a bundle. `threads` 0: every CPU this process may use."""
    return OnnxRuntimeEngine(bundle.read("model.onnx"), bundle.path, mode, threads)


class OnnxRuntimeEngine:
    """See segmenter.Engine. One slot in latency mode; in throughput mode two, sharing the cores."""

    def __init__(self, model: bytes, path: Path, mode: str, threads: int = 0):
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingPackage("onnxruntime", "This bundle", "onnxruntime") from error
        self.slots = 1 if mode == "latency" else 2
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = max(1, (threads or usable_cpus()) // self.slots)
        # Spinning idle threads would take the cores from resize, masks and sinks.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if self.slots > 1 else "1")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise BundleError(
                f"ONNX Runtime cannot load the model of {path}: {first_line(error)}.", "Compile the bundle again."
            ) from error
        inputs = self._session.get_inputs()
        # Graphs for boards whose runtime has no uint8 inputs take the frame as float32.
        self._types = {i.name: np.dtype(np.uint8 if "uint8" in i.type else np.float32) for i in inputs}
        self._batches = [{i.name: np.zeros(i.shape, np.uint8) for i in inputs} for _ in range(self.slots)]
        self._inputs = [{name: batch[0] for name, batch in batches.items()} for batches in self._batches]
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._running: dict[int, Future[Any]] = {}
        self._pool = ThreadPoolExecutor(self.slots)

    def inputs(self, slot: int) -> Arrays:
        return self._inputs[slot]

    def start(self, slot: int) -> None:
        batches = {name: batch.astype(self._types[name], copy=False) for name, batch in self._batches[slot].items()}
        self._running[slot] = self._pool.submit(self._session.run, self._outputs, batches)

    def wait(self, slot: int) -> Arrays:
        try:
            outputs = self._running.pop(slot).result()
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise failed_frame("ONNX Runtime", error) from error
        return {name: batch[0] for name, batch in zip(self._outputs, outputs)}

    def close(self) -> None:
        self._pool.shutdown()

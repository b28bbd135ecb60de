"""TensorRT: NVIDIA GPUs and Jetson boards. The bundle holds a graph and a plan; the engine is built where it runs."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import runner
from edgeseg.errors import BundleError, EdgesegError
from edgeseg.tensorrt import cache as store
from edgeseg.tensorrt import cuda
from edgeseg.tensorrt.builder import FRAMES, JETPACK, MODEL, last_error, logger, unavailable_reason
from edgeseg.tensorrt.builder import build as build_engine
from edgeseg.tensorrt.plan import FILE, Plan

if TYPE_CHECKING:
    import tensorrt as trt

    from edgeseg.bundle import Bundle
    from edgeseg.precision import Precision
    from edgeseg.target import Target

Arrays = dict[str, NDArray[Any]]
log = logging.getLogger(__name__)
POWER_MODE = Path("/var/lib/nvpmodel/status")  # of a Jetson; its clocks decide which kernels win


@dataclass(frozen=True)
class BuiltEngine:
    """`engine`: its file; `key`: what it depends on; `cuda_graph`: whether a frame is one launch; `layers`: how many
    give each format and type."""

    engine: str
    key: store.Key
    cuda_graph: bool
    layers: dict[str, int]


def probe() -> str:
    if reason := unavailable_reason():
        return reason
    try:
        cuda.open_device("TensorRT").close()
    except EdgesegError as error:
        return error.what.removesuffix(".")
    return ""


def compile(graph: Path, out: Path, target: Target, precision: Precision) -> list[str]:
    """Write model.onnx, legal for the board's TensorRT, and plan.json; needs neither TensorRT nor a GPU."""
    import onnx

    from edgeseg.tensorrt.fit import fit

    if target.dla >= 0 and precision == "fp32":
        raise EdgesegError(f"The DLA of {target.name} has no float32.", "Use --precision fp16 or int8.")
    model, findings = fit(onnx.load(str(graph)), target, precision)
    notes = [str(finding) for finding in findings]
    if target.dla >= 0 and precision == "int8" and target.quantizer != "entropy":
        notes.append("DLA up to TensorRT 10.7 ignores Q/DQ pairs: those layers run on the GPU. --entropy moves them.")
    onnx.save(model, str(out / MODEL))
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    plan = Plan.make(target, precision, opset, shape, tuple(notes))
    plan.write(out)
    extra = runner.add(out) if target.build_mode == "runner" else []
    if plan.int8 == "entropy":
        shutil.copyfile(graph.with_suffix(".npy"), out / FRAMES)
        extra.append(FRAMES)
    return [MODEL, FILE, *extra]


def open(bundle: Bundle, mode: str, threads: int = 0, cache: Path | None = None) -> TensorRtEngine:
    """The engine of a bundle, built now if none is cached for this device; its golden frames have passed.

    `cache`: the folder of cached engines [default: ~/.cache/edgeseg/engines]. `threads` means nothing here.
    """
    return _obtain(bundle, mode, cache, log.warning)[0]  # a first start takes minutes, which is logged


def build(bundle: Bundle, cache: Path | None = None, log: store.Log = lambda text: None) -> BuiltEngine:
    """Build (or check) a bundle's engine ahead of time."""
    engine, path, key = _obtain(bundle, "latency", cache, log)
    try:
        return BuiltEngine(str(path), key, engine.graph, engine.layers())
    finally:
        engine.close()


def _obtain(bundle: Bundle, mode: str, cache: Path | None, log: store.Log) -> tuple[TensorRtEngine, Path, store.Key]:
    if reason := unavailable_reason():
        raise EdgesegError(f"Bundle {bundle.path} cannot run here: {reason}.", JETPACK)
    plan = Plan.parse(bundle.read(FILE), bundle.path / FILE)
    folder = cache or store.default_folder()
    device = cuda.open_device("This bundle")
    key = _key(bundle, plan, device)
    device.close()

    def use(data: bytes) -> TensorRtEngine:
        engine = TensorRtEngine(data, plan, mode)
        try:
            _verify(bundle, plan, engine)
        except BaseException:
            engine.close()
            raise
        return engine

    engine = store.obtain(folder, key, lambda: build_engine(bundle, plan, folder, key, log), use, log)
    return engine, store.path_of(folder, key), key


def _key(bundle: Bundle, plan: Plan, device: cuda.Cuda) -> store.Key:
    """Everything an engine depends on."""
    import tensorrt as trt

    graph, plan_file = (hashlib.sha256(bundle.read(name)).hexdigest() for name in (MODEL, FILE))
    return {
        "graph": graph,
        "plan": plan_file,
        "tensorrt": str(trt.__version__),
        "gpu": device.name,
        "compute_capability": device.capability,
        "driver": device.driver,
        "precision": plan.precision,
        "dla": plan.dla,
        "power_mode": POWER_MODE.read_text().strip() if POWER_MODE.is_file() else "",
    }


def _verify(bundle: Bundle, plan: Plan, engine: TensorRtEngine) -> None:
    """BundleError unless every golden frame gives the class map it gave off the device, as far as the plan asks."""
    from edgeseg import heads
    from edgeseg.mask import agreement
    from edgeseg.segmenter import Segmenter

    head = heads.get(bundle.spec.task).open(bundle.spec, bundle.upsample)
    segmenter = Segmenter(bundle.spec, engine, head)
    shares = [agreement(segmenter(frame).classmap, truth) for frame, truth in bundle.golden()]
    if min(shares, default=0.0) < plan.golden_agreement:
        raise BundleError(
            f"The engine agrees with golden frames of {bundle.path} on {min(shares, default=0.0):.2%} of pixels only.",
            f"Expected {plan.golden_agreement:.1%}: it computes something else here. Try --precision fp16 or fp32.",
        )


class _Slot:
    """One execution context with its stream and its buffers: pinned, and mapped where CPU and GPU share memory."""

    def __init__(self, engine: trt.ICudaEngine, device: cuda.Cuda, plan: Plan):
        import tensorrt as trt

        self.context = engine.create_execution_context()
        if self.context is None:
            raise EdgesegError("TensorRT cannot make an execution context.", "Free memory on the device.")
        self.stream = device.stream()
        self.context.set_input_shape("frame", trt.Dims(list(plan.shape)))
        self._device = device
        self._copies: list[tuple[int, int, int]] = []  # host, device, bytes: frame, logits
        self.frame = self._bind("frame", plan.shape, np.uint8)
        shape: Any = self.context.get_tensor_shape("logits")
        self.logits = self._bind("logits", tuple(int(size) for size in shape), np.float32)
        self.run = self._enqueue
        self._enqueue()  # the first run allocates, which a CUDA graph must not hold
        device.wait(self.stream)
        captured = device.capture(self.stream, self._enqueue)
        self.graph = captured is not None
        if captured is not None:
            self.run = captured  # type: ignore[method-assign, assignment, unused-ignore]

    def _bind(self, name: str, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        host, mapped = self._device.pinned(size)
        address = mapped if self._device.unified else self._device.memory(size)
        if not self._device.unified:
            self._copies.append((host, address, size))
        self.context.set_tensor_address(name, address)
        view: NDArray[Any] = cuda.view(host, shape, kind)[0]
        return view

    def _enqueue(self) -> None:
        for host, address, size in self._copies[:1]:
            self._device.upload(address, host, size, self.stream)
        if not self.context.execute_async_v3(self.stream):
            raise EdgesegError(
                "TensorRT failed to start a frame.", "See the device's log (dmesg); restart the program."
            )
        for host, address, size in self._copies[1:]:
            self._device.download(host, address, size, self.stream)


class TensorRtEngine:
    """See segmenter.Engine. One slot in latency mode; in throughput mode two, so that copies hide behind kernels."""

    def __init__(self, data: bytes, plan: Plan, mode: str):
        import tensorrt as trt

        trt_log = logger()
        self._runtime = trt.Runtime(trt_log)
        if plan.dla >= 0:
            self._runtime.DLA_core = plan.dla
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise BundleError(
                f"TensorRT cannot load the engine: {last_error(trt_log)}.", "It is built again from the bundle."
            )
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        if names != {"frame", "logits"} or self._engine.get_tensor_dtype("frame") != trt.DataType.UINT8:
            hint = "Bundles of boards that the runner serves take a float frame; compile for this board."
            raise BundleError(f"The engine's tensors are {sorted(names)}, not a uint8 frame and logits.", hint)
        self.slots = 1 if mode == "latency" else 2
        self._device = cuda.open_device("This bundle")
        try:
            self._slots = [_Slot(self._engine, self._device, plan) for _ in range(self.slots)]
        except BaseException:
            self._device.close()
            raise
        self.graph = all(slot.graph for slot in self._slots)

    def inputs(self, slot: int) -> Arrays:
        return {"frame": self._slots[slot].frame}

    def start(self, slot: int) -> None:
        self._slots[slot].run()

    def wait(self, slot: int) -> Arrays:
        self._device.wait(self._slots[slot].stream)
        return {"logits": self._slots[slot].logits}

    def layers(self) -> dict[str, int]:
        """How many of the engine's layers give each format and type, as its inspector reports."""
        import tensorrt as trt

        information = self._engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        layers = json.loads(information).get("Layers", [])
        outputs = [out for layer in layers if isinstance(layer, dict) for out in layer.get("Outputs", [])]
        return dict(Counter(str(out.get("Format/Datatype", "unknown")) for out in outputs))

    def close(self) -> None:
        if self._slots:
            for slot in self._slots:
                self._device.wait(slot.stream)
            self._slots = []
            self._device.close()

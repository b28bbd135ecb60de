"""Building a TensorRT engine from a bundle's graph and plan.

Features are probed, not derived from the version number: precision flags and calibrators went with 11, strongly
typed networks came with 10, uint8 inputs and execute_async_v3 with 8.5.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.errors import BundleError, EdgesegError
from edgeseg.files import write_bytes
from edgeseg.tensorrt import cuda
from edgeseg.tensorrt.cache import Key, Log
from edgeseg.tensorrt.plan import Plan

if TYPE_CHECKING:
    import tensorrt as trt

    from edgeseg.bundle import Bundle

MODEL, FRAMES, RANGES = "model.onnx", "calibration.npy", "calibration.cache"
JETPACK = (
    "On a Jetson it comes with JetPack (apt install python3-libnvinfer; make the environment with "
    "--system-site-packages), elsewhere: pip install tensorrt. Boards with JetPack 4 and 5 run the bundle's runner."
)


def unavailable_reason() -> str:
    """Why TensorRT cannot run here: it is missing, or too old for the calls we make; "" when it can."""
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:  # OSError: the bindings are there, their libraries are not
        return f"TensorRT is not installed ({error})"
    for owner, name in ((trt.IExecutionContext, "execute_async_v3"), (trt.DataType, "UINT8")):
        if not hasattr(owner, name):
            return f"TensorRT {trt.__version__} is too old: it has no {name}, which came with 8.5"
    return ""


def build(bundle: Bundle, plan: Plan, folder: Path, key: Key, log: Log) -> bytes:
    """The engine, serialized. `folder` caches what makes the next build faster: timings, ranges of a calibrator."""
    import tensorrt as trt

    log(f"building the engine with TensorRT {trt.__version__}: minutes on a small board")
    trt_log = logger()
    builder = trt.Builder(trt_log)
    flags = _flags(plan)
    network = builder.create_network(_creation(plan, flags))
    parser = trt.OnnxParser(network, trt_log)
    if not parser.parse(bundle.read(MODEL)):
        why = parser.get_error(0).desc() if parser.num_errors else last_error(trt_log)
        raise BundleError(
            f"TensorRT {trt.__version__} cannot load {bundle.path / MODEL}: {why[:300]}.", "Compile the bundle again."
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, plan.workspace_mb << 20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the report of each layer's precision
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    for flag in flags:
        config.set_flag(flag)
    _choose_device(builder, config, plan)
    _choose_shapes(builder, network, config, plan)
    timing = folder / f"{key['tensorrt']}-{key['compute_capability']}-{plan.timing_cache}"
    cache = config.create_timing_cache(timing.read_bytes() if timing.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):  # damaged, or of another device
        config.set_timing_cache(config.create_timing_cache(b""), False)
    with _calibrator(bundle, folder, key) if plan.int8 == "entropy" else nullcontext() as calibrator:
        if calibrator is not None:
            older: Any = config  # _flags has checked that this TensorRT has calibrators
            older.int8_calibrator = calibrator
        engine: Any = builder.build_serialized_network(network, config)
    if engine is None:
        hint = "Free memory, or compile for less: a smaller --size, a narrower network."
        raise EdgesegError(f"TensorRT {trt.__version__} cannot build the engine: {last_error(trt_log)}.", hint)
    timings: Any = config.get_timing_cache().serialize()
    write_bytes(timing, bytes(timings))
    return bytes(engine)


def _flags(plan: Plan) -> list[Any]:
    """Precision flags where TensorRT has them; where not, the types in the graph decide."""
    import tensorrt as trt

    flags = [getattr(trt.BuilderFlag, name, None) for name in plan.flags]
    if plan.int8 == "entropy" and None in flags:
        raise EdgesegError(
            f"TensorRT {trt.__version__} has no entropy calibrator; this bundle was compiled for one.",
            "Compile it without --entropy: Q/DQ pairs are read by every TensorRT.",
        )
    return [] if None in flags else flags


def _creation(plan: Plan, flags: list[Any]) -> int:
    """Batches are explicit where that is a choice. Strongly typed unless INT8 flags let the rest run in FP16."""
    import tensorrt as trt

    names = ["EXPLICIT_BATCH"] if plan.int8 and flags else ["EXPLICIT_BATCH", "STRONGLY_TYPED"]
    creation = [getattr(trt.NetworkDefinitionCreationFlag, name, None) for name in names]
    if "STRONGLY_TYPED" in names and creation[-1] is not None:
        flags.clear()  # a strongly typed network refuses them
    return sum(1 << int(flag) for flag in creation if flag is not None)


def _choose_device(builder: trt.Builder, config: trt.IBuilderConfig, plan: Plan) -> None:
    import tensorrt as trt

    if plan.precision == "int8" and not getattr(builder, "platform_has_fast_int8", True):
        raise EdgesegError("This GPU has no INT8 units.", "Compile the bundle with --precision fp16.")
    if plan.dla < 0:
        return
    if builder.num_DLA_cores <= plan.dla:
        raise EdgesegError(
            f"TensorRT {trt.__version__} sees {builder.num_DLA_cores} DLA cores; the bundle needs core {plan.dla}.",
            "TensorRT drives them up to 10.7, and from 11.4.1 on AGX Orin. Compile without --dla for the GPU.",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = plan.dla
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _choose_shapes(
    builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, plan: Plan
) -> None:
    """One optimization profile, of the plan's shape, where the graph leaves its size open."""
    import tensorrt as trt

    entry = network.get_input(0)
    size: Any = entry.shape
    if -1 in tuple(size):
        profile, size = builder.create_optimization_profile(), trt.Dims(list(plan.shape))
        profile.set_shape(entry.name, size, size, size)
        config.add_optimization_profile(profile)


@contextmanager
def _calibrator(bundle: Bundle, folder: Path, key: Key) -> Iterator[Any]:
    """TensorRT's entropy calibrator over the bundle's frames; its ranges are cached for the next build."""
    import tensorrt as trt

    frames = np.load(io.BytesIO(bundle.read(FRAMES)), allow_pickle=False)
    device = cuda.open_device("Calibrating")
    ranges = folder / f"{str(key['graph'])[:40]}-{key['tensorrt']}-{RANGES}"
    host, address = device.pinned(frames[0].nbytes)
    batch = cuda.view(host, frames[0].shape, np.uint8)
    remaining = iter(frames)

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)  # type: ignore[attr-defined, unused-ignore]

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Sequence[str]) -> list[int]:
            frame = next(remaining, None)
            if frame is None:
                return []
            batch[:] = frame
            return [address]

        def read_calibration_cache(self) -> Any:
            return ranges.read_bytes() if ranges.is_file() else None

        def write_calibration_cache(self, data: Any) -> None:
            write_bytes(ranges, bytes(data))

    try:
        yield Calibrator()
    finally:
        device.close()


def logger() -> Any:
    """A logger that collects TensorRT's errors, to be quoted in ours."""
    import tensorrt as trt

    class Logger(trt.ILogger):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(text)

    return Logger()


def last_error(log: Any) -> str:
    return log.errors[-1].strip()[:300] if log.errors else "it gives no reason"

"""A board without hardware: fake TensorRT and CUDA runtimes with only the names of a release's real bindings.

Classes, members and signatures come from tensorrt_api.json (written by tests/trt/stubs.py from NVIDIA's wheels): a
wrong name is an AttributeError, a wrong argument a TypeError. What the calls do is here. Work on a stream happens when
the stream is waited for, device memory has addresses the CPU cannot read, and ONNX Runtime does the arithmetic.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

API = json.loads((Path(__file__).parent / "tensorrt_api.json").read_text())
RELEASES = tuple(API["tensorrt"])
MAGIC = b"fake engine\n"


class Board:
    """The state behind the fakes: one GPU, its memory, and a record of what was done."""

    def __init__(self, release: str = "10.3.0", cuda: str = "12"):
        self.release, self.cuda_release = release, cuda
        self.gpu, self.capability, self.driver, self.unified = "Orin", (8, 7), 12060, True
        self.dla_cores, self.fast_int8, self.captures = 2, True, True
        self.builds: list[dict[str, Any]] = []
        self.host: dict[int, np.ndarray] = {}
        self.device: dict[int, np.ndarray] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.launched = 0
        self.wrong = False  # an engine that computes something else
        self.during_build: Callable[[], None] = lambda: None

    def install(self, patch: Any) -> Board:
        """Put the fakes where `import` finds them; `patch` is a pytest.MonkeyPatch."""
        patch.setitem(sys.modules, "tensorrt", tensorrt(self))
        runtime = cuda_runtime(self)
        bindings, top = types.ModuleType("cuda.bindings"), types.ModuleType("cuda")
        bindings.runtime, top.bindings = runtime, bindings  # type: ignore[attr-defined]
        for name, module in (("cuda", top), ("cuda.bindings", bindings), ("cuda.bindings.runtime", runtime)):
            patch.setitem(sys.modules, name, module)
        return self

    def at(self, address: int, size: int) -> np.ndarray:
        """Device memory, or pinned memory by its device address."""
        array = self.device[address]
        assert array.nbytes >= size, "a copy or tensor is larger than its memory"
        return array[:size]


# TensorRT


class Builder:
    def __init__(self, board: Board, logger: Any):
        self.board, self.logger = board, logger
        self.num_DLA_cores, self.platform_has_fast_int8 = board.dla_cores, board.fast_int8

    def create_network(self, flags: int = 0) -> Network:
        return Network(self.board, flags)

    def create_builder_config(self) -> Config:
        return Config(self.board)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> HostMemory | None:
        self.board.during_build()
        if problem := self._problem(network, config):
            self.logger.log(0, problem)
            return None
        if config.int8_calibrator is not None:
            calibrate(config.int8_calibrator, self.board)
        flags = {flag.name for flag in config.chosen}
        self.board.builds.append(
            {
                "flags": flags,
                "typed": network.typed,
                "dla": config.DLA_core,
                "workspace": config.workspace,
                "profiles": len(config.profiles),
                "timing": config.timing.data,
            }
        )
        config.timing = Timing(b"timings of " + self.board.gpu.encode())
        head = json.dumps([self.board.release, self.board.gpu, self.board.capability]).encode()
        return HostMemory(MAGIC + head + b"\n" + network.graph.SerializeToString())

    def _problem(self, network: Network, config: Config) -> str:
        """What the real builder refuses."""
        flags = {flag.name for flag in config.chosen}
        quantized = any(node.op_type == "QuantizeLinear" for node in network.graph.graph.node)
        half = any(weight.data_type == 10 for weight in network.graph.graph.initializer)
        if network.typed and flags & {"INT8", "FP16"}:
            return "precision flags on a strongly typed network"
        if not network.typed and quantized and "INT8" not in flags:
            return "Q/DQ layers need the INT8 flag"
        if not network.typed and half and "FP16" not in flags:
            return "FP16 tensors need the FP16 flag"
        if config.int8_calibrator is not None and "INT8" not in flags:
            return "a calibrator needs the INT8 flag"
        if config.default_device_type is not None and "GPU_FALLBACK" not in flags:
            return "a layer is not supported on DLA"
        dynamic = any(not d.dim_value for d in network.graph.graph.input[0].type.tensor_type.shape.dim)
        return "a dynamic input has no optimization profile" if dynamic and not config.profiles else ""


def calibrate(calibrator: Any, board: Board) -> None:
    if calibrator.read_calibration_cache() is not None:
        return
    assert calibrator.get_batch_size() == 1
    count = 0
    while batch := calibrator.get_batch(["frame"]):
        assert board.device[batch[0]].any(), "a calibration frame is empty"
        count += 1
    calibrator.write_calibration_cache(memoryview(f"ranges of {count} frames".encode()))


class Network:
    def __init__(self, board: Board, flags: int):
        names = {i: n for i, n in enumerate(("EXPLICIT_BATCH", "STRONGLY_TYPED")) if flags >> i & 1}
        old = "INT8" in API["tensorrt"][board.release]["BuilderFlag"]
        self.typed = "STRONGLY_TYPED" in names.values() or not old
        self.explicit = "EXPLICIT_BATCH" in names.values() or board.release != "8.6.1"
        self.graph: Any = None

    def get_input(self, index: int) -> Tensor:
        return Tensor(self.graph.graph.input[index])


class Tensor:
    def __init__(self, value: Any):
        self.name = value.name
        self.shape = tuple(d.dim_value or -1 for d in value.type.tensor_type.shape.dim)


class Profile:
    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        assert name == "frame" and list(low) == list(best) == list(high) and min(low) > 0


class Timing:
    def __init__(self, data: bytes):
        self.data = data

    def serialize(self) -> HostMemory:
        return HostMemory(self.data)


class Config:
    def __init__(self, board: Board):
        self.board = board
        self.chosen: set[Any] = set()
        self.workspace, self.DLA_core, self.profiles = 0, -1, list[Profile]()
        self.int8_calibrator = self.default_device_type = self.profiling_verbosity = None
        self.timing = Timing(b"")

    def set_flag(self, flag: Any) -> None:
        self.chosen.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.chosen.discard(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.workspace = size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, data: bytes) -> Timing | None:
        return Timing(data) if not data or data.startswith(b"timings of ") else None

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache.data and not cache.data.endswith(self.board.gpu.encode()):
            return False
        self.timing = cache
        return True

    def get_timing_cache(self) -> Timing:
        return self.timing


class Parser:
    def __init__(self, board: Board, network: Network, logger: Any):
        self.network = network
        self.errors: list[Problem] = []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Problem:
        return self.errors[index]

    def parse(self, model: bytes, path: str | None = None) -> bool:
        import onnx

        assert self.network.explicit, "the ONNX parser needs explicit batches"
        try:
            self.network.graph = onnx.ModelProto.FromString(model)
            onnx.checker.check_model(self.network.graph)
        except Exception as error:
            self.errors.append(Problem(f"not ONNX: {type(error).__name__}"))
        return not self.errors


class Problem:
    def __init__(self, text: str):
        self.text = text

    def desc(self) -> str:
        return self.text


class HostMemory:
    """bytes() of NVIDIA's goes through the buffer protocol."""

    def __init__(self, data: bytes):
        self.data, self.nbytes = data, len(data)


class Runtime:
    def __init__(self, board: Board, logger: Any):
        self.board, self.logger, self.DLA_core = board, logger, -1

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        head = json.dumps([self.board.release, self.board.gpu, self.board.capability]).encode()
        start = MAGIC + head + b"\n"
        if not data.startswith(start):
            self.logger.log(0, "serialization assertion failed: the engine is of another TensorRT or GPU")
            return None
        return Engine(self.board, data[len(start) :])


class Engine:
    num_io_tensors = 2

    def __init__(self, board: Board, graph: bytes):
        import onnxruntime

        self.board = board
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.values = {v.name: v for v in (*self.session.get_inputs(), *self.session.get_outputs())}

    def get_tensor_name(self, index: int) -> str:
        return list(self.values)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.values[name].shape)

    def get_tensor_dtype(self, name: str) -> Any:
        types = sys.modules["tensorrt"].DataType
        return {"tensor(uint8)": types.UINT8}.get(self.values[name].type)

    def create_execution_context(self) -> Context:
        return Context(self)

    def create_engine_inspector(self) -> Inspector:
        return Inspector()


class Inspector:
    def get_engine_information(self, format: Any) -> str:
        types = ("Int8 NC/32HW32", "Int8 NC/32HW32", "FP16 NCHW")
        layers = [{"Name": str(i), "Outputs": [{"Name": "x", "Format/Datatype": t}]} for i, t in enumerate(types)]
        return json.dumps({"Layers": layers, "Bindings": ["frame", "logits"]})


class Context:
    def __init__(self, engine: Engine):
        self.engine, self.addresses, self.shape = engine, dict[str, int](), list[int]()

    def set_input_shape(self, name: str, shape: Any) -> bool:
        own = self.engine.values[name].shape
        assert all(size == requested or isinstance(size, str) for size, requested in zip(own, shape, strict=True))
        self.shape = list(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shape, "asked for a shape before the input has one"
        return tuple(self.engine.values[name].shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert name in self.engine.values and memory in self.engine.board.device, "not an address of the device"
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert set(self.addresses) == {"frame", "logits"}, "a tensor has no address"
        self.engine.board.streams[stream].append(self._run)
        return True

    def _run(self) -> None:
        board, shape = self.engine.board, self.shape
        frame = board.at(self.addresses["frame"], int(np.prod(shape))).reshape(shape)
        if board.wrong:
            frame = 255 - frame[:, ::-1]
        logits = self.engine.session.run(["logits"], {"frame": np.ascontiguousarray(frame)})[0]
        board.at(self.addresses["logits"], logits.nbytes)[:] = logits.view(np.uint8).ravel()


class Dims(list):  # type: ignore[type-arg]
    pass


# Behavior behind the bindings' own signatures

BEHAVIOR: dict[str, Any] = {
    "Builder": Builder,
    "INetworkDefinition": Network,
    "ITensor": Tensor,
    "IOptimizationProfile": Profile,
    "ITimingCache": Timing,
    "IBuilderConfig": Config,
    "OnnxParser": Parser,
    "ParserError": Problem,
    "IHostMemory": HostMemory,
    "Runtime": Runtime,
    "ICudaEngine": Engine,
    "EngineInspector": Inspector,
    "IExecutionContext": Context,
}
CREATED_BY_USERS = ("Builder", "OnnxParser", "Runtime")


def tensorrt(board: Board) -> types.ModuleType:
    """The module `tensorrt` of the board's release."""
    api, module = API["tensorrt"][board.release], types.ModuleType("tensorrt")
    module.__version__ = board.release  # type: ignore[attr-defined]
    module.Dims = Dims  # type: ignore[attr-defined]
    for name, members in api.items():
        values = [key for key, kind in members.items() if kind == "enum"]
        if "." not in name and name not in BEHAVIOR and values and name != "ILogger":
            setattr(module, name, enum.IntEnum(name, {key: i for i, key in enumerate(values)}))
    # Their numbers are the real ones: flags are built from them.
    kinds = [key for key in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if key in api["NetworkDefinitionCreationFlag"]]
    numbers = {key: ("EXPLICIT_BATCH", "STRONGLY_TYPED").index(key) for key in kinds}
    module.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", numbers)  # type: ignore[misc]
    severity = enum.IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1})
    module.ILogger = type("ILogger", (), {"Severity": severity, "__init__": no_arguments})  # type: ignore[attr-defined]
    if "IInt8EntropyCalibrator2" in api:
        module.IInt8EntropyCalibrator2 = type("Calibrator", (), {"__init__": no_arguments})  # type: ignore[attr-defined]
    for name in BEHAVIOR:
        setattr(module, name, guarded(module, name, api[name], board))
    return module


def no_arguments(self: Any) -> None:
    pass


def guarded(module: types.ModuleType, name: str, api: dict[str, Any], board: Board) -> type:
    """A class with exactly the members of `api`, whose calls are checked and then done by BEHAVIOR[name]."""

    def make(self: Any, *given: Any) -> None:
        if name not in CREATED_BY_USERS:
            raise TypeError(f"{name}: No constructor defined!")
        checked(module, f"{name}.__init__", api["__init__"], given)
        self.behind = BEHAVIOR[name](board, *(getattr(g, "behind", g) for g in given))

    fields: dict[str, Any] = {"__slots__": ("behind",), "__init__": make}
    if name == "IHostMemory":
        fields["__bytes__"] = lambda self: self.behind.data
    for key, kind in api.items():
        if isinstance(kind, list) and key != "__init__":
            fields[key] = method(module, name, key, kind)
        elif kind in ("property", "writable"):
            fields[key] = field(module, key, kind == "writable")
    return type(name, (), fields)


def method(module: types.ModuleType, owner: str, key: str, signatures: list[Any]) -> Callable[..., Any]:
    def call(self: Any, *given: Any) -> Any:
        checked(module, f"{owner}.{key}", signatures, given)
        return wrapped(module, getattr(self.behind, key)(*(getattr(g, "behind", g) for g in given)))

    return call


def field(module: types.ModuleType, key: str, writable: bool) -> property:
    def write(self: Any, value: Any) -> None:
        setattr(self.behind, key, value)

    return property(lambda self: wrapped(module, getattr(self.behind, key)), write if writable else None)


def wrapped(module: types.ModuleType, value: Any) -> Any:
    """A result of our behavior as the guarded class of the release."""
    for name, behavior in BEHAVIOR.items():
        if type(value) is behavior:
            made = object.__new__(getattr(module, name))
            made.behind = value
            return made
    return value


def checked(module: types.ModuleType, what: str, signatures: list[Any], given: tuple[Any, ...]) -> None:
    """TypeError unless the arguments fit one of the signatures, as pybind11 has it."""
    if not any(fits(module, arguments, given) for arguments in signatures):
        raise TypeError(f"{what}(): incompatible arguments {given!r}; known: {signatures}")


def fits(module: types.ModuleType, arguments: list[Any], given: tuple[Any, ...]) -> bool:
    needed = sum(not default for _, _, default in arguments)
    if not needed <= len(given) <= len(arguments):
        return False
    kinds = {"int": int, "str": str, "typing.SupportsInt": int, "typing_extensions.Buffer": (bytes, memoryview)}
    for value, (_, kind, _) in zip(given, arguments):
        expected = kinds.get(kind) or getattr(module, kind, None)
        if isinstance(expected, (type, tuple)) and not isinstance(value, expected):
            return False
    return True


# CUDA


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900


class Cuda:
    """The functions of cuda.bindings.runtime that edgeseg/tensorrt/cuda.py calls."""

    def __init__(self, board: Board):
        self.board, self.next = board, 0x7000_0000_0000
        self.capturing: dict[int, list[Callable[[], None]]] = {}

    def _address(self, array: np.ndarray) -> int:
        self.next += 1 << 20
        self.board.device[self.next] = array
        return self.next

    def cudaSetDevice(self, device: int) -> Any:
        return (Status.cudaSuccess,)

    def cudaGetDeviceProperties(self, device: int) -> Any:
        b = self.board
        result = types.SimpleNamespace(
            name=b.gpu.encode(), major=b.capability[0], minor=b.capability[1], integrated=int(b.unified)
        )
        return Status.cudaSuccess, result

    def cudaDriverGetVersion(self) -> Any:
        return Status.cudaSuccess, self.board.driver

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        array = np.zeros(size, np.uint8)
        self.board.host[array.ctypes.data] = array
        return Status.cudaSuccess, array.ctypes.data

    def cudaHostGetDevicePointer(self, pointer: int, flags: int) -> Any:
        return Status.cudaSuccess, self._address(self.board.host[pointer])

    def cudaFreeHost(self, pointer: int) -> Any:
        array = self.board.host.pop(pointer)
        for address in [a for a, kept in self.board.device.items() if kept is array]:
            del self.board.device[address]
        return (Status.cudaSuccess,)

    def cudaMalloc(self, size: int) -> Any:
        return Status.cudaSuccess, self._address(np.zeros(size, np.uint8))

    def cudaFree(self, pointer: int) -> Any:
        del self.board.device[pointer]
        return (Status.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        stream = len(self.board.streams) + 1
        while stream in self.board.streams:
            stream += 1
        self.board.streams[stream] = []
        return Status.cudaSuccess, stream

    def cudaStreamDestroy(self, stream: int) -> Any:
        del self.board.streams[int(stream)]
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> Any:
        def copy() -> None:
            host, device = (source, to) if kind == 1 else (to, source)
            there, here = self.board.at(device, size), self.board.host[host][:size]
            if kind == 1:
                there[:] = here
            else:
                here[:] = there

        self.board.streams[stream].append(copy)
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> Any:
        waiting = self.board.streams[stream]
        while waiting:
            waiting.pop(0)()
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> Any:
        assert not self.board.streams[stream], "the stream is busy"
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        work, self.board.streams[stream] = self.board.streams[stream], []
        if not self.board.captures:
            return Status.cudaErrorStreamCaptureUnsupported, None
        return Status.cudaSuccess, work

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        return Status.cudaSuccess, list(graph)

    def cudaGraphDestroy(self, graph: Any) -> Any:
        return (Status.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: Any) -> Any:
        return (Status.cudaSuccess,)

    def cudaGraphLaunch(self, graph: Any, stream: int) -> Any:
        self.board.launched += 1
        self.board.streams[stream] += graph
        return (Status.cudaSuccess,)


def cuda_runtime(board: Board) -> types.ModuleType:
    """The module cuda.bindings.runtime; only names and numbers of arguments that the release has."""
    module, real = types.ModuleType("cuda.bindings.runtime"), Cuda(board)
    kinds = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    module.cudaMemcpyKind, module.cudaHostAllocMapped, module.cudaStreamNonBlocking = kinds, 2, 1  # type: ignore[attr-defined]
    module.cudaStreamCaptureMode = types.SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # type: ignore[attr-defined]
    for name, arguments in API["cuda"][board.cuda_release].items():
        if arguments is not None:
            setattr(module, name, counted(getattr(real, name), len(arguments)))
    return module


def counted(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        if len(given) != count:
            raise TypeError(f"{function.__name__}() takes {count} arguments, not {len(given)}")
        return function(*given)

    call.__name__ = function.__name__
    return call


assert ctypes.sizeof(ctypes.c_void_p) == 8

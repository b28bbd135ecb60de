"""CUDA memory and streams behind one small interface: cuda-python (cuda.bindings), else pycuda."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError, MissingPackage

HINT = "Check the driver and the free memory (tegrastats, nvidia-smi)."


class Cuda(Protocol):
    """The first device. Addresses and streams are plain integers; sizes are bytes. close() frees everything."""

    name: str
    capability: str  # "8.7"
    driver: str  # the newest CUDA the driver knows, "12.6"
    unified: bool  # CPU and GPU share one memory

    def pinned(self, size: int) -> tuple[int, int]: ...  # host memory: its address for the CPU, and for the GPU
    def memory(self, size: int) -> int: ...
    def stream(self) -> int: ...
    def upload(self, device: int, host: int, size: int, stream: int) -> None: ...
    def download(self, host: int, device: int, size: int, stream: int) -> None: ...
    def wait(self, stream: int) -> None: ...
    def capture(self, stream: int, work: Callable[[], None]) -> Callable[[], None] | None: ...
    def close(self) -> None: ...


def view(address: int, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
    """Memory as an array."""
    import ctypes

    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), kind).reshape(shape)


def open_device(job: str) -> Cuda:
    """MissingPackage without any CUDA bindings; EdgesegError where there is no device."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        try:
            import pycuda.driver
        except ImportError as error:
            raise MissingPackage("cuda-python (or pycuda)", job, "tensorrt") from error
        return PyCuda(pycuda.driver)
    return CudaPython(runtime)


class CudaPython:
    """NVIDIA's own bindings of the CUDA runtime: every call returns (error, *results)."""

    def __init__(self, runtime: Any):
        self._rt = runtime
        self._free: list[tuple[Any, Any]] = []
        self._call(runtime.cudaSetDevice, 0)
        device = self._call(runtime.cudaGetDeviceProperties, 0)
        version = self._call(runtime.cudaDriverGetVersion)
        self.name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        self.capability = f"{device.major}.{device.minor}"
        self.driver = f"{version // 1000}.{version % 1000 // 10}"
        self.unified = bool(device.integrated)

    def _call(self, function: Any, *arguments: Any) -> Any:
        status, *results = function(*arguments)
        if int(status):
            what = f"{function.__name__}: {getattr(status, 'name', status)}"
            raise EdgesegError(f"CUDA failed in {what}.", HINT)
        return results[0] if results else None

    def pinned(self, size: int) -> tuple[int, int]:
        rt = self._rt
        host = int(self._call(rt.cudaHostAlloc, size, rt.cudaHostAllocMapped))
        self._free.append((rt.cudaFreeHost, host))
        return host, int(self._call(rt.cudaHostGetDevicePointer, host, 0))

    def memory(self, size: int) -> int:
        address = int(self._call(self._rt.cudaMalloc, size))
        self._free.append((self._rt.cudaFree, address))
        return address

    def stream(self) -> int:
        stream = self._call(self._rt.cudaStreamCreateWithFlags, self._rt.cudaStreamNonBlocking)
        self._free.append((self._rt.cudaStreamDestroy, stream))
        return int(stream)

    def upload(self, device: int, host: int, size: int, stream: int) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._rt.cudaMemcpyAsync, device, host, size, kind, stream)

    def download(self, host: int, device: int, size: int, stream: int) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._rt.cudaMemcpyAsync, host, device, size, kind, stream)

    def wait(self, stream: int) -> None:
        self._call(self._rt.cudaStreamSynchronize, stream)

    def capture(self, stream: int, work: Callable[[], None]) -> Callable[[], None] | None:
        """`work` as a CUDA graph, or None where one of its operations cannot be captured."""
        rt = self._rt
        self._call(rt.cudaStreamBeginCapture, stream, rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            work()
        except EdgesegError:
            rt.cudaStreamEndCapture(stream)
            return None
        status, graph = rt.cudaStreamEndCapture(stream)
        if int(status):
            return None
        ready = self._call(rt.cudaGraphInstantiate, graph, 0)
        self._call(rt.cudaGraphDestroy, graph)
        self._free.append((rt.cudaGraphExecDestroy, ready))
        return lambda: self._call(rt.cudaGraphLaunch, ready, stream)

    def close(self) -> None:
        while self._free:
            function, argument = self._free.pop()
            function(argument)


class PyCuda:
    """pycuda: no CUDA graphs; its context belongs to a thread, so every call enters and leaves it."""

    def __init__(self, driver: Any):
        self._drv = driver
        try:
            driver.init()
            device = driver.Device(0)
            self._context = device.retain_primary_context()
        except driver.Error as error:
            raise EdgesegError(f"CUDA failed: {error}.", HINT) from error
        self._owners: dict[int, Any] = {}  # address or stream -> the object that frees it
        self.name = str(device.name())
        self.capability = ".".join(str(part) for part in device.compute_capability())
        self.driver = f"{driver.get_driver_version() // 1000}.{driver.get_driver_version() % 1000 // 10}"
        self.unified = bool(device.get_attribute(driver.device_attribute.INTEGRATED))

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self._context.push()
        try:
            return function(*arguments, **options)
        except self._drv.Error as error:
            raise EdgesegError(f"CUDA failed: {error}.", HINT) from error
        finally:
            self._context.pop()

    def _own(self, address: int, owner: Any) -> int:
        self._owners[address] = owner
        return address

    def pinned(self, size: int) -> tuple[int, int]:
        flags = self._drv.host_alloc_flags.DEVICEMAP
        array = self._call(self._drv.pagelocked_empty, size, "uint8", mem_flags=flags)
        return self._own(int(array.ctypes.data), array), int(self._call(array.base.get_device_pointer))

    def memory(self, size: int) -> int:
        memory = self._call(self._drv.mem_alloc, size)
        return self._own(int(memory), memory)

    def stream(self) -> int:
        stream = self._call(self._drv.Stream)
        return self._own(int(stream.handle), stream)

    def upload(self, device: int, host: int, size: int, stream: int) -> None:
        self._call(self._drv.memcpy_htod_async, device, self._owners[host][:size], self._owners[stream])

    def download(self, host: int, device: int, size: int, stream: int) -> None:
        self._call(self._drv.memcpy_dtoh_async, self._owners[host][:size], device, self._owners[stream])

    def wait(self, stream: int) -> None:
        self._call(self._owners[stream].synchronize)

    def capture(self, stream: int, work: Callable[[], None]) -> Callable[[], None] | None:
        return None

    def close(self) -> None:
        self._call(self._owners.clear)

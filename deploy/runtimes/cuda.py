"""Memory and streams of an NVIDIA GPU, through the CUDA runtime that `cuda-bindings` carries in itself."""

from __future__ import annotations

import weakref
from types import ModuleType
from typing import Any, final

import numpy as np

from deploy.errors import DeviceFailedError, DeviceMemoryError, DeviceMissingError, RuntimeMissingError
from deploy.tensors import Array

_NO_MEMORY = 2
_NO_DEVICE = {35, 100, 101}
"""Insufficient driver, no device, invalid device (CUDA Runtime API, `cudaError`)."""


def import_cuda() -> ModuleType:
    """Returns the CUDA runtime's module.

    Raises:
        RuntimeMissingError: If it is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as exc:
        msg = "the CUDA bindings are not installed on this machine: pip install 'shoal[tensorrt]'"
        raise RuntimeMissingError(msg) from exc
    return runtime  # type: ignore[no-any-return]


@final
class Cuda:
    """One GPU and one stream on it.

    Raises:
        RuntimeMissingError: If the bindings are not installed.
        DeviceMissingError: If the GPU is not there.
    """

    def __init__(self, index: int) -> None:
        self._library = import_cuda()
        self._index = index
        self.activate()
        self.stream = self._call("cudaStreamCreate")

    def activate(self) -> None:
        """Makes this GPU the one that the calling thread talks to."""
        self._call("cudaSetDevice", self._index)

    def free_bytes(self) -> int:
        """Returns how much of the GPU's memory is free."""
        free, _ = self._call("cudaMemGetInfo")
        return int(free)

    def allocate(self, size: int) -> Buffer:
        """Returns `size` bytes on the GPU, given back when nobody holds them any more.

        Raises:
            DeviceMemoryError: If there are not so many.
        """
        pointer = int(self._call("cudaMalloc", max(1, size)))
        return Buffer(self._library, pointer)

    def upload(self, buffer: Buffer, value: Array) -> None:
        """Copies a contiguous array to the GPU, and waits for it."""
        kind = self._library.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", buffer.pointer, value.ctypes.data, value.nbytes, kind, self.stream)
        self.synchronize()

    def download(self, buffer: Buffer, shape: tuple[int, ...], dtype: str) -> Array:
        """Returns what is in the buffer, as an array."""
        value: Array = np.empty(shape, dtype)
        kind = self._library.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", value.ctypes.data, buffer.pointer, value.nbytes, kind, self.stream)
        self.synchronize()
        return value

    def synchronize(self) -> None:
        """Waits until everything on the stream is done."""
        self._call("cudaStreamSynchronize", self.stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        return _check(name, getattr(self._library, name)(*arguments))


@final
class Buffer:
    """Memory on a GPU."""

    def __init__(self, library: ModuleType, pointer: int) -> None:
        self.pointer = pointer
        weakref.finalize(self, library.cudaFree, pointer)


def _check(name: str, result: tuple[Any, ...]) -> Any:
    """Returns what a CUDA call returns besides its status.

    Raises:
        DeviceMemoryError: If there is not enough memory.
        DeviceMissingError: If there is no such device, or no driver for it.
        DeviceFailedError: If it failed in another way.
    """
    status, *values = result
    if int(status) == 0:
        return values[0] if len(values) == 1 else tuple(values)
    what = f"{name}: {getattr(status, 'name', status)}"
    if int(status) == _NO_MEMORY:
        msg = f"the GPU is out of memory ({what}): free some, or lower the batch"
        raise DeviceMemoryError(msg)
    if int(status) in _NO_DEVICE:
        msg = f"the GPU cannot be used ({what}): there is none, or its driver is missing or too old for this CUDA"
        raise DeviceMissingError(msg)
    msg = f"a call to the GPU failed ({what})"
    raise DeviceFailedError(msg)

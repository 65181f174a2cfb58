"""NVIDIA GPUs: which there are, told by the driver, and in which state they are, told by NVML.

The driver's own library is asked through its C interface (CUDA Driver API, libcuda), which every machine with a usable
GPU has, Jetsons too, so that nothing has to be installed to know whether there is one. No context is made.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deploy.errors import DeviceMissingError

_LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256
# CUdevice_attribute: compute capability, major and minor; whether the GPU uses the processor's memory.
_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18
_DRIVER_FILES = (Path("/proc/driver/nvidia/version"), Path("/sys/module/nvidia/version"))


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        index: N of `cuda:N`, as CUDA counts them (`CUDA_VISIBLE_DEVICES` counts).
        name: E.g. `NVIDIA L4` or `Orin`.
        compute_capability: E.g. `8.9`.
        memory_bytes: All of its memory.
        shares_memory: Whether that is the processor's memory, as on a Jetson.
        driver: Version of the driver; None where it is not told.
        cuda: Newest CUDA version that the driver supports, e.g. `13.0`.
        uuid: Of this very GPU, as hexadecimal digits.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    shares_memory: bool
    driver: str | None
    cuda: str
    uuid: str

    @property
    def fingerprint(self) -> str:
        """Returns what must be equal for two times on GPUs to be comparable."""
        return f"{self.name}|{self.compute_capability}|{self.memory_bytes >> 20} MiB|driver {self.driver}|{self.cuda}"


@dataclass(frozen=True)
class GpuState:
    """The state of a GPU at one moment; None where it is not told.

    Attributes:
        sm_mhz: Clock of the processors.
        memory_mhz: Clock of the memory.
        temperature_celsius: Of the chip.
        power_watts: Drawn now.
        power_limit_watts: Where it is throttled.
        throttled: Why the clock is lower than it could be, as NVML names it; empty where it is not.
        performance_state: `P0` is the fastest.
        available_memory_bytes: Memory that nobody uses.
    """

    sm_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    throttled: tuple[str, ...] = ()
    performance_state: str | None = None
    available_memory_bytes: int | None = None


@cache
def list_gpus() -> tuple[Gpu, ...]:
    """Returns the GPUs that CUDA can use here, none where there is no driver. Asked once per process."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_describe(driver, index) for index in range(count.value))


def find_gpu(index: int) -> Gpu:
    """Returns the GPU `cuda:index`.

    Raises:
        DeviceMissingError: If it is not there; the message says which devices are.
    """
    gpus = list_gpus()
    if index >= len(gpus):
        msg = f"there is no device 'cuda:{index}' on this machine; there are: {', '.join(list_devices())}"
        raise DeviceMissingError(msg)
    return gpus[index]


def list_devices() -> tuple[str, ...]:
    """Returns the names of the devices of this machine, `cpu` first."""
    return ("cpu", *(f"cuda:{gpu.index}" for gpu in list_gpus()))


def read_gpu_state(gpu: Gpu) -> GpuState:
    """Returns the state of a GPU now; an empty one where NVML cannot tell (extra `cuda`).

    Asking disturbs what runs on the GPU: do it before and after a measurement, never during one.
    """
    try:
        import pynvml
    except ImportError:
        return GpuState()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return GpuState()
    try:
        return _ask_nvml(pynvml, gpu)
    finally:
        pynvml.nvmlShutdown()


def format_version(number: int) -> str:
    """Returns CUDA's version as people write it: 13020 is `13.2`."""
    return f"{number // 1000}.{number % 1000 // 10}"


def read_driver_version(texts: list[str]) -> str | None:
    """Returns the driver's version as the first of these texts that holds one says."""
    for text in texts:
        if found := re.search(r"\b(\d{3,}(?:\.\d+)+)\b", text):
            return found.group(1)
    return None


def _describe(driver: Any, index: int) -> Gpu:
    device, memory, version = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_int()
    name, uuid = ctypes.create_string_buffer(_NAME_BYTES), (ctypes.c_ubyte * 16)()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDeviceGetUuid(ctypes.byref(uuid), device)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        compute_capability=f"{_attribute(driver, device, _MAJOR)}.{_attribute(driver, device, _MINOR)}",
        memory_bytes=memory.value,
        shares_memory=bool(_attribute(driver, device, _INTEGRATED)),
        driver=read_driver_version([_read(path) for path in _DRIVER_FILES]),
        cuda=format_version(version.value),
        uuid=bytes(uuid).hex(),
    )


def _attribute(driver: Any, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _ask_nvml(nvml: Any, gpu: Gpu) -> GpuState:
    handle = _tell(nvml, lambda: nvml.nvmlDeviceGetHandleByUUID(_nvml_uuid(gpu.uuid)))
    if handle is None:
        return GpuState()
    milliwatts = _tell(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    limit = _tell(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    state = _tell(nvml, lambda: nvml.nvmlDeviceGetPerformanceState(handle))
    memory = _tell(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    reasons = _tell(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)) or 0
    return GpuState(
        sm_mhz=_tell(nvml, lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        memory_mhz=_tell(nvml, lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        temperature_celsius=_tell(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        power_watts=None if milliwatts is None else milliwatts / 1e3,
        power_limit_watts=None if limit is None else limit / 1e3,
        throttled=name_throttling(reasons),
        performance_state=None if state is None else f"P{state}",
        available_memory_bytes=None if memory is None else int(memory.free),
    )


def _tell(nvml: Any, ask: Callable[[], Any]) -> Any:
    with suppress(nvml.NVMLError):
        return ask()
    return None


def _nvml_uuid(digits: str) -> str:
    """Returns the UUID as NVML writes it: `GPU-` and groups of 8, 4, 4, 4 and 12 digits."""
    groups = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "GPU-" + "-".join(groups)


_THROTTLING = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's clock event reasons that make times longer. Idle clocks (0x1) are not among them: they pass."""


def name_throttling(bits: int) -> tuple[str, ...]:
    """Returns the reasons in NVML's bit mask that keep the clock low under load."""
    return tuple(name for bit, name in _THROTTLING.items() if bits & bit)

"""What a measurement ran on, and in which state it was. Read from the system; only a GPU's state needs a library."""

from __future__ import annotations

import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.devices import parse_device
from deploy.gpu import Gpu, GpuState, find_gpu, read_gpu_state
from deploy.jetson import JetsonState, read_jetson_state

_PROC = Path("/proc")
_SYS = Path("/sys")
_KINDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""What the first line of /proc/stat counts, in clock ticks."""


@dataclass(frozen=True)
class Device:
    """The machine.

    Attributes:
        model: The processor's model name.
        architecture: E.g. `x86_64`.
        cores: Logical processors this process may run on.
        memory_bytes: Memory of the machine; None where it is not told.
        system: Operating system and its release.
        hostname: The machine's name.
        gpu: The GPU that ran the model; None where the processor did.
    """

    model: str
    architecture: str
    cores: int
    memory_bytes: int | None
    system: str
    hostname: str
    gpu: Gpu | None = None

    @property
    def fingerprint(self) -> str:
        """Returns what must be equal for two times to be comparable."""
        processor = f"{self.model}|{self.architecture}|{self.cores}"
        return processor if self.gpu is None else f"{processor}|{self.gpu.fingerprint}"

    @property
    def title(self) -> str:
        """Returns what ran the model, in a few words."""
        return self.model if self.gpu is None else f"{self.gpu.name} in {self.model}"

    @property
    def summary(self) -> str:
        """Returns the machine in a few words, as reports call it."""
        return f"{self.title}, {self.cores} cores, {self.system}"


@dataclass(frozen=True)
class ClockState:
    """The state of the machine at one moment; None where the system does not tell.

    Attributes:
        mhz: Clock of every logical processor.
        governor: Frequency governor.
        load_average: Runnable processes over the last one, five and fifteen minutes.
        temperature_celsius: Hottest thermal zone.
        steal_seconds: Processor time that the hypervisor gave to others, since boot, all processors together.
        others_seconds: Processor time of everything but this process, since boot, all processors together.
        waited_seconds: Time that this thread was ready to run but had no processor, since it began.
        monotonic_seconds: When.
        available_memory_bytes: Memory that programs could have without others losing theirs.
        gpu: State of the GPU that runs the model, where one does.
        jetson: State of the machine where it is a Jetson.
    """

    mhz: tuple[float, ...]
    governor: str | None
    load_average: tuple[float, float, float] | None
    temperature_celsius: float | None
    steal_seconds: float | None
    others_seconds: float | None
    waited_seconds: float | None
    monotonic_seconds: float
    available_memory_bytes: int | None = None
    gpu: GpuState | None = None
    jetson: JetsonState | None = None


def describe_device(device: str = "cpu") -> Device:
    """Returns the machine that this process runs on.

    Args:
        device: What runs models there, `cpu` or `cuda:N`.

    Raises:
        DeviceMissingError: If the machine has no such device.
    """
    return Device(
        gpu=_gpu(device),
        model=_processor_model(),
        architecture=platform.machine(),
        cores=usable_cores(),
        memory_bytes=_memory("MemTotal"),
        system=f"{platform.system()} {platform.release()}",
        hostname=platform.node(),
    )


def read_device(values: dict[str, Any]) -> Device:
    """Returns a device that was written as plain data, `dataclasses.asdict`."""
    gpu = values.get("gpu")
    return Device(**{**values, "gpu": None if gpu is None else Gpu(**gpu)})


def usable_cores() -> int:
    """Returns on how many logical processors this process may run, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_clock_state(device: str = "cpu") -> ClockState:
    """Returns the state of the machine now. Not free: call it before and after measuring, never during.

    Args:
        device: What runs models there, `cpu` or `cuda:N`.

    Raises:
        DeviceMissingError: If the machine has no such device.
    """
    gpu = _gpu(device)
    return ClockState(
        gpu=None if gpu is None else read_gpu_state(gpu),
        jetson=read_jetson_state(),
        mhz=_clocks(),
        governor=_read(_SYS / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        load_average=os.getloadavg() if hasattr(os, "getloadavg") else None,
        temperature_celsius=_temperature(),
        steal_seconds=_processor_seconds("steal"),
        others_seconds=_others(),
        waited_seconds=_waited(),
        monotonic_seconds=time.monotonic(),
        available_memory_bytes=_memory("MemAvailable"),
    )


def _gpu(device: str) -> Gpu | None:
    name = parse_device(device)
    return find_gpu(name.index) if name.kind == "cuda" else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _processor_model() -> str:
    text = _read(_PROC / "cpuinfo") or ""
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    device_tree = _read(_PROC / "device-tree/model")
    if device_tree:
        return device_tree.rstrip("\0")
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _memory(what: str) -> int | None:
    found = re.search(rf"^{what}:\s+(\d+) kB", _read(_PROC / "meminfo") or "", re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def _clocks() -> tuple[float, ...]:
    frequencies = sorted((_SYS / "devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    texts = [_read(path) for path in frequencies]
    if texts and all(text and text.isdigit() for text in texts):
        return tuple(int(text) / 1000 for text in texts if text)
    found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _read(_PROC / "cpuinfo") or "", re.MULTILINE)
    return tuple(float(text) for text in found)


def _temperature() -> float | None:
    texts = [_read(path) for path in (_SYS / "class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(text) / 1000 for text in texts if text and re.fullmatch(r"-?\d+", text)]
    return max(degrees, default=None)


def _processor_seconds(*kinds: str) -> float | None:
    """Returns how long all processors together did these kinds of work since boot."""
    fields = (_read(_PROC / "stat") or "").split("\n", 1)[0].split()
    if len(fields) <= len(_KINDS) or fields[0] != "cpu":
        return None
    ticks = dict(zip(_KINDS, map(int, fields[1:]), strict=False))
    return sum(ticks[kind] for kind in kinds) / os.sysconf("SC_CLK_TCK")


def _others() -> float | None:
    busy = _processor_seconds("user", "nice", "system", "irq", "softirq")
    return None if busy is None else busy - time.process_time()


def _waited() -> float | None:
    # /proc/self/schedstat: nanoseconds on a processor, nanoseconds waiting for one, time slices.
    fields = (_read(_PROC / "self/schedstat") or "").split()
    return int(fields[1]) * 1e-9 if len(fields) == 3 else None

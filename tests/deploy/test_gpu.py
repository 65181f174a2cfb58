from __future__ import annotations

from dataclasses import replace

import pynvml
import pytest

from deploy.errors import DeviceMissingError
from deploy.gpu import (
    _INTEGRATED,
    _MAJOR,
    _MINOR,
    _THROTTLING,
    GpuState,
    find_gpu,
    format_version,
    list_devices,
    list_gpus,
    name_throttling,
    read_driver_version,
    read_gpu_state,
)
from tests.deploy.gpus import SERVER, needs_gpu


def test_the_processor_is_always_a_device_and_gpus_follow_in_order() -> None:
    assert list_devices() == ("cpu", *(f"cuda:{index}" for index in range(len(list_gpus()))))


def test_a_gpu_that_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(DeviceMissingError, match=r"no device 'cuda:99' on this machine; there are: cpu"):
        find_gpu(99)


@pytest.mark.parametrize(("number", "text"), [(13020, "13.2"), (12060, "12.6"), (11040, "11.4")])
def test_cuda_versions_are_written_as_people_do(number: int, text: str) -> None:
    assert format_version(number) == text


@pytest.mark.parametrize(
    ("texts", "version"),
    [
        (["NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:00:00 UTC 2025\n"], "580.65.06"),
        (["", "540.4.0\n"], "540.4.0"),
        (["", "NVRM version: unknown"], None),
    ],
)
def test_the_driver_version_is_found_where_it_is_told(texts: list[str], version: str | None) -> None:
    assert read_driver_version(texts) == version


def test_only_what_slows_a_loaded_gpu_counts_as_throttling() -> None:
    assert name_throttling(0x1 | 0x2) == ()
    assert name_throttling(0x4 | 0x40) == ("software power cap", "hardware thermal slowdown")


def test_throttling_is_numbered_as_nvml_does() -> None:
    numbers = {
        pynvml.nvmlClocksEventReasonSwPowerCap: "software power cap",
        pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
        pynvml.nvmlClocksEventReasonSwThermalSlowdown: "software thermal slowdown",
        pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hardware thermal slowdown",
        pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "hardware power brake",
    }
    assert numbers == _THROTTLING


def test_attributes_are_numbered_as_cuda_does() -> None:
    known = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings are not installed here")
    names = known.CUdevice_attribute
    assert names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR == _MAJOR
    assert names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR == _MINOR
    assert names.CU_DEVICE_ATTRIBUTE_INTEGRATED == _INTEGRATED


@pytest.mark.parametrize(
    "other",
    [
        replace(SERVER, name="NVIDIA A10"),
        replace(SERVER, memory_bytes=1 << 30),
        replace(SERVER, driver="581.1"),
        replace(SERVER, cuda="13.1"),
    ],
)
def test_what_changes_times_changes_the_fingerprint(other: object) -> None:
    assert other.fingerprint != SERVER.fingerprint  # type: ignore[attr-defined]


def test_equal_gpus_of_one_machine_share_a_fingerprint() -> None:
    assert replace(SERVER, index=3, uuid="f" * 32).fingerprint == SERVER.fingerprint


def test_the_state_of_a_gpu_that_nvml_does_not_know_is_empty() -> None:
    assert read_gpu_state(SERVER) == GpuState()


@needs_gpu
def test_the_driver_describes_its_gpus() -> None:
    gpu = list_gpus()[0]
    assert gpu.name
    assert gpu.memory_bytes > 2**28
    assert float(gpu.compute_capability) >= 5


@needs_gpu
def test_nvml_tells_what_memory_is_left() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed here")
    gpu = list_gpus()[0]
    left = read_gpu_state(gpu).available_memory_bytes
    assert left is not None
    assert 0 < left <= gpu.memory_bytes * 1.1

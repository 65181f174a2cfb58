from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploy.errors import DeviceFailedError, DeviceMemoryError, DeviceMissingError
from deploy.gpu import list_gpus
from deploy.runtimes.cuda import Cuda, _check
from tests.deploy.gpus import needs_gpu

Status = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings are not installed here").cudaError_t


def test_what_a_call_returns_is_passed_on() -> None:
    assert _check("f", (Status.cudaSuccess,)) == ()
    assert _check("f", (Status.cudaSuccess, 7)) == 7
    assert _check("f", (Status.cudaSuccess, 7, 8)) == (7, 8)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.cudaErrorMemoryAllocation, DeviceMemoryError),
        (Status.cudaErrorNoDevice, DeviceMissingError),
        (Status.cudaErrorInvalidDevice, DeviceMissingError),
        (Status.cudaErrorInsufficientDriver, DeviceMissingError),
        (Status.cudaErrorIllegalAddress, DeviceFailedError),
    ],
)
def test_a_failed_call_says_which_and_why(status: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=rf"cudaMalloc: {status.name}"):
        _check("cudaMalloc", (status, None))


@pytest.mark.skipif(bool(list_gpus()), reason="there is a GPU here")
def test_without_a_gpu_the_real_library_says_so() -> None:
    with pytest.raises(DeviceMissingError, match="cudaSetDevice"):
        Cuda(0)


@needs_gpu
def test_arrays_go_to_the_gpu_and_come_back() -> None:
    cuda = Cuda(0)
    value = np.arange(12, dtype=np.float32).reshape(3, 4)
    buffer = cuda.allocate(value.nbytes)
    cuda.upload(buffer, value)
    np.testing.assert_array_equal(cuda.download(buffer, value.shape, "float32"), value)

"""Whose fault it is that ONNX Runtime failed on a GPU, told from what it said.

It raises the same exceptions for a file that it cannot read and for a GPU without memory; only the words differ. The
reason of a build that fails inside TensorRT goes to a log and not into the exception, which says no more than that.
"""

from __future__ import annotations

import re

from deploy.engines.failures import classify_failure, find_memory_failure
from deploy.errors import DeployError, DeviceFailedError, DeviceMemoryError

_BUILD = re.compile(
    r"(?:TensorRT EP (?:failed to|could not) (?:create|build)|could not find any implementation)[^\n]*", re.IGNORECASE
)
_DEVICE = re.compile(
    r"(?:(?:CUDA|CUDNN|CUBLAS|CUFFT|CURAND)(?:_FE)? (?:failure|error)|cudaError[A-Z]|TensorRT EP [^\n]*fail)[^\n]*",
    re.IGNORECASE,
)
# What the device cannot do, which is no failure of it: the file asks for too much.
_UNSUPPORTED = re.compile(r"_STATUS_(?:NOT_SUPPORTED|ARCH_MISMATCH)")


def classify_device_failure(said: str, doing: str) -> DeployError | None:
    """Returns the error that a failure on a GPU means; None where it tells nothing of the device.

    Args:
        said: The exception's text.
        doing: What was being done, such as `loading 'net.onnx'`.
    """
    starved = find_memory_failure(said)
    if starved is not None:
        return DeviceMemoryError(
            f"the GPU is out of memory while {doing} ({_told(starved)}): free some, or lower the batch"
        )
    found = _DEVICE.search(said)
    if found is None or _UNSUPPORTED.search(said):
        return None
    return DeviceFailedError(f"the GPU failed while {doing}: {_told(found.group())}")


def classify_build_failure(said: str, doing: str, shares_memory: bool, workspace_bytes: int) -> DeployError | None:
    """Returns the same for a session that builds engines of TensorRT, whose builds may fail for reasons of their own.

    Args:
        said: The exception's text.
        doing: What was being done.
        shares_memory: Whether the GPU uses the processor's memory.
        workspace_bytes: Scratch memory that kernels were allowed.
    """
    found = _BUILD.search(said)
    if found is None:
        return classify_device_failure(said, doing)
    messages = [text for text in (_told(found.group()), find_memory_failure(said)) if text is not None]
    return classify_failure(messages, shares_memory, workspace_bytes)


def _told(text: str) -> str:
    """Returns a failure without the host's name and the places in the library's sources that CUDA's are told with."""
    return text.partition(" ; ")[0].strip()

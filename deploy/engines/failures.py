"""Why a build failed, told from what TensorRT logged and how the builder ended.

TensorRT tries kernels one after the other and leaves out those that get no memory. When none is left it says that it
could not find any implementation for the node, which is true and hides the reason; on a Jetson, where the processor's
memory is the GPU's, the system may instead kill the builder, which then says nothing.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from deploy.errors import DeployError, DeviceMemoryError, EngineBuildError

_MEMORY = re.compile(
    r"out ?of ?memory|cudaErrorMemoryAllocation|memory allocation error|requested amount of GPU memory"
    # ONNX Runtime's arena, cuBLAS and cuDNN.
    r"|failed to allocate memory for requested buffer|smaller than requested bytes|_ALLOC(?:ATION)?_FAILED",
    re.IGNORECASE,
)
# These come with builds that succeed too, so alone they are no reason.
_TIGHT = re.compile(r"(?:insufficient|sufficient) (?:gpu |workspace )?memory|insufficient workspace", re.IGNORECASE)
_NO_KERNEL = re.compile(
    r"could not find any implementation for node (.+?)(?=\.\)|, try | due to |\.?$)", re.IGNORECASE | re.MULTILINE
)
_ADVICE = "free memory on the device, lower the batch, or build where there is more"


def find_memory_failure(text: str) -> str | None:
    """Returns what follows from where a text tells of a lack of memory, to the end of its line; None where it does not.

    Args:
        text: What TensorRT, CUDA, one of its libraries or ONNX Runtime said.
    """
    found = _MEMORY.search(text)
    return None if found is None else text[found.start() :].splitlines()[0]


def classify_failure(messages: Sequence[str], shares_memory: bool, workspace_bytes: int) -> DeployError:
    """Returns the error that a failed build means.

    Args:
        messages: Warnings and errors that TensorRT logged, in order.
        shares_memory: Whether the GPU uses the processor's memory.
        workspace_bytes: Scratch memory that kernels were allowed.
    """
    nodes = [found.group(1).strip(" '\"") for text in messages if (found := _NO_KERNEL.search(text))]
    starved = any(find_memory_failure(text) is not None for text in messages)
    allowed = f"{workspace_bytes >> 20} MiB of workspace"
    tight = starved or any(_TIGHT.search(text) for text in messages)
    if nodes and (tight or shares_memory):
        return DeviceMemoryError(
            f"out of memory while building the engine: no kernel for '{nodes[0]}' got what it needs with {allowed} "
            f"(TensorRT reports this as a missing implementation); {_ADVICE}"
        )
    if starved:
        return DeviceMemoryError(f"out of memory while building the engine, with {allowed}; {_ADVICE}")
    if nodes:
        return EngineBuildError(
            f"TensorRT has no kernel for '{nodes[0]}' on this device with {allowed}, and logged no lack of memory: "
            f"another precision, or a newer TensorRT, may have one"
        )
    last = messages[-1] if messages else "it logged no reason"
    return EngineBuildError(f"TensorRT could not build the engine: {last}")


def classify_death(status: int, said: str) -> DeployError:
    """Returns the error that the end of a builder without an answer means.

    Args:
        status: Its exit status; negative for a signal.
        said: What it printed.
    """
    if status == -signal.SIGKILL:
        return DeviceMemoryError(
            f"the engine builder was killed, which is what the system does when memory runs out; {_ADVICE}"
        )
    if status < 0:
        return EngineBuildError(f"the engine builder died from signal {signal.Signals(-status).name}")
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    return EngineBuildError(f"the engine builder ended with status {status} and no answer: {last}")

"""How an engine is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import EngineBuildError, ModelFileError

_LARGEST_CHECKED = 8
"""Files are compared with their networks at batches up to this, so every engine takes as many."""

_MIB = 1 << 20
_LEAST_WORKSPACE = 64 * _MIB
_SHARE, _SHARED_SHARE = 0.5, 0.25
_MOST_SHARED = 1024 * _MIB


@dataclass(frozen=True)
class Batches:
    """The batch sizes of an optimisation profile.

    Attributes:
        smallest: That the engine takes.
        best: That its kernels are chosen for.
        largest: That it takes.

    Raises:
        EngineBuildError: If they are not in order, or below 1.
    """

    smallest: int
    best: int
    largest: int

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.best <= self.largest:
            msg = f"an engine's batches must be 1 <= smallest <= best <= largest, got {self}"
            raise EngineBuildError(msg)


@dataclass(frozen=True)
class BuildSettings:
    """How an engine is built.

    Attributes:
        device: `cuda:N`.
        batches: The batch sizes; a file of one fixed size ignores them.
        workspace_bytes: Scratch memory that a kernel may use at most; None takes it from the memory that is free.
        timing_cache: Folder of the timing caches; None uses none.
        optimization_level: 0 to 5; higher levels try more kernels. TensorRT's own default is 3.
        timeout_seconds: The builder is killed after this long.
    """

    device: str = "cuda:0"
    batches: Batches = Batches(1, 1, _LARGEST_CHECKED)
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    optimization_level: int = 3
    timeout_seconds: float = 1800.0


def choose_batches(best: int | None) -> Batches:
    """Returns the profile of an engine that is to be fast at one batch size, 1 where it is not told."""
    best = best or 1
    return Batches(1, best, max(best, _LARGEST_CHECKED))


def choose_workspace(free_bytes: int, shares_memory: bool) -> int:
    """Returns how much scratch memory a kernel may use, in bytes.

    Where the processor and the GPU share the memory, as on a Jetson, what the builder takes is missing to everybody,
    and the system kills somebody: a quarter there, and 1 GiB at most; half of what is free elsewhere.
    """
    share = _SHARED_SHARE if shares_memory else _SHARE
    chosen = max(_LEAST_WORKSPACE, int(free_bytes * share) // _MIB * _MIB)
    return min(chosen, _MOST_SHARED) if shares_memory else chosen


Shape = tuple[int, ...]


def choose_shapes(name: str, shape: Sequence[int], batches: Batches) -> tuple[Shape, Shape, Shape] | None:
    """Returns an input's smallest, best and largest shape; None where the file has fixed all of its sizes.

    Args:
        name: The input.
        shape: As the file has it, -1 for what is open, the batch first.
        batches: What to put there.

    Raises:
        ModelFileError: If anything but the batch is open.
    """
    if -1 not in shape:
        return None
    if shape[0] != -1 or -1 in shape[1:]:
        msg = f"input '{name}' has open sizes besides the batch, {tuple(shape)}: an engine needs them fixed in the file"
        raise ModelFileError(msg)
    rest = tuple(shape[1:])
    return (batches.smallest, *rest), (batches.best, *rest), (batches.largest, *rest)

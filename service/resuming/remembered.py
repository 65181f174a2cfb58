"""What a job measures, fits and reads off the clock, kept in its folder: an attempt that goes on sees the same.

Everything that follows from it is computed again and comes out the same, the plan and the shipped bytes included.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, final

import torch
from pydantic import TypeAdapter, ValidationError
from torch import fx, nn

from compressors.graph import TensorSpec
from compressors.memory import Memory, key_of
from compressors.problem import TimedOperator, Timer
from compressors.signature import signature
from compressors.tune import checkpoint
from service.resuming.journal import FITS, Journal

_LOG = logging.getLogger(__name__)

MAX_WEIGHT_BYTES: Final = 4 << 30
"""Weights are kept up to this, all of a job together."""

_T = TypeVar("_T")


def recalled(memory: Memory, key: str, kind: type[_T] | TypeAdapter[_T], find_out: Callable[[], _T]) -> _T:
    """Returns the value that was kept under the key; finds it out, and keeps it, where there is none of its kind.

    Args:
        memory: Where to look, and to keep.
        key: Holds all that the value depends on.
        kind: A type of plain data or a dataclass, or how to check it.
        find_out: Called where nothing fit was kept.
    """
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    kept = memory.recall(key)
    if kept is not None:
        try:
            return adapter.validate_python(kept)
        except ValidationError:
            pass  # something else; it is found out again
    value = find_out()
    if value is not None:
        memory.keep(key, adapter.dump_python(value, mode="json"))
    return value


@final
class JobMemory:
    """A job's journal, and beside it the weights that were fitted (`compressors.memory.Memory`).

    Args:
        journal: For plain values.
        folder: The job's.
        writer: As the journal's; weights of another are not used.
    """

    def __init__(self, journal: Journal, folder: Path, writer: str) -> None:
        self._journal, self._folder, self._writer = journal, folder / FITS, writer

    def recall(self, key: str) -> Any:
        """Returns what was kept under the key; None where nothing was."""
        return self._journal.recall(key)

    def keep(self, key: str, value: Any) -> None:
        """Keeps a value."""
        self._journal.keep(key, value)

    def recall_weights(self, key: str) -> Mapping[str, torch.Tensor] | None:
        """Returns the tensors that were kept under the key; None where none were."""
        state = checkpoint.load(self._place(key), self._mark(key))
        weights = None if state is None else state.get("weights")
        return weights if isinstance(weights, dict) else None

    def keep_weights(self, key: str, weights: Mapping[str, torch.Tensor]) -> None:
        """Keeps tensors, as far as there is room."""
        size = sum(value.numel() * value.element_size() for value in weights.values())
        taken = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        if taken + size > MAX_WEIGHT_BYTES:
            return
        try:
            checkpoint.save(self._place(key), {"fingerprint": self._mark(key), "weights": dict(weights)})
        except (OSError, RuntimeError) as exc:
            _LOG.warning("a fit is not kept, should this job be interrupted: %s", exc)

    def _mark(self, key: str) -> str:
        return f"{self._writer} {key}"

    def _place(self, key: str) -> Path:
        return self._folder / hashlib.sha256(self._mark(key).encode()).hexdigest()[:16]


@final
class RememberedTimer:
    """A device that is asked the same question once (`compressors.problem.Timer`)."""

    def __init__(self, timer: Timer, memory: Memory, precision: str = "float32") -> None:
        """Asks the timer, which times networks in the precision, what the memory does not know."""
        self._timer, self._memory, self._precision = timer, memory, precision

    def operators(self, operators: Sequence[TimedOperator]) -> list[float]:
        """Returns seconds per operator."""
        key = key_of("operators", self._precision, [one.key for one in operators])
        return self._known(key, len(operators), lambda: self._timer.operators(operators))

    def networks(self, networks: Sequence[tuple[nn.Module, tuple[TensorSpec, ...]]]) -> list[float]:
        """Returns seconds per whole network; their structures are what counts."""
        structures = [signature(module, specs) for module, specs in networks if isinstance(module, fx.GraphModule)]
        if len(structures) < len(networks):
            return self._timer.networks(networks)
        key = key_of("networks", self._precision, structures)
        return self._known(key, len(networks), lambda: self._timer.networks(networks))

    def _known(self, key: str, count: int, measure: Callable[[], list[float]]) -> list[float]:
        kept = recalled(self._memory, key, list[float], measure)
        return kept if len(kept) == count else measure()


@final
class Readings:
    """A clock that an attempt which goes on reads as the one before did, as often as that one read it.

    What is decided by the time that is left is decided the same way again.
    """

    def __init__(self, memory: Memory, name: str, clock: Callable[[], float]) -> None:
        """Counts the readings of a clock of that name."""
        self._memory, self._name, self._clock = memory, name, clock
        self._count = 0

    def __call__(self) -> float:
        """Returns the seconds of this reading."""
        self._count += 1
        return recalled(self._memory, f"clock {self._name} {self._count}", float, self._clock)

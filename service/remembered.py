"""What a job measures and reads off the clock, through its journal: an attempt that goes on sees the same numbers.

Everything that follows from them is computed again and comes out the same, the plan and the shipped bytes included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, final

from pydantic import TypeAdapter, ValidationError
from torch import fx, nn

from compressors.graph import TensorSpec
from compressors.memory import Memory, key_of
from compressors.problem import TimedOperator, Timer
from compressors.signature import signature

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
class RememberedTimer:
    """A device that is asked the same question once (`compressors.problem.Timer`)."""

    def __init__(self, timer: Timer, memory: Memory) -> None:
        """Asks the timer what the memory does not know."""
        self._timer, self._memory = timer, memory

    def operators(self, operators: Sequence[TimedOperator]) -> list[float]:
        """Returns seconds per operator."""
        key = key_of("operators", [one.key for one in operators])
        return self._known(key, len(operators), lambda: self._timer.operators(operators))

    def networks(self, networks: Sequence[tuple[nn.Module, tuple[TensorSpec, ...]]]) -> list[float]:
        """Returns seconds per whole network; their structures are what counts."""
        structures = [signature(module, specs) for module, specs in networks if isinstance(module, fx.GraphModule)]
        if len(structures) < len(networks):
            return self._timer.networks(networks)
        key = key_of("networks", structures)
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

"""What a search found out and need not find out again: values under keys, for a process that was interrupted.

What is measured, or takes long to judge or to fit, is remembered; everything else follows from it and is computed
again. So a key has to hold all that the value depends on: the network with its weights, the cuts, the settings, the
seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar, final

if TYPE_CHECKING:
    import torch

    from compressors.graph import Graph

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""What can be remembered."""

Item = TypeVar("Item", bound=Hashable)


class Memory(Protocol):
    """Keeps plain data and weights; `service` hands the engine one that outlives the process."""

    def recall(self, key: str) -> Json:
        """Returns what was kept under the key; None where nothing was."""
        ...

    def keep(self, key: str, value: Json) -> None:
        """Keeps a value, which is not None; may forget it again."""
        ...

    def recall_weights(self, key: str) -> Mapping[str, torch.Tensor] | None:
        """Returns the tensors that were kept under the key; None where none were."""
        ...

    def keep_weights(self, key: str, weights: Mapping[str, torch.Tensor]) -> None:
        """Keeps tensors by name; may forget them again."""
        ...


@final
class NoMemory:
    """Forgets everything at once."""

    def recall(self, key: str) -> Json:  # noqa: ARG002
        """Returns None."""
        return None

    def keep(self, key: str, value: Json) -> None:
        """Does nothing."""

    def recall_weights(self, key: str) -> Mapping[str, torch.Tensor] | None:  # noqa: ARG002
        """Returns None."""
        return None

    def keep_weights(self, key: str, weights: Mapping[str, torch.Tensor]) -> None:
        """Does nothing."""


def key_of(kind: str, *parts: object) -> str:
    """Returns a key for values of a kind; the same for parts of the same `repr`, in another process too."""
    return f"{kind} {hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"


def remembered(
    memory: Memory, key: str, names: Collection[str], find_out: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """Returns the numbers that were kept under the key; finds them out, and keeps them, where there are none.

    Args:
        memory: Where to look, and to keep.
        key: Holds all that the numbers depend on.
        names: Of the numbers.
        find_out: Called where nothing was kept, or something else than a number for each name.
    """
    known = _numbers(memory.recall(key))
    if known is None or known.keys() != {*names}:
        known = find_out()
        memory.keep(key, dict(known))
    return known


def remembered_for(
    memory: Memory, key: str, items: Sequence[Item], find_out: Callable[[], Mapping[Item, float]]
) -> dict[Item, float]:
    """Returns a number for each of some items: those that were kept under the key, else what is found out.

    Args:
        memory: Where to look, and to keep.
        key: Holds all that the numbers depend on, the items in their order among it.
        items: Whatever the numbers are of.
        find_out: Returns a number for each; called where nothing was kept.
    """
    if not items:
        return {}

    def by_place() -> dict[str, float]:
        found = find_out()
        return {str(at): found[item] for at, item in enumerate(items)}

    found = remembered(memory, key, [str(at) for at in range(len(items))], by_place)
    return {item: found[str(at)] for at, item in enumerate(items)}


def remembered_fit(memory: Memory, key: str, start: Graph, fit: Callable[[], Graph]) -> Graph:
    """Returns `start` with the weights that were kept under the key; fits it, and keeps them, where there are none.

    Args:
        memory: Where to look, and to keep.
        key: Holds all that the fit depends on.
        start: Not changed.
        fit: Returns a graph of the same structure; called where nothing was kept, or weights of other names or shapes.
    """
    weights, own = memory.recall_weights(key), start.module.state_dict()
    if weights is None or {name: _kind(value) for name, value in weights.items()} != {
        name: _kind(value) for name, value in own.items()
    }:
        fitted = fit()
        memory.keep_weights(key, fitted.module.state_dict())
        return fitted
    found = start.copied()
    found.module.load_state_dict(weights)
    return found


def _kind(value: torch.Tensor) -> tuple[torch.dtype, torch.Size]:
    return value.dtype, value.shape


def _numbers(value: Json) -> dict[str, float] | None:
    if not isinstance(value, dict):
        return None
    found: dict[str, float] = {}
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            return None
        found[name] = float(number)
    return found

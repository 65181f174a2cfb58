"""What a search found out and need not find out again: plain data under keys, for a process that was interrupted.

What is measured, or takes long to judge, is remembered; everything else follows from it and is computed again. So a key
has to hold all that the value depends on: the network with its weights, the cuts, the settings, the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import Protocol, TypeAlias, final

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""What can be remembered."""


class Memory(Protocol):
    """Keeps plain data; `service` hands the engine one that outlives the process."""

    def recall(self, key: str) -> Json:
        """Returns what was kept under the key; None where nothing was."""
        ...

    def keep(self, key: str, value: Json) -> None:
        """Keeps a value, which is not None; may forget it again."""
        ...


@final
class NoMemory:
    """Forgets everything at once."""

    def recall(self, key: str) -> Json:  # noqa: ARG002
        """Returns None."""
        return None

    def keep(self, key: str, value: Json) -> None:
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


def _numbers(value: Json) -> dict[str, float] | None:
    if not isinstance(value, dict):
        return None
    found: dict[str, float] = {}
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            return None
        found[name] = float(number)
    return found

"""Broken JSON: slots of a tree that are replaced, moved, repeated or nested."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.fuzz.values import FLOATS, INTEGERS, Random, chance, integer, pick


def slots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields every container with every key or position in it."""
    pending = [value]
    while pending:
        item = pending.pop()
        keys = list(item) if isinstance(item, dict) else list(range(len(item)))
        for key in keys:
            yield item, key
            if isinstance(item[key], dict | list):
                pending.append(item[key])


def change_any(random: Random, value: Any, strings: Sequence[str]) -> None:
    """Replaces, drops, moves or repeats anything."""
    found = list(slots(value))
    if not found:
        return
    holder, key = pick(random, found)
    kind = int(random.integers(6))
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, where = pick(random, found)
        holder[key] = copy.deepcopy(other[where]) if len(json.dumps(other[where])) < 20_000 else None
    elif kind == 2 and isinstance(holder, list):
        holder.insert(int(key), copy.deepcopy(holder[key]))
    elif kind == 3 and isinstance(holder, dict):
        holder[pick(random, strings)] = holder.pop(key)
    elif kind == 4:
        holder[key] = _nested(pick(random, (3, 50, 200)))
    else:
        holder[key] = _like(random, holder[key], strings)


def change_leaf(random: Random, value: Any, strings: Sequence[str]) -> None:
    """Changes a number or a text."""
    found = [(holder, key) for holder, key in slots(value) if not isinstance(holder[key], dict | list)]
    if found:
        holder, key = pick(random, found)
        holder[key] = _like(random, holder[key], strings)


def change_integer(random: Random, value: Any) -> None:
    """Changes a number."""
    found = [(holder, key) for holder, key in slots(value) if type(holder[key]) is int]
    if found:
        holder, key = pick(random, found)
        holder[key] = integer(random, holder[key]) if chance(random, 0.5) else pick(random, INTEGERS)


def _nested(depth: int) -> Any:
    value: Any = []
    for index in range(depth):
        value = [value] if index % 2 else {"as_tensors": value}
    return value


def _like(random: Random, old: Any, strings: Sequence[str]) -> Any:
    if chance(random, 0.25):
        return pick(random, (None, True, [], {}, "", 0, -1, 1.5, "x", [[]], {"as_int": 1}))
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return integer(random, old) if chance(random, 0.95) else 10 ** int(random.integers(20, 400))
    if isinstance(old, float):
        return pick(random, FLOATS)
    if isinstance(old, str):
        return pick(random, strings)
    return pick(random, (None, [], {}))

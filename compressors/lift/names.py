"""Names of a model's outputs, from the containers that it returns them in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from torch.export import ExportedProgram

_NAME = re.compile(r"[A-Za-z_]\w{0,63}")
_MOST = 10_000


def output_names(program: ExportedProgram) -> tuple[str, ...] | None:
    """Returns one name per flat output of a program that still knows what it returned; None otherwise."""
    spec: Any = program.call_spec.out_spec if program.call_spec else None
    if spec is None:
        return None
    return flat_names(
        spec, lambda s: None if s.is_leaf() else list(s.children()), lambda s: getattr(s.context, "_fields", s.context)
    )


def flat_names(spec: Any, children: Callable[[Any], list[Any] | None], keys: Callable[[Any], Any]) -> tuple[str, ...]:
    """Returns a name for every tensor in nested containers, in their order: `logits`, `aux_0`, `output_1`, `output`.

    Args:
        spec: The outermost container, or a tensor.
        children: Returns a container's parts, None for a tensor.
        keys: Returns a container's keys where it has some; anything that is not one plain name per part is ignored.
    """
    names: list[str] = []
    pending: list[tuple[Any, tuple[str, ...]]] = [(spec, ())]
    while pending:
        item, path = pending.pop()
        parts = children(item)
        if parts is None:
            names.append("_".join(path) if path and not path[0].isdigit() else "_".join(("output", *path)))
            if len(names) > _MOST:
                raise ValueError("too many outputs")
            continue
        steps = _steps(keys(item), len(parts))
        pending.extend(reversed([(part, (*path, step)) for part, step in zip(parts, steps, strict=True)]))
    return tuple(names)


def _steps(keys: Any, count: int) -> list[str]:
    """Returns the names of a container's parts: its keys where they are names, else their numbers."""
    if isinstance(keys, list | tuple) and len(keys) == 2 and isinstance(keys[1], list | tuple):
        keys = keys[1]
    plain = isinstance(keys, list | tuple) and len(keys) == count
    if plain and all(isinstance(key, str) and _NAME.fullmatch(key) for key in keys):
        return [str(key) for key in keys]
    return [str(index) for index in range(count)]


def unique(names: Iterable[str], taken: Iterable[str]) -> tuple[str, ...]:
    """Returns the names, changed where they are taken: `out_sample` beside an input `sample`, then numbered."""
    used = set(taken)
    found = []
    for name in names:
        new = name if name not in used else f"out_{name}"
        count = 1
        while new in used:
            count += 1
            new = f"out_{name}_{count}"
        used.add(new)
        found.append(new)
    return tuple(found)

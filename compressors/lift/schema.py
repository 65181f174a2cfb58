"""The few facts about aten operators that torch states in its operator schemas only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload


def base_name(op: OpOverload) -> str:
    """Returns `conv2d` for `aten.conv2d.default`."""
    return str(_schema(op).name).rsplit("::", maxsplit=1)[-1]


def bind(op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the call's arguments by schema name, defaults filled in."""
    bound: dict[str, Any] = {}
    for index, argument in enumerate(_schema(op).arguments):
        if index < len(args):
            bound[argument.name] = args[index]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value if argument.has_default_value() else None
    return bound


def writes(op: Any) -> bool:
    """Says whether the operator overwrites an argument."""
    return isinstance(op, OpOverload) and bool(_schema(op).is_mutable)


def shares_memory(op: OpOverload) -> bool:
    """Says whether the result is, or views, the first argument's memory."""
    return any(result.alias_info is not None for result in _schema(op).returns)


def results(op: OpOverload) -> int:
    """Returns the number of results."""
    return len(_schema(op).returns)


def functional(op: OpOverload) -> OpOverload | None:
    """Returns `aten.relu.default` for `aten.relu_.default`, None where there is no such operator."""
    packet = getattr(torch.ops.aten, base_name(op).rstrip("_"), None)
    overload = str(_schema(op).overload_name) or "default"
    return getattr(packet, overload, None)


def is_random(op: Any) -> bool:
    """Says whether the operator draws random numbers."""
    return isinstance(op, OpOverload) and torch.Tag.nondeterministic_seeded in op.tags


def _schema(op: OpOverload) -> Any:
    return op._schema  # noqa: SLF001 - torch offers no public way to an operator's schema

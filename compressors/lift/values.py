"""What an old node has become: a new node, a constant, a number, or nested tuples of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from compressors.errors import ModelError, reason
from compressors.lift import schema
from compressors.modules import Constant


def map_leaves(value: Any, function: Callable[[Any], Any]) -> Any:
    """Returns nested tuples, lists and dicts with `function` applied to their leaves."""
    if isinstance(value, tuple):
        return tuple(map_leaves(item, function) for item in value)
    if isinstance(value, list):
        return [map_leaves(item, function) for item in value]
    if isinstance(value, dict):
        return {key: map_leaves(item, function) for key, item in value.items()}
    return function(value)


def is_constant(value: Any) -> bool:
    """Says whether no fx node is inside."""
    if isinstance(value, tuple | list):
        return all(is_constant(item) for item in value)
    if isinstance(value, dict):
        return all(is_constant(item) for item in value.values())
    return not isinstance(value, fx.Node)


def fold(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, in_place: bool = False) -> Any:
    """Returns the result of a call that depends on weights only.

    Args:
        function: What is called.
        args: Its arguments, constants and plain values.
        kwargs: The same by name.
        in_place: Whether a writing operator may write; otherwise it writes a copy, so that weights stay as they are.

    Raises:
        ModelError: The operator does not take these numbers.
    """
    arguments = (map_leaves(args, _unwrap), map_leaves(kwargs, _unwrap))
    if schema.writes(function) and not in_place:
        arguments = map_leaves(arguments, lambda v: v.clone() if isinstance(v, torch.Tensor) else v)
    try:
        with torch.no_grad():
            return map_leaves(function(*arguments[0], **arguments[1]), _wrap)
    except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError) as exc:
        name = str(function)[:100]
        raise ModelError(f"{name!r}, of weights and numbers only, cannot be computed: {reason(exc)}") from exc


def _unwrap(value: Any) -> Any:
    return value.value if isinstance(value, Constant) else value


def _wrap(value: Any) -> Any:
    return Constant(value) if isinstance(value, torch.Tensor) else value


def traced_shape(node: Any) -> tuple[Any, ...]:
    """Returns the shape that the tracer saw; sizes may be symbolic."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def traced_dtype(node: Any) -> torch.dtype | None:
    """Returns the element type that the tracer saw."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dtype if isinstance(value, torch.Tensor) else None

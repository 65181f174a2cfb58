"""Batch sizes that the tracer wrote into the graph as numbers (case 6).

A program exported for one batch size b holds shapes such as (b, 196, 768), and tables repeated b times. A shape in a
call on data gets the input's own size back; a table that is the same for every sample is repeated for as many as there
are. Whether that was right is decided by running the result at another batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from compressors.modules import Constant

_SIZED = {"reshape": 1, "view": 1, "_unsafe_view": 1, "expand": 1, "zeros": 0, "ones": 0, "full": 0, "empty": 0}
_SIZED |= {f"new_{name}": 1 for name in ("zeros", "ones", "full", "empty")}
_ELEMENTWISE = {"add", "sub", "mul", "div"}


def free_sizes(name: str, args: tuple[Any, ...], fixed: int, batch: fx.Node) -> tuple[Any, ...]:
    """Returns the arguments of a call on data with `fixed` replaced by the batch size wherever it is the leading size.

    Args:
        name: Base name of the operator.
        args: Its arguments.
        fixed: The batch size that the program was exported for.
        batch: Node that holds the real one.
    """
    if name in _ELEMENTWISE:
        return tuple(_shared_row(arg, fixed) for arg in args)
    index = _SIZED.get(name)
    if index is None or len(args) <= index or not isinstance(args[index], list | tuple):
        return args
    return (*args[:index], _free_shape(name, list(args[index]), fixed, batch), *args[index + 1 :])


def _free_shape(name: str, shape: list[Any], fixed: int, batch: fx.Node) -> list[Any]:
    """Returns a shape whose leading size follows the batch."""
    leading = shape[0] if shape else None
    if not isinstance(leading, int) or leading <= 0 or leading % fixed:
        return shape
    if name in {"reshape", "view", "_unsafe_view"} and not any(size == -1 for size in shape):
        return [-1, *shape[1:]]
    return [batch, *shape[1:]] if leading == fixed else shape


def _shared_row(value: Any, fixed: int) -> Any:
    """Returns the first row of a table whose `fixed` rows are equal, anything else unchanged."""
    if not isinstance(value, Constant) or not isinstance(value.value, torch.Tensor):
        return value
    table = value.value
    repeated = table.dim() > 1 and table.shape[0] == fixed and bool((table == table[:1]).all())
    return Constant(table[:1].contiguous()) if repeated else value


def shares_row(values: Sequence[Any], fixed: int) -> bool:
    """Says whether any of the values is such a table."""
    return any(_shared_row(value, fixed) is not value for value in values)

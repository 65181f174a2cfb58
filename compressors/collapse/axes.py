"""Which dimension of each tensor holds the channels.

Rank alone does not tell: (batch, 64, 49) may be 64 channels at 49 positions or 64 tokens of 49 features. What computed
the tensor does:

1. Convolutions, batch norms and group norms have their channels in dimension 1.
2. Linears, layer norms over one dimension, and table look-ups have them in the last one. So the hidden layer of a
   token-mixing MLP, a linear over transposed tokens, has its channels in the last dimension as well.
3. Whatever works elementwise keeps the dimension; what moves dimensions moves it along. Channels that are flattened
   together with positions become features; channels that are split over several dimensions are lost.
4. Of the model's inputs, images (batch, channels, rows, columns) and volumes are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn

from compressors.analysis.kinds import Kind, function_name, kind_of, module_of
from compressors.graph import Graph
from compressors.shapes import Shapes, propagate

Axes = dict[fx.Node, int]


def channel_axes(graph: Graph) -> dict[str, int]:
    """Returns, for every tensor whose channels are known, the dimension that holds them; >= 0.

    Args:
        graph: Any graph in module form.
    """
    shapes = propagate(graph.module, graph.inputs)
    known: Axes = {}
    for node in graph.module.graph.nodes:
        if node.name in shapes.full:
            axis = _axis_of(node, known, shapes)
            if axis is not None and axis < len(shapes.full[node.name]):
                known[node] = axis
    return {node.name: axis for node, axis in known.items()}


def line_axis(axes: Mapping[str, int], name: str, rank: int) -> int | None:
    """Returns the axis of a tensor as a `Line` states it: -1 for the last dimension; None where it is unknown.

    A tensor of rank 2 has no other dimension than the batch and its features.
    """
    axis = axes.get(name, 1 if rank == 2 else None)
    return -1 if axis == rank - 1 else axis


def _axis_of(node: fx.Node, known: Axes, shapes: Shapes) -> int | None:
    kind = kind_of(node)
    if node.op == "call_module" and kind in _PRODUCERS:
        return _produced(module_of(node), len(shapes.full[node.name]), known.get(_first(node)))
    if kind is Kind.INPUT:
        return 1 if len(shapes.full[node.name]) in {4, 5} else None
    rule = _RULES.get(kind, _unchanged)
    return rule(node, known, shapes)


_PRODUCERS = frozenset({Kind.OPERATOR, Kind.NORM, Kind.RESIZE})


def _produced(module: nn.Module, rank: int, before: int | None) -> int | None:
    """Cases 1 and 2."""
    if isinstance(module, nn.Linear):
        return rank - 1
    if isinstance(module, nn.LayerNorm):
        return rank - 1 if len(module.normalized_shape) == 1 else before
    return 1


def _first(node: fx.Node) -> Any:
    """Returns the first argument, of a list its first entry."""
    first = node.args[0] if node.args else None
    return first[0] if isinstance(first, list | tuple) and first else first


def _unchanged(node: fx.Node, known: Axes, shapes: Shapes) -> int | None:
    """Keeps the axis where rank and number of channels stay."""
    source: Any = _first(node)
    axis = known.get(source)
    if axis is None:
        return None
    before, after = shapes.full[source.name], shapes.full[node.name]
    return axis if len(before) == len(after) and before[axis] == after[axis] else None


def _same_rank(node: fx.Node, known: Axes, shapes: Shapes) -> int | None:
    """Keeps the axis where the rank stays, whatever happens to the number of channels."""
    source: Any = _first(node)
    axis = known.get(source)
    if axis is None or len(shapes.full[source.name]) != len(shapes.full[node.name]):
        return None
    return axis


def _combined(node: fx.Node, known: Axes, shapes: Shapes) -> int | None:
    """Returns the axis that all operands agree on, counted from the right as broadcasting does."""
    rank = len(shapes.full[node.name])
    votes = {
        rank - len(shapes.full[operand.name]) + known[operand]
        for operand in node.all_input_nodes
        if operand in known and shapes.full[operand.name][known[operand]] > 1
    }
    return votes.pop() if len(votes) == 1 else None


def _argument(node: fx.Node, index: int, default: int) -> int:
    value: Any = node.args[index] if len(node.args) > index else node.kwargs.get("dim", default)
    return int(value)


def _split(node: fx.Node, known: Axes, shapes: Shapes) -> int | None:
    """Returns the axis of one part; the parts themselves are no tensors until one is picked."""
    source: Any = node.args[0]
    if function_name(node) != "getitem" or source.name in shapes.full:
        return None
    origin: Any = source.args[0]
    axis = known.get(origin)
    if axis is None or function_name(source) != "unbind":
        return axis
    gone = _argument(source, 1, 0) % len(shapes.full[origin.name])
    return None if gone == axis else axis - (gone < axis)


def _permuted(node: fx.Node, known: Axes, shapes: Shapes) -> int | None:
    source: Any = node.args[0]
    axis = known.get(source)
    name, rank = function_name(node), len(shapes.full[node.name])
    if axis is None:
        return None
    if name == "permute":
        order: Any = node.args[1]
        return [dim % rank for dim in order].index(axis)
    if name in {"transpose", "swapaxes", "t"}:
        first, second = (0, 1) if name == "t" else (_argument(node, 1, 0) % rank, _argument(node, 2, 1) % rank)
        return {first: second, second: first}.get(axis, axis)
    return None


def _reshaped(node: fx.Node, known: Axes, shapes: Shapes) -> int | None:
    """Case 3: finds the dimension that starts where the channels started and holds all of them."""
    source: Any = node.args[0]
    axis = known.get(source)
    if axis is None:
        return None
    before, after = shapes.full[source.name], shapes.full[node.name]
    start, size = math.prod(before[:axis]), before[axis]
    same = [j for j, length in enumerate(after) if math.prod(after[:j]) == start and length == size]
    wider = [
        j
        for j, length in enumerate(after)
        if j > 0
        and start % math.prod(after[:j]) == 0
        and math.prod(after[: j + 1]) % (start * size) == 0
        and length > size
    ]
    return next(iter([*same, *wider]), None)


def _sliced(node: fx.Node, known: Axes, shapes: Shapes) -> int | None:
    source: Any = node.args[0]
    axis = known.get(source)
    if axis is None or function_name(node) != "select":
        return axis
    gone = _argument(node, 1, 0) % len(shapes.full[source.name])
    return None if gone == axis else axis - (gone < axis)


def _averaged(node: fx.Node, known: Axes, shapes: Shapes) -> int | None:
    source: Any = node.args[0]
    axis = known.get(source)
    rank = len(shapes.full[source.name])
    given: Any = node.args[1] if len(node.args) > 1 else None
    gone = {dim % rank for dim in (given if given is not None else range(rank))}
    if axis is None or len(shapes.full[node.name]) == rank:
        return axis
    return None if axis in gone else axis - sum(dim < axis for dim in gone)


def _looked_up(node: fx.Node, known: Axes, shapes: Shapes) -> int | None:
    """Returns the last dimension for look-ups and matrix products with weights; otherwise what stays, stays."""
    if node.op == "call_function" and function_name(node) in {"embedding", "linear"}:
        return len(shapes.full[node.name]) - 1
    return _unchanged(node, known, shapes) if node.args else None


_RULES: dict[Kind, Callable[[fx.Node, Axes, Shapes], int | None]] = {
    Kind.ADD: _combined,
    Kind.MULTIPLY: _combined,
    Kind.ELEMENTWISE: _combined,
    Kind.CONCAT: _same_rank,
    Kind.PAD: _same_rank,
    Kind.SPLIT: _split,
    Kind.PERMUTE: _permuted,
    Kind.RESHAPE: _reshaped,
    Kind.SLICE: _sliced,
    Kind.MEAN: _averaged,
    Kind.AVERAGE_POOL: _same_rank,
    Kind.GLOBAL_POOL: _same_rank,
    Kind.MAX_POOL: _same_rank,
    Kind.ATTENTION: _looked_up,
    Kind.OTHER: _looked_up,
}

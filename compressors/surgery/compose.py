"""The map that an affine stretch computes, found by walking through it.

Everything between the stretch's input x and its output is affine, so each tensor inside is a map of x. The walk carries
one map per tensor, in float64, with its bias written out by position, and composes node by node:

1. Convolutions, linears and average pools compose; batch norms and lines scale outputs.
2. Sums add maps; concatenations stack them; slices, pads and permutations are maps with weights 0 and 1.
3. A tensor that is the same at every position and comes from elsewhere (a time embedding e) adds M e, with M carried
   along: behind a convolution it is (sum of taps) M e.
4. Where a later operator reads padding, the weights are exact only if the map so far sees nothing of x there.
(LayerMerge, 2024, and Layer Folding, 2021, merge chains; here it is any graph.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import fx

from compressors import algebra
from compressors.algebra import Affine, BiasMapped, Refused
from compressors.analysis.kinds import Kind, function_name, kind_of, module_of
from compressors.analysis.reach import Blocked, Labels, layout
from compressors.analysis.windows import average_pool_settings, pad_amounts, slice_arguments
from compressors.graph import TensorSpec
from compressors.modules import BATCH_NORMS
from compressors.shapes import Shapes, propagate


@dataclass(frozen=True)
class Composed:
    """What a stretch computes: y = map(x) + sum of M e over its side tensors.

    Attributes:
        mapped: The map of x.
        sides: Node of a side tensor e to M, float64 (out, channels of e).
        spatial: Whether x is (N, C, S...); otherwise it is (N, S..., C).
    """

    mapped: BiasMapped
    sides: Mapping[fx.Node, torch.Tensor]
    spatial: bool


def compose_body(body: fx.GraphModule, specs: Sequence[TensorSpec]) -> Composed | Refused:
    """Returns the map of its first input that a graph computes, or why there is none that is exact.

    Args:
        body: A stretch.
        specs: Its inputs per sample: the stretch's own, then side inputs.
    """
    shapes = propagate(body, specs)
    entry = next(iter(body.graph.nodes))
    kinds = data_kinds(body, entry)
    labels = layout(kinds, entry, shapes)
    if isinstance(labels, Blocked):
        return Refused(labels.reason)
    walk = _Walk(shapes, labels, entry)
    try:
        for node, kind in kinds.items():
            walk.visit(node, kind)
    except _RefusedError as exc:
        return exc.refused
    value = walk.values[list(kinds)[-1]]
    return Composed(value.mapped, value.sides, labels[entry][-1] != "C")


def data_kinds(body: fx.GraphModule, entry: fx.Node) -> dict[fx.Node, Kind]:
    """Returns the nodes that depend on the entry, in order, and what each is."""
    reached, kinds = {entry}, {}
    for node in body.graph.nodes:
        if node.op != "output" and any(source in reached for source in node.all_input_nodes):
            if function_name(node) == "sym_size":
                continue
            reached.add(node)
            kinds[node] = kind_of(node)
    return kinds


class _RefusedError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.refused = Refused(reason)


@dataclass(frozen=True)
class _Value:
    """One tensor as a map of x, and the matrices of the side tensors added so far."""

    mapped: BiasMapped
    sides: Mapping[fx.Node, torch.Tensor]


@final
class _Walk:
    """Carries one map per tensor through a stretch."""

    def __init__(self, shapes: Shapes, labels: Labels, entry: fx.Node) -> None:
        self.shapes = shapes
        self.labels = labels
        layout_ = labels[entry]
        self.axes = len(layout_) - 2 if layout_[-1] != "C" else 0
        channels = self.channels(entry)
        start = algebra.with_bias_map(algebra.identity(channels, self.axes), self.sizes(entry))
        self.values: dict[fx.Node, _Value] = {entry: _Value(start, {})}

    def visit(self, node: fx.Node, kind: Kind) -> None:
        """Adds the map of one node."""
        rule = _RULES.get(kind)
        if rule is None:
            raise _RefusedError(f"{node.name!r} is not affine")
        self.values[node] = rule(self, node)

    def channels(self, node: fx.Node) -> int:
        """Returns how many channels a tensor has."""
        return self.shapes.full[node.name][self.labels[node].index("C")]

    def sizes(self, node: fx.Node) -> tuple[int, ...]:
        """Returns the sizes of the axes that kernels slide over."""
        if not self.axes:
            return ()
        return tuple(
            n for n, label in zip(self.shapes.full[node.name], self.labels[node], strict=True) if label[0] == "S"
        )

    def source(self, node: fx.Node) -> _Value:
        """Returns the value of a node's first argument."""
        return self.values[node.args[0]]  # type: ignore[index]

    def then(self, value: _Value, second: Affine) -> _Value:
        """Returns a map behind a tensor (case 4)."""
        if value.sides and second.padded:
            raise _RefusedError("padding is read behind a tensor that another input shifts")
        whole = algebra.compose_after(value.mapped, second)
        if isinstance(whole, Refused):
            raise _RefusedError(whole.reason)
        taps = second.tap_sum() if value.sides else None
        return _Value(whole, {} if taps is None else {side: taps @ matrix for side, matrix in value.sides.items()})

    def scale(self, value: _Value, scale: torch.Tensor, shift: torch.Tensor) -> _Value:
        """Returns a tensor scaled and shifted per channel."""
        mapped, column = value.mapped, (-1, *(1,) * self.axes)
        affine = algebra.scale_outputs(mapped.affine, scale, torch.zeros_like(shift))
        biases = mapped.biases * scale.reshape(column) + shift.reshape(column)
        sides = {side: scale[:, None] * matrix for side, matrix in value.sides.items()}
        return _Value(BiasMapped(affine, biases, mapped.size), sides)


def _operator(walk: _Walk, node: fx.Node) -> _Value:
    """Case 1."""
    own = algebra.of_module(module_of(node))
    if own.axes != walk.axes:
        own = algebra.as_pointwise(own, walk.axes)
    return walk.then(walk.source(node), own)


def _norm(walk: _Walk, node: fx.Node) -> _Value:
    norm = module_of(node)
    if not isinstance(norm, BATCH_NORMS):
        raise _RefusedError(f"{node.target!r} looks at the sample")
    return walk.scale(walk.source(node), *algebra.norm_scale(norm))


def _line(walk: _Walk, node: fx.Node) -> _Value:
    value = walk.source(node)
    module: Any = module_of(node)
    channels = value.mapped.affine.outputs
    slope, intercept = (tensor.detach().double().expand(channels) for tensor in (module.slope, module.intercept))
    return walk.scale(value, slope, intercept)


def _average_pool(walk: _Walk, node: fx.Node) -> _Value:
    pool = average_pool_settings(node, walk.axes)
    if pool is None:
        raise _RefusedError(f"{node.name!r} averages windows of different sizes")
    return walk.then(walk.source(node), algebra.average_pool(walk.channels(node), *pool))


def _add(walk: _Walk, node: fx.Node) -> _Value:
    """Cases 2 and 3."""
    if function_name(node) == "rsub":
        raise _RefusedError(f"{node.name!r} subtracts its first operand from its second")
    sign = -1.0 if function_name(node) == "sub" else 1.0
    factor = float(node.kwargs.get("alpha", 1)) * sign  # type: ignore[arg-type]
    operands: list[Any] = list(node.args[:2])
    total: _Value | None = None
    for position, operand in enumerate(operands):
        term = _operand(walk, node, operand)
        term = _times(walk, term, factor) if position else term
        total = term if total is None else _sum(total, term)
    assert total is not None
    return total


def _operand(walk: _Walk, node: fx.Node, operand: Any) -> _Value:
    """Returns an operand of a sum: a map of x, a constant per channel, or a side tensor."""
    if operand in walk.values:
        return walk.values[operand]
    (first, *_) = walk.values.values()
    channels = walk.channels(node)
    size, out = first.mapped.size, walk.sizes(node)
    if isinstance(operand, fx.Node) and operand.op != "get_attr":
        zero = _constant(walk, size, out, torch.zeros(channels, dtype=torch.float64))
        return _Value(zero.mapped, {operand: torch.eye(channels, dtype=torch.float64)})
    return _constant(walk, size, out, _per_channel(walk, node, operand))


def _constant(walk: _Walk, size: tuple[int, ...], out: tuple[int, ...], values: torch.Tensor) -> _Value:
    """Returns a constant per channel as a map of x that is zero; its weights stand for any stride."""
    (first, *_) = walk.values.values()
    inputs = first.mapped.affine.inputs
    ones = (1,) * walk.axes
    nothing = Affine(
        torch.zeros(len(values), inputs, *ones, dtype=torch.float64), torch.zeros_like(values), ones, (0,) * walk.axes,
        (0,) * walk.axes, ones,
    )  # fmt: skip
    return _Value(BiasMapped(nothing, values.reshape(-1, *ones).expand(-1, *out), size), {})


def _per_channel(walk: _Walk, node: fx.Node, operand: Any) -> torch.Tensor:
    """Returns a constant operand's value per channel."""
    channels = walk.channels(node)
    if not isinstance(operand, fx.Node):
        return torch.full((channels,), float(operand), dtype=torch.float64)
    value: Any = operand.graph.owning_module
    for part in str(operand.target).split("."):
        value = getattr(value, part)
    labels = walk.labels[node]
    axis = len(labels) - labels.index("C")
    if value.numel() not in {1, channels} or (value.numel() == channels > 1 and value.shape[-axis] != channels):
        raise _RefusedError(f"{operand.name!r} differs by position")
    return value.detach().double().reshape(-1).expand(channels)  # type: ignore[no-any-return]


def _times(walk: _Walk, value: _Value, factor: float) -> _Value:
    if factor == 1:
        return value
    outputs = value.mapped.affine.outputs
    return walk.scale(value, torch.full((outputs,), factor, dtype=torch.float64), torch.zeros(outputs))


def _sum(left: _Value, right: _Value) -> _Value:
    sides = {side: left.sides.get(side, 0) + right.sides.get(side, 0) for side in {**left.sides, **right.sides}}
    for one, other in ((left, right), (right, left)):
        if not bool(other.mapped.affine.weight.any()):
            biases = one.mapped.biases + other.mapped.biases
            return _Value(replace(one.mapped, biases=biases), sides)  # type: ignore[arg-type]
    try:
        return _Value(algebra.add_mapped(left.mapped, right.mapped), sides)  # type: ignore[arg-type]
    except ValueError as exc:
        raise _RefusedError(str(exc)) from exc


def _multiply(walk: _Walk, node: fx.Node) -> _Value:
    first, second = node.args[:2]
    if (first in walk.values) == (second in walk.values):
        raise _RefusedError(f"{node.name!r} multiplies tensors that both depend on the input")
    data, other = (first, second) if first in walk.values else (second, first)
    factors = _per_channel(walk, node, other)
    if function_name(node) == "div":
        factors = 1 / factors
    return walk.scale(walk.values[data], factors, torch.zeros_like(factors))  # type: ignore[index]


def _concat(walk: _Walk, node: fx.Node) -> _Value:
    operands: Any = node.args[0]
    parts = [walk.values[operand] for operand in operands]
    if any(part.sides for part in parts):
        raise _RefusedError(f"{node.name!r} joins tensors that another input shifts")
    maps = [part.mapped for part in parts]
    try:
        whole = algebra.stack_outputs([one.affine for one in maps], maps[0].size)
    except ValueError as exc:
        raise _RefusedError(str(exc)) from exc
    return _Value(BiasMapped(whole, torch.cat([one.biases for one in maps]), maps[0].size), {})


def _slice(walk: _Walk, node: fx.Node) -> _Value:
    value, source = walk.source(node), node.args[0]
    labels, shape = walk.labels[source], walk.shapes.full[source.name]  # type: ignore[index,union-attr]
    found = slice_arguments(node, shape)
    if found is None:
        raise _RefusedError(f"{node.name!r} picks single values")
    axis, start, end, step = found
    if labels[axis] == "C":
        return walk.then(value, algebra.selection(shape[axis], range(start, end, step), walk.axes))
    if not walk.axes:
        raise _RefusedError(f"{node.name!r} drops positions")
    place = _place(node, labels[axis])
    starts, steps, drops = ([0] * walk.axes, [1] * walk.axes, [0] * walk.axes)
    starts[place], steps[place], drops[place] = start, step, shape[axis] - end
    return walk.then(value, algebra.slicing(walk.channels(node), tuple(starts), tuple(steps), tuple(drops)))


def _place(node: fx.Node, label: str) -> int:
    """Returns which axis of the map a label stands for."""
    if not label[1:].isdigit():
        raise _RefusedError(f"{node.name!r} cuts positions that were joined, or samples")
    return int(label[1:])


def _pad(walk: _Walk, node: fx.Node) -> _Value:
    value, source = walk.source(node), node.args[0]
    labels = walk.labels[source]  # type: ignore[index]
    amounts = pad_amounts(node, len(labels))
    if amounts is None:
        raise _RefusedError(f"{node.name!r} pads with something else than zeros")
    for axis, (before, after) in enumerate(amounts):
        if not (before or after):
            continue
        if labels[axis] == "C":
            inside = range(max(-before, 0), walk.channels(source) - max(-after, 0))  # type: ignore[arg-type]
            chosen = [*[-1] * max(before, 0), *inside, *[-1] * max(after, 0)]
            value = walk.then(value, algebra.selection(value.mapped.affine.outputs, chosen, walk.axes))
            continue
        if not walk.axes:
            raise _RefusedError(f"{node.name!r} adds positions")
        place = _place(node, labels[axis])
        firsts, lasts = [0] * walk.axes, [0] * walk.axes
        firsts[place], lasts[place] = before, after
        value = walk.then(value, algebra.padding(value.mapped.affine.outputs, tuple(firsts), tuple(lasts)))
    return value


def _same(walk: _Walk, node: fx.Node) -> _Value:
    """Only the layout changes; the map is of channels and positions, however they lie in memory."""
    if math.prod(walk.sizes(node)) != math.prod(walk.sizes(node.args[0])):  # type: ignore[arg-type]
        raise _RefusedError(f"{node.name!r} regroups positions")
    return walk.source(node)


_RULES: dict[Kind, Callable[[_Walk, fx.Node], _Value]] = {
    Kind.OPERATOR: _operator,
    Kind.NORM: _norm,
    Kind.LINE: _line,
    Kind.ADD: _add,
    Kind.MULTIPLY: _multiply,
    Kind.AVERAGE_POOL: _average_pool,
    Kind.CONCAT: _concat,
    Kind.SLICE: _slice,
    Kind.PAD: _pad,
    Kind.PERMUTE: _same,
    Kind.RESHAPE: _same,
}

"""What one convolution or linear may stand for: layout, receptive field and stride of a stretch.

Each tensor inside a stretch carries a label per dimension, relative to the layout of the stretch's input: `N` for the
batch, `C` for features, `S0`, `S1`, ... for positions. A convolution may stand for a stretch whose input is
(N, C, S...), a linear for one whose input is (N, S..., C), as long as every value inside depends on a neighbourhood of
its position. What looks further away blocks the stretch, or is noted where it does not change the layout (global
context).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from torch import fx, nn

from compressors import modules
from compressors.analysis.kinds import Kind, function_name, module_of
from compressors.shapes import PROBE, Shapes, convolution_padding


@dataclass(frozen=True)
class Blocked:
    """Why no operator may stand for a stretch: a stable code and the end of a sentence."""

    code: str
    reason: str


class _BlockedError(Exception):
    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.blocked = Blocked(code, reason)


@dataclass(frozen=True)
class StandIn:
    """The operators that may replace a stretch; no kernels: none is worth it.

    Attributes:
        kernels: As in `Segment`.
        stride: As in `Segment`.
        approximates: As in `Segment`.
    """

    kernels: tuple[tuple[int, ...], ...]
    stride: tuple[int, ...]
    approximates: tuple[str, ...]


@dataclass(frozen=True)
class _Trace:
    """What is known of one tensor, relative to the stretch's input."""

    labels: tuple[str, ...]
    field: tuple[int, ...]
    jump: tuple[int, ...]
    whole: bool = False


def stand_in(kinds: Mapping[fx.Node, Kind], entry: fx.Node, shapes: Shapes, max_kernel: int) -> StandIn | Blocked:
    """Returns what may be put in place of a stretch, or why nothing may.

    Args:
        kinds: The nodes of the stretch in topological order, exit last, and what each is.
        entry: Its only input.
        shapes: Of the whole graph.
        max_kernel: Largest kernel to propose.
    """
    for node, kind in kinds.items():
        if kind in _BARRIERS:
            return Blocked(*_barrier(node, kind))
    outcomes = [_try(layout, kinds, entry, shapes, max_kernel) for layout in _layouts(len(shapes.full[entry.name]))]
    for outcome in outcomes:
        if isinstance(outcome, StandIn):
            return outcome
    operators = [node for node, kind in kinds.items() if kind is Kind.OPERATOR]
    spatial = any(isinstance(module_of(node), modules.CONVOLUTIONS) for node in operators)
    last = outcomes[0] if spatial else outcomes[-1]
    assert isinstance(last, Blocked)
    return last


def layout(kinds: Mapping[fx.Node, Kind], entry: fx.Node, shapes: Shapes) -> Labels | Blocked:
    """Returns the labels of every tensor of a stretch that ends in the layout that it starts in, or why there are none.

    Args:
        kinds: The nodes of the stretch in topological order, exit last, and what each is.
        entry: Its only input.
        shapes: Of the whole graph.
    """
    outcomes: list[Labels | Blocked] = []
    for labels in _layouts(len(shapes.full[entry.name])):
        try:
            walk = _Walk(labels, entry, shapes)
            for node, kind in kinds.items():
                walk.visit(node, kind)
        except _BlockedError as exc:
            outcomes.append(exc.blocked)
            continue
        found = {node: trace.labels for node, trace in walk.traces.items()}
        if found[list(kinds)[-1]] == labels:
            return found
        outcomes.append(Blocked("changes-layout", "changes the layout of the tensor, so that no single operator fits"))
    return outcomes[0]


Labels = Mapping[fx.Node, tuple[str, ...]]
"""What each dimension of each tensor is, relative to the stretch's input; see the module docstring."""


def _layouts(rank: int) -> list[tuple[str, ...]]:
    """Returns the layouts in which a tensor of this rank may feed a convolution or a linear."""
    positions = tuple(f"S{axis}" for axis in range(rank - 2))
    linear = ("N", *positions, "C")
    return [("N", "C", *positions), linear] if positions else [linear]


def _try(
    layout: tuple[str, ...], kinds: Mapping[fx.Node, Kind], entry: fx.Node, shapes: Shapes, max_kernel: int
) -> StandIn | Blocked:
    try:
        walk = _Walk(layout, entry, shapes)
        for node, kind in kinds.items():
            walk.visit(node, kind)
        exit_ = next(reversed(walk.traces))
        return _operators(layout, walk.traces[exit_], shapes.full[entry.name], shapes.full[exit_.name], max_kernel)
    except _BlockedError as exc:
        return exc.blocked


def _operators(
    layout: tuple[str, ...], trace: _Trace, size_in: tuple[int, ...], size_out: tuple[int, ...], max_kernel: int
) -> StandIn:
    """Returns the kernels that turn one shape into the other."""
    notes = ("global-context",) if trace.whole else ()
    if trace.labels != layout:
        raise _BlockedError("changes-layout", "changes the layout of the tensor, so that no single operator fits")
    if layout[-1] == "C":
        if size_in[:-1] != size_out[:-1]:
            raise _BlockedError("changes-positions", "changes the number of positions, which no linear layer can")
        return StandIn(((),), (), notes)
    ends = zip(size_in[2:], size_out[2:], trace.jump, strict=True)
    if trace.whole and any(-(-before // stride) != after for before, after, stride in ends):
        raise _BlockedError("pools-globally", f"turns {_size(size_in)} into {_size(size_out)} by pooling the whole map")
    kernels = tuple(_kernels(trace, size_in[2:], size_out[2:], max_kernel))
    if not kernels:
        raise _BlockedError(
            "no-kernel-fits", f"turns {_size(size_in)} into {_size(size_out)}, which no useful kernel does"
        )
    return StandIn(kernels, trace.jump, notes)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape[2:]) + " positions"


def _kernels(
    trace: _Trace, size_in: tuple[int, ...], size_out: tuple[int, ...], max_kernel: int
) -> Iterable[tuple[int, ...]]:
    """Yields square odd kernels: not beyond the receptive field, not below the stride unless the field is 1x1."""
    field = max(trace.field)
    for size in range(1, min(field, max_kernel) + 1, 2):
        if size < max(trace.jump) and field > 1:
            continue
        axes = zip(size_in, size_out, trace.jump, strict=True)
        if all(convolution_padding(i, o, size, stride) is not None for i, o, stride in axes):
            yield (size,) * len(size_in)


@final
class _Walk:
    """Carries labels and receptive fields through a stretch."""

    def __init__(self, layout: tuple[str, ...], entry: fx.Node, shapes: Shapes) -> None:
        self.layout = layout
        self.shapes = shapes
        axes = len(layout) - 2
        self.traces: dict[fx.Node, _Trace] = {entry: _Trace(layout, (1,) * axes, (1,) * axes)}

    def visit(self, node: fx.Node, kind: Kind) -> None:
        """Adds the trace of one node, or raises why it blocks."""
        rule = _RULES.get(kind)
        if rule is None:
            raise _BlockedError(*_barrier(node, kind))
        self.traces[node] = rule(self, node)

    def source(self, node: fx.Node) -> _Trace:
        """Returns the trace of the first argument."""
        return self.traces[node.args[0]]  # type: ignore[index]

    def shape(self, node: Any) -> tuple[int, ...]:
        """Returns a tensor's full shape."""
        return self.shapes.full[node.name]

    def spatial(self, node: fx.Node) -> _Trace:
        """Returns the source's trace, which must have the layout (N, C, S...)."""
        trace = self.source(node)
        if self.layout[-1] == "C" or trace.labels != self.layout:
            raise _BlockedError("changes-layout", f"runs {_label(node)} in another layout than its input has")
        return trace

    def slide(self, node: fx.Node, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> _Trace:
        """Returns the trace after a sliding window."""
        trace = self.spatial(node)
        parts = zip(trace.field, trace.jump, kernel, dilation, strict=True)
        field = tuple(f + (k - 1) * d * j for f, j, k, d in parts)
        return replace(trace, field=field, jump=tuple(j * s for j, s in zip(trace.jump, stride, strict=True)))

    def merge(self, node: fx.Node, operands: Sequence[Any]) -> _Trace:
        """Returns the trace of an elementwise combination; weights among the operands must not vary by position."""
        known = [self.traces[operand] for operand in operands if operand in self.traces]
        widest = max(known, key=lambda trace: len(trace.labels))
        rank = len(self.shape(node))
        for operand in operands:
            if isinstance(operand, fx.Node) and operand not in self.traces:
                self._check_constant(node, operand, widest)
        labels = widest.labels
        for trace, operand in ((self.traces[o], o) for o in operands if o in self.traces):
            self._check_alignment(node, trace, widest, self.shape(operand))
        if len(labels) != rank:
            raise _BlockedError("changes-layout", f"broadcasts in {_label(node)} in a way that no single operator can")
        field = tuple(max(values) for values in zip(*(trace.field for trace in known), strict=True))
        whole = any(trace.whole for trace in known)
        local = [trace for trace in known if not trace.whole] or known
        if len({trace.jump for trace in local}) > 1:
            raise _BlockedError("mixed-strides", f"joins tensors of different strides in {_label(node)}")
        return _Trace(labels, field, local[0].jump, whole)

    def _check_constant(self, node: fx.Node, operand: fx.Node, widest: _Trace) -> None:
        shape = self.shapes.full.get(operand.name, ())
        for size, label in zip(reversed(shape), reversed(widest.labels), strict=False):
            if size > 1 and label.startswith("S"):
                raise _BlockedError("position-dependent", f"adds weights in {_label(node)} that differ by position")

    def _check_alignment(self, node: fx.Node, trace: _Trace, widest: _Trace, shape: tuple[int, ...]) -> None:
        for size, label, wanted in zip(reversed(shape), reversed(trace.labels), reversed(widest.labels), strict=False):
            if label != wanted and size != 1:
                raise _BlockedError("changes-layout", f"combines tensors of different layouts in {_label(node)}")


def _label(node: fx.Node) -> str:
    """Returns how to call a node in a message."""
    if node.op == "call_module":
        return f"{node.target!r}"
    path = node.meta.get("path", "")
    return f"{function_name(node)} of {path!r}" if path else f"{function_name(node)!r}"


_BARRIERS: dict[Kind, tuple[str, str]] = {
    Kind.MAX_POOL: ("crosses-max-pool", "takes a maximum over positions"),
    Kind.ATTENTION: ("crosses-attention", "mixes positions by attention, whose weights depend on the input"),
    Kind.RECURRENT: ("crosses-recurrence", "is recurrent"),
    Kind.RESIZE: ("crosses-resize", "enlarges the map"),
}


BARRIERS = frozenset(_BARRIERS)
"""Kinds of nodes that no stand-in may cross, whatever surrounds them."""


def _barrier(node: fx.Node, kind: Kind) -> tuple[str, str]:
    code, reason = _BARRIERS.get(kind, ("unknown-operator", "uses an operator that Shoal does not know how to replace"))
    return code, f"{reason} ({_label(node)})"


def _convolution_or_linear(walk: _Walk, node: fx.Node) -> _Trace:
    module = module_of(node)
    if isinstance(module, nn.Linear):
        trace = walk.source(node)
        if trace.labels[-1] != "C":
            raise _BlockedError("mixes-positions", f"mixes all positions in {_label(node)}")
        return trace
    assert isinstance(module, modules.CONVOLUTIONS)
    return walk.slide(node, module.kernel_size, module.stride, module.dilation)


def _norm(walk: _Walk, node: fx.Node) -> _Trace:
    """Batch norm is affine; layer norm over features is local; anything wider looks at the whole input."""
    module, trace = module_of(node), walk.source(node)
    if isinstance(module, nn.LayerNorm):
        wide = any(label != "C" for label in trace.labels[-len(module.normalized_shape) :])
        return replace(trace, whole=trace.whole or wide)
    return replace(trace, whole=True) if isinstance(module, nn.GroupNorm) else trace


def _same(walk: _Walk, node: fx.Node) -> _Trace:
    return walk.source(node)


def _elementwise(walk: _Walk, node: fx.Node) -> _Trace:
    return walk.merge(node, [argument for argument in node.args if isinstance(argument, fx.Node)])


def _concat(walk: _Walk, node: fx.Node) -> _Trace:
    operands: Any = node.args[0]
    if function_name(node) == "stack" or any(operand not in walk.traces for operand in operands):
        raise _BlockedError("crosses-concat", f"joins its tensor with others in {_label(node)}")
    trace = walk.merge(node, operands)
    axis = _axis(node, 1, 0)
    if trace.labels[axis] != "C":
        raise _BlockedError("crosses-concat", f"joins positions in {_label(node)}")
    return trace


def _split(walk: _Walk, node: fx.Node) -> _Trace:
    trace = walk.source(node)
    name = function_name(node)
    if name == "getitem":
        return trace
    axis = _axis(node, 1 if name == "unbind" else 2, 0) % len(trace.labels)
    if trace.labels[axis] != "C":
        raise _BlockedError("splits-positions", f"splits positions in {_label(node)}")
    return replace(trace, labels=trace.labels[:axis] + trace.labels[axis + 1 :]) if name == "unbind" else trace


def _axis(node: fx.Node, index: int, default: int) -> int:
    value: Any = node.args[index] if len(node.args) > index else node.kwargs.get("dim", default)
    return int(value)


def _permute(walk: _Walk, node: fx.Node) -> _Trace:
    trace = walk.source(node)
    order = list(range(len(trace.labels)))
    name = function_name(node)
    if name == "permute":
        given: Any = node.args[1]
        order = [axis % len(order) for axis in given]
    elif name in {"transpose", "swapaxes", "t"}:
        first, second = (0, 1) if name == "t" else (_axis(node, 1, 0) % len(order), _axis(node, 2, 1) % len(order))
        order[first], order[second] = order[second], order[first]
    else:
        raise _BlockedError(
            "unknown-operator", f"uses an operator that Shoal does not know how to replace ({_label(node)})"
        )
    return replace(trace, labels=tuple(trace.labels[axis] for axis in order))


def _reshape(walk: _Walk, node: fx.Node) -> _Trace:
    """Features may be split and joined; the batch and positions must stay, but positions may join each other."""
    trace = walk.source(node)
    before, after = walk.shape(node.args[0]), walk.shape(node)
    labels: list[str] = []
    for left, right in _groups(before, after):
        inside = {label for label, size in zip(trace.labels[left], before[left], strict=True) if size != 1}
        names = _regroup(inside, len(after[right]), list(trace.labels[left]))
        if names is None:
            raise _BlockedError("changes-layout", f"regroups positions and features in {_label(node)}")
        labels.extend(names)
    return replace(trace, labels=tuple(labels))


def _regroup(inside: set[str], count: int, labels: list[str]) -> list[str] | None:
    """Returns the labels of `count` dimensions that the labels in `inside` become."""
    if len(labels) == count:
        return labels
    if inside == {"C"}:
        return ["C"] * count
    parts = [label for label in labels if label in inside]
    if not inside:
        return labels[:count] if count < len(labels) else labels + ["1"] * (count - len(labels))
    if count == 1 and all(label.startswith("S") for label in parts):
        return ["*".join(parts)]
    if len(parts) == 1 and parts[0].count("*") == count - 1:
        return parts[0].split("*")
    return None


def _groups(before: tuple[int, ...], after: tuple[int, ...]) -> Iterable[tuple[slice, slice]]:
    """Yields the smallest runs of dimensions with equal products, e.g. (2, 12, 5) to (2, 3, 4, 5): 1-1, 1-2, 1-1."""
    i = j = 0
    while i < len(before) or j < len(after):
        start_i, start_j = i, j
        left = before[i] if i < len(before) else 1
        right = after[j] if j < len(after) else 1
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while left != right:
            if left < right:
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        if len(after) - j == 0:
            i = len(before)
        elif len(before) - i == 0:
            j = len(after)
        yield slice(start_i, i), slice(start_j, j)


def _slice(walk: _Walk, node: fx.Node) -> _Trace:
    """Features may be sliced; positions may only be sampled at a regular step from the first on."""
    trace = walk.source(node)
    name, axis = function_name(node), _axis(node, 1, 0) % len(trace.labels)
    label = trace.labels[axis]
    if name == "select":
        if label != "C":
            raise _BlockedError("crops", f"picks single positions in {_label(node)}")
        return replace(trace, labels=trace.labels[:axis] + trace.labels[axis + 1 :])
    before, after = walk.shape(node.args[0])[axis], walk.shape(node)[axis]
    if label == "C" or before == after:
        return trace
    start: Any = node.args[2] if len(node.args) > 2 else 0
    step: Any = node.args[4] if len(node.args) > 4 else 1
    if not label.startswith("S") or "*" in label or start not in {0, None} or after != -(-before // step):
        raise _BlockedError("crops", f"crops the map in {_label(node)}")
    jump = list(trace.jump)
    jump[int(label[1:])] *= step
    return replace(trace, jump=tuple(jump))


def _mean(walk: _Walk, node: fx.Node) -> _Trace:
    return _reduced(walk, node, 1)


def _reduce(walk: _Walk, node: fx.Node) -> _Trace:
    """A sum, or the length of a vector of positions or features (ConvNeXt V2's response normalisation)."""
    return _reduced(walk, node, 2 if function_name(node) == "linalg_vector_norm" else 1)


def _reduced(walk: _Walk, node: fx.Node, place: int) -> _Trace:
    """Returns the trace after axes have been reduced to one value; `place` is where the arguments name them."""
    trace = walk.source(node)
    given: Any = node.args[place] if len(node.args) > place else None
    axes = {axis % len(trace.labels) for axis in (given if given is not None else range(len(trace.labels)))}
    if any(trace.labels[axis] == "N" for axis in axes):
        raise _BlockedError("mixes-samples", f"joins the samples of a batch in {_label(node)}")
    kept = len(walk.shape(node)) == len(trace.labels)
    labels = tuple(label for axis, label in enumerate(trace.labels) if kept or axis not in axes)
    return replace(trace, labels=labels, whole=trace.whole or any(trace.labels[axis] != "C" for axis in axes))


def _average_pool(walk: _Walk, node: fx.Node) -> _Trace:
    kernel: Any = node.args[1]
    kernel = list(kernel) if not isinstance(kernel, int) else [kernel]
    stride: Any = (node.args[2] if len(node.args) > 2 else None) or kernel
    axes = len(walk.layout) - 2
    kernel, stride = (list(v) * axes if len(list(v)) == 1 else list(v) for v in (kernel, stride))
    return walk.slide(node, kernel, stride, [1] * axes)


def _global_pool(walk: _Walk, node: fx.Node) -> _Trace:
    trace = walk.spatial(node)
    if any(size not in {1, PROBE} for size in walk.shape(node)[2:]):
        raise _BlockedError("pools-globally", f"pools to a fixed size in {_label(node)}")
    return replace(trace, whole=True)


_RULES: dict[Kind, Callable[[_Walk, fx.Node], _Trace]] = {
    Kind.OPERATOR: _convolution_or_linear,
    Kind.NORM: _norm,
    Kind.LINE: _same,
    Kind.ACTIVATION: _same,
    Kind.ADD: _elementwise,
    Kind.MULTIPLY: _elementwise,
    Kind.ELEMENTWISE: _elementwise,
    Kind.CONCAT: _concat,
    Kind.SPLIT: _split,
    Kind.PERMUTE: _permute,
    Kind.RESHAPE: _reshape,
    Kind.SLICE: _slice,
    Kind.PAD: _same,
    Kind.MEAN: _mean,
    Kind.REDUCE: _reduce,
    Kind.AVERAGE_POOL: _average_pool,
    Kind.GLOBAL_POOL: _global_pool,
}

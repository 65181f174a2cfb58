"""Mean and variance of every tensor in a network, from its weights alone.

Each tensor's entries count as independent Gaussians, the same in every sample. A batch norm's output has mean beta and
variance gamma^2 v / (v + eps), where v is the running variance, whatever comes before it: these moments are as good as
the stored statistics. A layer norm or group norm gives about beta and gamma^2. From there on:

1. Linear and convolution: W m + b and W^2 v, away from the border.
2. Add and subtract: means add up, variances add up. Multiply: as for independent factors.
3. Activations: `compressors.collapse.expectation`. Max pooling: as for independent Gaussians; average pooling and
   means: variance divided by the number of entries.
4. What moves entries about moves their moments.
5. Model inputs are N(0, 1): images are normalised. Table look-ups have the mean and variance of the table's columns.

Neighbouring positions and channels are correlated in trained networks, so what 1 to 3 give is an estimate; a norm ends
every error before it. What is not listed, above all attention, is unknown and stays unknown up to the next norm.
Moments are kept as tensors that broadcast against their tensor, with 1 for the batch dimension.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, final

import torch
from torch import fx, nn
from torch.nn import functional as F

from compressors import modules
from compressors.analysis.kinds import Kind, function_name, kind_of, module_of
from compressors.collapse.expectation import expect
from compressors.collapse.quadrature import standard_normal
from compressors.graph import Graph
from compressors.shapes import PROBE, propagate


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of one tensor.

    Attributes:
        mean: float64; broadcasts against the tensor, 1 for the batch.
        variance: Same shape, >= 0.
        origins: Where it comes from: "batch-norm", "layer-norm", "group-norm", "input", "table" or "constant".
        propagated: Whether anything but a norm lies between the origins and this tensor.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    origins: frozenset[str]
    propagated: bool = True

    @property
    def source(self) -> str:
        """For reports: e.g. `batch-norm`, or `propagated from batch-norm, input`."""
        names = ", ".join(sorted(self.origins))
        return f"propagated from {names}" if self.propagated else names

    def along(self, axis: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns mean and variance per entry of one dimension, shape (channels,), or (1,) if they are all alike.

        What differs between positions of a channel counts as variance.

        Args:
            axis: A dimension of the tensor, negative from the end.
            rank: Of the tensor.
        """
        mean, variance = (value.reshape((1,) * (rank - value.dim()) + value.shape) for value in self.pair())
        mean, variance = (value.movedim(axis, 0).flatten(1) for value in (mean, variance))  # (channels, positions)
        return mean.mean(1), variance.mean(1) + mean.var(1, correction=0)

    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns mean and variance in one shape."""
        return self.mean + torch.zeros_like(self.variance), self.variance + torch.zeros_like(self.mean)


@dataclass(frozen=True)
class Unknown:
    """Why nothing is known of a tensor."""

    reason: str


class _UnknownError(Exception):
    """Ends one node's rule; never leaves this module."""


def gaussian_moments(graph: Graph) -> dict[str, Moments | Unknown]:
    """Returns the moments of every tensor in the graph, data-free, by node name.

    Args:
        graph: Any graph in module form, in eval mode.
    """
    walk = _Walk(graph)
    for node in graph.module.graph.nodes:
        if node.name in walk.shapes.full:
            walk.visit(node)
    return {node.name: known for node, known in walk.known.items()}


@final
class _Walk:
    """What is known so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.shapes = propagate(graph.module, graph.inputs)
        self.known: dict[fx.Node, Moments | Unknown] = {}

    def visit(self, node: fx.Node) -> None:
        """Adds one tensor."""
        try:
            self.known[node] = self._outcome(node)
        except _UnknownError as exc:
            self.known[node] = Unknown(str(exc))

    def _outcome(self, node: fx.Node) -> Moments:
        if node.op == "get_attr":
            value = reduce(getattr, str(node.target).split("."), self.graph.module)
            assert isinstance(value, torch.Tensor)
            return _constant(value.detach())
        rule = _RULES.get(kind_of(node))
        if rule is None:
            raise _UnknownError(f"{_label(node)} has no rule for moments")
        found = rule(self, node)
        return replace(found, mean=_compressed(found.mean), variance=_compressed(found.variance))

    def size(self, node: Any) -> tuple[int, ...]:
        """Returns a tensor's shape for a batch of one."""
        return tuple(size // PROBE if size and size % PROBE == 0 else size for size in self.shapes.full[node.name])

    def of(self, node: Any) -> Moments:
        """Returns the moments of an operand."""
        if isinstance(node, int | float):
            return _constant(torch.tensor(float(node)))
        found = self.known.get(node)
        if isinstance(found, Moments):
            return found
        reason = found.reason if found is not None else f"{node} is no tensor"
        raise _UnknownError(reason)

    def first(self, node: fx.Node) -> Moments:
        """Returns the moments of the first argument."""
        return self.of(node.args[0])

    def full(self, node: Any) -> Moments:
        """Returns the moments of an operand in its full shape, for a batch of one."""
        found, size = self.of(node), self.size(node)
        return replace(found, mean=found.mean.expand(size), variance=found.variance.expand(size))


def _label(node: fx.Node) -> str:
    return repr(str(node.target)) if node.op == "call_module" else f"{function_name(node)!r} ({node.name})"


def _constant(value: torch.Tensor) -> Moments:
    value = value.double()
    return Moments(value, torch.zeros_like(value), frozenset({"constant"}), propagated=False)


def _compressed(value: torch.Tensor) -> torch.Tensor:
    """Returns the tensor with length 1 wherever it does not vary."""
    for dim, size in enumerate(value.shape):
        if size > 1:
            first = value.narrow(dim, 0, 1)
            if bool((value == first).all()):
                value = first
    return value


def _joined(mean: torch.Tensor, variance: torch.Tensor, *parts: Moments) -> Moments:
    """Returns moments that come from several; constants are worth a mention only where there is nothing else."""
    origins = frozenset().union(*(part.origins for part in parts))
    return Moments(mean, variance.clamp_min(0), origins - {"constant"} or origins)


def _input(walk: _Walk, node: fx.Node) -> Moments:
    """Case 5."""
    if not walk.shapes.dtypes[node.name].is_floating_point:
        raise _UnknownError(f"input {node.name!r} holds integers")
    one = torch.ones((1,) * len(walk.size(node)), dtype=torch.float64)
    return Moments(torch.zeros_like(one), one, frozenset({"input"}), propagated=False)


def _norm(walk: _Walk, node: fx.Node) -> Moments:
    """Returns beta and gamma^2, shaped along the norm's dimensions."""
    module, rank = module_of(node), len(walk.size(node))
    if isinstance(module, nn.LayerNorm):
        shape: tuple[int, ...] = (*(1,) * (rank - len(module.normalized_shape)), *module.normalized_shape)
        origin = "layer-norm"
    else:
        origin = "group-norm" if isinstance(module, nn.GroupNorm) else "batch-norm"
        shape = (1, -1, *(1,) * (rank - 2))
    assert isinstance(module, modules.NORMS)
    weight, bias = module.weight, module.bias
    scale = torch.ones(1, dtype=torch.float64) if weight is None else weight.detach().double() ** 2
    if isinstance(module, modules.BATCH_NORMS) and module.running_var is not None:
        running = module.running_var.double()
        scale = scale * running / (running + module.eps)
    shift = torch.zeros_like(scale) if bias is None else bias.detach().double()
    if scale.numel() == 1:
        shape = (1,) * rank
    return Moments(shift.reshape(shape), scale.reshape(shape), frozenset({origin}), propagated=False)


def _operator(walk: _Walk, node: fx.Node) -> Moments:
    """Case 1."""
    module, source = module_of(node), walk.first(node)
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    weight = weight.detach().double()
    bias = None if module.bias is None else module.bias.detach().double()  # type: ignore[operator]
    if isinstance(module, nn.Linear):
        mean, variance = _wide(source, -1, module.in_features)
        return _joined(F.linear(mean, weight, bias), F.linear(variance, weight**2), source)
    assert isinstance(module, modules.CONVOLUTIONS)
    rank = len(walk.size(node))
    mean, variance = source.along(1, rank)
    column = (-1, *(1,) * (rank - 2))
    taps = tuple(range(2, rank))
    pair = []
    for value, kernel, shift in ((mean, weight, bias), (variance, weight**2, None)):
        line = value.expand(module.in_channels).reshape(1, -1, 1)  # (1, in, 1)
        pair.append(F.conv1d(line, kernel.sum(taps).unsqueeze(-1), shift, groups=module.groups).reshape(1, *column))
    return _joined(pair[0], pair[1], source)


def _wide(source: Moments, axis: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns both moments with the full length of one dimension."""
    mean, variance = source.pair()
    shape = list(mean.shape)
    shape[axis] = size
    return mean.expand(shape), variance.expand(shape)


def _activation(walk: _Walk, node: fx.Node) -> Moments:
    """Case 3; a PReLU with many weights has them along dimension 1."""
    module, source = module_of(node), walk.first(node)
    mean, variance = source.pair()
    if isinstance(module, nn.PReLU) and module.weight.numel() > 1:
        mean, variance = _wide(source, 1, module.weight.numel())
    found = expect(module, mean, variance.sqrt())
    return _joined(found.mean, found.variance, source)


def _add(walk: _Walk, node: fx.Node) -> Moments:
    """Case 2; `add(x, y, alpha=a)` has a factor."""
    left, right = (walk.of(operand) for operand in node.args[:2])
    if left is right and node.args[0] is node.args[1]:
        raise _UnknownError(f"{_label(node)} adds a tensor to itself")
    alpha: Any = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
    name = function_name(node)
    one, other = {"sub": (1, -alpha), "rsub": (-alpha, 1)}.get(name, (1, alpha))
    return _joined(
        one * left.mean + other * right.mean, one**2 * left.variance + other**2 * right.variance, left, right
    )


def _multiply(walk: _Walk, node: fx.Node) -> Moments:
    """Case 2."""
    left, right = (walk.of(operand) for operand in node.args[:2])
    if node.args[0] is node.args[1]:
        raise _UnknownError(f"{_label(node)} multiplies a tensor with itself")
    if function_name(node) == "div":
        if bool((right.variance > 0).any()):
            raise _UnknownError(f"{_label(node)} divides by what depends on the inputs")
        right = replace(right, mean=1 / right.mean)
    variance = left.variance * right.variance + left.variance * right.mean**2 + right.variance * left.mean**2
    return _joined(left.mean * right.mean, variance, left, right)


def _elementwise(walk: _Walk, node: fx.Node) -> Moments:
    """Passes on what only changes the type, and negation."""
    name, source = function_name(node), walk.first(node)
    if name in {"to", "_to_copy"} and walk.shapes.dtypes[node.name].is_floating_point:
        return source
    if name == "neg":
        return _joined(-source.mean, source.variance, source)
    raise _UnknownError(f"{_label(node)} has no rule for moments")


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    """Returns all arguments but the first; a size that the graph works out cannot be told here."""
    rest = node.args[1:]
    if any(isinstance(value, fx.Node) for value in rest):
        raise _UnknownError(f"{_label(node)} takes sizes that depend on the batch")
    return rest


def _moved(walk: _Walk, node: fx.Node) -> Moments:
    """Case 4: the same function on both moments."""
    source, rest = walk.full(node.args[0]), _arguments(node)
    function = _callable(node)
    mean, variance = (function(value, *rest, **node.kwargs) for value in (source.mean, source.variance))
    return replace(source, mean=mean, variance=variance)


def _callable(node: fx.Node) -> Callable[..., torch.Tensor]:
    if node.op == "call_method":
        return getattr(torch.Tensor, str(node.target))  # type: ignore[no-any-return]
    assert callable(node.target)
    return node.target


def _reshape(walk: _Walk, node: fx.Node) -> Moments:
    """Case 4, by the shape that comes out."""
    source, size = walk.full(node.args[0]), walk.size(node)
    if math.prod(size) != source.mean.numel():
        raise _UnknownError(f"{_label(node)} regroups the batch")
    return replace(source, mean=source.mean.reshape(size), variance=source.variance.reshape(size))


def _pad(walk: _Walk, node: fx.Node) -> Moments:
    """Case 4: constants have no variance; padded positions count as all others."""
    source = walk.full(node.args[0])
    pads: Any = node.args[1]
    value: Any = node.args[-1] if len(node.args) > 2 and not isinstance(node.args[-1], str) else 0
    mean = F.pad(source.mean, list(pads), value=float(value or 0))
    return replace(source, mean=mean, variance=F.pad(source.variance, list(pads)), propagated=True)


def _concat(walk: _Walk, node: fx.Node) -> Moments:
    """Case 4."""
    operands: Any = node.args[0]
    parts = [walk.full(operand) for operand in operands]
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    join = torch.stack if function_name(node) == "stack" else torch.cat
    return _joined(join([part.mean for part in parts], dim), join([part.variance for part in parts], dim), *parts)


def _split(walk: _Walk, node: fx.Node) -> Moments:
    """Case 4: a part of what chunk, split or unbind gives."""
    source: Any = node.args[0]
    if node.target is not operator.getitem or source.name in walk.shapes.full:
        raise _UnknownError(f"{_label(node)} has no rule for moments")
    whole, rest = walk.full(source.args[0]), _arguments(source)
    if source.op == "call_module" or kind_of(source) is not Kind.SPLIT:
        raise _UnknownError(f"{_label(source)} has no rule for moments")
    function: Any = _callable(source)
    index: Any = node.args[1]
    mean, variance = (function(value, *rest, **source.kwargs)[index] for value in (whole.mean, whole.variance))
    return replace(whole, mean=mean, variance=variance)


def _mean(walk: _Walk, node: fx.Node) -> Moments:
    """Case 3."""
    source = walk.full(node.args[0])
    rank = source.mean.dim()
    given: Any = node.args[1] if len(node.args) > 1 else None
    dims = sorted({dim % rank for dim in (given if given is not None else range(rank))})
    if 0 in dims:
        raise _UnknownError(f"{_label(node)} averages over the batch")
    count = math.prod(source.mean.shape[dim] for dim in dims)
    size = walk.size(node)
    mean, variance = source.mean.mean(dims).reshape(size), source.variance.mean(dims).reshape(size) / count
    return _joined(mean, variance, source)


def _pool(walk: _Walk, node: fx.Node) -> Moments:
    """Case 3: average pooling; what differs between positions is left out."""
    source, before, after = walk.first(node), walk.size(node.args[0]), walk.size(node)
    mean, variance = source.along(1, len(before))
    if kind_of(node) is Kind.GLOBAL_POOL:
        count = math.prod(max(1, i // o) for i, o in zip(before[2:], after[2:], strict=True))
    else:
        count = _window(node, len(before) - 2)
    column = (1, -1, *(1,) * (len(before) - 2))
    return _joined(mean.reshape(column), variance.reshape(column) / count, source)


def _max_pool(walk: _Walk, node: fx.Node) -> Moments:
    """Case 3: the largest of n independent Gaussians is mean + sigma times a constant."""
    if not function_name(node).startswith("max_pool"):
        raise _UnknownError(f"{_label(node)} has no rule for moments")
    source, rank = walk.first(node), len(walk.size(node))
    mean, variance = source.along(1, rank)
    shift, factor = _largest(_window(node, rank - 2))
    column = (1, -1, *(1,) * (rank - 2))
    return _joined((mean + shift * variance.sqrt()).reshape(column), (variance * factor).reshape(column), source)


def _window(node: fx.Node, axes: int) -> int:
    given: Any = node.args[1]
    kernel = [given] if isinstance(given, int) else list(given)
    return int(math.prod(kernel * axes if len(kernel) == 1 else kernel))


def _largest(count: int) -> tuple[float, float]:
    """Returns mean and variance of the largest of `count` independent standard Gaussians."""
    u, weights = standard_normal(1.0)
    weights = weights * count * torch.special.ndtr(u) ** (count - 1)
    mean = float((u * weights).sum())
    return mean, float((u * u * weights).sum()) - mean**2


def _looked_up(walk: _Walk, node: fx.Node) -> Moments:
    """Case 5, and what leaves its tensor as it is."""
    name = function_name(node) if node.op == "call_function" else ""
    if name == "embedding":
        table = walk.of(node.args[0]).mean  # (entries, features)
        shape = (*(1,) * (len(walk.size(node)) - 1), -1)
        mean, variance = table.mean(0).reshape(shape), table.var(0, correction=0).reshape(shape)
        return Moments(mean, variance, frozenset({"table"}), propagated=False)
    if name in {"expand", "expand_as", "clone", "contiguous", "alias", "detach", "dropout"}:
        source = walk.first(node)
        if name.startswith("expand"):
            size = walk.size(node)
            return replace(source, mean=source.mean.expand(size), variance=source.variance.expand(size))
        return source
    raise _UnknownError(f"{_label(node)} has no rule for moments")


_RULES: dict[Kind, Callable[[_Walk, fx.Node], Moments]] = {
    Kind.INPUT: _input,
    Kind.OPERATOR: _operator,
    Kind.NORM: _norm,
    Kind.ACTIVATION: _activation,
    Kind.ADD: _add,
    Kind.MULTIPLY: _multiply,
    Kind.ELEMENTWISE: _elementwise,
    Kind.CONCAT: _concat,
    Kind.SPLIT: _split,
    Kind.PERMUTE: _moved,
    Kind.RESHAPE: _reshape,
    Kind.SLICE: _moved,
    Kind.PAD: _pad,
    Kind.MEAN: _mean,
    Kind.AVERAGE_POOL: _pool,
    Kind.GLOBAL_POOL: _pool,
    Kind.MAX_POOL: _max_pool,
    Kind.OTHER: _looked_up,
}

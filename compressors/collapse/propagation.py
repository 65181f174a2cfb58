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
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from compressors import modules
from compressors.analysis.kinds import Kind, function_name, kind_of, module_of
from compressors.collapse.expectation import expect
from compressors.collapse.moments import Moments, Rule, Unknown, UnknownError, Walk, joined, label
from compressors.collapse.quadrature import standard_normal
from compressors.graph import Graph


def gaussian_moments(graph: Graph) -> dict[str, Moments | Unknown]:
    """Returns the moments of every tensor in the graph, data-free, by node name.

    Args:
        graph: Any graph in module form, in eval mode.
    """
    walk = Walk(graph, _RULES)
    for node in graph.module.graph.nodes:
        if node.name in walk.shapes.full:
            walk.visit(node)
    return {node.name: known for node, known in walk.known.items()}


def _input(walk: Walk, node: fx.Node) -> Moments:
    """Case 5."""
    if not walk.shapes.dtypes[node.name].is_floating_point:
        raise UnknownError(f"input {node.name!r} holds integers")
    one = torch.ones((1,) * len(walk.size(node)), dtype=torch.float64)
    return Moments(torch.zeros_like(one), one, frozenset({"input"}), propagated=False)


def _norm(walk: Walk, node: fx.Node) -> Moments:
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
    scale = torch.ones(1, dtype=torch.float64) if weight is None else weight.detach().double().cpu() ** 2
    if isinstance(module, modules.BATCH_NORMS) and module.running_var is not None:
        running = module.running_var.double().cpu()
        scale = scale * running / (running + module.eps)
    shift = torch.zeros_like(scale) if bias is None else bias.detach().double().cpu()
    if scale.numel() == 1:
        shape = (1,) * rank
    return Moments(shift.reshape(shape), scale.reshape(shape), frozenset({origin}), propagated=False)


def _operator(walk: Walk, node: fx.Node) -> Moments:
    """Case 1."""
    module, source = module_of(node), walk.first(node)
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    weight = weight.detach().double().cpu()
    bias = None if module.bias is None else module.bias.detach().double().cpu()  # type: ignore[operator]
    if isinstance(module, nn.Linear):
        mean, variance = _wide(source, -1, module.in_features)
        return joined(F.linear(mean, weight, bias), F.linear(variance, weight**2), source)
    assert isinstance(module, modules.CONVOLUTIONS)
    rank = len(walk.size(node))
    mean, variance = source.along(1, rank)
    column = (-1, *(1,) * (rank - 2))
    taps = tuple(range(2, rank))
    pair = []
    for value, kernel, shift in ((mean, weight, bias), (variance, weight**2, None)):
        line = value.expand(module.in_channels).reshape(1, -1, 1)  # (1, in, 1)
        pair.append(F.conv1d(line, kernel.sum(taps).unsqueeze(-1), shift, groups=module.groups).reshape(1, *column))
    return joined(pair[0], pair[1], source)


def _wide(source: Moments, axis: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns both moments with the full length of one dimension."""
    mean, variance = source.pair()
    shape = list(mean.shape)
    shape[axis] = size
    return mean.expand(shape), variance.expand(shape)


def _activation(walk: Walk, node: fx.Node) -> Moments:
    """Case 3; a PReLU with many weights has them along dimension 1."""
    module, source = module_of(node), walk.first(node)
    mean, variance = source.pair()
    if isinstance(module, nn.PReLU) and module.weight.numel() > 1:
        mean, variance = _wide(source, 1, module.weight.numel())
    found = expect(module, mean, variance.sqrt())
    return joined(found.mean, found.variance, source)


def _add(walk: Walk, node: fx.Node) -> Moments:
    """Case 2; `add(x, y, alpha=a)` has a factor."""
    left, right = (walk.of(operand) for operand in node.args[:2])
    if left is right and node.args[0] is node.args[1]:
        raise UnknownError(f"{label(node)} adds a tensor to itself")
    alpha: Any = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
    name = function_name(node)
    one, other = {"sub": (1, -alpha), "rsub": (-alpha, 1)}.get(name, (1, alpha))
    return joined(one * left.mean + other * right.mean, one**2 * left.variance + other**2 * right.variance, left, right)


def _multiply(walk: Walk, node: fx.Node) -> Moments:
    """Case 2."""
    left, right = (walk.of(operand) for operand in node.args[:2])
    if node.args[0] is node.args[1]:
        raise UnknownError(f"{label(node)} multiplies a tensor with itself")
    if function_name(node) == "div":
        if bool((right.variance > 0).any()):
            raise UnknownError(f"{label(node)} divides by what depends on the inputs")
        right = replace(right, mean=1 / right.mean)
    variance = left.variance * right.variance + left.variance * right.mean**2 + right.variance * left.mean**2
    return joined(left.mean * right.mean, variance, left, right)


def _elementwise(walk: Walk, node: fx.Node) -> Moments:
    """Passes on what only changes the type, and negation."""
    name, source = function_name(node), walk.first(node)
    if name in {"to", "_to_copy"} and walk.shapes.dtypes[node.name].is_floating_point:
        return source
    if name == "neg":
        return joined(-source.mean, source.variance, source)
    raise UnknownError(f"{label(node)} has no rule for moments")


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    """Returns all arguments but the first; a size that the graph works out cannot be told here."""
    rest = node.args[1:]
    if any(isinstance(value, fx.Node) for value in rest):
        raise UnknownError(f"{label(node)} takes sizes that depend on the batch")
    return rest


def _moved(walk: Walk, node: fx.Node) -> Moments:
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


def _reshape(walk: Walk, node: fx.Node) -> Moments:
    """Case 4, by the shape that comes out."""
    source, size = walk.full(node.args[0]), walk.size(node)
    if math.prod(size) != source.mean.numel():
        raise UnknownError(f"{label(node)} regroups the batch")
    return replace(source, mean=source.mean.reshape(size), variance=source.variance.reshape(size))


def _pad(walk: Walk, node: fx.Node) -> Moments:
    """Case 4: constants have no variance; padded positions count as all others."""
    source = walk.full(node.args[0])
    pads: Any = node.args[1]
    value: Any = node.args[-1] if len(node.args) > 2 and not isinstance(node.args[-1], str) else 0
    mean = F.pad(source.mean, list(pads), value=float(value or 0))
    return replace(source, mean=mean, variance=F.pad(source.variance, list(pads)), propagated=True)


def _concat(walk: Walk, node: fx.Node) -> Moments:
    """Case 4."""
    operands: Any = node.args[0]
    parts = [walk.full(operand) for operand in operands]
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    join = torch.stack if function_name(node) == "stack" else torch.cat
    return joined(join([part.mean for part in parts], dim), join([part.variance for part in parts], dim), *parts)


def _split(walk: Walk, node: fx.Node) -> Moments:
    """Case 4: a part of what chunk, split or unbind gives."""
    source: Any = node.args[0]
    if node.target is not operator.getitem or source.name in walk.shapes.full:
        raise UnknownError(f"{label(node)} has no rule for moments")
    whole, rest = walk.full(source.args[0]), _arguments(source)
    if source.op == "call_module" or kind_of(source) is not Kind.SPLIT:
        raise UnknownError(f"{label(source)} has no rule for moments")
    function: Any = _callable(source)
    index: Any = node.args[1]
    mean, variance = (function(value, *rest, **source.kwargs)[index] for value in (whole.mean, whole.variance))
    return replace(whole, mean=mean, variance=variance)


def _mean(walk: Walk, node: fx.Node) -> Moments:
    """Case 3."""
    source = walk.full(node.args[0])
    rank = source.mean.dim()
    given: Any = node.args[1] if len(node.args) > 1 else None
    dims = sorted({dim % rank for dim in (given if given is not None else range(rank))})
    if 0 in dims:
        raise UnknownError(f"{label(node)} averages over the batch")
    count = math.prod(source.mean.shape[dim] for dim in dims)
    size = walk.size(node)
    mean, variance = source.mean.mean(dims).reshape(size), source.variance.mean(dims).reshape(size) / count
    return joined(mean, variance, source)


def _pool(walk: Walk, node: fx.Node) -> Moments:
    """Case 3: average pooling; what differs between positions is left out."""
    source, before, after = walk.first(node), walk.size(node.args[0]), walk.size(node)
    mean, variance = source.along(1, len(before))
    if kind_of(node) is Kind.GLOBAL_POOL:
        count = math.prod(max(1, i // o) for i, o in zip(before[2:], after[2:], strict=True))
    else:
        count = _window(node, len(before) - 2)
    column = (1, -1, *(1,) * (len(before) - 2))
    return joined(mean.reshape(column), variance.reshape(column) / count, source)


def _max_pool(walk: Walk, node: fx.Node) -> Moments:
    """Case 3: the largest of n independent Gaussians is mean + sigma times a constant."""
    if not function_name(node).startswith("max_pool"):
        raise UnknownError(f"{label(node)} has no rule for moments")
    source, rank = walk.first(node), len(walk.size(node))
    mean, variance = source.along(1, rank)
    shift, factor = _largest(_window(node, rank - 2))
    column = (1, -1, *(1,) * (rank - 2))
    return joined((mean + shift * variance.sqrt()).reshape(column), (variance * factor).reshape(column), source)


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


def _looked_up(walk: Walk, node: fx.Node) -> Moments:
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
    raise UnknownError(f"{label(node)} has no rule for moments")


_RULES: dict[Kind, Rule] = {
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

"""Pools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from compressors.errors import ModelError
from compressors.sources.onnx.operators.elementwise import Operator
from compressors.sources.onnx.operators.spatial import Window, window
from compressors.sources.onnx.values import Call

_MAX: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_ADAPTIVE: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
_ADAPTIVE_MAX: Any = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)
_CONVOLUTIONS: Any = (F.conv1d, F.conv2d, F.conv3d)


def _window(call: Call, x: torch.Tensor) -> Window:
    kernel = tuple(call.attr("kernel_shape"))
    if not 1 <= len(kernel) <= 3:
        raise call.refuse(f"its kernel has {len(kernel)} dimensions; known: 1 to 3")
    return window(call, x, kernel)


def _max_pool(call: Call) -> Any:
    """MaxPool; padding is minus infinity."""
    x = call.tensor(0)
    if call.wants(1):
        raise call.refuse("its second result, the positions of the maxima, is used")
    view, ceil = _window(call, x), bool(call.attr("ceil_mode", 0))
    if not x.is_floating_point():
        raise call.refuse(f"its input is {x.dtype}; known: floating point")
    narrow = all(2 * before <= kernel for before, kernel in zip(view.before, view.kernel, strict=True))
    function = _MAX[view.rank - 1]
    if view.symmetric and narrow:
        return function(x, view.kernel, view.stride, view.before, view.dilation, ceil)
    padded = F.pad(x, view.edges, "constant", float("-inf"))
    return _trim(call, function(padded, view.kernel, view.stride, 0, view.dilation, ceil), x, view)


def _trim(call: Call, result: torch.Tensor, x: torch.Tensor, view: Window) -> torch.Tensor:
    """Drops a last window that would start in the padding at the end, which rounding up allows."""
    for axis, (size, before, stride) in enumerate(zip(x.shape[2:], view.before, view.stride, strict=True), 2):
        count = result.shape[axis]
        if call.attr("ceil_mode", 0) and (count - 1) * stride >= size + before:
            result = result.narrow(axis, 0, count - 1)
    return result


def _average_pool(call: Call) -> Any:
    x = call.tensor(0)
    view, ceil = _window(call, x), bool(call.attr("ceil_mode", 0))
    padded = bool(call.attr("count_include_pad", 0))
    narrow = all(2 * before <= kernel for before, kernel in zip(view.before, view.kernel, strict=True))
    plain = set(view.dilation) == {1} and view.symmetric and narrow
    if plain:
        return _AVERAGE[view.rank - 1](x, view.kernel, view.stride, view.before, ceil, padded)
    total = _sum(call, x, view)
    if not all(isinstance(size, int) for size in x.shape[2:]):
        raise call.refuse("its divisors follow from sizes that are not fixed; give the sample shape")
    ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype)
    if padded:
        ones = F.pad(ones, view.edges, "constant", 1.0)
        view = replace(view, before=(0,) * view.rank, after=(0,) * view.rank)
        return total / _trim_like(_sum(call, ones, view), total)
    return total / _sum(call, ones, view)


def _trim_like(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    for axis, size in enumerate(other.shape[2:], 2):
        x = x.narrow(axis, 0, size)
    return x


def _sum(call: Call, x: torch.Tensor, view: Window) -> torch.Tensor:
    """Returns the sum over every window: a convolution with ones, one channel at a time."""
    channels = x.shape[1]
    edges = list(view.edges)
    if call.attr("ceil_mode", 0):
        for index, (size, b, a, s, e) in enumerate(
            zip(x.shape[2:], view.before, view.after, view.stride, view.extent, strict=True)
        ):
            edges[2 * (view.rank - 1 - index) + 1] += -(size + b + a - e) % s
    kernel = torch.ones(channels, 1, *view.kernel, dtype=x.dtype)
    result = _CONVOLUTIONS[view.rank - 1](F.pad(x, edges), kernel, None, view.stride, 0, view.dilation, channels)
    return _trim(call, result, x, view)


def _lp_pool(call: Call) -> Any:
    x, p = call.tensor(0), call.attr("p", 2)
    return _sum(call, x.abs() ** p, _window(call, x)) ** (1 / p)


def _global(functions: Any) -> Operator:
    def run(call: Call) -> Any:
        x = call.tensor(0)
        if not 3 <= x.dim() <= 5:
            raise ModelError(f"{call.node.label} got a tensor with {x.dim()} dimensions; wanted 3 to 5")
        return functions[x.dim() - 3](x, 1)

    return run


def _global_lp(call: Call) -> Any:
    x, p = call.tensor(0), call.attr("p", 2)
    return (x.abs() ** p).sum(tuple(range(2, x.dim())), keepdim=True) ** (1 / p)


OPERATORS: dict[str, Operator] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "LpPool": _lp_pool,
    "GlobalAveragePool": _global(_ADAPTIVE),
    "GlobalMaxPool": _global(_ADAPTIVE_MAX),
    "GlobalLpPool": _global_lp,
}

"""Reductions, cumulative sums, extrema and sorting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from compressors.errors import ModelError
from compressors.sources.onnx.host import axes_of
from compressors.sources.onnx.operators.elementwise import Operator
from compressors.sources.onnx.values import Call

Reduction = Callable[[torch.Tensor, tuple[int, ...], bool], torch.Tensor]


def _reduce(function: Reduction, each: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Operator:
    """A reduction; axes are an attribute before opset 13 (sum) or 18, an input since. No axes: all, or none at all."""

    def run(call: Call) -> Any:
        x, axes = call.tensor(0), axes_of(call)
        if not axes and call.attr("noop_with_empty_axes", 0):
            return x if each is None else each(x)
        picked = tuple(call.axis(axis, x.dim()) for axis in axes) if axes else tuple(range(x.dim()))
        return function(x, picked, bool(call.attr("keepdims", 1))) if x.dim() else function(x.reshape(1), (0,), False)

    return run


def _sum(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.mean(axes, keepdim=keep)


def _max(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.int().amax(axes, keepdim=keep).bool() if x.dtype == torch.bool else x.amax(axes, keepdim=keep)


def _min(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.int().amin(axes, keepdim=keep).bool() if x.dtype == torch.bool else x.amin(axes, keepdim=keep)


def _prod(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _log_sum_exp(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return torch.logsumexp(x, axes, keepdim=keep)


def _norm2(x: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return x.square().sum(axes, keepdim=keep).sqrt()


def _extremum(function: Any) -> Operator:
    """ArgMax and ArgMin; among equals the first, or the last on request."""

    def run(call: Call) -> Any:
        x = call.tensor(0)
        axis = call.axis(call.attr("axis", 0), x.dim())
        keep = bool(call.attr("keepdims", 1))
        if not call.attr("select_last_index", 0):
            return function(x, axis, keepdim=keep)
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)

    return run


def _cumulative(function: Any) -> Operator:
    def run(call: Call) -> Any:
        x = call.tensor(0)
        axis = call.axis(int(call.number(1)), x.dim())
        x = x.flip(axis) if call.attr("reverse", 0) else x
        result = function(x, axis, dtype=x.dtype)
        if call.attr("exclusive", 0):
            neutral = torch.full_like(x.narrow(axis, 0, 1), 0 if function is torch.cumsum else 1)
            result = torch.cat((neutral, result.narrow(axis, 0, x.shape[axis] - 1)), axis)
        return result.flip(axis) if call.attr("reverse", 0) else result

    return run


def _top_k(call: Call) -> Any:
    x = call.tensor(0)
    count = call.attr("k") if call.since < 10 else int(call.number(1))
    axis = call.axis(call.attr("axis", -1), x.dim())
    if not 0 <= count <= x.shape[axis]:
        raise ModelError(f"{call.node.label} wants {count} of {x.shape[axis]} values")
    # Among equals ONNX takes the first, torch.topk any.
    values, indices = torch.sort(x, dim=axis, descending=bool(call.attr("largest", 1)), stable=True)
    return [values.narrow(axis, 0, count), indices.narrow(axis, 0, count)]


OPERATORS: dict[str, Operator] = {
    "ReduceSum": _reduce(_sum),
    "ReduceMean": _reduce(_mean),
    "ReduceMax": _reduce(_max),
    "ReduceMin": _reduce(_min),
    "ReduceProd": _reduce(_prod),
    "ReduceL1": _reduce(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep, dtype=x.dtype), torch.abs),
    "ReduceL2": _reduce(_norm2, torch.abs),
    "ReduceSumSquare": _reduce(lambda x, a, keep: x.square().sum(a, keepdim=keep, dtype=x.dtype), torch.square),
    "ReduceLogSum": _reduce(lambda x, axes, keep: x.sum(axes, keepdim=keep).log(), torch.log),
    "ReduceLogSumExp": _reduce(_log_sum_exp),
    "ArgMax": _extremum(torch.argmax),
    "ArgMin": _extremum(torch.argmin),
    "CumSum": _cumulative(torch.cumsum),
    "CumProd": _cumulative(torch.cumprod),
    "TopK": _top_k,
}

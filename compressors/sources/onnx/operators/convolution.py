"""Convolutions, matrix products and linear layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from compressors.errors import ModelError
from compressors.sources.onnx.operators.elementwise import Operator
from compressors.sources.onnx.operators.spatial import Window, window
from compressors.sources.onnx.values import Call

_CONVOLUTIONS: Any = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def _kernel(call: Call, weight: torch.Tensor) -> tuple[int, ...]:
    sizes = tuple(weight.shape[2:])
    given = tuple(call.attr("kernel_shape") or sizes)
    if given != sizes or not 1 <= len(sizes) <= 3:
        raise ModelError(f"{call.node.label} has kernel_shape {list(given)} and weights of shape {list(weight.shape)}")
    return sizes


def _conv(call: Call) -> Any:
    """Conv: paddings that differ at the two ends become a pad before it."""
    x, weight, bias = call.tensor(0), call.tensor(1), call.optional(2)
    view = window(call, x, _kernel(call, weight))
    padding = view.before
    if not view.symmetric:
        x, padding = F.pad(x, view.edges), (0,) * view.rank
    function = _CONVOLUTIONS[view.rank - 1]
    return function(x, weight, bias, view.stride, padding, view.dilation, call.attr("group", 1))


def _conv_transpose(call: Call) -> Any:
    x, weight, bias = call.tensor(0), call.tensor(1), call.optional(2)
    kernel = _kernel(call, weight)
    rank = len(kernel)
    extra = tuple(call.attr("output_padding") or (0,) * rank)
    view, extra = _transposed_window(call, x, kernel, extra)
    function, groups = _TRANSPOSED[rank - 1], call.attr("group", 1)
    reach = zip(x.shape[2:], view.stride, view.extent, strict=True)
    whole = [(size - 1) * step + extent for size, step, extent in reach]
    call.check_size([x.shape[0], weight.shape[1] * groups, *whole], constant=False)
    fits = all(0 <= e < max(s, d) for e, s, d in zip(extra, view.stride, view.dilation, strict=True))
    if view.symmetric and fits and min(view.before) >= 0:
        return function(x, weight, bias, view.stride, view.before, extra, groups, view.dilation)
    full = function(x, weight, None, view.stride, 0, 0, groups, view.dilation)
    ends = tuple(e - after for e, after in zip(extra, view.after, strict=True))
    cut = Window(view.kernel, view.stride, view.dilation, tuple(-b for b in view.before), ends)
    result = F.pad(full, cut.edges)
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


def _transposed_window(
    call: Call, x: torch.Tensor, kernel: tuple[int, ...], extra: tuple[int, ...]
) -> tuple[Window, tuple[int, ...]]:
    """Returns the window, its paddings worked out from `output_shape` and `auto_pad`, and the output padding."""
    rank = len(kernel)
    mode, wanted = call.attr("auto_pad", "NOTSET") or "NOTSET", call.attr("output_shape")
    stride = tuple(call.attr("strides") or (1,) * rank)
    dilation = tuple(call.attr("dilations") or (1,) * rank)
    plain = Window(kernel, stride, dilation, (0,) * rank, (0,) * rank)
    if not wanted and mode in {"NOTSET", "VALID"}:
        pads = tuple(call.attr("pads") or (0,) * 2 * rank) if mode == "NOTSET" else (0,) * 2 * rank
        return Window(kernel, stride, dilation, pads[:rank], pads[rank:]), extra
    sizes = list(x.shape[2:])
    if not all(isinstance(size, int) for size in sizes):
        raise call.refuse("its paddings follow from sizes that are not fixed; give the sample shape")
    goal = list(wanted or [size * step for size, step in zip(sizes, stride, strict=True)])[-rank:]
    before, after = [], []
    for size, step, extent, more, out in zip(sizes, stride, plain.extent, extra, goal, strict=True):
        total = step * (size - 1) + more + extent - out
        if total < 0:  # more room than the windows reach: zeros at the end
            before.append(0)
            after.append(total)
            continue
        less = total // 2
        before.append(total - less if mode == "SAME_LOWER" else less)
        after.append(total - before[-1])
    if mode == "NOTSET":
        before, after = (
            [b + a - (b + a) // 2 for b, a in zip(before, after, strict=True)],
            [(b + a) // 2 for b, a in zip(before, after, strict=True)],
        )
    return Window(kernel, stride, dilation, tuple(before), tuple(after)), extra


def _linear(call: Call) -> Any:
    return F.linear(call.tensor(0), call.tensor(1), call.optional(2))


def _gemm(call: Call) -> Any:
    """Gemm with anything but constant weights, which `prepare` turns into linear layers."""
    left, right = call.tensor(0), call.tensor(1)
    left = left.t() if call.attr("transA", 0) else left
    right = right.t() if call.attr("transB", 0) else right
    alpha, beta = call.attr("alpha", 1.0), call.attr("beta", 1.0)
    product = left @ right if alpha == 1 else alpha * (left @ right)
    if not call.has(2):
        return product
    return product + (call.tensor(2) if beta == 1 else beta * call.tensor(2))


def _matmul(call: Call) -> Any:
    return torch.matmul(call.tensor(0), call.tensor(1))


def _einsum(call: Call) -> Any:
    return torch.einsum(call.attr("equation").replace(" ", ""), *[call.tensor(i) for i in range(len(call.values))])


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    ".Linear": _linear,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": _einsum,
}

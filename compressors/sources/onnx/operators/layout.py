"""Shapes and layout: reshape, transpose, concatenation, slices, padding, tiling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from compressors.errors import ModelError
from compressors.sources.onnx.host import axes_of, slices_of
from compressors.sources.onnx.operators.elementwise import Operator
from compressors.sources.onnx.values import Call, Value


def _shape(call: Call) -> Any:
    """Shape: numbers, never a tensor."""
    shape = _sizes(call.value(0))
    start, end = call.attr("start", 0), call.attr("end", None)
    result = np.empty(len(shape), object)
    result[:] = shape
    return result[slice(start, end)]


def _sizes(value: Value) -> list[Any]:
    return list(value.host.shape if value.tensor is None else value.tensor.shape)


def _size(call: Call) -> Any:
    result = np.empty((), object)
    total: Any = 1
    for size in _sizes(call.value(0)):
        total = total * size
    result[()] = total
    return result


def _reshape(call: Call) -> Any:
    x = call.tensor(0)
    shape = call.ints(1) if call.since >= 5 else list(call.attr("shape"))
    if not call.attr("allowzero", 0):
        if any(isinstance(size, int) and size == 0 and axis >= x.dim() for axis, size in enumerate(shape)):
            raise ModelError(f"{call.node.label} copies a dimension that its input does not have")
        shape = [x.shape[axis] if isinstance(size, int) and size == 0 else size for axis, size in enumerate(shape)]
    elif any(isinstance(size, int) and size == 0 for size in shape) and x.numel():
        raise ModelError(f"{call.node.label} makes an empty tensor of one that is not")
    shape = _resolved(x, shape)
    return x if list(x.shape) == shape else x.reshape(shape)


def _resolved(x: torch.Tensor, shape: list[Any]) -> list[Any]:
    """Returns a shape with the size that -1 stands for, where that is a number and not the leading one.

    Lifting frees a fixed batch by making the leading size follow from the others, which must be known for that.
    """
    if -1 not in shape[1:] or not all(isinstance(size, int) for size in (*shape, *x.shape)):
        return shape
    rest = math.prod(size for size in shape if size != -1)
    return [x.numel() // rest if size == -1 and rest else size for size in shape]


def _flatten(call: Call) -> Any:
    x = call.tensor(0)
    axis = call.attr("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if not 0 <= axis <= x.dim():
        raise ModelError(f"{call.node.label} names axis {axis} of a tensor with {x.dim()} dimensions")
    if axis == 1:
        return x if x.dim() == 2 else torch.flatten(x, 1) if x.dim() > 2 else x.reshape(-1, 1)
    return x.reshape(1, -1) if axis == 0 else x.flatten(0, axis - 1).reshape(-1, *_rest(x, axis))


def _rest(x: torch.Tensor, axis: int) -> list[Any]:
    total: Any = 1
    for size in x.shape[axis:]:
        total = total * size
    return [total]


def _transpose(call: Call) -> Any:
    x = call.tensor(0)
    order = list(call.attr("perm") or reversed(range(x.dim())))
    if sorted(order) != list(range(x.dim())):
        raise ModelError(f"{call.node.label} permutes {order} of a tensor with {x.dim()} dimensions")
    return x if order == sorted(order) else x.permute(order)


def _concat(call: Call) -> Any:
    tensors = [call.tensor(index) for index in range(len(call.values))]
    return torch.cat(tensors, call.axis(call.attr("axis", 1), tensors[0].dim()))


def _squeeze(call: Call) -> Any:
    x, axes = call.tensor(0), axes_of(call)
    if axes is None:
        axes = [axis for axis, size in enumerate(x.shape) if isinstance(size, int) and size == 1]
    axes = [call.axis(axis, x.dim()) for axis in axes]
    odd = [axis for axis in axes if isinstance(x.shape[axis], int) and x.shape[axis] != 1]
    if odd:
        raise ModelError(f"{call.node.label} removes axis {odd[0]}, whose size is {x.shape[odd[0]]}, not 1")
    return torch.squeeze(x, tuple(axes)) if axes else x


def _unsqueeze(call: Call) -> Any:
    x, axes = call.tensor(0), axes_of(call) or []
    rank = x.dim() + len(axes)
    for axis in sorted(call.axis(axis, rank) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(call: Call) -> Any:
    x = call.tensor(0)
    for axis, start, end, step in slices_of(call):
        x = _cut(call, x, call.axis(axis, x.dim()), (start, end, step))
    return x


def _cut(call: Call, x: torch.Tensor, axis: int, bounds: tuple[Any, Any, Any]) -> torch.Tensor:
    start, end, step = bounds
    if not isinstance(step, int) or step == 0:
        raise ModelError(f"{call.node.label} slices with step {step}")
    if step > 0:
        index = [slice(None)] * axis + [slice(start, None if _open(end) else end, step)]
        return x if index[-1] == slice(0, None, 1) else x[tuple(index)]
    picked = range(*slice(start, None if end < -x.shape[axis] else end, step).indices(x.shape[axis]))
    if picked == range(x.shape[axis] - 1, -1, -1):
        return torch.flip(x, (axis,))
    return x.index_select(axis, torch.tensor(list(picked), dtype=torch.int64))


def _open(end: Any) -> bool:
    """Says whether an end means "all the rest": exporters write the largest number there is."""
    return isinstance(end, int) and end >= 2**31 - 1


def split_sizes(call: Call, total: Any) -> list[Any]:
    """Returns the sizes of a Split's parts: an attribute, an input, or equal parts."""
    sizes = call.attr("split")
    if sizes is not None:
        return list(sizes)
    if call.has(1):
        return call.ints(1)
    count = len(call.node.outputs)
    if call.attr("num_outputs", count) != count:
        raise ModelError(f"{call.node.label} says that it has {call.attr('num_outputs')} outputs and has {count}")
    part = -(-total // count)
    return [part] * (count - 1) + [total - part * (count - 1)]


def _split(call: Call) -> Any:
    x = call.tensor(0)
    axis = call.axis(call.attr("axis", 0), x.dim())
    return list(torch.split(x, split_sizes(call, x.shape[axis]), axis))


def _expand(call: Call) -> Any:
    x, wanted = call.tensor(0), call.ints(1)
    rank = max(x.dim(), len(wanted))
    own, wanted = [1] * (rank - x.dim()) + list(x.shape), [1] * (rank - len(wanted)) + wanted
    sizes = [have if isinstance(want, int) and want == 1 else want for have, want in zip(own, wanted, strict=True)]
    return x if sizes == list(x.shape) else x.expand(sizes)


def _tile(call: Call) -> Any:
    x, repeats = call.tensor(0), call.ints(1)
    call.check_size([a * b for a, b in zip(x.shape, repeats, strict=True)], constant=call.value(0).constant)
    return x if all(isinstance(count, int) and count == 1 for count in repeats) else x.repeat(repeats)


def _constant_of_shape(call: Call) -> Any:
    value, shape = call.attr("value"), call.ints(0)
    call.check_size(shape, constant=True)
    if value is None:
        return torch.zeros(shape)
    return torch.full(shape, value.reshape(-1).tolist()[0], dtype=torch.from_numpy(value).dtype)


def _range(call: Call) -> Any:
    bounds = [call.number(index) for index in range(3)]
    dtype = torch.from_numpy(np.empty(0, call.array(2).dtype)).dtype if call.array(2).dtype != object else torch.int64
    if all(isinstance(bound, int | float) for bound in bounds):
        call.check_size([max(int((bounds[1] - bounds[0]) / bounds[2]), 0)], constant=True)
    return torch.arange(*bounds, dtype=dtype)


_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(call: Call) -> Any:
    x = call.tensor(0)
    pads = list(call.attr("pads") or ()) if call.since < 11 else call.ints(1)
    axes = [call.axis(axis, x.dim()) for axis in call.ints(3)] if call.has(3) else list(range(x.dim()))
    if len(pads) != 2 * len(axes):
        raise ModelError(f"{call.node.label} has {len(pads)} paddings for {len(axes)} dimensions")
    edges = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    if not any(side for pair in edges.values() for side in pair):
        return x
    mode = call.attr("mode", "constant")
    if mode not in _MODES:
        raise call.refuse(f"the mode {mode!r} is unknown")
    call.check_size(
        [size + sum(edges.get(axis, (0, 0))) for axis, size in enumerate(x.shape)], constant=call.value(0).constant
    )
    if mode == "constant":
        return _pad_constant(call, x, edges)
    return _pad_mirrored(call, x, edges, mode)


def _pad_constant(call: Call, x: torch.Tensor, edges: dict[int, tuple[int, int]]) -> torch.Tensor:
    value = call.attr("value", 0.0) if call.since < 11 else (call.number(2) if call.has(2) else 0)
    flat: list[int] = []
    for axis in range(x.dim() - 1, min(axis for axis, pair in edges.items() if any(pair)) - 1, -1):
        flat += edges.get(axis, (0, 0))
    return F.pad(x, flat, "constant", value)


def _pad_mirrored(call: Call, x: torch.Tensor, edges: dict[int, tuple[int, int]], mode: str) -> torch.Tensor:
    """Pads with the tensor's own values, by index: any dimension, and paddings of any width."""
    for axis, (before, after) in edges.items():
        size = x.shape[axis]
        if not (before or after):
            continue
        if not isinstance(size, int):
            raise call.refuse("it mirrors the batch")
        at = np.arange(-min(before, 0) if before < 0 else -before, size + after)
        if mode == "edge":
            at = at.clip(0, size - 1)
        elif mode == "wrap":
            at = at % size
        else:
            period = max(2 * (size - 1), 1)
            at = np.abs((at % period + period) % period)
            at = np.where(at >= size, period - at, at)
        x = x.index_select(axis, torch.from_numpy(at.astype(np.int64)))
    return x


def _depth_to_space(call: Call) -> Any:
    x, block = call.tensor(0), call.attr("blocksize")
    if call.attr("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)  # n, c', h, b, w, b
    return x.reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(call: Call) -> Any:
    x, block = call.tensor(0), call.attr("blocksize")
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block)
    if call.attr("mode", "DCR") == "CRD":
        return x.permute(0, 1, 3, 5, 2, 4).reshape(n, c * block**2, h // block, w // block)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)


def _trilu(call: Call) -> Any:
    offset = int(call.number(1)) if call.has(1) else 0
    return torch.triu(call.tensor(0), offset) if call.attr("upper", 1) else torch.tril(call.tensor(0), offset)


def _eye(call: Call) -> Any:
    x = call.tensor(0)
    rows, columns = x.shape
    call.check_size((rows, columns), constant=True)
    from compressors.sources.onnx.tensors import torch_type

    number = call.attr("dtype")
    dtype = x.dtype if number is None else torch_type(number, f"{call.node.label}: the wanted result")
    diagonal = torch.arange(columns) - torch.arange(rows).reshape(-1, 1)
    return (diagonal == call.attr("k", 0)).to(dtype)


OPERATORS: dict[str, Operator] = {
    "Shape": _shape,
    "Size": _size,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Concat": _concat,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Split": _split,
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Trilu": _trilu,
    "EyeLike": _eye,
}

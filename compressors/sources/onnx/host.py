"""Shape arithmetic on numbers: the operators that exporters compute sizes with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from compressors.sources.onnx.limits import HOST_INTEGERS
from compressors.sources.onnx.values import Call, TooLargeError, hint, normal

_DTYPES = {1: np.float32, 11: np.float64, 6: np.int32, 7: np.int64, 9: np.bool_, 2: np.uint8, 3: np.int8, 5: np.int16}


def _pairwise(function: Callable[[Any, Any], Any]) -> Callable[[Call], Any]:
    def run(call: Call) -> Any:
        left, right = call.array(0), call.array(1)
        _room(np.broadcast_shapes(left.shape, right.shape))
        return _kept(function(left, right), left, right)

    return run


def _kept(result: Any, *operands: Any) -> Any:
    """Returns a result in the operands' own type: numpy widens what it computes."""
    result = np.asarray(result)
    dtypes = {operand.dtype for operand in operands}
    same = len(dtypes) == 1 and result.dtype.kind == next(iter(dtypes)).kind
    return result.astype(next(iter(dtypes))) if same and result.dtype != object else result


def _divide(left: Any, right: Any) -> Any:
    if left.dtype.kind == "f" or right.dtype.kind == "f":
        return left / right
    if object in {left.dtype, right.dtype}:
        return left // right  # sizes are never negative
    if (right == 0).any():
        raise ZeroDivisionError("division of sizes by zero")
    return (
        np.trunc(np.true_divide(left, right)).astype(left.dtype)
        if (left < 0).any() or (right < 0).any()
        else left // right
    )


def _modulo(call: Call) -> Any:
    left, right = call.array(0), call.array(1)
    return _kept(np.fmod(left, right) if call.attr("fmod", 0) else np.mod(left, right), left, right)


def _power(left: Any, right: Any) -> Any:
    if left.dtype != object and left.dtype.kind != "f" and (right < 0).any():
        raise TooLargeError
    return np.power(left, right.astype(left.dtype) if left.dtype != object and right.dtype.kind == "f" else right)


def _all(function: Callable[[Any, Any], Any]) -> Callable[[Call], Any]:
    def run(call: Call) -> Any:
        result = call.array(0)
        for index in range(1, len(call.values)):
            result = _kept(function(result, call.array(index)), result, call.array(index))
        return result

    return run


def _larger(left: Any, right: Any) -> Any:
    return np.where(left >= right, left, right)


def _smaller(left: Any, right: Any) -> Any:
    return np.where(left <= right, left, right)


def _single(function: Callable[[Any], Any]) -> Callable[[Call], Any]:
    return lambda call: _kept(function(call.array(0)), call.array(0))


def _cast(call: Call) -> Any:
    array, dtype = call.array(0), _DTYPES.get(call.attr("to"))
    if dtype is None:
        raise TooLargeError
    if array.dtype != object:
        return array.astype(dtype)
    if np.dtype(dtype).kind == "f":
        items = [torch.sym_float(item) for item in array.reshape(-1).tolist()]
    elif any(isinstance(item, torch.SymFloat) for item in array.reshape(-1).tolist()):
        items = [torch.sym_int(item) for item in array.reshape(-1).tolist()]
    else:
        return array
    return _objects(items, array.shape)


def _objects(items: list[Any], shape: tuple[int, ...]) -> Any:
    result = np.empty(len(items), object)
    result[:] = items
    return result.reshape(shape)


def _gather(call: Call) -> Any:
    array, axis = call.array(0), call.attr("axis", 0)
    return np.take(array, call.array(1).astype(np.int64), axis=axis)


def _concat(call: Call) -> Any:
    arrays = [call.array(index) for index in range(len(call.values))]
    _room((sum(array.size for array in arrays),))
    return np.concatenate(arrays, axis=call.attr("axis"))


def axes_of(call: Call, index: int = 1) -> list[int] | None:
    """Returns the axes of Squeeze, Unsqueeze, reductions: an attribute once, an input later."""
    axes = call.attr("axes")
    if axes is not None:
        return list(axes)
    return call.ints(index) if call.has(index) else None


def _unsqueeze(call: Call) -> Any:
    return np.expand_dims(call.array(0), tuple(axes_of(call) or ()))


def _squeeze(call: Call) -> Any:
    axes = axes_of(call)
    return np.squeeze(call.array(0), None if axes is None else tuple(axes))


def slices_of(call: Call) -> list[tuple[int, Any, Any, int]]:
    """Returns axis, start, end and step of every dimension that a Slice cuts."""
    if call.since < 10:
        starts, ends, axes, steps = call.attr("starts"), call.attr("ends"), call.attr("axes"), None
    else:
        starts, ends = call.ints(1), call.ints(2)
        axes = call.ints(3) if call.has(3) else None
        steps = call.ints(4) if call.has(4) else None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    return list(zip(axes, starts, ends, steps, strict=True))


def _slice(call: Call) -> Any:
    array = call.array(0)
    index: list[Any] = [slice(None)] * array.ndim
    for axis, start, end, step in slices_of(call):
        if not all(isinstance(bound, int) for bound in (start, end, step)):
            raise TooLargeError
        floor = None if step < 0 and end < -array.shape[axis] else end
        index[axis] = slice(start, floor, step)
    return array[tuple(index)]


def _split(call: Call) -> Any:
    from compressors.sources.onnx.operators.layout import split_sizes

    array = call.array(0)
    axis = call.axis(call.attr("axis", 0), array.ndim)
    bounds = np.cumsum(split_sizes(call, array.shape[axis]))[:-1]
    return np.split(array, bounds, axis=axis)


def _reshape(call: Call) -> Any:
    array, shape = call.array(0), call.ints(1)
    if not call.attr("allowzero", 0):
        shape = [array.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return array.reshape(shape)


def _transpose(call: Call) -> Any:
    return np.transpose(call.array(0), call.attr("perm"))


def _constant_of_shape(call: Call) -> Any:
    shape = call.ints(0)
    _room(shape)
    value = call.attr("value")
    filler = np.zeros(1, np.float32) if value is None else value
    if filler.dtype.kind == "f" and np.prod(shape) > 8:
        raise TooLargeError
    return np.full([int(size) for size in shape], filler.reshape(-1)[0], filler.dtype)


def _range(call: Call) -> Any:
    bounds = [call.number(index) for index in range(3)]
    if not all(isinstance(bound, int | float) for bound in bounds) or not bounds[2]:
        raise TooLargeError
    _room((max(int((bounds[1] - bounds[0]) / bounds[2]), 0),))
    return np.arange(*bounds).astype(call.array(0).dtype)


def _expand(call: Call) -> Any:
    array, shape = call.array(0), call.ints(1)
    _room(shape)
    return np.array(np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(int(size) for size in shape))))


def _tile(call: Call) -> Any:
    array, repeats = call.array(0), call.ints(1)
    _room([size * count for size, count in zip(array.shape, repeats, strict=True)])
    return np.tile(array, repeats)


def _where(call: Call) -> Any:
    condition, left, right = (call.array(index) for index in range(3))
    _room(np.broadcast_shapes(condition.shape, left.shape, right.shape))
    return _kept(np.where(condition.astype(np.bool_), left, right), left, right)


def _reduce(function: Callable[..., Any]) -> Callable[[Call], Any]:
    def run(call: Call) -> Any:
        axes = axes_of(call)
        if not axes and call.attr("noop_with_empty_axes", 0):
            return call.array(0)
        keep = bool(call.attr("keepdims", 1))
        result = function(call.array(0), axis=tuple(axes) if axes else None, keepdims=keep)
        return _kept(result, call.array(0))

    return run


def _cumsum(call: Call) -> Any:
    if call.attr("exclusive", 0) or call.attr("reverse", 0):
        raise TooLargeError
    return _kept(np.cumsum(call.array(0), axis=call.number(1)), call.array(0))


def _size(call: Call) -> Any:
    return np.array(call.array(0).size, np.int64)


def _room(shape: Any) -> None:
    """Makes sure that a result is small enough for numbers."""
    sizes = list(shape)
    if any(not isinstance(size, int | np.integer) for size in sizes):
        raise TooLargeError
    total = 1
    for size in sizes:
        total *= max(int(hint(int(size))), 0)
    if total > HOST_INTEGERS:
        raise TooLargeError


def run_host(call: Call) -> list[Any] | None:
    """Returns an operator's results as numbers, None where it must be computed as a tensor."""
    function = _TABLE.get(call.node.op)
    if function is None or not all(value is None or value.host is not None for value in call.values):
        return None
    try:
        with np.errstate(all="ignore"):
            results = function(call)
    except TooLargeError:
        return None
    results = results if isinstance(results, list) else [results]
    return [normal(result) for result in results]


_TABLE: dict[str, Callable[[Call], Any]] = {
    "Add": _pairwise(lambda a, b: a + b),
    "Sub": _pairwise(lambda a, b: a - b),
    "Mul": _pairwise(lambda a, b: a * b),
    "Div": _pairwise(_divide),
    "Mod": _modulo,
    "Pow": _pairwise(_power),
    "Equal": _pairwise(lambda a, b: a == b),
    "Less": _pairwise(lambda a, b: a < b),
    "LessOrEqual": _pairwise(lambda a, b: a <= b),
    "Greater": _pairwise(lambda a, b: a > b),
    "GreaterOrEqual": _pairwise(lambda a, b: a >= b),
    "And": _pairwise(lambda a, b: a & b),
    "Or": _pairwise(lambda a, b: a | b),
    "Not": _single(np.logical_not),
    "Neg": _single(lambda a: -a),
    "Abs": _single(np.abs),
    "Floor": _single(np.floor),
    "Ceil": _single(np.ceil),
    "Sqrt": _single(np.sqrt),
    "Max": _all(_larger),
    "Min": _all(_smaller),
    "Identity": _single(lambda a: a),
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Split": _split,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Expand": _expand,
    "Tile": _tile,
    "Where": _where,
    "Size": _size,
    "CumSum": _cumsum,
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
}

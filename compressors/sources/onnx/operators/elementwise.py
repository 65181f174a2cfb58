"""Elementwise arithmetic, comparisons, logic and casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from compressors.errors import ModelError
from compressors.sources.onnx.tensors import torch_type
from compressors.sources.onnx.values import Call

Operator = Callable[[Call], Any]


def _unary(function: Callable[[torch.Tensor], Any]) -> Operator:
    return lambda call: function(call.tensor(0))


def _binary(function: Callable[[Any, Any], Any]) -> Operator:
    """An operator with broadcasting; a number stays a number as in the code that was exported."""

    def run(call: Call) -> Any:
        left, right = _ranks(call)
        first = call.operand(0, right) if left <= right and call.value(0).tensor is None else None
        if first is None and _is_number(call, 0) and not _is_number(call, 1) and left <= right:
            first = call.operand(0, right)
        if first is not None and not isinstance(first, torch.Tensor):
            return function(_typed(first, call.tensor(1)), call.tensor(1))
        second = call.operand(1, left)
        return function(call.tensor(0), _typed(second, call.tensor(0)))

    return run


def _ranks(call: Call) -> tuple[int, int]:
    return tuple(
        value.host.ndim if value.tensor is None else value.tensor.dim() for value in (call.value(0), call.value(1))
    )  # type: ignore[return-value]


def _is_number(call: Call, index: int) -> bool:
    host = call.value(index).host
    return host is not None and host.size == 1


def _typed(number: Any, other: torch.Tensor) -> Any:
    """Returns a number in the other operand's kind, so that it cannot change the result's type."""
    if isinstance(number, bool) and other.dtype is not torch.bool:
        return int(number)
    if isinstance(number, int) and other.is_floating_point():
        return float(number)
    return number


def _variadic(function: Callable[[Any, Any], Any]) -> Operator:
    def run(call: Call) -> Any:
        result: Any = call.tensor(0)
        for index in range(1, len(call.values)):
            result = function(result, call.tensor(index))
        return result

    return run


def _mean(call: Call) -> Any:
    return _variadic(torch.add)(call) / len(call.values)


def _divide(left: Any, right: Any) -> Any:
    whole = all(
        not (x.is_floating_point() if isinstance(x, torch.Tensor) else isinstance(x, float)) for x in (left, right)
    )
    return torch.div(left, right, rounding_mode="trunc") if whole else left / right


def _power(call: Call) -> Any:
    base = call.tensor(0)
    exponent = call.operand(1, base.dim())
    result = torch.pow(base, exponent)
    return result if result.dtype == base.dtype else result.to(base.dtype)


def _modulo(call: Call) -> Any:
    left, right = call.tensor(0), call.tensor(1)
    return torch.fmod(left, right) if call.attr("fmod", 0) else torch.remainder(left, right)


def _cast(call: Call) -> Any:
    return _to(call.tensor(0), torch_type(call.attr("to"), f"{call.node.label}: the wanted result"))


def _to(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns a cast; one to the same type is none."""
    return x if x.dtype == dtype else x.to(dtype)


def _cast_like(call: Call) -> Any:
    return _to(call.tensor(0), call.tensor(1).dtype)


def _where(call: Call) -> Any:
    return torch.where(call.tensor(0), call.tensor(1), call.tensor(2))


def _clip(call: Call) -> Any:
    x = call.tensor(0)
    if call.since < 11:
        low, high = call.attr("min"), call.attr("max")
        low = None if low is not None and low <= -3.4e38 else low
        high = None if high is not None and high >= 3.4e38 else high
    else:
        low = _bound(call, 1)
        high = _bound(call, 2)
    if low == 0 and high == 6 and not isinstance(low, torch.Tensor) and x.is_floating_point():
        return F.relu6(x)
    if low == 0 and high is None and not isinstance(low, torch.Tensor):
        return F.relu(x)
    if low is None and high is None:
        return x
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
        result = x if low is None else torch.maximum(x, torch.as_tensor(low, dtype=x.dtype))
        return result if high is None else torch.minimum(result, torch.as_tensor(high, dtype=x.dtype))
    # ONNX: where the bounds cross, the upper one wins; so it does in torch.
    return (
        F.hardtanh(x, low, high)
        if None not in {low, high} and low < high and x.is_floating_point()
        else x.clamp(low, high)
    )


def _bound(call: Call, index: int) -> Any:
    if not call.has(index):
        return None
    value = call.value(index)
    return value.as_tensor() if value.host is None else call.number(index)


def _same_type(call: Call) -> Any:
    left, right = call.value(0), call.value(1)
    if left.tensor is not None and right.tensor is not None and left.tensor.dtype != right.tensor.dtype:
        raise ModelError(f"{call.node.label} got {left.tensor.dtype} and {right.tensor.dtype}; wanted one type")
    return _binary(torch.eq)(call)


def _dropout(call: Call) -> Any:
    """Dropout: nothing, unless the file switches training on."""
    if call.has(2) and bool(call.number(2)) and not (call.has(1) and call.number(1) == 0):
        raise ModelError(f"{call.node.label} is in training mode; export the model in eval mode")
    return call.tensor(0)


def _shift(call: Call) -> Any:
    left, right = call.tensor(0), call.tensor(1)
    return left << right if call.attr("direction") == "LEFT" else left >> right


def _is_inf(call: Call) -> Any:
    x = call.tensor(0)
    up, down = call.attr("detect_positive", 1), call.attr("detect_negative", 1)
    if up and down:
        return torch.isinf(x)
    return torch.isposinf(x) if up else torch.isneginf(x) if down else torch.zeros_like(x, dtype=torch.bool)


def _round(x: torch.Tensor) -> torch.Tensor:
    return torch.round(x)  # half to even, as ONNX wants it


OPERATORS: dict[str, Operator] = {
    "Add": _binary(lambda a, b: a + b),
    "Sub": _binary(lambda a, b: a - b),
    "Mul": _binary(lambda a, b: a * b),
    "Div": _binary(_divide),
    "Pow": _power,
    "Mod": _modulo,
    "Equal": _same_type,
    "Less": _binary(lambda a, b: a < b),
    "LessOrEqual": _binary(lambda a, b: a <= b),
    "Greater": _binary(lambda a, b: a > b),
    "GreaterOrEqual": _binary(lambda a, b: a >= b),
    "And": _variadic(torch.logical_and),
    "Or": _variadic(torch.logical_or),
    "Xor": _variadic(torch.logical_xor),
    "Not": _unary(torch.logical_not),
    "BitwiseAnd": _variadic(torch.bitwise_and),
    "BitwiseOr": _variadic(torch.bitwise_or),
    "BitwiseXor": _variadic(torch.bitwise_xor),
    "BitwiseNot": _unary(torch.bitwise_not),
    "BitShift": _shift,
    "Max": _variadic(torch.maximum),
    "Min": _variadic(torch.minimum),
    "Sum": _variadic(torch.add),
    "Mean": _mean,
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Clip": _clip,
    "IsInf": _is_inf,
    "IsNaN": _unary(torch.isnan),
    "Identity": _unary(lambda x: x),
    "Dropout": _dropout,
    "Abs": _unary(torch.abs),
    "Neg": _unary(torch.neg),
    "Reciprocal": _unary(torch.reciprocal),
    "Sqrt": _unary(torch.sqrt),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Erf": _unary(torch.erf),
    "Sign": _unary(torch.sign),
    "Floor": _unary(torch.floor),
    "Ceil": _unary(torch.ceil),
    "Round": _unary(_round),
    "Sin": _unary(torch.sin),
    "Cos": _unary(torch.cos),
    "Tan": _unary(torch.tan),
    "Asin": _unary(torch.asin),
    "Acos": _unary(torch.acos),
    "Atan": _unary(torch.atan),
    "Sinh": _unary(torch.sinh),
    "Cosh": _unary(torch.cosh),
    "Asinh": _unary(torch.asinh),
    "Acosh": _unary(torch.acosh),
    "Atanh": _unary(torch.atanh),
}

"""Activations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from compressors.sources.onnx.operators.elementwise import Operator
from compressors.sources.onnx.values import Call


def _softmax(call: Call, function: Any) -> Any:
    """Softmax: over one axis; before opset 13 over all axes from there on."""
    x = call.tensor(0)
    axis = call.axis(call.attr("axis", -1), x.dim())
    if call.since >= 13 or axis == x.dim() - 1:
        return function(x, axis)
    return function(x.flatten(axis), axis).reshape(x.shape)


def _prelu(call: Call) -> Any:
    """PRelu: slopes per channel are torch's; any others are written out."""
    x, slope = call.tensor(0), call.tensor(1)
    sizes = tuple(slope.shape)
    if slope.numel() == 1:
        return F.prelu(x, slope.reshape(-1))
    channels = x.shape[1] if x.dim() > 1 else None
    per_channel = len(sizes) == x.dim() - 1 and sizes[0] == channels and all(size == 1 for size in sizes[1:])
    per_channel |= len(sizes) == x.dim() and sizes[0] == 1 and sizes[1] == channels and all(s == 1 for s in sizes[2:])
    if per_channel:
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x < 0, x * slope, x)


def _hard_sigmoid(call: Call) -> Any:
    x, alpha, beta = call.tensor(0), call.attr("alpha"), call.attr("beta")
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return (x * alpha + beta).clamp(0.0, 1.0)


def _gelu(call: Call) -> Any:
    return F.gelu(call.tensor(0), approximate=call.attr("approximate", "none"))


def _elu(call: Call) -> Any:
    return F.elu(call.tensor(0), call.attr("alpha"))


def _celu(call: Call) -> Any:
    return F.celu(call.tensor(0), call.attr("alpha"))


def _selu(call: Call) -> Any:
    x, alpha, gamma = call.tensor(0), call.attr("alpha"), call.attr("gamma")
    if abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.050701) < 1e-6:
        return F.selu(x)
    return gamma * F.elu(x, alpha)


def _leaky(call: Call) -> Any:
    return F.leaky_relu(call.tensor(0), call.attr("alpha"))


def _swish(call: Call) -> Any:
    x, alpha = call.tensor(0), call.attr("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


def _shrink(call: Call) -> Any:
    x, bias, edge = call.tensor(0), call.attr("bias"), call.attr("lambd")
    return torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, torch.zeros_like(x)))


def _thresholded(call: Call) -> Any:
    return F.threshold(call.tensor(0), call.attr("alpha"), 0.0)


def _hardmax(call: Call) -> Any:
    x = call.tensor(0)
    axis = call.axis(call.attr("axis", -1), x.dim())
    shape = x.shape
    if call.since < 13:
        x = x.flatten(axis)
    one = F.one_hot(x.argmax(axis), x.shape[axis]).to(x.dtype)
    return one.movedim(-1, axis).reshape(shape)


OPERATORS: dict[str, Operator] = {
    "Relu": lambda call: F.relu(call.tensor(0)),
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Sigmoid": lambda call: torch.sigmoid(call.tensor(0)),
    "Tanh": lambda call: torch.tanh(call.tensor(0)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda call: F.hardswish(call.tensor(0)),
    ".Silu": lambda call: F.silu(call.tensor(0)),
    "Swish": _swish,
    "Gelu": _gelu,
    "Mish": lambda call: F.mish(call.tensor(0)),
    "Elu": _elu,
    "Celu": _celu,
    "Selu": _selu,
    "Softplus": lambda call: F.softplus(call.tensor(0)),
    "Softsign": lambda call: F.softsign(call.tensor(0)),
    "Softmax": lambda call: _softmax(call, torch.softmax),
    "LogSoftmax": lambda call: _softmax(call, torch.log_softmax),
    "Hardmax": _hardmax,
    "Shrink": _shrink,
    "ThresholdedRelu": _thresholded,
}

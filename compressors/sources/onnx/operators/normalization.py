"""Normalisation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from compressors.errors import ModelError
from compressors.sources.onnx.operators.elementwise import Operator
from compressors.sources.onnx.values import Call


def _batch_norm(call: Call) -> Any:
    if call.attr("training_mode", 0) or call.wants(1):
        raise ModelError(f"{call.node.label} is in training mode; export the model in eval mode")
    if not call.attr("spatial", 1):
        raise call.refuse("it normalises every position by itself (spatial = 0)")
    weight, bias, mean, variance = (call.tensor(index) for index in range(1, 5))
    return F.batch_norm(call.tensor(0), mean, variance, weight, bias, False, 0.1, call.attr("epsilon"))


def _instance_norm(call: Call) -> Any:
    return F.instance_norm(
        call.tensor(0), weight=call.tensor(1), bias=call.tensor(2), use_input_stats=True, eps=call.attr("epsilon")
    )


def _layer_norm(call: Call) -> Any:
    if call.wants(1) or call.wants(2):
        raise call.refuse("its further results (mean, inverse deviation) are used")
    x, weight, bias = call.tensor(0), call.tensor(1), call.optional(2)
    shape = _normalised(call, x)
    if tuple(weight.shape) == shape and (bias is None or tuple(bias.shape) == shape):
        return F.layer_norm(x, shape, weight, bias, call.attr("epsilon"))
    result = F.layer_norm(x, shape, None, None, call.attr("epsilon")) * weight
    return result if bias is None else result + bias


def _joined_layer_norm(call: Call) -> Any:
    """A layer norm that an exporter took apart; over axes that are not the last ones it is written out again."""
    x, weight, bias = call.tensor(0), call.optional(1), call.optional(2)
    axes = sorted(call.axis(axis, x.dim()) for axis in call.attr("axes"))
    sizes = tuple(x.shape[axis] for axis in axes)
    last = axes == list(range(x.dim() - len(axes), x.dim()))
    fits = all(part is None or tuple(part.shape) == sizes for part in (weight, bias))
    if last and fits and all(isinstance(size, int) for size in sizes):
        return F.layer_norm(x, sizes, weight, bias, call.attr("epsilon"))
    centred = x - x.mean(axes, keepdim=True)
    result = centred / (centred.square().mean(axes, keepdim=True) + call.attr("epsilon")).sqrt()
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


def _normalised(call: Call, x: torch.Tensor) -> tuple[int, ...]:
    """Returns the sizes of the axes that a LayerNormalization works on."""
    shape = tuple(x.shape[call.axis(call.attr("axis", -1), x.dim()) :])
    if not all(isinstance(size, int) for size in shape):
        raise call.refuse("it normalises over the batch, or over a size that is not fixed")
    return shape


def _rms_norm(call: Call) -> Any:
    x, weight = call.tensor(0), call.tensor(1)
    shape = _normalised(call, x)
    axes = tuple(range(x.dim() - len(shape), x.dim()))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + call.attr("epsilon")) * weight


def _group_norm(call: Call) -> Any:
    """GroupNormalization: one scale per group before opset 21, one per channel since."""
    x, weight, bias = call.tensor(0), call.tensor(1), call.tensor(2)
    groups, epsilon = call.attr("num_groups"), call.attr("epsilon")
    if call.since < 21:
        each = x.shape[1] // groups
        weight, bias = weight.repeat_interleave(each), bias.repeat_interleave(each)
    return F.group_norm(x, groups, weight, bias, epsilon)


def _local_response(call: Call) -> Any:
    """LRN: over neighbouring channels; with an even size, one more of the later ones; torch takes the earlier."""
    x, size = call.tensor(0), call.attr("size")
    alpha, beta, bias = call.attr("alpha"), call.attr("beta"), call.attr("bias")
    if size % 2:
        return F.local_response_norm(x, size, alpha, beta, bias)
    flat = x.flatten(2).square().unsqueeze(1)  # n, 1, c, positions
    mean = F.avg_pool2d(F.pad(flat, (0, 0, (size - 1) // 2, size // 2)), (size, 1), 1).squeeze(1)
    return x / (bias + alpha * mean).pow(beta).reshape(x.shape)


def _mean_variance(call: Call) -> Any:
    x, axes = call.tensor(0), tuple(call.attr("axes") or (0, 2, 3))
    if 0 in {axis % x.dim() for axis in axes}:
        raise call.refuse("it normalises over the batch, so that a sample's result depends on the others")
    mean = x.mean(axes, keepdim=True)
    deviation = (x.square().mean(axes, keepdim=True) - mean.square()).sqrt()
    return (x - mean) / (deviation + 1e-9)


def _lp_norm(call: Call) -> Any:
    x, p = call.tensor(0), call.attr("p", 2)
    norm = torch.linalg.vector_norm(x, p, call.axis(call.attr("axis", -1), x.dim()), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


OPERATORS: dict[str, Operator] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    ".LayerNorm": _joined_layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "LRN": _local_response,
    "MeanVarianceNormalization": _mean_variance,
    "LpNormalization": _lp_norm,
}

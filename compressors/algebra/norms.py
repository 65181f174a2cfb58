"""Norms, layer scales and per-channel lines folded into their neighbours.

1. A batch norm in eval mode is a line per channel: s = gamma / sqrt(var + eps), t = beta - mean * s. So are a layer
   scale and an activation that was replaced by slope * x + intercept.
2. Behind a map a line folds exactly: W' = W * s[out], b' = b * s + t; a transposed convolution keeps its outputs in
   dimension 1, group by group.
3. Before a map: W' = W * s[in], b' = b + (W summed over its taps) t. Where the map pads and t is not zero, it reads
   zeros where the line would give t: then the line is a map like any other (`line`), whose composition needs a bias map
   (BIAS_MAP, since a 1x1 sees nothing of the input from outside) or `pre_pad` with -t / s.
4. A layer norm's scale and shift fold into the next linear as in 3. Its centring folds into the previous linear,
   W' = W - (mean of W over its outputs), b' likewise, and leaves a root-mean-square norm. The norm itself never folds.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from compressors.algebra.affine import Affine, Refused, regroup


def norm_scale(norm: nn.modules.batchnorm._BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the scale and shift per channel that a batch norm applies in eval mode (case 1).

    Raises:
        ValueError: It has no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("the batch norm has no running statistics, so its effect depends on the batch")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


def layer_norm_scale(norm: nn.LayerNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the scale and shift that a layer norm over the last axis applies behind its normalisation (case 4).

    Raises:
        ValueError: It normalises several axes at once.
    """
    if len(norm.normalized_shape) != 1:
        raise ValueError(
            f"the layer norm normalises {len(norm.normalized_shape)} axes; only the last one can be folded"
        )
    ones = torch.ones(norm.normalized_shape, dtype=torch.float64)
    scale = ones if norm.weight is None else norm.weight.detach().double()
    return scale, torch.zeros_like(ones) if norm.bias is None else norm.bias.detach().double()


def line(scale: torch.Tensor, shift: torch.Tensor, axes: int) -> Affine:
    """Returns scale * x + shift per channel as a depthwise 1x1 (a diagonal linear where axes is 0)."""
    scale, shift = scale.double(), shift.double()
    if not axes:
        return Affine(torch.diag(scale), shift)
    ones, zeros = (1,) * axes, (0,) * axes
    return Affine(scale.reshape(-1, 1, *ones), shift, ones, zeros, zeros, ones, scale.numel())


def scale_outputs(affine: Affine, scale: torch.Tensor, shift: torch.Tensor) -> Affine:
    """Returns the map followed by a scale and shift per output channel; always exact (case 2)."""
    weight = affine.weight * scale.reshape(-1, *(1,) * (affine.axes + 1))
    return replace(affine, weight=weight, bias=affine.bias * scale + shift)


def scale_inputs(affine: Affine, scale: torch.Tensor, shift: torch.Tensor) -> Affine:
    """Returns the map after a scale and shift per input channel (case 3); exact if it pads no zeros or shift is 0."""
    per_group = scale.reshape(affine.groups, 1, -1).expand(-1, affine.outputs // affine.groups, -1)
    weight = affine.weight * per_group.reshape(affine.outputs, -1, *(1,) * affine.axes)
    return replace(affine, weight=weight, bias=affine.bias + affine.tap_sum() @ shift)


def scale_transposed_outputs(
    weight: torch.Tensor, bias: torch.Tensor | None, groups: int, scale: torch.Tensor, shift: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns weight and bias of a transposed convolution followed by a scale and shift (case 2); always exact.

    Args:
        weight: Shape (in, out / groups, *kernel).
        bias: Shape (out,), or None.
        groups: Divides in and out.
        scale: Shape (out,).
        shift: Shape (out,).
    """
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    factors = scale.reshape(groups, 1, outputs).expand(-1, inputs, -1)
    scaled = weight.detach() * factors.reshape(weight.shape[0], outputs, *(1,) * (weight.dim() - 2))
    return scaled, shift if bias is None else bias.detach() * scale + shift


def scale_transposed_inputs(weight: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor | Refused:
    """Returns the weight of a transposed convolution after a scale per input channel, or why a shift does not fold.

    Args:
        weight: Shape (in, out / groups, *kernel).
        scale: Shape (in,).
        shift: Shape (in,).
    """
    if bool(shift.any()):
        return Refused("a constant in front of a transposed convolution gives a pattern behind it, no constant")
    return weight.detach() * scale.reshape(-1, *(1,) * (weight.dim() - 1))


def centre_outputs(affine: Affine) -> Affine:
    """Returns the map with the mean over its output channels taken away at every position (case 4), without groups."""
    dense = regroup(affine, 1)
    return replace(dense, weight=dense.weight - dense.weight.mean(0), bias=dense.bias - dense.bias.mean())

"""Norms folded into their neighbours."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from compressors.algebra.affine import Affine


def norm_scale(norm: nn.modules.batchnorm._BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the scale and shift per channel that a batch norm applies in eval mode.

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


def scale_outputs(affine: Affine, scale: torch.Tensor, shift: torch.Tensor) -> Affine:
    """Returns the map followed by a scale and shift per output channel; always exact (case 4)."""
    weight = affine.weight * scale.reshape(-1, *(1,) * (affine.axes + 1))
    return replace(affine, weight=weight, bias=affine.bias * scale + shift)


def scale_inputs(affine: Affine, scale: torch.Tensor, shift: torch.Tensor) -> Affine:
    """Returns the map after a scale and shift per input channel; exact where it pads nothing or the shift is zero."""
    per_group = scale.reshape(affine.groups, 1, -1).expand(-1, affine.outputs // affine.groups, -1)
    weight = affine.weight * per_group.reshape(affine.outputs, -1, *(1,) * affine.axes)
    total = replace(affine, weight=affine.weight.flatten(2).sum(-1) if affine.axes else affine.weight)
    return replace(affine, weight=weight, bias=affine.bias + _grouped(total, shift))


def _grouped(shift: Affine, bias: torch.Tensor) -> torch.Tensor:
    """Returns W b for a weight summed over its taps, shape (out,)."""
    inputs = bias.reshape(shift.groups, -1, 1)
    weight = shift.weight.reshape(shift.groups, -1, shift.weight.shape[1])
    return (weight @ inputs).reshape(-1)

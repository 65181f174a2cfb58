"""The algebra of affine maps: convolutions and linears that can be composed, added and folded exactly.

An affine map on a grid with n axes (n = 0: a linear layer) is y = W * x + b with stride s, dilation d, groups g, and
zeros before and after each axis (negative: cropped). Everything is computed in float64. Notation as in PyTorch: W has
shape (out, in / g, *kernel) and is correlated, not convolved.

1. Composition. Taps at a of the first and b of the second land at d1*a + s1*d2*b; strides multiply; zeros add up to
   p1 + s1*p2; groups become gcd(g1, g2); the dilation becomes the greatest common divisor of the taps' distances.
2. Composition is exact on the whole output exactly when the second map never reads padding (`Exactness.CONSTANT`), or
   when all padding that it reads stands for values that the first map cannot see (`Exactness.BIAS_MAP`: weights exact,
   bias needs a map unless the first bias is zero). Otherwise a border ring differs.
3. Pad-first moves all padding to the first map, which makes any composition exact, of a network changed at its border.
4. Norms scale and shift outputs, or inputs where nothing is padded.
5. Parallel maps of equal stride are summed after both kernels are placed on the union of their offsets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_PADS = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d}
_MODULES = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@dataclass(frozen=True)
class Affine:
    """One affine map.

    Attributes:
        weight: float64, shape (out, in / groups, *kernel).
        bias: float64, shape (out,).
        stride: Per axis, >= 1.
        before: Zeros put before each axis; negative crops.
        after: Zeros put after each axis; negative crops.
        dilation: Per axis, >= 1.
        groups: Divides in and out.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    stride: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def axes(self) -> int:
        """Number of spatial axes; 0 for a linear."""
        return self.weight.dim() - 2

    @property
    def kernel(self) -> tuple[int, ...]:
        """Taps per axis."""
        return tuple(self.weight.shape[2:])

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.weight.shape[1] * self.groups

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.weight.shape[0]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the map's value; x has shape (batch, in, *sizes), or (..., in) for a linear."""
        if not self.axes:
            return F.linear(x, self.weight, self.bias)
        pads = [n for pair in zip(reversed(self.before), reversed(self.after), strict=True) for n in pair]
        return _CONVOLVE[self.axes](
            F.pad(x, pads),
            self.weight,
            self.bias,
            self.stride,
            0,
            self.dilation,
            self.groups,
        )

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the sizes of the output's axes for an input of the given sizes."""
        parts = zip(size, self.before, self.after, self.dilation, self.kernel, self.stride, strict=True)
        return tuple((n + p + q - d * (k - 1) - 1) // s + 1 for n, p, q, d, k, s in parts)


def of_module(module: nn.Module) -> Affine:
    """Returns the map that a linear or a zero-padded convolution computes.

    Raises:
        ValueError: The module is something else, or pads with something else than zeros.
    """
    if isinstance(module, nn.Linear):
        weight = module.weight.detach().double()
        return Affine(weight, _bias(module.bias, weight))
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) or module.padding_mode != "zeros":
        raise ValueError(f"{type(module).__name__} is no zero-padded convolution and no linear")
    weight = module.weight.detach().double()
    before, after = _paddings(module)
    return Affine(weight, _bias(module.bias, weight), module.stride, before, after, module.dilation, module.groups)


def _bias(bias: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
    return weight.new_zeros(weight.shape[0]) if bias is None else bias.detach().double()


def _paddings(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns zeros before and after each axis; for an even kernel, "same" puts the odd one after."""
    if isinstance(module.padding, str):
        total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        total = [0] * len(total) if module.padding == "valid" else total
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return tuple(module.padding), tuple(module.padding)


def to_module(affine: Affine, dtype: torch.dtype) -> nn.Module:
    """Returns a module that computes the map: a linear, a convolution, or a padding and a convolution."""
    if not affine.axes:
        linear = nn.Linear(affine.inputs, affine.outputs, dtype=dtype)
        return _load(linear, affine)
    symmetric = affine.before == affine.after and min(affine.before) >= 0
    kind, pad = _choose(affine.axes)
    convolution = kind(
        affine.inputs,
        affine.outputs,
        affine.kernel,
        affine.stride,
        affine.before if symmetric else 0,
        affine.dilation,
        affine.groups,
        dtype=dtype,
    )
    module = _load(convolution, affine)
    if symmetric:
        return module
    pads = [n for pair in zip(reversed(affine.before), reversed(affine.after), strict=True) for n in pair]
    return nn.Sequential(pad(pads, 0.0), module)


def _choose(axes: int) -> tuple[Any, Any]:
    return _MODULES[axes], _PADS[axes]


def _load(module: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d, affine: Affine) -> nn.Module:
    with torch.no_grad():
        module.weight.copy_(affine.weight)
        assert module.bias is not None
        module.bias.copy_(affine.bias)
    return module.eval()


def identity(channels: int, axes: int) -> Affine:
    """Returns the map that changes nothing, as a depthwise 1x1."""
    ones, zeros = (1,) * axes, (0,) * axes
    weight = torch.ones(channels, 1, *ones, dtype=torch.float64)
    return Affine(weight, torch.zeros(channels, dtype=torch.float64), ones, zeros, zeros, ones, channels)


def average_pool(channels: int, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> Affine:
    """Returns average pooling that counts its padding, as a depthwise convolution."""
    weight = torch.full((channels, 1, *kernel), 1 / math.prod(kernel), dtype=torch.float64)
    bias = torch.zeros(channels, dtype=torch.float64)
    return Affine(weight, bias, stride, padding, padding, (1,) * len(kernel), channels)


def regroup(affine: Affine, groups: int) -> Affine:
    """Returns the same map with fewer, denser groups (block-diagonal inside).

    Raises:
        ValueError: `groups` does not divide the map's groups.
    """
    if affine.groups % groups:
        raise ValueError(f"cannot turn {affine.groups} groups into {groups}")
    merged, outputs = affine.groups // groups, affine.outputs // affine.groups
    width = affine.weight.shape[1]
    dense = affine.weight.new_zeros(affine.outputs, width * merged, *affine.kernel)
    for index in range(affine.groups):
        rows = slice(index * outputs, (index + 1) * outputs)
        column = (index % merged) * width
        dense[rows, column : column + width] = affine.weight[rows]
    return replace(affine, weight=dense, groups=groups)


def compose(first: Affine, second: Affine) -> Affine:
    """Returns one map for `second` after `first` (case 1); see `exactness` for where it is exact.

    Raises:
        ValueError: The channels do not match.
    """
    if first.outputs != second.inputs or first.axes != second.axes:
        raise ValueError(f"{first.outputs} outputs cannot feed {second.inputs} inputs")
    groups = math.gcd(first.groups, second.groups)
    one, two = regroup(first, groups), regroup(second, groups)
    steps = tuple(s * d for s, d in zip(one.stride, two.dilation, strict=True))
    kept = tuple(_distance(*taps) for taps in zip(one.kernel, one.dilation, two.kernel, steps, strict=True))
    blocks = zip(one.weight.chunk(groups), two.weight.chunk(groups), strict=True)
    weight = torch.cat([_combine(w1, w2, steps, one.dilation, kept) for w1, w2 in blocks])
    shift = replace(
        two, stride=(), before=(), after=(), weight=two.weight.flatten(2).sum(-1) if two.axes else two.weight
    )
    return Affine(
        weight,
        second.bias + (regroup(shift, 1).weight @ first.bias if not two.axes else _grouped(shift, first.bias)),
        tuple(a * b for a, b in zip(one.stride, two.stride, strict=True)),
        tuple(p + s * q for p, s, q in zip(one.before, one.stride, two.before, strict=True)),
        tuple(p + s * q for p, s, q in zip(one.after, one.stride, two.after, strict=True)),
        kept,
        groups,
    )


def _grouped(shift: Affine, bias: torch.Tensor) -> torch.Tensor:
    """Returns W b for a weight summed over its taps, shape (out,)."""
    inputs = bias.reshape(shift.groups, -1, 1)
    weight = shift.weight.reshape(shift.groups, -1, shift.weight.shape[1])
    return (weight @ inputs).reshape(-1)


def _distance(kernel1: int, dilation1: int, kernel2: int, step: int) -> int:
    """Returns the dilation of the composed kernel along one axis."""
    return math.gcd(dilation1 if kernel1 > 1 else 0, step if kernel2 > 1 else 0) or 1


def _combine(
    w1: torch.Tensor, w2: torch.Tensor, steps: tuple[int, ...], dilation1: tuple[int, ...], kept: tuple[int, ...]
) -> torch.Tensor:
    """Returns the kernel of one group: taps of both spread out, summed over the channels between."""
    if not steps:
        return w2 @ w1
    full = _TRANSPOSE[len(steps)](w2, w1, stride=steps, dilation=dilation1)
    return full[(slice(None), slice(None), *(slice(None, None, step) for step in kept))].contiguous()


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


def add(left: Affine, right: Affine) -> Affine:
    """Returns the sum of two maps of the same input (case 5); a residual connection is `add(map, identity(...))`.

    Raises:
        ValueError: Strides, channels or output sizes differ.
    """
    if (left.stride, left.inputs, left.outputs) != (right.stride, right.inputs, right.outputs):
        raise ValueError("only maps of the same channels and stride can be added")
    if any(_margin(left, axis) != _margin(right, axis) for axis in range(left.axes)):
        raise ValueError("the two maps give outputs of different sizes")
    groups = math.gcd(left.groups, right.groups)
    spacing = tuple(_shared_spacing(left, right, axis) for axis in range(left.axes))
    one, two = (_place(regroup(side, groups), left, right, spacing) for side in (left, right))
    return replace(one, weight=one.weight + two.weight, bias=left.bias + right.bias)


def _margin(affine: Affine, axis: int) -> int:
    """Returns what decides the output size along one axis."""
    return affine.before[axis] + affine.after[axis] - affine.dilation[axis] * (affine.kernel[axis] - 1)


def _shared_spacing(left: Affine, right: Affine, axis: int) -> int:
    """Returns the widest tap distance on which both kernels lie."""
    spread = [side.dilation[axis] for side in (left, right) if side.kernel[axis] > 1]
    return math.gcd(*spread, left.before[axis] - right.before[axis]) or 1


def _place(affine: Affine, left: Affine, right: Affine, spacing: tuple[int, ...]) -> Affine:
    """Returns the map with its kernel embedded in the union of the two kernels' offsets."""
    before = tuple(max(pair) for pair in zip(left.before, right.before, strict=True))
    after = tuple(max(pair) for pair in zip(left.after, right.after, strict=True))
    extent = [d * (k - 1) for d, k in zip(affine.dilation, affine.kernel, strict=True)]
    reach = [
        e + (b - p) + (a - q) for e, b, p, a, q in zip(extent, before, affine.before, after, affine.after, strict=True)
    ]
    weight = affine.weight.new_zeros(
        *affine.weight.shape[:2], *(r // s + 1 for r, s in zip(reach, spacing, strict=True))
    )
    taps = [
        slice((b - p) // s, (b - p + e) // s + 1, max(d // s, 1))
        for b, p, s, e, d in zip(before, affine.before, spacing, extent, affine.dilation, strict=True)
    ]
    weight[(slice(None), slice(None), *taps)] = affine.weight
    return replace(affine, weight=weight, before=before, after=after, dilation=spacing)


class Exactness(StrEnum):
    """Where a composition equals the pair (case 2)."""

    CONSTANT = "constant-bias"
    BIAS_MAP = "bias-map"
    INEXACT = "inexact"


def exactness(first: Affine, second: Affine, size: tuple[int, ...]) -> Exactness:
    """Returns how `compose(first, second)` relates to the pair for inputs of the given sizes; an iff, per axis."""
    middle = first.output_size(size)
    end = second.output_size(middle)
    outside = [_padding_read(second, axis, middle[axis], end[axis]) for axis in range(first.axes)]
    if not any(outside):
        return Exactness.CONSTANT
    blind = all(
        not _sees_input(first, axis, size[axis], position) for axis, read in enumerate(outside) for position in read
    )
    if not blind:
        return Exactness.INEXACT
    return Exactness.BIAS_MAP if bool(first.bias.any()) else Exactness.CONSTANT


def _padding_read(second: Affine, axis: int, middle: int, end: int) -> set[int]:
    """Returns the positions outside the middle map that the second map reads."""
    starts = (second.stride[axis] * v - second.before[axis] for v in range(end))
    read = {u + second.dilation[axis] * b for u in starts for b in range(second.kernel[axis])}
    return {u for u in read if not 0 <= u < middle}


def _sees_input(first: Affine, axis: int, size: int, position: int) -> bool:
    """Says whether the first map, evaluated at a position outside its output, would touch its input."""
    start = first.stride[axis] * position - first.before[axis]
    return any(0 <= start + first.dilation[axis] * a < size for a in range(first.kernel[axis]))


def pad_first(first: Affine, second: Affine) -> tuple[Affine, Affine]:
    """Returns the pair with all padding moved to the first map, whose composition is exact everywhere (case 3)."""
    zeros = (0,) * second.axes
    before = tuple(p + s * q for p, s, q in zip(first.before, first.stride, second.before, strict=True))
    after = tuple(p + s * q for p, s, q in zip(first.after, first.stride, second.after, strict=True))
    return replace(first, before=before, after=after), replace(second, before=zeros, after=zeros)


def bias_map(first: Affine, second: Affine, size: tuple[int, ...]) -> torch.Tensor:
    """Returns the bias of the composition by position, shape (out, *sizes); exact where `exactness` says BIAS_MAP."""
    middle = first.output_size(size)
    constant = first.bias.reshape(1, -1, *(1,) * first.axes).expand(1, -1, *middle)
    return second(constant)[0]

"""The type of affine maps, and how torch modules become one and come back.

An affine map on a grid with n axes (n = 0: a linear on the last axis) is, with r(v) = s*v - p + d*t for tap t,

    y[o, v] = b[o] + sum over i, t of W[o, i, t] * x[i, r(v)]

with stride s, dilation d and p positions put before each axis: zeros, or the other end of the axis where the map is
circular. A negative p crops. Everything is computed in float64. As in PyTorch, W has shape (out, in / g, *kernel) for g
groups and is correlated, not convolved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_PADS = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d}
_CIRCULAR_PADS = {1: nn.CircularPad1d, 2: nn.CircularPad2d, 3: nn.CircularPad3d}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MODULES = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_ROUNDOFF = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


@dataclass(frozen=True)
class Refused:
    """Why something is no affine map, or why two maps cannot be merged exactly.

    Attributes:
        reason: A clause that is fit for the user.
    """

    reason: str


@dataclass(frozen=True, eq=False)
class Affine:
    """One affine map.

    Attributes:
        weight: float64, shape (out, in / groups, *kernel).
        bias: float64, shape (out,).
        stride: Per axis, >= 1.
        before: Positions put before each axis; negative crops.
        after: Positions put after each axis; negative crops.
        dilation: Per axis, >= 1.
        groups: Divides in and out.
        circular: The positions put around the input repeat it; otherwise they are zero.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    stride: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    circular: bool = False

    @property
    def axes(self) -> int:
        """Number of spatial axes; 0 for a linear."""
        return self.weight.dim() - 2

    @property
    def kernel(self) -> tuple[int, ...]:
        """Taps per axis."""
        return tuple(self.weight.shape[2:])

    @property
    def extent(self) -> tuple[int, ...]:
        """Distance between the first and the last tap of each axis."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.weight.shape[1] * self.groups

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.weight.shape[0]

    @property
    def padded(self) -> bool:
        """Whether anything is put around the input."""
        return any(n > 0 for n in self.before + self.after)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the map's value; x has shape (batch, in, *sizes), or (..., in) for a linear."""
        if not self.axes:
            return F.linear(x, self.weight, self.bias)
        x = self.surround(x)
        return _CONVOLVE[self.axes](x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def surround(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the input as the kernel reads it: padded and cropped, shape (batch, in, *sizes)."""
        if not self.circular:
            pads = _pad_list(self.before, self.after)
            padded = F.pad(x, [max(n, 0) for n in pads])  # first, since more than the input may be cropped
            return F.pad(padded, [min(n, 0) for n in pads]) if min(pads) < 0 else padded
        for axis, (before, after) in enumerate(zip(self.before, self.after, strict=True), start=2):
            places = torch.arange(-before, x.shape[axis] + after, device=x.device) % x.shape[axis]
            x = x.index_select(axis, places)
        return x

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the sizes of the output's axes for an input of the given sizes; below 1, the input is too small."""
        parts = zip(size, self.before, self.after, self.extent, self.stride, strict=True)
        return tuple((n + p + q - e - 1) // s + 1 for n, p, q, e, s in parts)

    def without_bias(self) -> Affine:
        """Returns the map with a bias of zero: its linear part."""
        return replace(self, bias=torch.zeros_like(self.bias))

    def dense(self) -> torch.Tensor:
        """Returns the weight without groups, shape (out, in, *kernel)."""
        return regroup(self, 1).weight

    def tap_sum(self) -> torch.Tensor:
        """Returns the dense weight summed over its taps, shape (out, in): what a constant input is multiplied by."""
        return regroup(replace(self, weight=self.weight.flatten(2).sum(-1)), 1).weight if self.axes else self.weight


def regroup(affine: Affine, groups: int) -> Affine:
    """Returns the same map with fewer, denser groups (block-diagonal inside).

    Raises:
        ValueError: `groups` does not divide the map's groups.
    """
    if affine.groups % groups:
        raise ValueError(f"cannot turn {affine.groups} groups into {groups}")
    if affine.groups == groups:
        return affine
    merged, outputs = affine.groups // groups, affine.outputs // affine.groups
    width = affine.weight.shape[1]
    dense = affine.weight.new_zeros(affine.outputs, width * merged, *affine.kernel)
    for index in range(affine.groups):
        rows = slice(index * outputs, (index + 1) * outputs)
        column = (index % merged) * width
        dense[rows, column : column + width] = affine.weight[rows]
    return replace(affine, weight=dense, groups=groups)


def of_module(module: nn.Module) -> Affine:
    """Returns the map that a linear or a convolution computes.

    Raises:
        ValueError: The module is something else, or pads with something else than zeros or its own other end.
    """
    if isinstance(module, nn.Linear):
        weight = module.weight.detach().double()
        return Affine(weight, _bias(module.bias, weight))
    if not isinstance(module, _CONVOLUTIONS) or module.padding_mode not in {"zeros", "circular"}:
        raise ValueError(f"{type(module).__name__} is no zero-padded or circular convolution and no linear")
    weight = module.weight.detach().double()
    before, after = _paddings(module)
    circular = module.padding_mode == "circular"
    bias = _bias(module.bias, weight)
    return Affine(weight, bias, module.stride, before, after, module.dilation, module.groups, circular)


def _bias(bias: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
    return weight.new_zeros(weight.shape[0]) if bias is None else bias.detach().double()


def _paddings(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the padding before and after each axis; for an even kernel, "same" puts the odd one after."""
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
    kind, pad = _choose(affine)
    convolution = kind(
        affine.inputs,
        affine.outputs,
        affine.kernel,
        affine.stride,
        affine.before if symmetric else 0,
        affine.dilation,
        affine.groups,
        padding_mode="circular" if affine.circular and symmetric else "zeros",
        dtype=dtype,
    )
    module = _load(convolution, affine)
    return module if symmetric else nn.Sequential(pad, module)


def _choose(affine: Affine) -> tuple[Any, nn.Module]:
    """Returns the kind of convolution and the padding that a map needs."""
    pads: Any = _pad_list(affine.before, affine.after)
    pad = _CIRCULAR_PADS[affine.axes](pads) if affine.circular else _PADS[affine.axes](pads, 0.0)
    return _MODULES[affine.axes], pad


def _pad_list(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """Returns paddings in the order of `torch.nn.functional.pad`: last axis first."""
    return tuple(n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair)


def _load(module: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d, affine: Affine) -> nn.Module:
    with torch.no_grad():
        module.weight.copy_(affine.weight)
        assert module.bias is not None
        module.bias.copy_(affine.bias)
    return module.eval()


def rounding_bound(affine: Affine, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns how far the map may be off, per output, when it is computed in a shorter type.

    With unit roundoff u and n products per output, a sum in any order of products of rounded weights and rounded
    inputs is off by at most g * (|W| * |x| + |b|), g = (n + 3) u / (1 - (n + 3) u): one u for each of weight, input and
    product, and n for the additions, the bias among them (Higham, Accuracy and Stability of Numerical Algorithms,
    2002, section 3.1). It holds for products that are summed as they are, in that type or a longer one: not for
    Winograd's or Fourier transforms, nor for TensorFloat-32.

    Args:
        affine: The map.
        x: Its input in float64, shape (batch, in, *sizes) or (..., in).
        dtype: float64, float32, float16 or bfloat16.

    Returns:
        Float64, the shape of the map's value.
    """
    step = (affine.weight[0].numel() + 3) * _ROUNDOFF[dtype]
    positive = replace(affine, weight=affine.weight.abs(), bias=affine.bias.abs())
    return positive(x.abs()) * (step / (1 - step))


def identity(channels: int, axes: int) -> Affine:
    """Returns the map that changes nothing, as a depthwise 1x1 (a dense linear where axes is 0)."""
    if not axes:
        return Affine(torch.eye(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64))
    ones, zeros = (1,) * axes, (0,) * axes
    weight = torch.ones(channels, 1, *ones, dtype=torch.float64)
    return Affine(weight, torch.zeros(channels, dtype=torch.float64), ones, zeros, zeros, ones, channels)

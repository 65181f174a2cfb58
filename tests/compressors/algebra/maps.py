"""Random maps as torch modules and as values, for the tests of the algebra."""

from dataclasses import dataclass, replace

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import nn

from compressors import algebra
from compressors.algebra import Affine

# Sums of at most a few thousand products of numbers near 1, each off by 1e-16.
TOLERANCE = 1e-12
_UNCHECKED = [HealthCheck.too_slow, HealthCheck.filter_too_much]
quick = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=_UNCHECKED)
_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_PADS = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d}
_CIRCULAR = {1: nn.CircularPad1d, 2: nn.CircularPad2d, 3: nn.CircularPad3d}


@dataclass(frozen=True)
class Form:
    """Everything of a convolution but its values."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    bias: bool = True
    circular: bool = False


def form(axes=1, *, kernel=3, stride=1, pad=0, after=None, dilation=1, groups=1, bias=True, circular=False):
    """A form with the same numbers on every axis, where a number is given."""
    numbers = (kernel, stride, pad, pad if after is None else after, dilation)
    return Form(*(v if isinstance(v, tuple) else (v,) * axes for v in numbers), groups, bias, circular)


def forms(axes, *, pads=(0, 2), groups=(1, 2, 4), strides=3, dilations=2, kernels=4):
    """A strategy for forms with rectangular kernels and uneven paddings."""

    def per_axis(low, high):
        return st.tuples(*[st.integers(low, high)] * axes)

    return st.builds(
        Form,
        per_axis(1, kernels),
        per_axis(1, strides),
        per_axis(*pads),
        per_axis(*pads),
        per_axis(1, dilations),
        st.sampled_from(groups),
        st.booleans(),
    )


def module_of(shape: Form, inputs: int, outputs: int, seed: int = 0) -> nn.Sequential:
    """A padding and a convolution with normal weights."""
    generator = torch.Generator().manual_seed(seed)
    axes = len(shape.kernel)
    conv = _CONVS[axes](
        inputs, outputs, shape.kernel, shape.stride, 0, shape.dilation, shape.groups, shape.bias, dtype=torch.float64
    )
    with torch.no_grad():
        for values in conv.parameters():
            values.copy_(torch.randn(values.shape, generator=generator, dtype=torch.float64))
    pads = [n for pair in zip(reversed(shape.before), reversed(shape.after), strict=True) for n in pair]
    pad = _CIRCULAR[axes](pads) if shape.circular else _PADS[axes](pads, 0.0)
    return nn.Sequential(pad, conv).requires_grad_(False)


def map_of(module: nn.Sequential, shape: Form) -> Affine:
    """The value of `module_of`."""
    return replace(algebra.of_module(module[1]), before=shape.before, after=shape.after, circular=shape.circular)


def pair_of(shape: Form, inputs: int, outputs: int, seed: int = 0) -> tuple[nn.Sequential, Affine]:
    module = module_of(shape, inputs, outputs, seed)
    return module, map_of(module, shape)


def normal(*shape: int, seed: int = 99) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fits(maps, size) -> bool:
    for one in maps:
        padded = [n + p + q for n, p, q in zip(size, one.before, one.after, strict=True)]
        if any(n <= e for n, e in zip(padded, one.extent, strict=True)):
            return False
        if one.circular and any(max(p, q) > n for n, p, q in zip(size, one.before, one.after, strict=True)):
            return False
        size = one.output_size(size)
    return True


def error(wanted: torch.Tensor, got: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert wanted.shape == got.shape
    return float(((wanted - got).abs().max() / wanted.abs().max().clamp_min(1)).detach())


def line(taps, bias=0.0, stride=1, pad=0, dilation=1, after=None):
    """A map on one axis with one channel."""
    weight = torch.tensor(taps, dtype=torch.float64).reshape(1, 1, -1)
    offset = torch.tensor([float(bias)], dtype=torch.float64)
    return Affine(weight, offset, (stride,), (pad,), (pad if after is None else after,), (dilation,))


def run(maps, values):
    """The values of a chain on one axis with one channel."""
    x = torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1)
    for one in maps:
        x = one(x)
    return x.flatten().tolist()

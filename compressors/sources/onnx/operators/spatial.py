"""Padding of sliding windows: what convolutions and pools have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from compressors.errors import ModelError
from compressors.sources.onnx.values import Call


@dataclass(frozen=True)
class Window:
    """A sliding window.

    Attributes:
        kernel: Size along each spatial axis.
        stride: Steps.
        dilation: Distances between its elements.
        before: Padding at the start of each axis.
        after: Padding at the end.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def symmetric(self) -> bool:
        """Whether both ends have the same padding."""
        return self.before == self.after

    @property
    def extent(self) -> tuple[int, ...]:
        """How far the window reaches along each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def edges(self) -> list[int]:
        """Paddings in the order of `torch.nn.functional.pad`."""
        pairs = list(zip(self.before, self.after, strict=True))
        return [side for pair in reversed(pairs) for side in pair]


def window(call: Call, x: torch.Tensor, kernel: tuple[int, ...]) -> Window:
    """Returns the window of a convolution or pool, with `auto_pad` worked out.

    Raises:
        ModelError: Attributes do not fit the kernel's rank.
    """
    rank = len(kernel)
    if x.dim() != rank + 2:
        raise ModelError(f"{call.node.label} slides a kernel of {rank} dimensions over a tensor with {x.dim()}")
    stride = _ones(call, "strides", rank)
    dilation = _ones(call, "dilations", rank)
    plain = Window(kernel, stride, dilation, (0,) * rank, (0,) * rank)
    before, after = _padding(call, plain, tuple(x.shape[2:]))
    padded = [size + b + a for size, b, a in zip(x.shape[2:], before, after, strict=True)]
    call.check_size([*x.shape[:2], *padded], constant=False)
    return Window(kernel, stride, dilation, before, after)


def _ones(call: Call, name: str, rank: int) -> tuple[int, ...]:
    values = tuple(call.attr(name) or (1,) * rank)
    if len(values) != rank or min(values) < 1:
        raise ModelError(f"{call.node.label} has the attribute {name} {list(values)}; wanted {rank} numbers from 1")
    return values


def _padding(call: Call, plain: Window, sizes: tuple[Any, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    mode, rank = call.attr("auto_pad", "NOTSET") or "NOTSET", plain.rank
    if mode == "NOTSET":
        pads = tuple(call.attr("pads") or (0,) * 2 * rank)
        if len(pads) != 2 * rank or min(pads) < 0:
            raise call.refuse(f"its paddings are {list(pads)}; wanted {2 * rank} numbers from 0")
        return pads[:rank], pads[rank:]
    if mode == "VALID":
        return (0,) * rank, (0,) * rank
    if mode not in {"SAME_UPPER", "SAME_LOWER"}:
        raise ModelError(f"{call.node.label} has auto_pad {mode!r}, which ONNX does not know")
    total = []
    for size, stride, extent in zip(sizes, plain.stride, plain.extent, strict=True):
        if not isinstance(size, int):
            raise call.refuse("auto_pad needs fixed sizes; give the sample shape")
        total.append(max((-(-size // stride) - 1) * stride + extent - size, 0))
    less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (less, more) if mode == "SAME_UPPER" else (more, less)

"""What convolutions, pools, slices and pads read, in numbers: one place that knows their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from compressors.analysis.kinds import function_name
from compressors.shapes import Shapes

Window = tuple[int, int, int]
"""Along one dimension: positions put before and after it (negative: dropped), then the step."""


def paddings(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns zeros before and after each axis."""
    if not isinstance(module.padding, str):
        return tuple(module.padding), tuple(module.padding)
    total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    total = [0] * len(total) if module.padding == "valid" else total
    return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)


def average_pool_settings(node: fx.Node, axes: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
    """Returns kernel, stride and padding of an average pool, None where its windows are not all of one size."""
    names = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    kernel = _per_axis(given["kernel_size"], axes)
    stride = _per_axis(given.get("stride") or kernel, axes)
    padding = _per_axis(given.get("padding") or 0, axes)
    uncounted = any(padding) and not given.get("count_include_pad", True)
    if given.get("ceil_mode") or uncounted or given.get("divisor_override"):
        return None
    return kernel, stride, padding


def _per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def slice_arguments(node: fx.Node, shape: Sequence[int]) -> tuple[int, int, int, int] | None:
    """Returns dimension, start, end and step of a slice of a tensor, as numbers >= 0; None for other selections."""
    names = ("input", "dim", "start", "end", "step")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if function_name(node) != "slice":
        return None
    axis = given.get("dim", 0) % len(shape)
    start, end, step = slice(given.get("start"), given.get("end"), given.get("step", 1)).indices(shape[axis])
    return axis, start, end, step


def slice_windows(node: fx.Node, shapes: Shapes) -> list[Window] | None:
    """Returns what a slice does along each dimension; None for other selections."""
    shape = shapes.full[node.all_input_nodes[0].name]
    found = slice_arguments(node, shape)
    if found is None:
        return None
    axis, start, end, step = found
    windows = [(0, 0, 1)] * len(shape)
    windows[axis] = (-start, end - shape[axis], step)
    return windows


def pad_amounts(node: fx.Node, rank: int) -> list[tuple[int, int]] | None:
    """Returns zeros before and after each dimension, None where a pad is not one of zeros."""
    names = ("input", "pad", "mode" if function_name(node) == "pad" else "value", "value")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if given.get("mode", "constant") != "constant" or given.get("value"):
        return None
    pads: Sequence[int] = given["pad"]
    pairs = [(pads[i], pads[i + 1]) for i in range(0, len(pads), 2)]
    return [(0, 0)] * (rank - len(pairs)) + pairs[::-1]


def pad_windows(node: fx.Node, rank: int) -> list[Window] | None:
    """Returns what a pad does along each dimension; None where it is not one of zeros."""
    amounts = pad_amounts(node, rank)
    return None if amounts is None else [(before, after, 1) for before, after in amounts]

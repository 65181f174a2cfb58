"""Resizing and sampling.

Where torch has the very interpolation, it is called; otherwise each axis is resampled by index and weight, which is
exact for every coordinate transformation that depends on sizes alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from compressors.errors import ModelError
from compressors.sources.onnx.operators.elementwise import Operator
from compressors.sources.onnx.values import Call

_COORDINATES = {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"}
_ROUNDINGS = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}
_FAMILIES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _resize(call: Call) -> Any:
    x, mode = call.tensor(0), call.attr("mode", "nearest")
    coordinates = call.attr("coordinate_transformation_mode", "asymmetric" if call.since < 11 else "half_pixel")
    rounding = call.attr("nearest_mode", "floor" if call.since < 11 else "round_prefer_floor")
    _check_modes(call, mode, coordinates, rounding)
    scales, sizes = _wanted(call, x)
    changed = [axis for axis, size in enumerate(sizes) if not (scales[axis] == 1 and size == x.shape[axis])]
    if not changed:
        return x
    if changed[0] == 0:
        raise call.refuse("it resizes the batch")
    call.check_size(sizes, constant=call.value(0).constant)
    exact = all(sizes[axis] == x.shape[axis] * scales[axis] for axis in changed)
    if coordinates == "align_corners" and not exact:
        raise call.refuse(
            "its scale does not give whole sizes, and corners cannot be aligned then; export it with sizes"
        )
    if exact and 3 <= x.dim() <= 5 and changed[0] >= 2:
        family = _torch_mode(call, mode, coordinates, rounding, x.dim() - 2)
        if family is not None:
            corners = coordinates == "align_corners" if mode != "nearest" else None
            return F.interpolate(x, [int(size) for size in sizes[2:]], mode=family, align_corners=corners)
    if call.attr("antialias", 0) and any(scales[axis] < 1 for axis in changed):
        raise call.refuse("it smooths while it shrinks (antialias); export it with antialias=False")
    for axis in changed:
        at = _positions(coordinates, x.shape[axis], sizes[axis], scales[axis])
        x = _sample(x, axis, at, mode, rounding, call.attr("cubic_coeff_a", -0.75))
    return x


def _check_modes(call: Call, mode: str, coordinates: str, rounding: str) -> None:
    if mode not in {"nearest", "linear", "cubic"}:
        raise call.refuse(f"the mode {mode!r} is not known; known: nearest, linear, cubic")
    if coordinates not in _COORDINATES:
        raise call.refuse(f"the coordinates {coordinates!r} are not known; known: {', '.join(sorted(_COORDINATES))}")
    if rounding not in _ROUNDINGS:
        raise call.refuse(f"the rounding {rounding!r} is not known; known: {', '.join(sorted(_ROUNDINGS))}")
    if call.attr("exclude_outside", 0):
        raise call.refuse("it leaves samples outside out of its weights (exclude_outside); export it without")
    if call.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refuse("it keeps the aspect ratio by a policy; export it with fixed sizes")


def _wanted(call: Call, x: torch.Tensor) -> tuple[list[float], list[Any]]:
    """Returns scale and size of every dimension."""
    axes = [call.axis(axis, x.dim()) for axis in call.attr("axes") or range(x.dim())]
    scales: list[Any] = [1.0] * x.dim()
    sizes = list(x.shape)
    if call.has(3) and call.array(3).size:
        for axis, size in zip(axes, call.ints(3), strict=True):
            sizes[axis] = size
            scales[axis] = 1.0 if size is x.shape[axis] or axis == 0 else size / x.shape[axis]
        if sizes[0] != x.shape[0]:
            raise call.refuse("it resizes the batch")
        return scales, sizes
    given = call.attr("scales") if call.since < 9 else call.array(1 if call.since < 11 else 2).tolist()
    if len(given) != len(axes):
        raise ModelError(f"{call.node.label} has {len(given)} scales for {len(axes)} dimensions")
    for axis, scale in zip(axes, given, strict=True):
        if not scale > 0:
            raise ModelError(f"{call.node.label} scales by {scale}")
        if scale != 1:
            if not isinstance(x.shape[axis], int):
                raise call.refuse("it scales a size that is not fixed")
            scales[axis] = float(scale)
            sizes[axis] = int(np.floor(np.float32(x.shape[axis]) * np.float32(scale)))
    return scales, sizes


def _torch_mode(call: Call, mode: str, coordinates: str, rounding: str, rank: int) -> str | None:
    """Returns torch's name for an interpolation that is the same, None if there is none."""
    if call.attr("antialias", 0):
        return None
    if mode == "nearest":
        if (coordinates, rounding) == ("asymmetric", "floor"):
            return "nearest"
        return "nearest-exact" if (coordinates, rounding) == ("half_pixel", "round_prefer_ceil") else None
    if coordinates not in {"half_pixel", "align_corners"}:
        return None
    if mode == "linear":
        return _FAMILIES[rank]
    return "bicubic" if rank == 2 and abs(call.attr("cubic_coeff_a", -0.75) + 0.75) < 1e-9 else None


def _positions(coordinates: str, size: int, wanted: int, scale: float) -> Any:
    """Returns where each output element lies on the input's axis."""
    out = np.arange(wanted, dtype=np.float64)
    if coordinates == "asymmetric":
        return out / scale
    if coordinates == "align_corners":
        return out * (size - 1) / (wanted - 1) if wanted > 1 else out * 0
    if coordinates == "pytorch_half_pixel" and wanted <= 1:
        return out * 0
    middle = (out + 0.5) / scale - 0.5
    if coordinates == "half_pixel_symmetric":
        adjust = wanted / (scale * size)
        return size / 2 * (1 - adjust) + (out + 0.5) / scale - 0.5
    return middle


def _sample(x: torch.Tensor, axis: int, at: Any, mode: str, rounding: str, a: float) -> torch.Tensor:
    """Resamples one axis."""
    size = int(x.shape[axis])
    if mode == "nearest":
        return _picked(x, axis, _rounded(at, rounding).clip(0, size - 1))
    low = np.floor(at)
    part = at - low
    if mode == "linear":
        weights = {0: 1 - part, 1: part}
    else:
        weights = {tap: _cubic(np.abs(part - tap), a) for tap in (-1, 0, 1, 2)}
    shape = [-1 if axis == d else 1 for d in range(x.dim())]
    total = None
    for tap, weight in weights.items():
        factor = torch.from_numpy(np.ascontiguousarray(weight)).to(x.dtype).reshape(shape)
        term = _picked(x, axis, (low + tap).clip(0, size - 1)) * factor
        total = term if total is None else total + term
    assert total is not None
    return total


def _picked(x: torch.Tensor, axis: int, at: Any) -> torch.Tensor:
    return x.index_select(axis, torch.from_numpy(at.astype(np.int64)))


def _rounded(at: Any, rounding: str) -> Any:
    near = np.round(at, 6)  # a third of three is not one in binary
    if rounding == "floor":
        return np.floor(near)
    if rounding == "ceil":
        return np.ceil(near)
    return np.ceil(near - 0.5) if rounding == "round_prefer_floor" else np.floor(near + 0.5)


def _cubic(distance: Any, a: float) -> Any:
    """Returns Keys' cubic convolution kernel (1981), coefficient `a`."""
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _grid_sample(call: Call) -> Any:
    modes = {"linear": "bilinear", "cubic": "bicubic"}
    mode = call.attr("mode", "bilinear")
    return F.grid_sample(
        call.tensor(0),
        call.tensor(1),
        modes.get(mode, mode),
        call.attr("padding_mode", "zeros"),
        bool(call.attr("align_corners", 0)),
    )


OPERATORS: dict[str, Operator] = {"Resize": _resize, "Upsample": _resize, "GridSample": _grid_sample}

"""Reading and writing by index."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from compressors.sources.onnx.operators.elementwise import Operator
from compressors.sources.onnx.values import Call


def _wrapped(call: Call, index: int, size: Any) -> torch.Tensor:
    """Returns indices counted from the front; ONNX allows negative ones."""
    value = call.value(index)
    if value.host is not None and value.host.dtype != object:
        array = value.host.astype(np.int64)
        if not (array < 0).any():
            return value.tensor.long() if value.tensor is not None else torch.tensor(array)
        return torch.tensor(np.where(array < 0, array + size, array)) if isinstance(size, int) else value.as_tensor()
    tensor = value.as_tensor().long()
    return torch.where(tensor < 0, tensor + size, tensor)


def _gather(call: Call) -> Any:
    """Gather: one index is a select, a table of rows an embedding, anything else an index_select."""
    x = call.tensor(0)
    axis = call.axis(call.attr("axis", 0), x.dim())
    host = call.value(1).host
    if host is not None and host.ndim == 0:
        return x.select(axis, host.reshape(-1).tolist()[0])
    if host is None and call.value(0).constant and axis == 0 and x.dim() == 2 and x.is_floating_point():
        return F.embedding(_wrapped(call, 1, x.shape[0]), x)
    indices = _wrapped(call, 1, x.shape[axis])
    picked = x.index_select(axis, indices.reshape(-1))
    return picked if indices.dim() == 1 else picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_elements(call: Call) -> Any:
    x = call.tensor(0)
    axis = call.axis(call.attr("axis", 0), x.dim())
    return torch.gather(x, axis, _wrapped(call, 1, x.shape[axis]))


def _gather_nd(call: Call) -> Any:
    x, indices, batch = call.tensor(0), call.tensor(1).long(), call.attr("batch_dims", 0)
    grids = [
        torch.arange(x.shape[axis]).reshape([-1 if d == axis else 1 for d in range(indices.dim() - 1)])
        for axis in range(batch)
    ]
    return x[(*grids, *indices.unbind(-1))]


def _scatter_elements(call: Call) -> Any:
    x, updates = call.tensor(0), call.tensor(2)
    axis, mode = call.axis(call.attr("axis", 0), x.dim()), call.attr("reduction", "none")
    indices = _wrapped(call, 1, x.shape[axis])
    if mode == "none":
        return x.scatter(axis, indices, updates)
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return x.scatter_reduce(axis, indices, updates, names[mode])


def _scatter_nd(call: Call) -> Any:
    x, indices, updates = call.tensor(0), call.tensor(1).long(), call.tensor(2)
    mode = call.attr("reduction", "none")
    if mode not in {"none", "add"}:
        raise call.refuse(f"its reduction {mode!r} is not known; known: none, add")
    return x.index_put(tuple(indices.unbind(-1)), updates, accumulate=mode == "add")


def _one_hot(call: Call) -> Any:
    """OneHot: depth and the two values must be known."""
    depth = int(call.number(1))
    off, on = call.tensor(2).unbind()
    indices = _wrapped(call, 0, depth)
    axis = call.axis(call.attr("axis", -1), indices.dim() + 1)
    call.check_size([*indices.shape, depth], constant=call.value(0).constant)
    hit = indices.unsqueeze(axis) == torch.arange(depth).reshape(
        [-1 if d == axis else 1 for d in range(indices.dim() + 1)]
    )
    return torch.where(hit, on, off)


def _reverse_sequence(call: Call) -> Any:
    x, lengths = call.tensor(0), call.tensor(1)
    time, batch = call.attr("time_axis", 0), call.attr("batch_axis", 1)
    steps = torch.arange(x.shape[time])
    at = lengths.reshape(-1, 1) - 1 - steps  # batch, time
    at = torch.where(at < 0, steps, at)
    at = at if batch < time else at.t()
    at = at.reshape([*at.shape, *[1] * (x.dim() - 2)]).expand(x.shape)
    return x.gather(time, at)


OPERATORS: dict[str, Operator] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "Scatter": _scatter_elements,
    "ScatterND": _scatter_nd,
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
}

"""Attention (opset 23 on), written out as the scaled product that torch knows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from compressors.sources.onnx.operators.elementwise import Operator
from compressors.sources.onnx.values import Call

_PAST, _LENGTHS = (4, 5), 6


def _attention(call: Call) -> Any:
    """Attention without a cache: softmax(q k^T scale + mask) v, query heads shared out over key heads."""
    if any(call.has(index) for index in (*_PAST, _LENGTHS)) or any(call.wants(index) for index in (1, 2, 3)):
        raise call.refuse("it keeps a cache of keys and values, or returns its scores")
    if call.attr("softcap", 0.0) or call.attr("softmax_precision") not in {None, 1}:
        raise call.refuse("it limits its scores (softcap), or computes them in another precision")
    if call.attr("left_window_size", -1) >= 0 or call.attr("right_window_size", -1) >= 0:
        raise call.refuse("it looks through a window; export the window as a mask")
    query, key, value = (call.tensor(index) for index in range(3))
    flat = query.dim() == 3
    if flat:
        query = _heads(query, call.attr("q_num_heads"))
        key, value = (_heads(x, call.attr("kv_num_heads")) for x in (key, value))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    result = F.scaled_dot_product_attention(
        query, key, value, _mask(call, query, key), is_causal=False, scale=call.attr("scale")
    )
    return result.transpose(1, 2).flatten(2) if flat else result


def _heads(x: torch.Tensor, count: int) -> torch.Tensor:
    """Returns (batch, heads, length, width) of (batch, length, heads * width)."""
    return x.reshape(*x.shape[:2], count, x.shape[2] // count).transpose(1, 2)


def _mask(call: Call, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
    mask = call.optional(3)
    if not call.attr("is_causal", 0):
        return mask
    causal = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    if mask is None:
        return causal
    if mask.dtype == torch.bool:
        return mask & causal
    return mask.masked_fill(~causal, float("-inf"))


OPERATORS: dict[str, Operator] = {"Attention": _attention}

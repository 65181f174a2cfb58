"""Attention without an axis for heads, as attention with one head: exporters know no other."""

from __future__ import annotations

import torch
from torch import fx

from compressors.lift import schema
from compressors.lift.values import traced_shape

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_TENSORS = ("query", "key", "value", "attn_mask")
_POSITIONAL = ("query", "key", "value")
_AXIS = 1


def add_heads(node: fx.Node, called: fx.Node) -> fx.Node:
    """Gives a lifted call of attention one head, where it has none.

    Args:
        node: The call in the exported program; its shapes count.
        called: The same call, lifted.

    Returns:
        What has the call's value: the call itself where it has heads, else a view of it, of the same shape as before.
    """
    before = schema.bind(ATTENTION, node.args, node.kwargs)
    if len(traced_shape(before["query"])) != 3:
        return called
    arguments = schema.bind(ATTENTION, called.args, called.kwargs)
    with called.graph.inserting_before(called):
        for name in _TENSORS:
            # A mask of two axes is the same one for every sample, with and without heads.
            if isinstance(before.get(name), fx.Node) and len(traced_shape(before[name])) == 3:
                arguments[name] = called.graph.call_function(torch.ops.aten.unsqueeze.default, (arguments[name], _AXIS))
    called.args = tuple(arguments.pop(name) for name in _POSITIONAL)
    called.kwargs = arguments
    return called.graph.call_function(torch.ops.aten.squeeze.dim, (called, _AXIS))

"""Linears that are written as products of matrices: (n, t, c) to (n * t, c), times W, back to (n, t, c').

GPT-2 and other models of its time are written this way. The product of the flat matrix is a linear on the tensor as it was,
and positions that are not joined can be told apart from samples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from compressors.lift.values import traced_shape

_DATA = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1}
_RESHAPES = {torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default, torch.ops.aten.reshape.default}


def flattened_product(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Returns the product that a reshape gives its leading sizes back to, and the tensor that was flattened for it.

    Args:
        node: A reshape of an exported program.
    """
    product: Any = node.args[0]
    place = _DATA.get(getattr(product, "target", None))
    if place is None:
        return None
    flat: Any = product.args[place]
    if not isinstance(flat, fx.Node) or flat.target not in _RESHAPES:
        return None
    source: Any = flat.args[0]
    before, between, after = (_sizes(one) for one in (source, flat, node))
    same = len(before) > 2 and len(between) == 2 and before[:-1] == after[:-1] and before[-1] == between[-1]
    return (product, source) if same and after[-1] == _sizes(product)[-1] else None


def _sizes(node: fx.Node) -> list[str]:
    """Returns the traced sizes as text: comparing symbols would add guards."""
    return [str(size) for size in traced_shape(node)]

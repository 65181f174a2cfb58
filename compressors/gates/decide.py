"""Which gates have become linear.

Amounts are those of `compressors.gates.amounts`, by node name in the order in which the calls run; so are the answers.
A gate that is not finite, which training has destroyed, is not linear.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite


def at_least(amounts: Mapping[str, float], threshold: float = 0.9) -> tuple[str, ...]:
    """Returns the gates at `threshold` or above (Layer Folding on residual networks)."""
    return tuple(name for name, amount in amounts.items() if isfinite(amount) and amount >= threshold)


def rounded(amounts: Mapping[str, float]) -> tuple[str, ...]:
    """Returns the gates that round to 1: above one half (Layer Folding on VGG)."""
    return tuple(name for name, amount in amounts.items() if isfinite(amount) and amount > 0.5)


def near_one(amounts: Mapping[str, float], tolerance: float = 0.05) -> tuple[str, ...]:
    """Returns the gates less than `tolerance` from 1 on either side (LayerCollapse)."""
    return tuple(name for name, amount in amounts.items() if abs(amount - 1) < tolerance)

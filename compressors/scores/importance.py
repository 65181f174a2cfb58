"""From a measured change to an importance (LayerMerge, 2024).

A change is what a merge does to the network: accuracy gained, as a fraction, or loss gained relative to the original's,
with a minus. It is negative where the merge does harm. The published importance is exp(change), and a segment that
stays as it is has exactly 1: the sum says above all how many segments there are, as much depth as the budget allows,
and harm decides between equals.
"""

from __future__ import annotations

import math


def accuracy_change(after: float, before: float) -> float:
    """Returns the accuracy gained, as a fraction; both are fractions in [0, 1].

    LayerMerge takes points over 100, which is the same.
    """
    return after - before


def loss_change(after: float, before: float) -> float:
    """Returns minus the loss gained relative to the original's (LayerMerge on denoising networks).

    Args:
        after: Loss of the merged network, measured with the noise and the time steps that `before` was measured with.
        before: Loss of the original, > 0.

    Raises:
        ValueError: `before` is not positive.
    """
    if not before > 0:
        raise ValueError(f"a relative change needs a positive loss to begin with; got {before}")
    return -(after - before) / before


def importance(change: float) -> float:
    """Returns what a change is worth, exp(change); one that is not a number is worth nothing.

    Args:
        change: Of accuracy or loss, negative for harm.
    """
    return 0.0 if math.isnan(change) else math.exp(change)

"""What pulls a gate a towards 1, and how much each site's pull should count.

1. Layer Folding: |1 - a^p|, p = 2. Its slope is zero at a = 0, so that a gate that starts there has to be moved by
   something else first, and -+p at a = 1, so that one that arrives there stays.
2. LayerCollapse: (a - 1)^2. It always pulls; its slope vanishes at 1, so that a gate stops a little short of it.
3. LayerCollapse on language models moves the gates beside the gradient step: a <- a + 2 r g (1 - a), with the learning
   rate r and a strength g.
A gate is worth as much as the fold that it allows: weights from the latency that is saved, 0 where nothing folds.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch


def folding_penalty(amount: torch.Tensor, power: float = 2.0) -> torch.Tensor:
    """Returns |1 - a^power| (case 1), same shape as `amount`."""
    return (1 - amount**power).abs()


def collapse_penalty(amount: torch.Tensor) -> torch.Tensor:
    """Returns (a - 1)^2 (case 2), same shape as `amount`."""
    return (amount - 1) ** 2


def pulled(amount: torch.Tensor, pull: float) -> torch.Tensor:
    """Returns a + 2 pull (1 - a) (case 3), same shape as `amount`.

    Args:
        amount: The gate.
        pull: Learning rate times strength, >= 0.
    """
    return amount + 2 * pull * (1 - amount)


def saving_weights(saved: Mapping[str, float]) -> dict[str, float]:
    """Returns weights in proportion to the seconds that each site's fold would save; mean 1 over those that save some.

    Args:
        saved: Seconds by site; 0 and less count as nothing.
    """
    gains = {name: max(0.0, value) for name, value in saved.items()}
    count = sum(value > 0 for value in gains.values())
    total = sum(gains.values())
    return {name: value * count / total if total > 0 else 0.0 for name, value in gains.items()}

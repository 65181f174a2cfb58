"""Distance of outputs that are no class scores: squared error on the scale of the original's own variation."""

from __future__ import annotations

from typing import Final

import torch

VARIANCE: Final = "of the original's variance"
"""What a relative error is counted in."""
_SMALLEST = 1e-12
"""Of a variance: an output that never varies is compared on the scale of rounding."""


def relative_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Returns ||s_i - t_i||^2 / mean_j ||t_j - mean t||^2, (n,): 0 is identical, 1 on average as good as a constant.

    Args:
        student: (n, ...).
        teacher: The same shape; its mean is taken over the samples (over everything where there is one sample).
    """
    centre = teacher.mean(0) if len(teacher) > 1 else teacher.mean()
    scale = (teacher - centre).square().mean().clamp_min(_SMALLEST)
    return (student - teacher).square().flatten(1).mean(1) / scale


def explained(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Returns the share of the original's variation that is reproduced, (n,): 1 - relative error, at least 0."""
    error = relative_error(student, teacher)
    return (1 - error.nan_to_num(1.0, 1.0)).clamp(0, 1)

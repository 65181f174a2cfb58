"""Label-keeping random changes of image batches."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_IMAGE_CHANNELS = (1, 3)
_SMALL = 64


def is_image(shape: tuple[int, ...]) -> bool:
    """Returns whether one sample of this shape is an image: (1 or 3, height, width)."""
    return len(shape) == 3 and shape[0] in _IMAGE_CHANNELS


def default_shift(shape: tuple[int, ...]) -> int:
    """Returns how far to shift an image: 4 pixels when it is small, an eighth of its width otherwise."""
    return 4 if shape[-1] <= _SMALL else shape[-1] // 8


def shift_and_flip(images: torch.Tensor, shift: int, generator: torch.Generator) -> torch.Tensor:
    """Returns each image moved by up to `shift` pixels on both axes, zeros moving in, and mirrored with chance 1/2.

    Args:
        images: (batch, channels, height, width).
        shift: Pixels, >= 0.
        generator: Source of randomness.
    """
    batch, _, height, width = images.shape
    padded = F.pad(images, [shift] * 4)
    top, left = torch.randint(0, 2 * shift + 1, (2, batch, 1), generator=generator)
    rows = top + torch.arange(height)  # (batch, height)
    columns = left + torch.arange(width)  # (batch, width)
    mirrored = torch.rand(batch, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    each = torch.arange(batch)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]  # (batch, height, width, channels)
    return moved.permute(0, 3, 1, 2)

"""Label-keeping random changes of image batches."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_IMAGE_CHANNELS = (1, 3)


def is_image(shape: tuple[int, ...]) -> bool:
    """Returns whether one sample of this shape is an image: (1 or 3, height, width)."""
    return len(shape) == 3 and shape[0] in _IMAGE_CHANNELS


def default_shift(shape: tuple[int, ...]) -> int:
    """Returns how far to shift an image: an eighth of its width (4 pixels of CIFAR's 32)."""
    return shape[-1] // 8


def shift_and_flip(images: torch.Tensor, shift: int, generator: torch.Generator) -> torch.Tensor:
    """Returns images moved by up to `shift` pixels on both axes, zeros moving in; colour ones mirrored half the time.

    Images of one channel are scans and writing as often as not, and a mirrored digit is another digit.

    Args:
        images: (batch, channels, height, width).
        shift: Pixels, >= 0.
        generator: Source of randomness.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, [shift] * 4)
    top, left = torch.randint(0, 2 * shift + 1, (2, batch, 1), generator=generator)
    rows = top + torch.arange(height)  # (batch, height)
    columns = left + torch.arange(width)  # (batch, width)
    mirrored = torch.rand(batch, 1, generator=generator) < (0.5 if channels > 1 else 0.0)
    columns = torch.where(mirrored, columns.flip(1), columns)
    each = torch.arange(batch)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]  # (batch, height, width, channels)
    return moved.permute(0, 3, 1, 2)

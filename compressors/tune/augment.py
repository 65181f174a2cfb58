"""Label-keeping random changes of image batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from compressors.tune.config import TuneConfig

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


def changed(images: torch.Tensor, config: TuneConfig, generator: torch.Generator) -> torch.Tensor:
    """Returns images shifted, mirrored and erased as the config says; the images themselves are left alone.

    Erasing is timm's and draws from Python's and torch's global sources.
    """
    if config.augment:
        shift = default_shift(tuple(images.shape[1:])) if config.shift is None else config.shift
        images = shift_and_flip(images, shift, generator)
    if config.erasing > 0:
        from timm.data.random_erasing import RandomErasing

        eraser = RandomErasing(config.erasing, mode="pixel", device=str(images.device))
        images = eraser(images.clone())
    return images


def mixed_up(
    images: torch.Tensor, targets: torch.Tensor, classes: int, config: TuneConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns pairs of images laid over each other, and probabilities as targets (Zhang et al., 2018).

    Mixing is timm's and draws from numpy's global source. Where some sample has no label, the mixed images have none
    and are distilled only. A batch of odd size is not mixed.

    Args:
        images: (batch, channels, height, width).
        targets: int64 (batch,), or float32 (batch, classes).
        classes: How many there are.
        config: `mixup` is the alpha of the Beta distribution.
    """
    if config.mixup == 0 or len(images) % 2:
        return images, targets
    from timm.data import Mixup

    several = targets.is_floating_point()
    mixup = Mixup(config.mixup, label_smoothing=0.0, num_classes=classes, multi_label=several)
    known = several or bool((targets >= 0).all())
    mixed, soft = mixup(images.clone(), targets if known else torch.zeros_like(targets))
    return mixed, soft if known else torch.full_like(targets, -1)

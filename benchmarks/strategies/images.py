"""CIFAR-10 as arrays, from the Parquet files that `--data` names."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import Dataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""As the published ResNet-20 wants its input, after scaling to [0, 1]."""


def read(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images, uint8 (n, 3, 32, 32), and labels, int64 (n,)."""
    table = pq.read_table(folder / f"{split}.parquet")
    pictures = (Image.open(io.BytesIO(cell["bytes"])) for cell in table["image"].to_pylist())
    pixels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(table["label"].to_pylist())


def scaled(images: torch.Tensor) -> torch.Tensor:
    """Maps bytes to what networks take, float32 of the same shape."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirrors half of a batch and shifts all of it by up to four pixels, zeros moving in."""
    n = len(images)
    flip = torch.rand(n, generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2, n), generator=generator)
    rows = (top[:, None] + torch.arange(32))[:, None, :, None]
    columns = (left[:, None] + torch.arange(32))[:, None, None, :]
    return padded[torch.arange(n)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]


@dataclass(frozen=True)
class Images(Dataset[tuple[tuple[torch.Tensor, ...], int | torch.Tensor]]):
    """Images with labels, as fits, training and scoring read them (`compressors.problem.Samples`).

    Attributes:
        images: Bytes, (n, 3, 32, 32).
        labels: int64, (n,).
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[tuple[torch.Tensor, ...], int | torch.Tensor]:
        """Returns one image, float32 (3, 32, 32), and its label."""
        (image,), label = self.batch([index])
        return (image[0],), int(label[0])

    def batch(self, indices: Sequence[int]) -> tuple[tuple[torch.Tensor], torch.Tensor]:
        """Returns some images, float32 (n, 3, 32, 32), and their labels."""
        at = torch.tensor(list(indices))
        return (scaled(self.images[at]),), self.labels[at]

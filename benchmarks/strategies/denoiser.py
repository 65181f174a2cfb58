"""`python -m benchmarks.strategies.denoiser --data DIR --seconds S --out DIR`: a small denoiser, and images for it.

A U-Net after Ho et al., "Denoising Diffusion Probabilistic Models", 2020: residual blocks of group norm, SiLU and 3x3
convolutions, a time embedding between the two convolutions of each, attention at one resolution, skip concatenations.
It is trained on CIFAR-10 at 16x16 for the noise that was put in. Writes `denoiser.pt2`, and `images/{train,test}.npz`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from benchmarks.strategies.images import read
from compressors.tasks.noise import NoiseSchedule

_BATCH = 64
_RATE = 1e-3


@dataclass(frozen=True)
class Shape:
    """How large the network is.

    Attributes:
        width: Channels at full resolution; twice as many at half of it.
        blocks: Residual blocks at each resolution on the way down; one more on the way up.
        groups: Of every group norm.
        size: Height and width of the images.
    """

    width: int = 32
    blocks: int = 2
    groups: int = 8
    size: int = 16


class Residual(nn.Module):
    """Two convolutions with the time embedding added between them, beside a shortcut."""

    def __init__(self, cin: int, cout: int, embedded: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.time = nn.Linear(embedded, cout)
        self.norm2, self.conv2 = nn.GroupNorm(groups, cout), nn.Conv2d(cout, cout, 3, padding=1)
        self.act1, self.act2, self.act_time = nn.SiLU(), nn.SiLU(), nn.SiLU()
        self.shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Maps (n, cin, h, w) and (n, embedded) to (n, cout, h, w)."""
        inner = self.conv1(self.act1(self.norm1(x))) + self.time(self.act_time(embedding))[:, :, None, None]
        return self.shortcut(x) + self.conv2(self.act2(self.norm2(inner)))


class Attention(nn.Module):
    """One head of attention over all positions, beside the identity."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, c, h, w) to the same."""
        tokens = self.norm(x).flatten(2).transpose(1, 2).unsqueeze(1)  # (n, heads, h w, c)
        mixed = F.scaled_dot_product_attention(self.query(tokens), self.key(tokens), self.value(tokens))
        return x + self.out(mixed).squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])


class Denoiser(nn.Module):
    """Predicts the noise in an image; two resolutions, attention at the lower one."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        shape = shape or Shape()
        width, groups, embedded = shape.width, shape.groups, 4 * shape.width
        self.embed = nn.Sequential(nn.Linear(width, embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        half = width // 2
        self.register_buffer("rates", torch.exp(-math.log(10_000) * torch.arange(half) / half))
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        kept, here = [width], width
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.Conv2d(width, width, 3, 2, 1), nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        for level in range(2):
            for _ in range(shape.blocks):
                self.down.append(Residual(here, width * (level + 1), embedded, groups))
                here = width * (level + 1)
                kept.append(here)
            if level == 0:
                kept.append(here)
        self.middle = nn.ModuleList(Residual(here, here, embedded, groups) for _ in range(2))
        self.attention = Attention(here, groups)
        for level in (1, 0):
            for _ in range(shape.blocks + 1):
                self.up.append(Residual(here + kept.pop(), width * (level + 1), embedded, groups))
                here = width * (level + 1)
        self.norm, self.act, self.head = nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1)
        self.blocks = shape.blocks

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Maps noisy images (n, 3, h, w) and times (n,) to the noise in them, (n, 3, h, w)."""
        angles = timestep[:, None].float() * self.rates
        embedding = self.embed(torch.cat([angles.sin(), angles.cos()], 1))
        x = self.stem(sample)
        kept = [x]
        for number, block in enumerate(self.down):
            if number == self.blocks:
                x = self.shrink(x)
                kept.append(x)
            x = block(x, embedding)
            kept.append(x)
        x = self.middle[1](self.attention(self.middle[0](x, embedding)), embedding)
        for number, block in enumerate(self.up):
            if number == self.blocks + 1:
                x = self.grow(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = block(torch.cat([x, kept.pop()], 1), embedding)
        return self.head(self.act(self.norm(x)))


def export(model: nn.Module, size: int, out: Path) -> None:
    """Writes the network as a `.pt2` file that takes any number of images."""
    batch = Dim("batch")
    inputs = (torch.zeros(2, 3, size, size), torch.zeros(2, dtype=torch.int64))
    torch.export.save(torch.export.export(model.eval(), inputs, dynamic_shapes=({0: batch}, {0: batch})), out)


def train(model: nn.Module, images: torch.Tensor, seconds: float) -> float:
    """Trains for a processor time with Adam and one cycle, and returns the epochs that it was enough for.

    Args:
        model: In place.
        images: In [-1, 1], (n, 3, h, w).
        seconds: Of processor time.
    """
    kept = NoiseSchedule().kept().float()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), _RATE)
    started, steps, told = time.process_time(), 0, 0.0
    while (share := (time.process_time() - started) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = _RATE * min(share / 0.1, (1 - share) / 0.9)
        clean = images[torch.randint(0, len(images), (_BATCH,), generator=generator)]
        clean = torch.where(torch.rand(_BATCH, 1, 1, 1, generator=generator) < 0.5, clean.flip(3), clean)
        times = torch.randint(0, len(kept), (_BATCH,), generator=generator)
        noise, share_kept = torch.randn(clean.shape, generator=generator), kept[times].view(-1, 1, 1, 1)
        loss = F.mse_loss(model(share_kept.sqrt() * clean + (1 - share_kept).sqrt() * noise, times), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        if share - told > 0.05:
            told = share
            print(f"{100 * share:.0f} % {steps * _BATCH / len(images):.2f} epochs, loss {loss.item():.4f}", flush=True)
    return steps * _BATCH / len(images)


def main() -> int:
    """Writes the images, trains the network on one thread, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--seconds", type=float, required=True, help="processor seconds, one thread")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = Shape()
    (asked.out / "images").mkdir(parents=True, exist_ok=True)
    halved = {split: F.avg_pool2d(read(asked.data, split)[0].float(), 2).round().byte() for split in ("train", "test")}
    for split, images in halved.items():
        np.savez(asked.out / "images" / f"{split}.npz", images=images.permute(0, 2, 3, 1).numpy())
    model = Denoiser(shape)
    epochs = train(model, halved["train"].float() / 127.5 - 1, asked.seconds)
    export(model, shape.size, asked.out / "denoiser.pt2")
    facts = {
        "epochs": epochs,
        "processor_seconds": time.process_time(),
        "weights": sum(p.numel() for p in model.parameters()),
    }
    (asked.out / "denoiser.json").write_text(json.dumps(facts))
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

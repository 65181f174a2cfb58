"""Blocks of denoising networks: group norms, SiLU, and a time embedding between two convolutions."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import nn
from torch.utils.data import Dataset

from compressors.graph import Graph
from tests.compressors.networks import lifted


class Block(nn.Module):
    """Norm, activation and convolution twice, the embedding added in between, beside the identity or a projection."""

    def __init__(self, cin: int = 4, cout: int = 4, groups: int = 2, embedded: int = 3) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, cout), nn.Conv2d(cout, cout, 3, padding=1)
        self.time, self.act1, self.act2 = nn.Linear(embedded, cout), nn.SiLU(), nn.SiLU()
        self.shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        inner = self.conv1(self.act1(self.norm1(x))) + self.time(embedding)[:, :, None, None]
        return self.shortcut(x) + self.conv2(self.act2(self.norm2(inner)))


class Denoiser(nn.Module):
    """A stem, two blocks, and a head."""

    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.first, self.second = Block(groups=groups), Block(4, 8, groups)

    def forward(self, sample: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(self.stem(sample), embedding), embedding))


@cache
def denoiser(groups: int = 2, size: int = 6) -> Graph:
    """The network, lifted, with random weights; norms' too. Shared between tests, as nobody may change it."""
    torch.manual_seed(0)
    model = Denoiser(groups)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.GroupNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
    return lifted(model, (3, size, size), (3,))


class Pairs(Dataset):
    """Random samples and embeddings, unlabelled; a whole batch at once, too."""

    def __init__(self, graph: Graph, count: int, seed: int) -> None:
        self.inputs = [spec.random(count, seed + at) for at, spec in enumerate(graph.inputs)]

    def __len__(self) -> int:
        return len(self.inputs[0])

    def __getitem__(self, index: int) -> tuple[tuple[torch.Tensor, ...], int]:
        return tuple(column[index] for column in self.inputs), -1

    def batch(self, indices: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        picked = torch.as_tensor(list(indices))
        return tuple(column[picked] for column in self.inputs), torch.full((len(picked),), -1)

"""Networks of the list that no library has: CIFAR ResNets, a U-Net, a 1-d network, detectors."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


def unit(cin: int, cout: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Returns convolution, batch norm and SiLU, padded to keep the size."""
    convolution = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(cout), nn.SiLU(inplace=True))


class CifarBlock(nn.Module):
    """Basic block of He et al. 2015, section 4.2; `option` A pads the shortcut with zeros, B projects it."""

    def __init__(self, cin: int, cout: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.relu = nn.ReLU(inplace=True)
        self.padded = (cout - cin) // 2 if option == "A" else 0
        self.shortcut: nn.Module = nn.Identity()
        if cin != cout and option == "B":
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, cin, h, w) to (n, cout, h / stride, w / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padded, self.padded)) if self.padded else self.shortcut(x)
        return self.relu(y)


class CifarResNet(nn.Module):
    """ResNet for CIFAR-10 of depth 6n + 2: three stages of n blocks, 16, 32 and 64 wide."""

    def __init__(self, depth: int, option: str = "A") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        stages, width = [], 16
        for stage, wanted in enumerate((16, 32, 64)):
            blocks = []
            for index in range((depth - 2) // 6):
                stride = 2 if stage and not index else 1
                blocks.append(CifarBlock(width, wanted, stride, option))
                width = wanted
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, 3, h, w) to (n, 10)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Pair(nn.Sequential):
    """Two convolutions of a U-Net."""

    def __init__(self, cin: int, cout: int) -> None:
        layers: list[nn.Module] = []
        for size in (cin, cout):
            layers += [nn.Conv2d(size, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class UNet(nn.Module):
    """U-Net with transposed convolutions and concatenated skips."""

    def __init__(self, width: int = 16, depth: int = 3, classes: int = 4) -> None:
        super().__init__()
        sizes = [width * 2**level for level in range(depth + 1)]
        self.stem = Pair(3, width)
        self.down = nn.ModuleList(Pair(a, b) for a, b in pairwise(sizes))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(sizes))
        self.join = nn.ModuleList(Pair(2 * a, a) for a in sizes[:-1])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, 3, h, w) to (n, classes, h, w)."""
        x = self.stem(x)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(F.max_pool2d(x, 2))
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            x = join(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


class Audio(nn.Module):
    """Residual 1-d convolutions with growing dilation over a wave form, as keyword spotters have them."""

    def __init__(self, width: int = 32, blocks: int = 6, classes: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(1, width, 80, 4, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.MaxPool1d(4)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, 3, padding=2**index, dilation=2**index, bias=False),
                nn.BatchNorm1d(width),
                nn.ReLU(),
                nn.Conv1d(width, width, 1, bias=False),
                nn.BatchNorm1d(width),
            )
            for index in range(blocks)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, 1, samples) to (n, classes)."""
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x.mean(-1))

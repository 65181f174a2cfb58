"""Two detectors, as they are on the shelf but small: anchor-free with a PAN neck, and SSD on MobileNet blocks."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.coverage.networks import unit


class Csp(nn.Module):
    """Cross-stage partial block: one half goes through residual units, both halves are joined (Wang et al. 2020)."""

    def __init__(self, cin: int, cout: int, count: int, *, residual: bool = True) -> None:
        super().__init__()
        half = cout // 2
        self.first, self.second = unit(cin, half, 1), unit(cin, half, 1)
        self.inner = nn.ModuleList(nn.Sequential(unit(half, half, 1), unit(half, half, 3)) for _ in range(count))
        self.residual = residual
        self.last = unit(2 * half, cout, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, cin, h, w) to (n, cout, h, w)."""
        y = self.first(x)
        for inner in self.inner:
            y = y + inner(y) if self.residual else inner(y)
        return self.last(torch.cat([y, self.second(x)], 1))


class Pyramid(nn.Module):
    """Spatial pyramid pooling with one kernel, three times."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = unit(width, width // 2, 1), unit(2 * width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.last(torch.cat(parts, 1))


class Decoupled(nn.Module):
    """Head of one level: classes by one branch, boxes and objectness by another."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Sequential(unit(width, width), unit(width, width), nn.Conv2d(width, classes, 1))
        self.regress = nn.Sequential(unit(width, width), unit(width, width))
        self.box, self.present = nn.Conv2d(width, 4, 1), nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, width, h, w) to (n, 4 + 1 + classes, h, w)."""
        y = self.regress(x)
        return torch.cat([self.box(y), self.present(y).sigmoid(), self.classify(x).sigmoid()], 1)


class YoloLike(nn.Module):
    """CSP backbone, PAN neck and decoupled heads at strides 8, 16 and 32; returns one tensor per level."""

    def __init__(self, width: int = 16, classes: int = 20) -> None:
        super().__init__()
        w = [width * 2**level for level in range(5)]
        self.stem = unit(3, w[0], 3, 2)
        self.stages = nn.ModuleList(nn.Sequential(unit(a, b, 3, 2), Csp(b, b, 1)) for a, b in pairwise(w))
        self.pool = Pyramid(w[4])
        self.lateral = nn.ModuleList([unit(w[4], w[3], 1), unit(w[3], w[2], 1)])
        self.top = nn.ModuleList([Csp(2 * w[3], w[3], 1, residual=False), Csp(2 * w[2], w[2], 1, residual=False)])
        self.down = nn.ModuleList([unit(w[2], w[2], 3, 2), unit(w[3], w[3], 3, 2)])
        self.bottom = nn.ModuleList([Csp(2 * w[2], w[3], 1, residual=False), Csp(2 * w[3], w[4], 1, residual=False)])
        self.heads = nn.ModuleList(Decoupled(size, classes) for size in w[2:])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Maps (n, 3, h, w) to three maps of (n, 5 + classes, h / s, w / s)."""
        maps = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        c3, c4, c5 = maps[1], maps[2], self.pool(maps[3])
        p5 = self.lateral[0](c5)
        p4 = self.top[0](torch.cat([F.interpolate(p5, scale_factor=2.0), c4], 1))
        p4 = self.lateral[1](p4)
        p3 = self.top[1](torch.cat([F.interpolate(p4, scale_factor=2.0), c3], 1))
        n4 = self.bottom[0](torch.cat([self.down[0](p3), p4], 1))
        n5 = self.bottom[1](torch.cat([self.down[1](n4), p5], 1))
        return tuple(head(level) for head, level in zip(self.heads, (p3, n4, n5), strict=True))


class Depthwise(nn.Sequential):
    """Depthwise 3x3 and 1x1, each with norm and ReLU6."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(cin, cin, 3, stride, 1, groups=cin, bias=False),
            nn.BatchNorm2d(cin),
            nn.ReLU6(inplace=True),
            nn.Conv2d(cin, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU6(inplace=True),
        )


class SsdLike(nn.Module):
    """MobileNet backbone, extra levels and depthwise heads (SSDlite); returns a dictionary of scores and boxes."""

    def __init__(self, classes: int = 21, anchors: int = 6) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True))
        self.body = nn.Sequential(Depthwise(16, 32), Depthwise(32, 64, 2), Depthwise(64, 64), Depthwise(64, 128, 2))
        self.deep = nn.Sequential(Depthwise(128, 128), Depthwise(128, 256, 2))
        self.further = nn.Sequential(nn.Conv2d(256, 64, 1), nn.ReLU6(inplace=True), Depthwise(64, 128, 2))
        widths = (128, 256, 128)
        self.scores = nn.ModuleList(self._head(width, anchors * classes) for width in widths)
        self.boxes = nn.ModuleList(self._head(width, anchors * 4) for width in widths)

    @staticmethod
    def _head(cin: int, cout: int) -> nn.Sequential:
        first = nn.Conv2d(cin, cin, 3, padding=1, groups=cin, bias=False)
        return nn.Sequential(first, nn.BatchNorm2d(cin), nn.ReLU6(inplace=True), nn.Conv2d(cin, cout, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Maps (n, 3, h, w) to scores (n, all anchors, classes) and boxes (n, all anchors, 4)."""
        first = self.body(self.stem(x))
        second = self.deep(first)
        maps = (first, second, self.further(second))
        scores = [self._rows(head(level), self.classes) for head, level in zip(self.scores, maps, strict=True)]
        boxes = [self._rows(head(level), 4) for head, level in zip(self.boxes, maps, strict=True)]
        return {"scores": torch.cat(scores, 1), "boxes": torch.cat(boxes, 1)}

    @staticmethod
    def _rows(level: torch.Tensor, size: int) -> torch.Tensor:
        """Maps (n, anchors * size, h, w) to (n, h * w * anchors, size)."""
        n, c, h, w = level.shape
        return level.view(n, c // size, size, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, size)

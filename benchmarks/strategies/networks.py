"""The networks that the benchmark trains itself, small enough for two cores and some minutes."""

from __future__ import annotations

import timm
import torch
from torch import nn

from benchmarks.coverage.networks import CifarResNet

_VGG16 = (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M")


class Vgg16(nn.Module):
    """VGG-16 with batch norm for 32x32 images, `width` channels in its first stage instead of 64 (Simonyan 2015)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        cin = 3
        for entry in _VGG16:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2))
                continue
            cout = width * entry
            layers += [nn.Conv2d(cin, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]
            cin = cout
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(cin, cin), nn.ReLU(inplace=True), nn.Linear(cin, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, 3, 32, 32) to (n, 10)."""
        return self.classifier(self.features(x).flatten(1))


def vit() -> nn.Module:
    """Returns a ViT of 12 blocks, 96 wide, on 8x8 patches of 32x32 images (Dosovitskiy et al. 2021, Touvron 2021)."""
    return timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, num_classes=10, embed_dim=96, depth=12, num_heads=3
    )


def build(name: str) -> nn.Module:
    """Returns an untrained network by name: vgg16_bn, vit or resnet-DEPTH."""
    if name == "vgg16_bn":
        return Vgg16()
    return vit() if name == "vit" else CifarResNet(int(name.removeprefix("resnet-")))

"""Small networks of every family that the analysis has to understand, and how to lift them."""

from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

from compressors.graph import Graph
from compressors.lift import lift


class Block(nn.Module):
    """Residual block; `shortcut` is "identity", "projection" (1x1) or "pad" (subsample and pad, no weights)."""

    def __init__(self, cin, cout, stride=1, shortcut="identity"):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.kind, self.extra = shortcut, cout - cin
        if shortcut == "projection":
            self.down = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.kind == "projection":
            x = self.down(x)
        elif self.kind == "pad":
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        y += x
        return F.relu(y)


class ResNet(nn.Module):
    """Stem, one identity block, one block that goes to half the size, one identity block, classifier."""

    def __init__(self, shortcut):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.layers = nn.Sequential(Block(8, 8), Block(8, 16, 2, shortcut), Block(16, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.layers(F.relu_(self.bn(self.conv(x))))
        x = F.avg_pool2d(x, x.shape[-1])
        return self.head(x.view(x.size(0), -1))


class PreActivation(nn.Module):
    """Norm and activation before the convolution, one activation module called several times."""

    def __init__(self, blocks=2):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2 * blocks))
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2 * blocks))
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for index in range(0, len(self.convs), 2):
            y = x
            for norm, conv in zip(self.norms[index : index + 2], self.convs[index : index + 2], strict=True):
                y = conv(self.act(norm(y)))
            x = x + y
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """Inverted residual with a linear bottleneck; `gate` adds squeeze-and-excitation."""

    def __init__(self, cin, cout, stride=1, gate=False):
        super().__init__()
        wide = 3 * cin
        self.expand = nn.Sequential(nn.Conv2d(cin, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6())
        self.depth = nn.Sequential(
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()
        )
        self.squeeze = nn.Conv2d(wide, 4, 1) if gate else None
        self.excite = nn.Conv2d(4, wide, 1) if gate else None
        self.project = nn.Sequential(nn.Conv2d(wide, cout, 1, bias=False), nn.BatchNorm2d(cout))
        self.residual = cin == cout and stride == 1

    def forward(self, x):
        y = self.depth(self.expand(x))
        if self.squeeze is not None:
            y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        y = self.project(y)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    def __init__(self, gate=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.blocks = nn.Sequential(Inverted(8, 8, gate=gate), Inverted(8, 12, 2), Inverted(12, 12))
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.drop(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1)))


class Vgg(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for cin, cout in [(3, 8), (8, 8), (None, None), (8, 12), (12, 12), (12, 12), (None, None)]:
            if cin is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(12 * 4 * 4, 20), nn.ReLU(True), nn.Dropout(), nn.Linear(20, 20), nn.ReLU(True), nn.Linear(20, 5)
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        return self.proj(y)


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Vit(nn.Module):
    """Patches, class token, position table, attention and MLP blocks."""

    def __init__(self, depth=2, width=12):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.table = nn.Parameter(torch.randn(1, 17, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.attention = nn.ModuleList(Attention(width, 2) for _ in range(depth))
        self.mlps = nn.ModuleList(Mlp(width, 3 * width) for _ in range(depth))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.table
        for index, (attention, mlp) in enumerate(zip(self.attention, self.mlps, strict=True)):
            x = x + attention(self.norms[2 * index](x))
            x = x + mlp(self.norms[2 * index + 1](x))
        return self.head(x[:, 0])


class Mixer(nn.Module):
    """Token-mixing and feature-mixing MLPs."""

    def __init__(self, width=12, tokens=16):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens, self.features = Mlp(tokens, 24), Mlp(width, 24)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.features(self.norm2(x))
        return self.head(x.mean(1))


class ConvNext(nn.Module):
    """One block with a wide depthwise convolution, layer norm in channels-last, layer scale."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 2, 2)
        self.depth = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.gamma = nn.Parameter(torch.rand(width))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.mlp(self.norm(self.depth(x).permute(0, 2, 3, 1))) * self.gamma
        x = x + y.permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class Branches(nn.Module):
    """Two branches joined by concatenation, one of them two convolutions deep."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one = nn.Conv2d(8, 4, 1)
        self.two = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.last(F.relu(torch.cat([self.one(x), self.two(x)], 1)))


class Shared(nn.Module):
    """One convolution called twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.last = (nn.Conv2d(cin, 4, 3, padding=1) for cin in (3, 4, 4))

    def forward(self, x):
        x = F.relu(self.stem(x))
        for _ in range(2):
            x = F.relu(self.body(x))
        return self.last(x)


NETWORKS = {
    "resnet-a": (lambda: ResNet("pad"), (3, 16, 16)),
    "resnet-b": (lambda: ResNet("projection"), (3, 16, 16)),
    "preact": (PreActivation, (3, 16, 16)),
    "mobilenet": (MobileNet, (3, 16, 16)),
    "mobilenet-se": (lambda: MobileNet(gate=True), (3, 16, 16)),
    "vgg": (Vgg, (3, 16, 16)),
    "vit": (Vit, (3, 16, 16)),
    "mixer": (Mixer, (3, 16, 16)),
    "convnext": (ConvNext, (3, 16, 16)),
    "branches": (Branches, (3, 16, 16)),
    "shared": (Shared, (3, 16, 16)),
}


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Gives norms and biases values that show every mistake, as trained ones would."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm) and module.weight is not None:
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
    return model.eval()


def exported(model: nn.Module, *shapes: tuple[int, ...], batch: int | None = None) -> torch.export.ExportedProgram:
    """Exports with a free batch size, or with `batch` fixed."""
    samples = tuple(torch.randn(batch or 2, *shape) for shape in shapes)
    dynamic = None if batch else tuple({0: torch.export.Dim.DYNAMIC} for _ in shapes)
    return torch.export.export(model, samples, dynamic_shapes=dynamic)


def lifted(model: nn.Module, *shapes: tuple[int, ...]) -> Graph:
    return lift(exported(model.eval(), *shapes), type(model).__name__)


@cache
def named_pair(name: str) -> tuple[nn.Module, Graph]:
    """Returns a network and its lifted graph; shared between tests, which is also a test that nobody changes it."""
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    model = randomise(build())
    return model, lifted(model, shape)


def graph_of(name: str) -> Graph:
    return named_pair(name)[1]

import pytest
from torch import nn

from compressors.analysis.sites import find_sites
from compressors.collapse import channel_axes
from compressors.shapes import propagate
from tests.compressors.networks import graph_of, lifted


def axes_of_sites(graph):
    axes = channel_axes(graph)
    return {axes.get(site.node) for site in find_sites(graph.module, propagate(graph.module, graph.inputs))}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("resnet-a", {1}),
        ("mobilenet-se", {1}),
        ("branches", {1}),
        ("vgg", {1}),
        ("vit", {2}),
        ("mixer", {2}),
        ("convnext", {3}),
    ],
)
def test_follows_what_computed_the_tensor(name, wanted):
    assert axes_of_sites(graph_of(name)) == wanted


class Odd(nn.Module):
    """A sequence whose convolution has channels in front, with as many positions as channels."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv1d(2, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.Linear(6, 3)
        self.acts = nn.ModuleList([nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Tanh()])

    def forward(self, x):
        y = self.acts[1](self.acts[0](self.norm(self.conv(x))).transpose(1, 2))
        z = self.acts[3](y.reshape(y.shape[0], 6, 2, 3))
        return self.acts[2](self.last(y)) + z.mean((1, 2))[:, None]


def test_moves_with_transposes_and_flattening():
    graph = lifted(Odd(), (2, 6))
    sites = find_sites(graph.module, propagate(graph.module, graph.inputs))
    axes = channel_axes(graph)
    assert {site.kind: axes.get(site.node) for site in sites} == {"relu": 1, "gelu": 2, "tanh": None, "silu": 2}

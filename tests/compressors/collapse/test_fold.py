import pytest
import torch
from torch import nn

from compressors.analysis.sites import find_sites
from compressors.collapse import ChannelLine, Line, fold_lines, linearise, lines, site_statistics
from compressors.shapes import propagate
from compressors.surgery import fold_norms
from tests.compressors.networks import graph_of, lifted, randomise


def linearised(graph, way="fitted"):
    sites = find_sites(graph.module, propagate(graph.module, graph.inputs))
    return linearise(graph, lines(graph, sites, way, site_statistics(graph, [graph.samples(8)])))


def lines_in(graph):
    return [
        node.name
        for node in graph.module.graph.nodes
        if node.op == "call_module" and isinstance(graph.module.get_submodule(str(node.target)), ChannelLine)
    ]


def assert_same(left, right):
    (x,) = left.samples(3)
    with torch.no_grad():
        torch.testing.assert_close(right.module(x), left.module(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "left"),
    [("vgg", 0), ("mobilenet", 0), ("preact", 0), ("vit", 0), ("mixer", 0), ("branches", 1), ("resnet-a", 3)],
)
def test_lines_after_operators_and_norms_go(name, left):
    # What follows a sum or a concatenation stays.
    graph = linearised(graph_of(name))
    before = graph.module.code
    merged = fold_lines(graph)
    assert len(lines_in(merged.graph)) == left
    assert len(merged.verifications) == len(lines_in(graph)) - left
    assert all(proof.passed for proof in merged.verifications)
    assert graph.module.code == before
    assert_same(graph, merged.graph)


@pytest.mark.parametrize(
    "order", [lambda g: fold_norms(fold_lines(g).graph), lambda g: fold_lines(fold_norms(g)).graph]
)
def test_goes_with_norms_in_any_order(order):
    graph = linearised(graph_of("mobilenet"))
    got = order(graph)
    assert not lines_in(got)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in got.module.modules())
    assert_same(graph, got)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(6)])
def test_folds_into_every_norm(norm):
    graph = linearised(lifted(randomise(nn.Sequential(norm, nn.SiLU(), nn.Tanh())), (4, 5, 6)))
    merged = fold_lines(graph)
    assert len(merged.verifications) == 2  # one after the other
    assert_same(graph, merged.graph)


def test_a_convolution_without_bias_gets_one_and_padding_does_not_matter():
    conv = nn.Conv2d(3, 4, 3, 2, padding=1, bias=False, padding_mode="zeros")
    graph = linearised(lifted(nn.Sequential(conv, nn.GELU()), (3, 7, 7)))
    merged = fold_lines(graph)
    assert not lines_in(merged.graph)
    assert_same(graph, merged.graph)


def test_one_value_for_all_channels_folds_too():
    graph = lifted(nn.Sequential(nn.Linear(5, 4), nn.Tanh()), (5,))
    (site,) = find_sites(graph.module, propagate(graph.module, graph.inputs))
    cut = linearise(graph, {site.node: Line(torch.tensor([0.5]).double(), torch.tensor([0.2]).double(), -1)})
    merged = fold_lines(cut)
    assert not lines_in(merged.graph)
    assert_same(cut, merged.graph)


class Twice(nn.Module):
    """A tensor that is read before and after its activation, and a shared operator."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = self.one(x)
        y = y + torch.tanh(y)
        return torch.relu(self.two(torch.sigmoid(self.two(y))))


def test_what_others_read_stays():
    graph = linearised(lifted(Twice(), (4,)))
    merged = fold_lines(graph)
    assert not merged.verifications
    assert len(lines_in(merged.graph)) == 3


def test_a_line_along_another_axis_stays():
    graph = lifted(nn.Sequential(nn.Linear(5, 4), nn.Tanh()), (4, 5))
    (site,) = find_sites(graph.module, propagate(graph.module, graph.inputs))
    cut = linearise(graph, {site.node: Line(torch.rand(4).double(), torch.rand(4).double(), 1)})
    assert not fold_lines(cut).verifications

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.analysis.segments import Refusal
from compressors.analysis.sites import find_sites
from compressors.collapse import Line, Way, lines, site_statistics
from compressors.errors import OptionError
from compressors.shapes import propagate
from tests.compressors.networks import graph_of, lifted


def sites_of(graph):
    return find_sites(graph.module, propagate(graph.module, graph.inputs))


def test_fitted_lines_are_never_worse_on_their_data():
    graph = graph_of("mobilenet-se")
    seen = site_statistics(graph, [graph.samples(8)])
    found = {way: lines(graph, sites_of(graph), way, seen) for way in Way}
    for site in sites_of(graph):
        fitted = found[Way.FITTED][site.node].error
        assert fitted <= found[Way.GAUSSIAN][site.node].error + 1e-12
        assert fitted <= found[Way.IDENTITY][site.node].error + 1e-12


def test_lines_say_where_they_come_from():
    graph = graph_of("resnet-a")
    found = lines(graph, sites_of(graph), "gaussian")
    assert found["relu"].source == "gaussian: batch-norm"
    assert found["layers_0_relu_1"].source == "gaussian: propagated from batch-norm"


def test_the_gaussian_line_is_fitted_where_its_assumption_holds():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 2))
    graph = lifted(model, (6,))
    seen = site_statistics(graph, [(torch.randn(20000, 6),)])
    gaussian, fitted = (lines(graph, sites_of(graph), way, seen) for way in ("gaussian", "fitted"))
    for name, line in gaussian.items():
        assert isinstance(line, Line)
        # 20,000 samples: standard errors are below 0.01.
        torch.testing.assert_close(line.slope, fitted[name].slope, atol=0.03, rtol=0)
        torch.testing.assert_close(line.intercept, fitted[name].intercept, atol=0.03, rtol=0)


class AfterAttention(nn.Module):
    """An activation without a norm between it and attention."""

    def __init__(self):
        super().__init__()
        self.act, self.head = nn.GELU(), nn.Linear(4, 4)

    def forward(self, x):
        return self.act(self.head(F.scaled_dot_product_attention(x, x, x)))


def test_refuses_what_the_weights_do_not_tell():
    graph = lifted(AfterAttention(), (5, 4))
    (refusal,) = lines(graph, sites_of(graph), "gaussian").values()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "no-moments"
    assert "scaled_dot_product_attention" in refusal.reason
    assert isinstance(next(iter(lines(graph, sites_of(graph), "identity").values())), Line)


def test_refuses_unknown_ways_and_missing_statistics():
    graph = graph_of("mixer")
    with pytest.raises(OptionError, match="unknown way to collapse 'magic'; known: identity, gaussian, fitted"):
        lines(graph, sites_of(graph), "magic")
    with pytest.raises(OptionError, match="no statistics of activation 'tokens"):
        lines(graph, sites_of(graph), "fitted")

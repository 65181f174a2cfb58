"""Output errors of a random MLP whose activations become lines, against figures that were found independently.

The figures are for 32-64-16 with freshly initialised linears, relative to the output's variance. How wide their inputs
were is not stated: a standard deviation of 2 reproduces all of them (here the first linear's weights are doubled, so
that the inputs are standard normal, as the data-free way assumes). So this is a check of plausibility, not of digits:
one draw of weights differs from another by some 15 %, with the identity, whose error is largely one of the mean, by
some 40 %.
"""

import pytest
import torch
from torch import nn

from compressors.analysis.sites import find_sites
from compressors.collapse import linearise, lines, site_statistics
from compressors.shapes import propagate
from tests.compressors.networks import lifted

# Activation, relative output error with the identity, with the best line per channel.
FIGURES = {
    "prelu .7": (nn.LeakyReLU(0.7), 0.083, 0.012),
    "prelu .3": (nn.LeakyReLU(0.3), 0.73, 0.10),
    "tanh": (nn.Tanh(), 0.60, 0.083),
    "gelu": (nn.GELU(), 1.8, 0.30),
    "silu": (nn.SiLU(), 1.66, 0.23),
    "relu6": (nn.ReLU6(), 2.1, 0.29),
    "hardswish": (nn.Hardswish(), 1.6, 0.21),
    "sigmoid": (nn.Sigmoid(), 25, 0.02),
}


@pytest.mark.parametrize("name", FIGURES)
def test_errors_are_of_the_published_size(name):
    activation, with_identity, with_line = FIGURES[name]
    model = nn.Sequential(nn.Linear(32, 64), activation, nn.Linear(64, 16))
    with torch.no_grad():
        model[0].weight.mul_(2)
    graph = lifted(model, (32,))
    x = torch.randn(4096, 32)
    wanted = graph.module(x).detach()
    statistics = site_statistics(graph, [(x,)])
    sites = find_sites(graph.module, propagate(graph.module, graph.inputs))

    def error(way):
        got = linearise(graph, lines(graph, sites, way, statistics)).module(x).detach()
        return float(((got - wanted) ** 2).mean() / wanted.var(0).mean())

    assert error("fitted") == pytest.approx(with_line, rel=0.3)
    assert error("gaussian") == pytest.approx(with_line, rel=0.3)
    assert error("identity") == pytest.approx(with_identity, rel=0.8)

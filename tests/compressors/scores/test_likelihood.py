"""TLC's likelihoods, costs and lines against the specification's oracles.

T1, T1b, T6 and T15 are about `likelihood`; T16 about its costs of a GELU; T10 about what its lines compute, with the
merge of `compressors.surgery`. T8, about training, T9 and what T10 says of masked weights are in test_masking.
"""

import pytest
import torch
from torch import nn

from compressors.analysis.segments import Refusal
from compressors.analysis.sites import find_sites
from compressors.channel_line import Line
from compressors.collapse import linearise, site_statistics
from compressors.collapse.expectation import gaussian_line
from compressors.plan import Step
from compressors.scores.likelihood import (
    channel_lines,
    error_likelihood,
    kept_channels,
    likelihoods,
    off_probability,
    sign_entropy,
)
from compressors.shapes import propagate
from compressors.surgery import apply, merge
from tests.compressors.networks import graph_of, lifted, randomise

GAMMA = [1, 0.5, -2, 1, 0, 0, 0, 0.25]
BETA = [0, 1, 1, -1, 0.3, -0.3, 0, -0.5]
ERROR = [0.5, 0.0227501319, 0.3085375387, 0.1586552539, 0, 0, 0, 0.0227501319]


def column(values):
    return torch.tensor(values, dtype=torch.float64)


def close(values, wanted, tolerance=1e-9):
    torch.testing.assert_close(values, column(wanted), atol=tolerance, rtol=0)


def sites_of(graph):
    return find_sites(graph.module, propagate(graph.module, graph.inputs))


def site_of(graph, statistics=None, **options):
    (site,) = sites_of(graph)
    return likelihoods(graph, [site], statistics, **options)[site.node]


def normed(gamma, beta, activation=None, bias=None):
    """Convolution 1x1, batch norm with eps 0 and unit variance, activation, and one more convolution."""
    n = len(gamma)
    norm = nn.BatchNorm2d(n)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(gamma))
        norm.bias.copy_(torch.tensor(beta))
    model = nn.Sequential(nn.Conv2d(2, n, 1, bias=bias is not None), norm, activation or nn.ReLU(), nn.Conv2d(n, 2, 1))
    if bias is not None:
        model[0].bias.data.copy_(torch.tensor(bias))
    return lifted(model, (2, 4, 4))


def test_t1_from_a_batch_norm_s_parameters():
    found = site_of(normed(GAMMA, BETA), parity=True)
    assert found.source == "batch-norm"
    close(found.off, [0.5, 0.0227501319, 0.3085375387, 0.8413447461, 0, 1, 1, 0.9772498681])
    close(found.error, ERROR)
    assert found.layer == pytest.approx(0.1265866321, abs=1e-9)
    close(found.entropy, [1, 0.1566150861, 0.8914780791, 0.6310827674, 0, 0, 0, 0.1566150861])
    assert float(found.entropy.mean()) == pytest.approx(0.3544738773, abs=1e-9)


def test_t1_channels_kept_are_those_with_a_positive_mean():
    found = site_of(normed(GAMMA, BETA), parity=True)
    assert kept_channels(found, "sign", "zero").nonzero().flatten().tolist() == [1, 2, 4]
    line = channel_lines(found, "sign", "zero")
    assert line.slope.tolist() == [0, 1, 1, 0, 1, 0, 0, 0]
    assert not bool(line.intercept.any())


def test_t1b_costs_see_how_large_an_error_is():
    found = site_of(normed(GAMMA, BETA), parity=True)
    close(found.costs.identity[[1, 3]], [0.0014421817, 1.9246602167])
    close(found.costs.zero[[1, 3]], [1.2485578183, 0.0753397833])
    # The rule by cost is the rule by sign, but where both are equal or exact.
    clear = torch.tensor([1, 2, 3, 4, 7])
    assert torch.equal(kept_channels(found, "cost", "zero")[clear], kept_channels(found, "sign")[clear])
    assert bool((found.costs.mean <= found.costs.zero).all())


def test_costs_are_those_of_sampling():
    found = site_of(normed([1.0, 2.0], [-0.3, 4.0], nn.ReLU6()), parity=True)
    z = found.mean[:, None] + found.std[:, None] * torch.randn(2, 400_000, dtype=torch.float64)
    s = z.clamp(0, 6)
    for value, wanted in ((found.costs.identity, (s - z) ** 2), (found.costs.zero, s**2), (found.costs.level, s)):
        torch.testing.assert_close(value, wanted.mean(1), atol=0.03, rtol=0.01)
    torch.testing.assert_close(found.costs.mean, s.var(1), atol=0.03, rtol=0.01)


def test_t6_measured_moments_are_those_of_all_entries():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act = nn.Linear(2, 2), nn.GELU()
            with torch.no_grad():
                self.first.weight.copy_(torch.eye(2))
                self.first.bias.zero_()

        def forward(self, x):
            return self.act(self.first(x)) + 1

    graph = lifted(Tokens(), (2, 2))
    z = torch.tensor([[[1.0, -2], [3, -4]], [[5, 1], [-1, 1]]])
    found = site_of(graph, site_statistics(graph, [(z,)]))
    assert found.source == "measured"
    close(found.mean, [2, -1])
    close(found.std, [2.5819888975, 2.4494897428])
    close(found.off, [0.2192890130, 0.6584543008])
    close(found.entropy, [0.7588671351, 0.9262901583])
    assert float(found.entropy.mean()) == pytest.approx(0.8425786467, abs=1e-9)
    assert kept_channels(found, "sign").tolist() == [True, False]
    gelu = nn.functional.gelu(z.double()).flatten(0, 1)
    torch.testing.assert_close(
        found.costs.identity, ((gelu - z.double().flatten(0, 1)) ** 2).mean(0), atol=1e-6, rtol=0
    )


def test_t15_a_second_kink_is_seen():
    mean, std = column([4.0]), column([2.0])
    close(off_probability(mean, std), [0.022750], 1e-6)
    close(error_likelihood(mean, std), [0.022750], 1e-6)
    close(error_likelihood(mean, std, upper=6.0), [0.181405], 1e-6)
    close(site_of(normed([2.0], [4.0], nn.ReLU6()), parity=True).error, [0.181405], 1e-6)


def test_t16_deviation_of_a_gelu_from_the_identity():
    z = [-3, -1, -0.1, 0.1, 1, 3]
    found = site_of(normed([0.0] * 6, [float(value) for value in z], nn.GELU()), parity=True)
    close(found.costs.identity.sqrt(), [2.99595, 0.841345, 0.053983, 0.046017, 0.158655, 0.004050], 1e-6)
    close(found.costs.zero.sqrt(), [0.004050, 0.158655, 0.046017, 0.053983, 0.841345, 2.99595], 1e-6)


class Pair(nn.Module):
    def __init__(self, w1, b1, w2, b2):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(len(w1[0]), len(w1)), nn.ReLU(), nn.Linear(len(w1), len(w2))
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), (w1, b1, w2, b2), strict=True):
                parameter.copy_(torch.tensor(value))

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


@pytest.mark.parametrize(
    ("slope", "intercept", "weight", "bias"),
    [
        ([1, 1, 1], [0, 0, 0], [[2, 4], [1.5, 1]], [1.7, -0.5]),
        ([1, 0, 1], [0, 0, 0], [[2, 4], [0.5, 1]], [1.7, -0.7]),
    ],
)
def test_t10_lines_fold_into_the_merged_operator(slope, intercept, weight, bias):
    b1 = [0.1, -0.2, 0.3]
    graph = lifted(Pair([[1.0, 2], [-1, 0], [0.5, 1]], b1, [[1.0, 0, 2], [0, -1, 1]], [1.0, -1]), (2,))
    (site,) = sites_of(graph)
    line = Line(column(slope), column(intercept), -1)
    step = Step("merge", graph.inputs[0].name, "fc2", sites=(site.node,))
    got = merge(apply(graph, [step], {site.node: line})).graph
    (linear,) = [module for module in got.module.modules() if isinstance(module, nn.Linear)]
    torch.testing.assert_close(linear.weight.detach(), torch.tensor(weight, dtype=torch.float32))
    torch.testing.assert_close(linear.bias.detach(), torch.tensor(bias, dtype=torch.float32))


def test_parity_reads_the_branch_s_norm_through_a_sum():
    graph = graph_of("resnet-b")
    found = likelihoods(graph, sites_of(graph), parity=True)
    closing = list(found.values())[2]
    assert torch.equal(closing.mean, graph.module.layers.get_submodule("0.bn2").bias.double())
    plain = likelihoods(graph, sites_of(graph))[closing.node]
    assert isinstance(plain, Refusal)
    assert plain.code == "no-moments"
    assert "calibration data" in plain.reason


def test_statistics_are_used_where_no_norm_lies_in_front():
    graph = graph_of("resnet-b")
    statistics = site_statistics(graph, [graph.samples(8)])
    found = likelihoods(graph, sites_of(graph), statistics)
    assert {one.source for one in found.values()} == {"batch-norm", "measured"}
    assert all(0 <= one.layer <= 0.5 and 0 <= one.cost <= 1 for one in found.values())


def test_a_norm_s_running_variance_counts():
    graph = normed([2.0, 2.0], [1.0, 1.0])
    graph.module.get_submodule("1").running_var.copy_(torch.tensor([0.0, 1.0]))
    found = site_of(graph)
    assert found.std[0] == 0  # a dead channel
    assert found.std[1] == pytest.approx(2, abs=1e-4)
    close(site_of(graph, parity=True).std, [2, 2])


def test_choosing_by_cost_is_never_worse_and_no_better_than_the_best_line():
    graph = randomised_normed()
    found = site_of(graph)
    mixed = [channel_lines(found, *rule).error for rule in (("cost", "mean"), ("cost", "zero"), ("sign", "zero"))]
    assert mixed == sorted(mixed)
    assert mixed[0] == pytest.approx(found.cost)
    assert gaussian_line(nn.ReLU(), found.mean, found.std, found.axis).error <= mixed[0]


def randomised_normed():
    model = nn.Sequential(nn.Conv2d(2, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 2, 1))
    return lifted(randomise(model), (2, 4, 4))


def test_layers_of_every_kind_have_lines_of_the_right_size():
    for name in ("mobilenet", "vit", "mixer", "preact"):
        graph = graph_of(name)
        found = likelihoods(graph, sites_of(graph), site_statistics(graph, [graph.samples(4)]))
        got = linearise(graph, {node: channel_lines(one) for node, one in found.items()})
        assert not sites_of(got)


def test_entropy_of_a_certain_sign_is_zero():
    close(sign_entropy(column([0.0, 0.5, 1.0])), [0, 1, 0])

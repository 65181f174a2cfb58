import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.collapse import Moments, Unknown, expect, gaussian_moments
from tests.compressors.networks import NETWORKS, graph_of, lifted, randomise


def measured(graph, name, batch=4096):
    """Returns mean and variance over the batch of one tensor, for inputs that are what the moments assume."""
    values = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n):
            values[n.name] = super().run_node(n)
            return values[n.name]

    with torch.no_grad():
        Recorder(graph.module).run(*graph.samples(batch))
    value = values[name].double()
    return value.mean(0, keepdim=True), value.var(0, correction=0, keepdim=True)


def named(graph, prefix):
    """Returns the first node whose name starts so."""
    return next(node.name for node in graph.module.graph.nodes if node.name.startswith(prefix))


def assert_measured(graph, name, tolerance=0.1):
    found = gaussian_moments(graph)[name]
    assert isinstance(found, Moments), found
    mean, variance = measured(graph, name)
    spread = variance.mean().sqrt()
    assert float((found.mean - mean).abs().max()) < tolerance * float(spread)
    assert float((found.variance - variance).abs().max()) < 2 * tolerance * float(variance.mean())
    return found


class Independent(nn.Module):
    """Operations on independent inputs, where the moments are exact."""

    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, x):
        return self.operation(x) + 0.5


OPERATIONS = {
    "chunk": lambda x: x.chunk(2, 1)[0] + 2 * x.chunk(2, 1)[1],
    "unbind": lambda x: x.unbind(2)[1] - x.unbind(2)[2],
    "split": lambda x: x.split([1, 3], 1)[1],
    "slice": lambda x: x[:, 1:3, ::2],
    "select": lambda x: x[:, 2],
    "cat": lambda x: torch.cat([3 * x, F.relu(x)], 1),
    "permute": lambda x: (x * torch.arange(1.0, 5).view(4, 1, 1)).permute(0, 2, 3, 1),
    "reshape": lambda x: (x + torch.arange(6.0)).flatten(1),
    "product": lambda x: x[:, :2] * (1 + F.relu(x[:, 2:])),
    "quotient": lambda x: x / 4,
    "reverse": lambda x: 1 - x,
    "negative": lambda x: -F.silu(x),
    "average": lambda x: F.avg_pool2d(x, 2),
    "global": lambda x: F.adaptive_avg_pool2d(F.relu(x), 1),
    "mean": lambda x: F.relu(x).mean((2, 3)),
    "largest": lambda x: F.max_pool2d(x, 2),
    "pad": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_independent_entries(name):
    graph = lifted(Independent(OPERATIONS[name]), (4, 6, 6))
    last = [node for node in graph.module.graph.nodes if node.op != "output"][-1].name
    assert_measured(graph, last)


@pytest.mark.parametrize(
    "operator",
    [nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3, 2, groups=2, bias=False), nn.Conv2d(4, 4, 3, groups=4), nn.Linear(6, 5)],
)
def test_operators_away_from_the_border(operator):
    graph = lifted(Independent(nn.Sequential(operator)), (4, 6, 6))
    last = [node for node in graph.module.graph.nodes if node.op != "output"][-1].name
    assert_measured(graph, last)


def test_a_batch_norm_forgets_what_came_before():
    model = randomise(nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(5), nn.ReLU()))
    graph = lifted(model, (3, 8, 8))
    norm = model[2]
    found = gaussian_moments(graph)[named(graph, "_2")]
    assert isinstance(found, Moments)
    assert found.source == "batch-norm"
    mean, variance = found.along(1, 4)
    torch.testing.assert_close(mean, norm.bias.double())
    shrink = norm.running_var.double() / (norm.running_var.double() + norm.eps)
    torch.testing.assert_close(variance, norm.weight.double() ** 2 * shrink)
    after = gaussian_moments(graph)[named(graph, "_3")]
    assert after.source == "propagated from batch-norm"
    wanted = expect(nn.ReLU(), mean, variance.sqrt())
    torch.testing.assert_close(after.along(1, 4)[0], wanted.mean)
    torch.testing.assert_close(after.along(1, 4)[1], wanted.variance)


def test_a_dead_channel_has_no_variance():
    model = randomise(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()))
    model[1].running_var[2] = 0
    graph = lifted(model, (3, 8, 8))
    assert float(gaussian_moments(graph)[named(graph, "_1")].along(1, 4)[1][2]) == 0


@pytest.mark.parametrize(
    ("norm", "axis", "origin"), [(nn.LayerNorm(6), -1, "layer-norm"), (nn.GroupNorm(2, 4), 1, "group-norm")]
)
def test_other_norms_start_anew(norm, axis, origin):
    with torch.no_grad():
        norm.weight.copy_(torch.rand_like(norm.weight))
        norm.bias.copy_(torch.rand_like(norm.bias))
    graph = lifted(nn.Sequential(nn.ReLU(), norm, nn.ReLU()), (4, 5, 6))
    found = gaussian_moments(graph)[named(graph, "_1")]
    assert found.source == origin
    mean, variance = found.along(axis, 4)
    torch.testing.assert_close(mean, norm.bias.double())
    torch.testing.assert_close(variance, norm.weight.double() ** 2)


def test_what_differs_by_position_counts_as_variance():
    found = Moments(torch.tensor([[[1.0, 3.0]]]).double(), torch.full((1, 1, 1), 4.0).double(), frozenset({"input"}))
    mean, variance = found.along(1, 3)
    assert mean.tolist() == [2]
    assert variance.tolist() == [5]


class Lookup(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.norm, self.head = nn.Embedding(50, 6), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x):
        return F.gelu(self.head(self.table(x)))


def test_look_ups_have_the_moments_of_their_table():
    model = Lookup()
    graph = lifted_tokens(model)
    found = gaussian_moments(graph)
    table = model.table.weight.detach().double()
    lookup = found[named(graph, "embedding")]
    assert lookup.source == "table"
    torch.testing.assert_close(lookup.along(-1, 3)[0], table.mean(0))
    torch.testing.assert_close(lookup.along(-1, 3)[1], table.var(0, correction=0))


def lifted_tokens(model):
    from compressors.lift import lift

    sample = (torch.randint(0, 50, (2, 7)),)
    return lift(torch.export.export(model.eval(), sample, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), "lookup")


def test_attention_is_unknown_until_the_next_norm():
    graph = graph_of("vit")
    found = gaussian_moments(graph)
    attention = found[named(graph, "scaled_dot_product_attention")]
    assert isinstance(attention, Unknown)
    assert "scaled_dot_product_attention" in attention.reason
    assert all(isinstance(found[node.name], Moments) for node in graph.module.graph.nodes if "norms" in node.name)


@pytest.mark.parametrize("name", NETWORKS)
def test_says_something_of_every_tensor(name):
    graph = graph_of(name)
    for moments in gaussian_moments(graph).values():
        if isinstance(moments, Moments):
            assert bool(torch.isfinite(moments.mean).all())
            assert bool((moments.variance >= 0).all())
        else:
            assert moments.reason


def test_a_tensor_added_to_itself_is_unknown():
    graph = lifted(Independent(lambda x: x + x), (4, 6))
    found = gaussian_moments(graph)
    assert any(isinstance(value, Unknown) and "to itself" in value.reason for value in found.values())


def test_the_largest_of_two_gaussians():
    graph = lifted(Independent(lambda x: F.max_pool1d(x, 2)), (4, 6))
    last = [node for node in graph.module.graph.nodes if node.op != "output"][-1].name
    mean, variance = gaussian_moments(graph)[last].along(1, 3)
    torch.testing.assert_close(mean, torch.full_like(mean, 0.5 + 1 / math.sqrt(math.pi)))
    torch.testing.assert_close(variance, torch.full_like(variance, 1 - 1 / math.pi))

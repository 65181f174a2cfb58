"""EASIER's entropy against the specification's oracles (T2 to T5, T7) and against the obvious computation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.collapse import site_statistics
from compressors.errors import OptionError
from compressors.scores.entropy import PARITY, EntropyConfig, count_signs, entropies, lowest
from tests.compressors.networks import PreActivation, graph_of, lifted, randomise

CODE = EntropyConfig("per_batch", "on")
BITS = 0.8112781244591328


class Same(nn.Module):
    """Passes its input through an operator that changes nothing, then an activation; `layout` of the channels."""

    def __init__(self, channels, layout, activation):
        super().__init__()
        self.layout, self.act = layout, activation
        self.first = nn.Conv2d(channels, channels, 1) if layout == "first" else nn.Linear(channels, channels)
        with torch.no_grad():
            weight = torch.eye(channels)
            self.first.weight.copy_(weight[:, :, None, None] if layout == "first" else weight)
            self.first.bias.zero_()

    def forward(self, x):
        return self.act(self.first(x.permute(0, 2, 3, 1) if self.layout == "last" else x)) + 1


def site_entropy(x, layout="plain", config=None, activation=None):
    batches = x if isinstance(x, list) else [x]
    graph = lifted(
        Same(x[0].shape[-1] if layout == "plain" else 2, layout, activation or nn.ReLU()), batches[0].shape[1:]
    )
    (found,) = entropies(graph, [(batch,) for batch in batches], config=config).values()
    return found


LINEAR = torch.tensor([[1, -1, 2, 0], [2, -2, -3, 0], [3, -3, 1, -1], [4, -0.5, 0.5, 5]])
MAPS = torch.tensor([[[[1.0, -1]], [[1, 1]]], [[[1, -1]], [[-1, 1]]]])  # (2, 2, 1, 2)


def test_t2_zero_is_on_in_the_code_and_nothing_in_the_paper():
    code = site_entropy(LINEAR, config=CODE)
    assert code.channels.tolist() == pytest.approx([0, 0, BITS, BITS], abs=1e-8)
    assert code.layer == pytest.approx(0.4056390622, abs=1e-8)
    paper = site_entropy(LINEAR)
    assert paper.channels.tolist() == pytest.approx([0, 0, BITS, 1], abs=1e-8)
    assert paper.layer == pytest.approx(0.4528195311, abs=1e-8)


@pytest.mark.parametrize("layout", ["first", "last"])
def test_t3_t4_rates_are_averaged_over_positions_wherever_the_channels_are(layout):
    found = site_entropy(MAPS, layout, CODE)
    assert found.channels.tolist() == pytest.approx([1, BITS], abs=1e-8)
    assert found.layer == pytest.approx(0.9056390622, abs=1e-8)


def test_t5_batches_of_one_sign_each_hide_the_entropy():
    batches = [torch.ones(2, 1), -torch.ones(2, 1)]
    assert site_entropy(batches, config=CODE).layer == pytest.approx(0, abs=1e-8)
    assert site_entropy(batches).layer == 1


def test_t7_an_in_place_activation_does_not_hide_its_input():
    graph = lifted(Same(2, "plain", nn.ReLU(inplace=True)), (2,))
    batches = [(torch.tensor([[-1.0, 2], [-3, 4]]),)]
    (seen,) = site_statistics(graph, batches).values()
    assert seen.mean_in.tolist() == [-2, 3]
    (found,) = entropies(graph, batches).values()
    assert found.counts.off.tolist() == [2, 0]
    assert found.counts.on.tolist() == [0, 2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_pooling_does_not_depend_on_batches_and_is_never_below_their_mean(seed, sizes):
    z = torch.randn(3, sum(sizes), generator=torch.Generator().manual_seed(seed)).round()
    parts = [count_signs(part) for part in z.split(sizes, 1)]
    pooled = parts[0]
    for part in parts[1:]:
        pooled = pooled + part
    assert torch.equal(pooled.on, (z > 0).sum(1))
    weights = [part.total / pooled.total for part in parts]
    mean = sum(weight * part.entropy("on") for weight, part in zip(weights, parts, strict=True))
    assert bool((pooled.entropy("on") >= mean - 1e-9).all())


def test_agrees_with_the_statistics_of_the_same_site():
    graph = graph_of("mobilenet")
    batches = [graph.samples(3, seed) for seed in (0, 7)]
    found, statistics = entropies(graph, batches), site_statistics(graph, batches)
    assert list(found) == list(statistics)
    for name, one in found.items():
        torch.testing.assert_close(one.channels, statistics[name].entropy, atol=1e-8, rtol=0)


def test_training_mode_uses_the_batch_s_statistics_and_leaves_the_graph_alone():
    graph = graph_of("resnet-a")
    before = {name: value.clone() for name, value in graph.module.state_dict().items()}
    (x,) = graph.samples(6)
    found = entropies(graph, [(x,)], config=PARITY)["relu"]
    with torch.no_grad():
        z = graph.module.bn(graph.module.conv(x)).movedim(1, 0).flatten(1)
        bn = graph.module.bn
        raw = graph.module.conv(x).movedim(1, 0).flatten(1)
        normal = (raw - raw.mean(1, keepdim=True)) / (raw.var(1, correction=0, keepdim=True) + bn.eps).sqrt()
        trained = normal * bn.weight[:, None] + bn.bias[:, None]
    assert (found.counts.on - (trained > 0).sum(1)).abs().max() <= 2  # rounding at zero
    assert (found.counts.on - (z > 0).sum(1)).abs().max() > 20
    assert not graph.module.training
    assert all(torch.equal(value, before[name]) for name, value in graph.module.state_dict().items())


def test_every_call_of_a_shared_module_has_its_own_entropy():
    graph = lifted(randomise(PreActivation()), (3, 8, 8))
    found = entropies(graph, [graph.samples(4)])
    assert len(found) == 4
    assert len({one.layer for one in found.values()}) == 4


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act = nn.Linear(3, 5), nn.GELU()

    def forward(self, x, mask):
        return self.act(self.first(x)) * mask.unsqueeze(-1)


def test_padding_tokens_do_not_count():
    graph = lifted(Tokens(), (4, 3), (4,))
    x, mask = torch.randn(2, 4, 3), torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]])
    (found,) = entropies(graph, [(x, mask)], config=EntropyConfig(mask=graph.inputs[1].name)).values()
    kept = torch.stack([x[0, 0], x[0, 1], x[1, 0]])
    assert torch.equal(found.counts.on, (graph.module.first(kept) > 0).sum(0))
    assert found.counts.total == 3


def test_dead_channels_have_no_entropy():
    counts = count_signs(torch.tensor([[0.0, 0, 0], [math.nan, 1, -1]]))
    assert counts.entropy("dropped").tolist() == pytest.approx([0, 1])
    assert counts.entropy("on")[0] == pytest.approx(0, abs=1e-8)


def test_lowest_goes_first_and_in_the_published_code_all_zeros_with_it():
    assert lowest({"a": 0.2, "b": 0.1, "c": 0.1}) == ("b",)
    assert lowest({"a": 0.0, "b": 0.1, "c": 0.0}) == ("a",)
    assert lowest({"a": 0.0, "b": 0.1, "c": 0.0}, parity=True) == ("a", "c")
    assert lowest({"a": 0.2, "b": 0.1}, parity=True) == ("b",)
    assert lowest({}) == ()


def test_refuses_to_look_at_nothing():
    with pytest.raises(OptionError, match="no batches"):
        entropies(graph_of("resnet-a"), [])

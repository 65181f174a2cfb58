from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressors.collapse import line_axis, site_statistics
from compressors.collapse.statistics import measure
from compressors.errors import OptionError
from tests.compressors.networks import PreActivation, graph_of, lifted, randomise

FIELDS = ("mean_in", "mean_out", "var_in", "var_out", "covariance")
COUNTS = ("positive", "negative", "nonzero_out")


def assert_equal(left, right, tolerance=1e-10):
    assert left.count == right.count
    for name in FIELDS:
        torch.testing.assert_close(getattr(left, name), getattr(right, name), atol=tolerance, rtol=tolerance)
    for name in COUNTS:
        assert torch.equal(getattr(left, name), getattr(right, name))


class Tokens(nn.Module):
    """Two inputs: features of tokens and a mask; the second activation sees no tokens any more."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 4)
        self.late, self.head = nn.Tanh(), nn.Linear(4, 2)

    def forward(self, x, mask):
        y = self.last(self.act(self.first(x))) * mask.unsqueeze(-1)
        return self.head(self.late(y.mean(1)))


def test_equals_the_obvious_computation():
    graph = graph_of("resnet-a")
    batches = [graph.samples(4, seed) for seed in (0, 5)]
    seen = site_statistics(graph, batches)["relu"]
    z = graph.module.bn(graph.module.conv(torch.cat([x for (x,) in batches]))).double()
    z = z.movedim(1, 0).flatten(1)
    s = z.clamp_min(0)
    torch.testing.assert_close(seen.mean_in, z.mean(1), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(seen.var_out, s.var(1, correction=0), atol=1e-6, rtol=1e-6)
    stacked = torch.stack([torch.cov(torch.stack(pair), correction=0)[0, 1] for pair in zip(z, s, strict=True)])
    torch.testing.assert_close(seen.covariance, stacked, atol=1e-6, rtol=1e-6)
    assert torch.equal(seen.positive, (z > 0).sum(1))
    assert seen.count == 8 * 16 * 16


@given(cuts=st.lists(st.integers(0, 40), max_size=5), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_parts_together_equal_one_pass(cuts, seed):
    z = 3 + torch.randn(4, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    s = torch.tanh(z)
    edges = sorted({0, 40, *cuts})
    parts = [measure(z[:, a:b], s[:, a:b], 1) for a, b in pairwise(edges)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merged(part)
    assert_equal(whole, measure(z, s, 1))


def test_an_empty_part_changes_nothing():
    z = torch.randn(3, 10)
    empty, full = measure(z[:, :0], z[:, :0], 1), measure(z, z.relu(), 1)
    assert_equal(empty.merged(full), full)
    assert_equal(full.merged(empty), full)


def test_a_huge_mean_costs_no_digits():
    z = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    far = 1e8 + z
    parts = [measure(far[:, a : a + 100], 2 * far[:, a : a + 100], 1) for a in range(0, 5000, 100)]
    seen = parts[0]
    for part in parts[1:]:
        seen = seen.merged(part)
    # Adding 1e8 itself rounds z to 1e-8.
    torch.testing.assert_close(seen.var_in, z.var(1, correction=0), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(seen.covariance, 2 * z.var(1, correction=0), atol=1e-7, rtol=1e-7)


def test_the_line_is_that_of_least_squares():
    z = torch.randn(3, 200, dtype=torch.float64) * torch.tensor([[1.0], [2.0], [0.1]]) + 0.5
    s = torch.nn.functional.gelu(z)
    seen = measure(z, s, 1)
    line = seen.line()
    for channel in range(3):
        system = torch.stack([z[channel], torch.ones(200)], 1)
        slope, intercept = torch.linalg.lstsq(system, s[channel, :, None]).solution.flatten()
        assert float(line.slope[channel]) == pytest.approx(float(slope), abs=1e-12)
        assert float(line.intercept[channel]) == pytest.approx(float(intercept), abs=1e-12)
    left = s - line.slope[:, None] * z - line.intercept[:, None]
    assert line.error == pytest.approx(float((left**2).sum() / (s**2).sum()), rel=1e-10)
    torch.testing.assert_close(1 - seen.r_squared, (left**2).mean(1) / s.var(1, correction=0), atol=1e-10, rtol=1e-10)


def test_one_line_for_all_channels_equals_least_squares_over_everything():
    z = torch.randn(3, 100, dtype=torch.float64) + torch.tensor([[0.0], [3.0], [-1.0]])
    s = z.relu()
    seen = measure(z, s, 1)
    everything = measure(z.reshape(1, -1), s.reshape(1, -1), -1)
    assert_equal(seen.pooled(), everything)
    assert seen.pooled_line().slope.shape == (1,)
    assert seen.pooled_line().error == pytest.approx(everything.line().error, rel=1e-10)
    assert seen.pooled_line().error >= seen.line().error


def test_errors_of_identity_and_of_a_constant():
    z = torch.randn(3, 100, dtype=torch.float64)
    s = z.relu()
    seen = measure(z, s, 1)
    assert seen.identity_error == pytest.approx(float(((s - z) ** 2).sum() / (s**2).sum()), rel=1e-10)
    off = s - s.mean(1, keepdim=True)
    assert seen.constant_error == pytest.approx(float((off**2).sum() / (s**2).sum()), rel=1e-10)
    assert seen.relative_error(torch.zeros(1), torch.zeros(1)) == pytest.approx(1)


def test_a_channel_that_never_changes_gets_a_constant():
    z = torch.full((2, 50), 0.1)
    seen = measure(z, z.sigmoid(), 1)
    line = seen.line()
    assert torch.equal(line.slope, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(line.intercept, z.sigmoid().double()[:, 0])


def test_dead_outputs_have_no_error():
    z = -torch.rand(2, 50) - 1
    seen = measure(z, z.relu(), 1)
    assert seen.line().error == 0
    assert torch.equal(seen.r_squared, torch.ones(2, dtype=torch.float64))


def test_sign_entropy_leaves_zeros_out():
    # EASIER's rule on four samples of four neurons; the last one holds two zeros, one positive and one negative value.
    x = torch.tensor([[1.0, -1, 2, 0], [2, -2, -3, 0], [3, -3, 1, -1], [4, -0.5, 0.5, 5]]).T
    seen = measure(x, x.relu(), -1)
    torch.testing.assert_close(seen.positive_rate, torch.tensor([1, 0, 0.75, 0.5], dtype=torch.float64))
    torch.testing.assert_close(seen.entropy, torch.tensor([0, 0, 0.8112781245, 1], dtype=torch.float64))
    assert float(seen.entropy.mean()) == pytest.approx(0.4528195311)
    assert seen.zero.tolist() == [0, 0, 0, 2]
    assert seen.nonzero_out.tolist() == [4, 0, 3, 1]


def test_entropy_is_that_of_all_batches_together():
    on, off = (measure(torch.full((1, 2), value), torch.zeros(1, 2), -1) for value in (1.0, -1.0))
    assert float(on.entropy) == float(off.entropy) == 0
    assert float(on.merged(off).entropy) == pytest.approx(1)


def test_mean_and_variance_of_a_known_case():
    z = torch.tensor([[[1.0, -2], [3, -4]], [[5, 1], [-1, 1]]]).flatten(0, 1).T
    seen = measure(z, z.relu(), -1)
    assert seen.mean_in.tolist() == [2, -1]
    torch.testing.assert_close((seen.var_in * 4 / 3).sqrt(), torch.tensor([2.5819888975, 2.4494897428]).double())


def test_every_call_of_a_shared_module_is_a_site_of_its_own():
    graph = lifted(randomise(PreActivation()), (3, 8, 8))
    found = site_statistics(graph, [graph.samples(2)])
    assert len({float(seen.mean_in[0]) for seen in found.values()}) == 4


def test_padding_tokens_are_left_out():
    graph = lifted(Tokens(), (6, 3), (6,))
    x, mask = torch.randn(4, 6, 3), torch.ones(4, 6)
    mask[1, 4:] = mask[3, 2:] = 0
    name = graph.inputs[1].name
    first, late = site_statistics(graph, [(x[:2], mask[:2]), (x[2:], mask[2:])], mask=name).values()
    kept = graph.module.first(x[mask != 0]).double()
    assert first.count == int(mask.sum())
    torch.testing.assert_close(first.mean_in, kept.mean(0), atol=1e-6, rtol=1e-6)
    assert late.count == 4


def test_refuses_a_mask_that_is_no_input():
    with pytest.raises(OptionError, match="no input 'attention'"):
        site_statistics(graph_of("mixer"), [], mask="attention")


def test_refuses_to_calibrate_on_nothing():
    with pytest.raises(OptionError, match="at least one sample"):
        site_statistics(graph_of("mixer"), [])


def test_axis_of_a_line_is_counted_from_the_end_only_for_the_last_one():
    assert line_axis({"a": 1, "b": 3}, "a", 4) == 1
    assert line_axis({"a": 1, "b": 3}, "b", 4) == -1
    assert line_axis({}, "a", 4) is None
    assert line_axis({}, "a", 2) == -1

"""Size rules: oracle 9 of the specification of LayerCollapse and Layer Folding, on real merge regions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compressors.analysis import merge_space
from compressors.plan import Step
from compressors.scores.size import (
    inverted_residual_shrinks,
    linear_pair_shrinks,
    merge_comparison,
    shrinks,
    smallest_option,
)
from compressors.surgery import apply, fold_norms, merge
from tests.compressors.networks import graph_of, lifted

PAIRS = [
    ((768, 3072, 768), 4_722_432, 590_592),
    ((196, 384, 196), 151_108, 38_612),
    ((512, 64, 512), 66_112, 262_656),
]
FOLDS = [(6, 24, 24, 8208, 5184), (6, 32, 32, 14_016, 9216), (6, 64, 96, 64_896, 55_296), (1, 32, 16, 800, 4608)]


def whole(graph):
    """The largest region that can merge with all its operators, and how."""
    found = [(r, option) for r in merge_space(graph).regions for option in r.options if not option.pruned]
    return max(found, key=lambda pair: len(pair[0].operators))


@pytest.mark.parametrize(("widths", "before", "after"), PAIRS)
@pytest.mark.parametrize("tokens", [(), (5,)])
def test_two_linears(widths, before, after, tokens):
    i, h, o = widths
    graph = lifted(nn.Sequential(nn.Linear(i, h), nn.GELU(), nn.Linear(h, o)), (*tokens, i))
    region, option = whole(graph)
    compared = merge_comparison(graph, region, option)
    assert (compared.chain.parameters, compared.merged.parameters) == (before, after)
    assert shrinks(graph, region, option) == linear_pair_shrinks(*widths) == (after < before)
    assert (smallest_option(graph, region) is not None) == (after < before)


@pytest.mark.parametrize(("t", "i", "o", "before", "after"), FOLDS)
def test_inverted_residuals(t, i, o, before, after):
    expand = [nn.Conv2d(i, t * i, 1, bias=False), nn.BatchNorm2d(t * i), nn.ReLU6()] if t > 1 else []
    depth = [nn.Conv2d(t * i, t * i, 3, padding=1, groups=t * i, bias=False), nn.BatchNorm2d(t * i), nn.ReLU6()]
    project = [nn.Conv2d(t * i, o, 1, bias=False), nn.BatchNorm2d(o)]
    graph = lifted(nn.Sequential(*expand, *depth, *project), (i, 4, 4))
    region, option = whole(graph)
    compared = merge_comparison(graph, region, option)
    assert (compared.chain.multiply_adds, compared.merged.multiply_adds) == (16 * before, 16 * after)
    assert shrinks(graph, region, option, "multiply_adds") == (after < before)
    if t > 1:
        assert inverted_residual_shrinks(3, i, o, t) == (after < before)


def test_without_expansion_a_fold_grows():
    assert not inverted_residual_shrinks(3, 32, 16, 1)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 500))
def test_rule_of_two_linears_counts_parameters(i, h, o):
    assert linear_pair_shrinks(i, h, o) == (h * (i + o) + h + o > i * o + o)


@given(st.integers(1, 7), st.integers(1, 99), st.integers(1, 99), st.integers(1, 8))
def test_rule_of_inverted_residuals_counts_multiply_adds(k, i, o, t):
    chain = i * t * i + t * i * k * k + t * i * o
    assert inverted_residual_shrinks(k, i, o, t) == (k * k * i * o < chain)


@pytest.mark.parametrize("name", ["resnet-b", "mobilenet", "vgg", "mixer"])
def test_merged_cost_is_that_of_the_merged_operator(name):
    graph = graph_of(name)
    region, option = whole(graph)
    step = Step("merge", region.entry, region.exit, option.kernel, option.stride, region.sites, padding="first")
    before = sum(p.numel() for p in fold_norms(graph).module.parameters())
    after = sum(p.numel() for p in merge(apply(graph, [step])).graph.module.parameters())
    compared = merge_comparison(graph, region, option)
    assert before - after == compared.chain.parameters - compared.merged.parameters


def test_two_equal_convolutions_grow():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    graph = lifted(model, (8, 9, 9))
    region, option = whole(graph)
    compared = merge_comparison(graph, region, option)
    assert compared.merged.multiply_adds / compared.chain.multiply_adds == pytest.approx(25 / 18)
    assert smallest_option(graph, region, "multiply_adds") is None
    assert smallest_option(graph, region) is None

import math

import pytest

from compressors.analysis.sites import find_sites
from compressors.errors import OptionError
from compressors.gates import at_least, last_fraction, last_modules, most_linear, near_one, rounded
from compressors.shapes import propagate
from tests.compressors.networks import graph_of

AMOUNTS = {"a": 0.9, "b": 0.5, "c": 0.51, "d": 1.04, "e": 0.0, "f": 14.7}


def sites_of(graph):
    return find_sites(graph.module, propagate(graph.module, graph.inputs))


def test_published_decisions():
    assert at_least(AMOUNTS) == ("a", "d", "f")
    assert rounded(AMOUNTS) == ("a", "c", "d", "f")
    assert near_one(AMOUNTS) == ("d",)
    assert near_one({"x": 0.95, "y": 0.951}) == ("y",)
    assert near_one({"x": 0.98}, 0.01) == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gate_that_is_not_finite_is_not_linear(value):
    broken = {"x": value, "y": 0.97}
    assert at_least(broken) == rounded(broken) == near_one(broken) == most_linear(broken, 1) == ("y",)


def test_most_linear_keeps_the_order():
    assert most_linear(AMOUNTS, 2) == ("d", "f")
    assert most_linear({"a": 0.5, "b": 0.5}, 1) == ("a",)
    assert most_linear(AMOUNTS, 0) == ()


def test_the_last_sites_are_rounded_up():
    sites = sites_of(graph_of("vgg"))
    names = tuple(site.node for site in sites)
    assert last_fraction(sites, 0.1) == names[-1:]
    assert last_fraction(sites, 0.5) == names[-4:]
    assert last_fraction(sites, 0) == ()
    assert last_fraction(sites, 1) == names


def test_published_scope_counts_modules():
    graph = graph_of("vgg")
    sites = sites_of(graph)
    modules = [name for name, _ in graph.module.named_modules()]
    found = last_modules(graph, sites, 0.2)
    last = modules[len(modules) - int(0.2 * len(modules)) :]
    assert found == tuple(site.node for site in sites if site.target in last)
    assert 0 < len(found) < len(sites)
    assert last_modules(graph, sites, 0) == ()
    assert last_modules(graph, sites, 1) == tuple(site.node for site in sites)


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_refuses_what_is_no_fraction(fraction):
    graph = graph_of("vgg")
    with pytest.raises(OptionError, match="between 0 and 1"):
        last_fraction(sites_of(graph), fraction)
    with pytest.raises(OptionError, match="between 0 and 1"):
        last_modules(graph, sites_of(graph), fraction)

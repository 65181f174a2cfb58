"""Tensors between the cuts: found by name, read on the same weights, compared on one scale."""

import pytest
import torch

from compressors.surgery import apply
from compressors.tune.features import difference, shared_positions, with_features
from tests.compressors.networks import graph_of
from tests.compressors.problems import problem_of, started


def test_positions_are_those_that_both_networks_compute() -> None:
    problem = problem_of("resnet-b", 0.7)
    whole = shared_positions(problem.graph, problem.graph.module)
    assert len(whole) > 2
    assert "head" not in whole
    cut = apply(problem.graph, started(problem).floor().steps).module
    left = shared_positions(problem.graph, cut)
    assert set(left) < set(whole)
    assert set(left) <= {node.name for node in cut.graph.nodes}


def test_the_output_stays_and_the_tensors_come_with_it() -> None:
    graph = graph_of("resnet-b")
    names = shared_positions(graph, graph.module)
    x = graph.samples(3, 1)
    with torch.no_grad():
        output, features = with_features(graph.module, names)(*x)
        torch.testing.assert_close(output, graph.module(*x))
    assert len(features) == len(names)
    assert all(len(feature) == 3 for feature in features)


def test_both_modules_share_their_weights() -> None:
    graph = graph_of("resnet-b").copied()
    twin = with_features(graph.module, ())
    ours = {parameter.data_ptr() for parameter in graph.module.parameters()}
    assert {parameter.data_ptr() for parameter in twin.parameters()} == ours
    graph.module.train()
    assert all(child.training for child in twin.children() if list(child.parameters()))


def test_difference_is_relative_and_averaged() -> None:
    torch.manual_seed(0)
    small, large = torch.randn(4, 3, 5, 5), 100 * torch.randn(4, 8, 2, 2)
    assert difference([small, large], [small, large]) == 0
    constant = torch.full_like(large, float(large.mean()))
    assert difference([small, constant], [small, large]) == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(difference([1.1 * large], [large]), difference([1.1 * large / 7], [large / 7]))

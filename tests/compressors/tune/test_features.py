"""Tensors between the cuts: found by name, read on the same weights, compared on one scale."""

import pytest
import torch

from compressors.surgery import apply
from compressors.tune.features import Features, difference, folded, shared_positions, with_features
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
    assert len(features.tensors) == len(names)
    assert all(len(feature) == 3 for feature in features.tensors)


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
    wanted = Features((small, large))
    assert difference(wanted, wanted) == 0
    constant = torch.full_like(large, float(large.mean()))
    assert difference(Features((small, constant)), wanted) == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(
        difference(Features((1.1 * large,)), Features((large,))),
        difference(Features((1.1 * large / 7,)), Features((large / 7,))),
    )


@pytest.mark.parametrize("mean", [0.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(37, 16, 24, 24), (5, 7, 33), (3, 4)])
def test_difference_and_its_gradient_are_those_of_the_formula(
    shape: tuple[int, ...], dtype: torch.dtype, mean: float
) -> None:
    torch.manual_seed(0)
    wanted = (torch.randn(shape) + mean).to(dtype)
    mine = (wanted.float() + 0.3 * torch.randn(shape)).to(dtype).requires_grad_()
    found = difference(Features((mine,)), Features((wanted,)))
    (gradient,) = torch.autograd.grad(3 * found, mine)
    exact, there = mine.detach().double().requires_grad_(), wanted.double()
    formula = (exact - there).square().mean() / there.var(correction=0)
    (expected,) = torch.autograd.grad(3 * formula, exact)
    assert gradient.dtype == dtype
    torch.testing.assert_close(found.double(), formula, rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient.double(), expected, rtol=0.01 if dtype == torch.bfloat16 else 1e-4, atol=1e-12)


def test_padding_gets_no_gradient() -> None:
    torch.manual_seed(0)
    mine, wanted = torch.randn(2, 3, 4).requires_grad_(), torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    (gradient,) = torch.autograd.grad(difference(Features((mine,)), Features((wanted,)), mask), mine)
    assert bool((gradient[~mask] == 0).all())
    assert bool((gradient[mask] != 0).all())


def test_a_teacher_gives_the_same_with_its_norms_folded() -> None:
    graph = graph_of("resnet-b")
    names = shared_positions(graph, graph.module)
    teacher = folded(graph, names)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in teacher.modules())
    x = graph.samples(3, 1)
    with torch.no_grad():
        output, features = with_features(teacher, names)(*x)
        expected, references = with_features(graph.module, names)(*x)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(features.tensors, references.tensors, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_teacher_keeps_its_norms_where_one_of_them_is_asked_for() -> None:
    graph = graph_of("resnet-b")
    norm = next(node.name for node in graph.module.graph.nodes if "bn" in node.name)
    assert norm in {node.name for node in folded(graph, [norm]).graph.nodes}

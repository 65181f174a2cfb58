from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from compressors.analysis.sites import find_sites
from compressors.gates import GateRecipe, GateRegulariser, amounts, insert_gates, remove_gates
from compressors.gates.insert import gates_of
from compressors.gates.regulariser import COLLAPSE, COLLAPSE_DECOUPLED, FOLDING
from compressors.shapes import propagate
from compressors.tune.regulariser import Regulariser
from tests.compressors.networks import graph_of


def gated(start=0.02, name="vgg"):
    graph = graph_of(name)
    return insert_gates(graph, [s.node for s in find_sites(graph.module, propagate(graph.module, graph.inputs))], start)


def set_amounts(graph, *values):
    for gate, value in zip(gates_of(graph.module).values(), values, strict=False):
        gate.amount.data.fill_(value)


def penalty(graph, recipe):
    return float(GateRegulariser(recipe).penalty(graph.module).detach())


def train(graph, regulariser, steps, task=1.0):
    """A few steps as the tuner makes them."""
    module, (x,) = graph.module, graph.samples(8)
    with torch.no_grad():
        wanted = module(x)
    own = regulariser.parameter_groups(module)
    known = {id(p) for group in own for p in group.parameters}
    groups = [{"params": [p for p in module.parameters() if id(p) not in known], "weight_decay": 1e-4}]
    groups += [{"params": g.parameters, "weight_decay": g.weight_decay, "lr": g.rate or 0.01} for g in own]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (task * F.mse_loss(module(x), wanted) + regulariser.penalty(module)).backward()
        optimizer.step()
        regulariser.after_step(module)
    module.eval()


def test_penalty_is_the_weighted_sum():
    graph = gated(0.25)
    names = list(amounts(graph.module))
    assert penalty(graph, GateRecipe("collapse", 0.25)) == pytest.approx(7 * 0.25 * 0.5625)
    assert penalty(graph, GateRecipe("folding", 0.25)) == pytest.approx(7 * 0.234375)
    weights = dict.fromkeys(names, 0.0) | {names[0]: 2.0}
    assert penalty(graph, GateRecipe(weights=weights)) == pytest.approx(2 * 0.25 * 0.5625)


def test_nothing_is_pulled_while_the_gates_save_what_is_needed():
    graph = gated(0.5)
    names = list(amounts(graph.module))
    savings = dict.fromkeys(names, 0.0) | {names[0]: 4.0, names[1]: 2.0}
    for needed, pulled in ((2.9, False), (3.1, True)):
        recipe = GateRecipe("folding", 0.25, savings=savings, needed=needed)
        assert (penalty(graph, recipe) > 0) == pulled
        decoupled = graph.copied()
        GateRegulariser(replace(recipe, penalty="none", pull=0.1)).after_step(decoupled.module)
        assert (amounts(decoupled.module) != amounts(graph.module)) == pulled


def test_gates_have_a_rate_of_their_own_and_no_decay():
    graph = gated()
    (group,) = GateRegulariser(GateRecipe(learning_rate=0.5)).parameter_groups(graph.module)
    assert (group.rate, group.weight_decay, len(group.parameters)) == (0.5, 0.0, 7)
    (group,) = GateRegulariser().parameter_groups(graph.module)
    assert group.rate is None


def test_training_moves_gates_to_one_and_keeps_them_there():
    graph = gated()
    regulariser = GateRegulariser(GateRecipe(strength=1.0, learning_rate=0.05))
    train(graph, regulariser, 40)
    found = amounts(graph.module).values()
    assert all(0.8 < amount <= 1 for amount in found)
    result = remove_gates(graph, amounts(graph.module))
    assert not find_sites(result.module, propagate(result.module, result.inputs))


def test_a_folding_gate_does_not_leave_zero_by_itself():
    graph, started = gated(0.0), gated(0.02)
    regulariser = GateRegulariser(replace(FOLDING, learning_rate=0.1))
    train(graph, regulariser, 10, task=0.0)
    train(started, regulariser, 10, task=0.0)
    assert set(amounts(graph.module).values()) == {0.0}
    assert min(amounts(started.module).values()) > 0.02


@pytest.mark.parametrize(
    ("clamp", "wanted"), [("unit", [0.0, 0.5, 1.0]), ("positive", [0.0, 0.5, 14.7]), ("none", [-0.3, 0.5, 14.7])]
)
def test_range_after_a_step(clamp, wanted):
    graph = gated()
    set_amounts(graph, -0.3, 0.5, 14.7)
    GateRegulariser(GateRecipe(clamp=clamp)).after_step(graph.module)
    assert list(amounts(graph.module).values())[:3] == pytest.approx(wanted)


def test_decoupled_pull_is_that_of_the_published_optimiser():
    graph = gated(0.01)
    names = list(amounts(graph.module))
    regulariser = GateRegulariser(replace(COLLAPSE_DECOUPLED, weights={names[1]: 0.0}))
    for wanted in (0.01198, 0.01395604, 0.01592812792):
        regulariser.after_step(graph.module)
        assert amounts(graph.module)[names[0]] == pytest.approx(wanted, abs=1e-8)
    assert amounts(graph.module)[names[1]] == pytest.approx(0.01)
    assert float(regulariser.penalty(graph.module)) == 0


def test_published_recipes():
    assert (FOLDING.penalty, FOLDING.strength, FOLDING.clamp) == ("folding", 0.25, "positive")
    assert (COLLAPSE.penalty, COLLAPSE.strength, COLLAPSE.clamp) == ("collapse", 0.2, "none")


def test_is_a_regulariser():
    promised: Regulariser = GateRegulariser()
    methods = [name for name in vars(Regulariser) if not name.startswith("_")]
    assert sorted(methods) == ["after_step", "metrics", "parameter_groups", "penalty"]
    assert all(callable(getattr(promised, name)) for name in methods)


def test_figures():
    graph = gated()
    set_amounts(graph, 0.91, 0.95, 1, 0, 0, 0, 0)
    found = GateRegulariser().metrics(graph.module)
    assert found == pytest.approx({"gates": 7, "gates_mean": 2.86 / 7, "gates_least": 0, "gates_linear": 3})


def test_without_gates_there_is_nothing_to_do():
    module = graph_of("vgg").module
    regulariser = GateRegulariser()
    assert float(regulariser.penalty(module)) == 0
    assert regulariser.parameter_groups(module) == ()
    assert regulariser.metrics(module) == {}
    regulariser.after_step(module)

"""What every strategy promises, on a device whose clock is arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from compressors.plan import Plan
from compressors.problem import Problem
from compressors.strategies import STRATEGIES
from compressors.surgery import apply, fold_norms
from compressors.table import structure
from tests.compressors.problems import ShortTrainer, problem_of, started
from tests.compressors.samples import CountingTimer

NETWORKS = {
    "layerfit": ("resnet-b", 0.8),
    "layer_merge": ("resnet-b", 0.8),
    "auto": ("resnet-b", 0.8),
    "easier": ("mobilenet", 0.85),
    "tlc": ("mobilenet", 0.85),
    "layer_folding": ("mobilenet", 0.85),
    "layer_collapse": ("mixer", 0.8),
}


@pytest.fixture(scope="module", params=list(STRATEGIES))
def searched(request: pytest.FixtureRequest) -> tuple[str, Problem, list]:
    """One search that several tests look at, and the weights of the original before it."""
    network, share = NETWORKS[request.param]
    problem = problem_of(network, share)
    before = {name: value.clone() for name, value in problem.graph.module.state_dict().items()}
    candidates = list(started(problem, request.param).candidates(problem.budget_seconds))
    assert all(torch.equal(value, before[name]) for name, value in problem.graph.module.state_dict().items())
    return request.param, problem, candidates


def test_the_budget_is_met_by_the_structure_that_is_measured(searched) -> None:
    _, problem, (best, *_) = searched
    assert best.plan.steps
    assert best.seconds <= problem.budget_seconds
    again = problem.timer.networks([(structure(best.graph, ()).module, problem.graph.inputs)])
    assert again == pytest.approx([best.seconds], rel=0.02)


def test_the_score_is_that_of_the_graph(searched) -> None:
    _, problem, candidates = searched
    assert all(math.isfinite(candidate.score.divergence) for candidate in candidates)
    ranked = [(candidate.seconds > problem.budget_seconds, candidate.score.divergence) for candidate in candidates]
    assert ranked == sorted(ranked)


def test_the_plan_is_json_names_its_strategy_and_is_replayable(searched) -> None:
    name, problem, (best, *_) = searched
    plan = Plan.from_json(best.plan.to_json())
    assert plan == best.plan
    assert name in {plan.strategy, "auto"}
    replayed = apply(problem.graph, plan.steps)
    assert [node.name for node in replayed.module.graph.nodes] == [node.name for node in best.graph.module.graph.nodes]


def test_what_ships_computes_what_was_scored(searched) -> None:
    _, problem, (best, *_) = searched
    inputs = problem.graph.samples(4, seed=7)
    with torch.no_grad():
        trained, deployed = best.graph.module(*inputs), fold_norms(best.graph).module(*inputs)
    assert torch.allclose(trained, deployed, rtol=1e-4, atol=1e-5 * float(trained.abs().max()))


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_an_impossible_budget_is_answered_with_the_floor(name: str) -> None:
    problem = problem_of(NETWORKS[name][0], 0.01)
    search = started(problem, name)
    floor = search.floor()
    assert floor.predicted_seconds > problem.budget_seconds
    best, *others = search.candidates(problem.budget_seconds)
    assert best.plan.steps == floor.steps or name == "auto"
    assert all(candidate.seconds > problem.budget_seconds for candidate in (best, *others))


@pytest.mark.parametrize("name", ["easier", "tlc"])
def test_the_network_is_trained_between_rounds(name: str) -> None:
    problem = problem_of("mobilenet", 0.85)
    trainer = ShortTrainer(problem.graph)
    trained = problem_of("mobilenet", 0.85, train=trainer)
    candidates = started(trained, name, rounds=3, refit="none").candidates(trained.budget_seconds)
    assert trainer.shares == [1 / 3, 1 / 2]
    assert candidates[0].seconds <= trained.budget_seconds


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_the_same_seed_gives_the_same_plan(name: str) -> None:
    network, share = NETWORKS[name]
    first, second = (
        started(problem, name).candidates(problem.budget_seconds)[0]
        for problem in (problem_of(network, share), problem_of(network, share))
    )
    assert first.plan == second.plan
    states = (first.graph.module.state_dict(), second.graph.module.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("name", ["layer_folding", "layer_collapse"])
def test_gates_are_trained_and_gone_afterwards(name: str) -> None:
    network, share = NETWORKS[name]
    original = problem_of(network, share)
    trainer = ShortTrainer(original.graph)
    problem = problem_of(network, share, train=trainer)
    best, *_ = started(problem, name, refit="none").candidates(problem.budget_seconds)
    assert trainer.shares == [0.5]
    assert best.seconds <= problem.budget_seconds
    assert not any("gate" in key for key in best.graph.module.state_dict())


def test_auto_finds_what_layerfit_finds() -> None:
    network, share = NETWORKS["auto"]
    first, second = (problem_of(network, share) for _ in range(2))
    alone = started(first, "layerfit").candidates(first.budget_seconds)
    found = started(second, "auto").candidates(second.budget_seconds)
    assert [one.plan for one in found] == [one.plan for one in alone]
    assert [one.score for one in found] == [one.score for one in alone]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_fits_end_when_the_time_is_up(name: str) -> None:
    """What is begun is brought to an end on few samples: a network that can be shipped is better than none."""
    network, share = NETWORKS[name]
    problem = problem_of(network, share, seconds_left=lambda: 0.0, clock=lambda: 0.0)
    found = started(problem, name).candidates(problem.budget_seconds)
    assert found
    assert found[0].score.divergence < math.inf


class Bent(CountingTimer):
    """A device on which cuts save less at first than a line through the original and the floor would have it."""

    def networks(self, networks):
        return [1e-3 * (1e3 * seconds) ** 0.3 for seconds in super().networks(networks)]


@pytest.mark.parametrize("share", [0.8, 0.7])
def test_a_plan_that_is_not_fast_enough_is_corrected_even_when_the_time_is_up(share: float) -> None:
    """Otherwise all that can go would go, for the sake of a few seconds."""
    problem = problem_of("resnet-b", share, Bent(), seconds_left=lambda: 0.0, clock=lambda: 0.0)
    search = started(problem)
    best, *_ = search.candidates(problem.budget_seconds)
    assert best.seconds <= problem.budget_seconds
    assert best.plan.steps != search.floor().steps


def test_auto_begins_nothing_new_when_the_time_is_up() -> None:
    network, share = NETWORKS["auto"]
    problem = problem_of(network, share, seconds_left=lambda: 0.0)
    found = started(problem, "auto").others(problem).candidates(problem.budget_seconds)
    assert {candidate.plan.strategy for candidate in found} == {"layer_merge"}


def test_all_strategies_wait_behind_auto_those_that_train_behind_those_that_do_not() -> None:
    network, share = NETWORKS["auto"]
    problem = problem_of(network, share)
    asked, search = [], started(problem, "auto")
    while (search := search.others(problem)) is not None:
        found = search.candidates(problem.budget_seconds)
        asked.append({candidate.plan.strategy for candidate in found})
    planning, training = asked
    assert {"layer_merge"} < planning <= {"layer_merge", "easier", "tlc"}
    assert {"layer_folding"} <= training <= {"layer_folding", "layer_collapse"}

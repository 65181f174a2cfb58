"""What trained gates say about their activations."""

import math

import pytest
import torch

from compressors.gates import GateRecipe
from compressors.gates.insert import gates_of
from compressors.graph import Graph
from compressors.strategies import find
from compressors.strategies.gated import Gates
from compressors.strategies.rounds import State, round_cuts
from compressors.table import measure_table
from tests.compressors.problems import ShortTrainer, problem_of


class Destroying:
    """A trainer that leaves one gate at a value, and all others near 1."""

    def __init__(self, name: str, value: float) -> None:
        self.name, self.value = name, value

    def __call__(self, candidate: Graph, share: float, regulariser=None, seconds: float = math.inf) -> Graph:
        assert 0 < share <= 1 < seconds
        assert regulariser is not None
        trained = candidate.copied()
        with torch.no_grad():
            for name, gate in gates_of(trained.module).items():
                gate.amount.fill_(self.value if name == self.name else 0.97)
        return trained


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_activation_whose_gate_is_not_finite_is_the_last_to_go(value: float) -> None:
    sites = problem_of("mobilenet", 0.9).analysis.sites
    problem = problem_of("mobilenet", 0.9, train=Destroying(sites[0].node, value))
    options = find("layer_folding").parse({"max_kernel": 3, "way": "identity"})
    alternatives = measure_table(problem, round_cuts(options, problem)).alternatives
    method = Gates(problem, options, GateRecipe("folding"))
    scores = dict(method.look(State(problem.graph, problem.graph), sites, alternatives, 1.0).scores)
    assert scores.pop(sites[0].node) == 1.0
    assert list(scores.values()) == pytest.approx([0.03] * len(scores))


def test_without_time_to_train_gates_what_fits_a_line_best_goes_first() -> None:
    """The trainer has no time, and gives back what it was given."""
    problems = [problem_of("mobilenet", 0.9, train=train) for train in (lambda given, *_, **__: given, None)]
    options = find("layer_folding").parse({"max_kernel": 3})
    found = []
    for problem in problems:
        alternatives = measure_table(problem, round_cuts(options, problem)).alternatives
        method = Gates(problem, options, GateRecipe("folding"))
        state = State(problem.graph, problem.graph)
        look = method.look(state, problem.analysis.sites, alternatives, 1.0)
        assert look.state is state
        found.append(look.scores)
    assert found[0] == found[1]
    assert len(set(found[0].values())) > 1


def test_weights_that_were_trained_with_gates_are_kept_without_them() -> None:
    problem = problem_of("mobilenet", 0.9)
    problem = problem_of("mobilenet", 0.9, train=ShortTrainer(problem.graph))
    options = find("layer_folding").parse({"max_kernel": 3, "way": "identity"})
    alternatives = measure_table(problem, round_cuts(options, problem)).alternatives
    start = State(problem.graph, problem.graph)
    method = Gates(problem, options, GateRecipe("folding"))
    trained = method.look(start, problem.analysis.sites, alternatives, 1.0).state.restored.module.state_dict()
    before = problem.graph.module.state_dict()
    assert before.keys() == trained.keys()
    assert any(not torch.equal(value, trained[key]) for key, value in before.items() if key.endswith("weight"))


@pytest.mark.parametrize(("left", "most"), [(60.0, 30.0), (-5.0, 0.0), (math.inf, math.inf)])
def test_gates_leave_half_of_the_time_for_planning_to_plans(left: float, most: float) -> None:
    granted: list[float] = []

    def train(candidate: Graph, share: float, regulariser=None, seconds: float = math.inf) -> Graph:
        assert 0 < share < 1
        assert regulariser is not None
        granted.append(seconds)
        return candidate

    problem = problem_of("mobilenet", 0.9, train=train, seconds_left=lambda: left)
    options = find("layer_folding").parse({"max_kernel": 3})
    alternatives = measure_table(problem, round_cuts(options, problem)).alternatives
    method = Gates(problem, options, GateRecipe("folding"))
    method.look(State(problem.graph, problem.graph), problem.analysis.sites, alternatives, 1.0)
    assert granted == [most]

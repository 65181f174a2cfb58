"""The papers' own loops: what goes, in which order, and what comes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.analysis import analyse
from compressors.errors import OptionError
from compressors.gates import amounts
from compressors.gates.insert import gates_of
from compressors.graph import Graph
from compressors.plan import Plan
from compressors.problem import Problem, Search
from compressors.score import Reference
from compressors.strategies import find
from compressors.strategies.parity import merge_cuts
from compressors.surgery import apply, fold_norms
from compressors.table import measure_table, structure
from compressors.tune import Recipe
from tests.compressors.architectures import architecture
from tests.compressors.networks import lifted
from tests.compressors.problems import ShortTrainer, problem_of, problem_with
from tests.compressors.samples import random_samples

NETWORKS = {
    "easier": ("mobilenet", 0.9),
    "tlc": ("mobilenet", 0.93),
    "layer_folding": ("mobilenet", 0.9),
    "layer_collapse": ("mixer", 0.8),
    "layer_merge": ("resnet-b", 0.8),
}
LOOPS = ["easier", "tlc"]


class Arriving:
    """A trainer that changes nothing but gates: those named arrive. Remembers what it was given."""

    def __init__(self, *names: str, at: float = 0.97) -> None:
        self.names, self.at = names, at
        self.given: list[Graph] = []
        self.penalties: list[float] = []

    def __call__(
        self,
        candidate: Graph,
        share: float,
        regulariser=None,
        seconds: float = math.inf,
        recipe: Recipe | None = None,  # noqa: ARG002 - of the protocol
    ) -> Graph:
        assert 0 < share <= 1
        assert seconds >= 0
        self.given.append(candidate)
        self.penalties.append(0.0 if regulariser is None else float(regulariser.penalty(candidate.module).detach()))
        trained = candidate.copied()
        with torch.no_grad():
            for name, gate in gates_of(trained.module).items():
                if name in self.names:
                    gate.amount.fill_(self.at)
        return trained


class Clocked:
    """A trainer on a clock that only it moves; takes what `service/pipeline` would grant, and changes nothing."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self.took: list[float] = []

    def __call__(
        self,
        candidate: Graph,
        share: float,
        regulariser=None,  # noqa: ARG002 - of the protocol
        seconds: float = math.inf,
        recipe: Recipe | None = None,  # noqa: ARG002 - of the protocol
    ) -> Graph:
        self.took.append(min(seconds, 0.9 * share * self.left))
        self.left -= self.took[-1]
        return candidate


class Bottleneck(nn.Module):
    """A bottleneck with a projection in its shortcut, between a stem and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 12, 3, padding=1), nn.Linear(16, 5)
        self.reduce, self.spread, self.expand = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 16, 1)
        self.down = nn.Conv2d(12, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        y = self.expand(F.relu(self.spread(F.relu(self.reduce(x)))))
        return self.head(F.relu(y + self.down(x)).mean((2, 3)))


def main_path(operators: Sequence[str]) -> int:
    """The specification's count: convolutions of the main path; a projection is none."""
    return sum("down" not in name for name in operators)


def in_parity(problem: Problem, name: str) -> Search:
    strategy = find(name)
    return strategy.start(problem, strategy.parse({"parity": True, "max_kernel": 3, "selection_samples": 32}))


def trained_problem(name: str, share: float | None = None, **changes) -> Problem:
    network, usual = NETWORKS[name]
    original = problem_of(network, usual).graph
    arriving = tuple(node.name for node in original.module.graph.nodes)
    trainer = Arriving(*arriving) if "layer_" in name else ShortTrainer(original)
    return problem_of(network, share or usual, **({"train": trainer} | changes))


def gone(plan: Plan) -> set[str]:
    """What a plan passes by: `remove` steps of parity cover one activation."""
    return {site for step in plan.steps for site in (step.sites or (step.exit,))}


@pytest.fixture(scope="module", params=list(NETWORKS))
def searched(request: pytest.FixtureRequest) -> tuple[str, Problem, list]:
    problem = trained_problem(request.param)
    before = {key: value.clone() for key, value in problem.graph.module.state_dict().items()}
    candidates = list(in_parity(problem, request.param).candidates(problem.budget_seconds))
    assert all(torch.equal(value, before[key]) for key, value in problem.graph.module.state_dict().items())
    return request.param, problem, candidates


def test_the_plan_is_json_and_replayable_and_its_structure_is_what_was_measured(searched) -> None:
    name, problem, candidates = searched
    assert candidates
    for candidate in candidates:
        plan = Plan.from_json(candidate.plan.to_json())
        assert plan == candidate.plan
        assert plan.strategy == name
        assert not plan.refit
        replayed = [node.name for node in apply(problem.graph, plan.steps).module.graph.nodes]
        assert replayed == [node.name for node in candidate.graph.module.graph.nodes]
        again = problem.timer.networks([(structure(candidate.graph, ()).module, problem.graph.inputs)])
        assert again == pytest.approx([candidate.seconds], rel=0.02)


def test_the_best_is_within_the_budget_and_ships_what_was_scored(searched) -> None:
    _, problem, (best, *_) = searched
    assert best.seconds <= problem.budget_seconds
    inputs = problem.graph.samples(4, seed=7)
    with torch.no_grad():
        trained, deployed = best.graph.module(*inputs), fold_norms(best.graph).module(*inputs)
    assert torch.allclose(trained, deployed, rtol=1e-4, atol=1e-5 * float(trained.abs().max()))


def test_candidates_within_the_budget_come_first(searched) -> None:
    _, problem, candidates = searched
    assert all(math.isfinite(candidate.score.divergence) for candidate in candidates)
    over = [candidate.seconds > problem.budget_seconds for candidate in candidates]
    assert over == sorted(over)


@pytest.mark.parametrize(("name", "share"), [("tlc", 0.99), ("layer_merge", 0.8)])
def test_the_same_seed_gives_the_same_plan(name: str, share: float) -> None:
    problems = [trained_problem(name, share) for _ in range(2)]
    first, second = (in_parity(problem, name).candidates(problem.budget_seconds) for problem in problems)
    assert [one.plan for one in first] == [one.plan for one in second]


@pytest.mark.parametrize("name", list(NETWORKS))
def test_what_does_not_train_is_refused_but_has_a_floor(name: str) -> None:
    network, share = NETWORKS[name]
    search = in_parity(problem_of(network, share), name)
    assert search.floor().predicted_seconds is not None
    with pytest.raises(OptionError, match="does not train"):
        search.candidates(1.0)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("easier", {"rounds": 2}),
        ("easier", {"way": "fitted"}),
        ("tlc", {"channels": "fitted"}),
        ("layer_folding", {"refit": "none"}),
        ("layer_collapse", {"convolutions": True}),
        ("layer_merge", {"refinements": 4}),
    ],
)
def test_what_contradicts_the_paper_is_refused(name: str, option: dict[str, object]) -> None:
    (word,) = option
    with pytest.raises(OptionError, match=f"has no {word}"):
        find(name).parse({"parity": True} | option)
    assert find(name).parse(option).model_dump()["parity"] is False


@pytest.mark.parametrize("name", LOOPS)
def test_activations_go_one_after_another_until_the_floor(name: str) -> None:
    problem = trained_problem(name, 0.01)
    search = in_parity(problem, name)
    found = search.candidates(problem.budget_seconds)
    sets = sorted((gone(one.plan) for one in found), key=len)
    assert all(small < large for small, large in pairwise(sets))
    assert sets[-1] == {site.node for site in problem.analysis.sites}
    assert found[0].plan.steps == search.floor().steps
    # As much of the time is left for fine-tuning as each training had.
    assert problem.train.shares == pytest.approx([1 / (len(sets) + 1 - k) for k in range(len(sets))])


@pytest.mark.parametrize("name", LOOPS)
def test_the_loop_ends_when_three_networks_in_a_row_break_the_accuracy_floor(name: str) -> None:
    problem = trained_problem(name, 0.01)
    everything = in_parity(problem, name).candidates(problem.budget_seconds)
    broken = replace(problem, holds=lambda score: score.divergence < 1e-9)
    kept = in_parity(broken, name).candidates(problem.budget_seconds)
    assert len(everything) > len(kept) == 3


def test_a_smaller_budget_goes_on_from_where_the_last_stopped() -> None:
    problem = trained_problem("easier", 0.99)
    search = in_parity(problem, "easier")
    first = search.candidates(problem.baseline_seconds * 0.995)
    trainings = len(problem.train.shares)
    second = search.candidates(problem.baseline_seconds * 0.97)
    assert len(problem.train.shares) == len(second) > trainings == len(first)


def test_time_that_is_up_ends_the_loop_after_one_network() -> None:
    problem = trained_problem("easier", 0.01, seconds_left=lambda: 0.0)
    assert len(in_parity(problem, "easier").candidates(problem.budget_seconds)) == 1


@pytest.mark.parametrize("name", LOOPS)
def test_trainings_share_the_time_of_planning_evenly(name: str) -> None:
    clock = Clocked(1000.0)
    problem = trained_problem(name, 0.01, train=clock, seconds_left=lambda: clock.left - 500.0)
    sites = {site.node for site in problem.analysis.sites}
    found = in_parity(problem, name).candidates(problem.budget_seconds)
    assert max((gone(one.plan) for one in found), key=len) == sites
    # With one site gone after each, all get the same; where several go together, those that follow get more.
    assert min(clock.took) >= 500.0 / len(sites) - 1e-6
    assert sum(clock.took) <= 500.0 + 1e-6


def test_easier_takes_the_least_entropy_of_a_batch_in_training_mode() -> None:
    problem = problem_of("mobilenet", 0.999, train=Arriving())
    found = in_parity(problem, "easier").candidates(problem.budget_seconds)
    first = min(found, key=lambda one: len(gone(one.plan)))
    inputs = {site.node: [] for site in problem.analysis.sites}
    module = problem.graph.copied().module.train()
    for site in problem.analysis.sites:
        module.get_submodule(site.target).register_forward_pre_hook(
            lambda _m, args, node=site.node: inputs[node].append(args[0].detach().clone())
        )
    with torch.no_grad():
        module(torch.stack([problem.calibration[index][0][0] for index in range(64)]))
    entropy = {}
    for node, (z,) in inputs.items():
        on = (z >= 0).double().mean((0, 2, 3)).clamp(1e-10, 1)
        off = (z < 0).double().mean((0, 2, 3)).clamp(1e-10, 1)
        entropy[node] = float((-on * on.log2() - off * off.log2()).mean())
    assert gone(first.plan) == {min(entropy, key=lambda node: entropy[node])}


def test_tlc_keeps_masked_channels_at_zero_while_it_trains() -> None:
    problem = problem_of("mobilenet", 0.99)
    trainer = ShortTrainer(problem.graph, steps=2)
    labelled = random_samples(problem.graph, 32, 2, labelled=True)
    problem = problem_of("mobilenet", 0.01, train=trainer, selection=labelled)
    best = in_parity(problem, "tlc").candidates(problem.budget_seconds)[0]
    beta = problem.graph.module.get_submodule("stem.1").bias
    weight = next(value for key, value in best.graph.module.state_dict().items() if key.endswith("stem.0.weight"))
    zero = weight.flatten(1).abs().sum(1) == 0
    assert bool((beta <= 0).any())
    assert bool((beta > 0).any())
    # Its turn may come after training has moved the norm a little; ShortTrainer moves it by far less than this.
    sure = beta.abs() > 0.02
    assert torch.equal(zero[sure], (beta <= 0)[sure])


def test_folding_starts_at_the_activation_and_takes_what_passes_the_threshold() -> None:
    trainer = Arriving("blocks_0_expand_2", "blocks_0_depth_2")
    problem = problem_of("mobilenet", 0.9, train=trainer)
    (best,) = in_parity(problem, "layer_folding").candidates(problem.budget_seconds)
    (given,) = trainer.given
    assert set(amounts(given.module).values()) == {0.0}
    # |1 - 0^2| per gate, a quarter of each.
    assert trainer.penalties == pytest.approx([0.25 * len(problem.analysis.sites)])
    assert gone(best.plan) == {"blocks_0_expand_2", "blocks_0_depth_2"}


@pytest.mark.parametrize(("network", "goes"), [("vgg", True), ("resnet-b", False)])
def test_half_way_is_enough_for_folding_on_a_plain_network_and_not_on_a_residual_one(network: str, goes: bool) -> None:
    site = problem_of(network, 0.9).analysis.sites[0].node
    problem = problem_of(network, 0.01, train=Arriving(site, at=0.6))
    found = in_parity(problem, "layer_folding").candidates(problem.budget_seconds)
    assert [gone(one.plan) for one in found] == ([{site}] if goes else [])


class Stepping:
    """A trainer that does what a strategy wants after one step; remembers where gates were and the penalty before."""

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []

    def __call__(
        self,
        candidate: Graph,
        share: float,  # noqa: ARG002 - of the protocol
        regulariser,
        seconds: float = math.inf,  # noqa: ARG002 - of the protocol
        recipe: Recipe | None = None,  # noqa: ARG002 - of the protocol
    ) -> Graph:
        trained = candidate.copied()
        penalty = float(regulariser.penalty(trained.module).detach())
        regulariser.after_step(trained.module)
        self.found += [(amount, penalty) for amount in amounts(trained.module).values()]
        return trained


def test_collapse_pulls_the_gates_of_a_language_model_beside_the_gradient() -> None:
    trainer = Stepping()
    problem = problem_with(architecture("bert"), 0.01, train=trainer)
    in_parity(problem, "layer_collapse").candidates(problem.budget_seconds)
    # The specification's oracle: from 0.01 with rate 1e-4 and strength 10.
    assert trainer.found
    assert all(amount == pytest.approx(0.01198) and penalty == 0 for amount, penalty in trainer.found)


def test_folding_finds_nothing_where_no_gate_arrives() -> None:
    problem = problem_of("mobilenet", 0.9, train=Arriving())
    assert in_parity(problem, "layer_folding").candidates(problem.budget_seconds) == []


def test_collapse_goes_from_the_end_and_leaves_what_does_not_arrive() -> None:
    sites = [site.node for site in problem_of("mixer", 0.5).analysis.sites]
    trainer = Arriving(sites[0])
    problem = problem_of("mixer", 0.01, train=trainer)
    (only,) = in_parity(problem, "layer_collapse").candidates(problem.budget_seconds)
    assert [list(amounts(given.module)) for given in trainer.given] == [[name] for name in reversed(sites)]
    assert [*amounts(trainer.given[0].module).values()] == pytest.approx([0.01])
    assert trainer.penalties == pytest.approx([0.2 * 0.99**2] * 2)
    assert gone(only.plan) == {sites[0]}


def test_merging_maximises_the_sum_of_exponential_importances_with_times_cut_down() -> None:
    problem = problem_of("resnet-b", 0.8, train=Arriving())
    best = in_parity(problem, "layer_merge").candidates(problem.budget_seconds)[0]
    entries = merge_cuts(problem, 8, 3)
    table = measure_table(problem, [cut for _, cut in entries])
    operators = {cut.step: region.operators for region, cut in entries}
    reference = Reference.of(problem.graph, problem.selection, 32)
    worth = {
        one.step: math.exp(-reference.score(apply(problem.graph, [one.step]).module).divergence)
        for one in table.alternatives
    }

    def total(steps) -> float:
        return sum(worth[step] - main_path(operators[step]) for step in steps)

    saved = {one.step: one.saved for one in table.alternatives}
    roots = {chain.name for chain in problem.analysis.chains if chain.parent is None}
    whole = sum(sum(table.kept[name]) for name in roots)
    needed = whole * (1 - 0.8 * 0.98)
    feasible = [
        steps
        for size in (1, 2, 3)
        for steps in combinations(saved, size)
        if sum(len(operators[step]) for step in steps) == len({name for step in steps for name in operators[step]})
        and sum(saved[step] for step in steps) >= needed
    ]
    assert total(best.plan.steps) >= max(total(steps) for steps in feasible) - 1e-6


def test_a_merged_block_counts_the_convolutions_of_its_main_path() -> None:
    graph = lifted(Bottleneck(), (3, 8, 8))
    inputs = random_samples(graph, 32, 2)
    changes = {"graph": graph, "analysis": analyse(graph), "selection": inputs, "calibration": inputs}
    problem = problem_of("resnet-b", 0.8, train=Arriving(), **changes)
    seconds = problem.timer.networks([(structure(graph, ()).module, graph.inputs)])[0]
    problem = replace(problem, baseline_seconds=seconds)
    reference = Reference.of(graph, inputs, 32)
    operators = {cut.step: region.operators for region, cut in merge_cuts(problem, 8, 3)}
    search, merged = in_parity(problem, "layer_merge"), 0
    for share in (0.9, 0.8, 0.7, 0.6, 0.5):
        plan = search.candidates(seconds * share)[0].plan
        harms = [
            main_path(operators[step]) - math.exp(-reference.score(apply(graph, [step]).module).divergence)
            for step in plan.steps
        ]
        assert plan.predicted_error == pytest.approx(sum(harms), rel=1e-5)
        merged += any("down" in name for step in plan.steps for name in operators[step])
    assert merged

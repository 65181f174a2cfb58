"""Searches in rounds: what is scored, and what takes the place of what goes."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from compressors.analysis import analyse
from compressors.analysis.segments import Site
from compressors.analysis.sites import norm_sites
from compressors.channel_line import Line
from compressors.fit import FitConfig, fit
from compressors.gates import GateRegulariser
from compressors.graph import Graph
from compressors.problem import Problem
from compressors.score import Reference
from compressors.strategies import find
from compressors.strategies.fitted import site_lines
from compressors.strategies.options import EasierOptions
from compressors.strategies.rounds import (
    Look,
    RoundSearch,
    RoundSettings,
    State,
    cut_harms,
    round_cuts,
    with_norm_scores,
)
from compressors.strategies.tlc import Trial
from compressors.surgery import apply
from compressors.table import Alternative
from tests.compressors.networks import lifted
from tests.compressors.problems import QUICK, ShortTrainer, problem_of, problem_with, started
from tests.compressors.samples import Recorder

NORM = Site("norm", "norm", "norm", (4, 6, 6))


def line(error: float | None) -> Line:
    return Line(torch.ones(1), torch.zeros(1), 1, error)


def normed() -> Graph:
    """Convolutions with a group norm between them that moves everything far off, and an activation at the end."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(1, 8), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)
    with torch.no_grad():
        layers[1].weight.mul_(3)
        layers[1].bias.add_(torch.arange(8.0) - 3)
    return lifted(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 8, 8))


@pytest.mark.parametrize(("error", "share"), [(0.0, 0.0), (0.25, 0.25), (3.0, 1.0), (float("nan"), 1.0), (None, 1.0)])
def test_a_norm_is_needed_as_much_as_its_line_misses(error: float | None, share: float) -> None:
    graph = problem_of("vgg", 0.9).graph
    look = Look({"a": 0.5, "b": 2.0, "c": float("inf")}, State(graph, graph), lambda _sites: {})
    assert with_norm_scores(look, [NORM], {"norm": line(error)}).scores["norm"] == 2.0 * share


@pytest.mark.parametrize("name", ["easier", "tlc", "layer_folding"])
def test_a_norm_that_is_merged_away_leaves_its_line(name: str) -> None:
    problem = problem_with(normed(), 0.8)
    best, *_ = started(problem, name, refit="none").candidates(problem.budget_seconds)
    dissolved = norm_sites(problem.graph, {site for step in best.plan.steps for site in step.sites})
    assert dissolved
    inputs = problem.graph.samples(8, seed=5)
    with torch.no_grad():
        wanted = problem.graph.module(*inputs)
        without = apply(problem.graph, best.plan.steps).module(*inputs)
        error = (best.graph.module(*inputs) - wanted).square().mean()
    assert error < 0.1 * (without - wanted).square().mean()


class Watching(ShortTrainer):
    """Remembers how many activations each network had that it trained."""

    def __init__(self, original: Graph) -> None:
        super().__init__(original)
        self.sites: list[int] = []

    def __call__(self, candidate: Graph, share: float, regulariser: GateRegulariser | None = None) -> Graph:
        self.sites.append(len(analyse(candidate).sites))
        return super().__call__(candidate, share, regulariser)


def test_activations_that_go_for_nothing_are_gone_while_the_network_is_trained() -> None:
    graph = problem_of("mobilenet", 0.85).graph
    trainer = Watching(graph)
    problem = problem_of("mobilenet", 0.85, train=trainer)
    started(problem, "easier", rounds=3, refit="none", way="identity").candidates(problem.budget_seconds)
    assert len(analyse(graph).sites) > max(trainer.sites)


def test_trials_without_lines_remove_activations() -> None:
    problem = problem_of("mobilenet", 0.85)
    options = find("tlc").parse({key: QUICK[key] for key in ("calibration_samples", "selection_samples")})
    trial = Trial(problem, options.model_copy(update={"channels": "fitted", "way": "identity"}))
    scores = trial.look(State(problem.graph, problem.graph), problem.analysis.sites, (), 0.0).scores
    assert sum(score > 0 for score in scores.values()) > len(scores) / 2


def test_where_merged_kernels_grow_smaller_ones_are_offered() -> None:
    problem = problem_of("resnet-b", 0.6)
    options = EasierOptions(max_kernel=5)
    cuts = round_cuts(options, problem)
    narrow = [cut for cut in cuts if cut.step.kind == "regress"]
    merged = {(cut.chain, cut.start, cut.end): cut.step.kernel for cut in cuts if cut.step.kind == "merge"}
    both = [(cut, merged[place]) for cut in narrow if (place := (cut.chain, cut.start, cut.end)) in merged]
    assert any(cut.step.kernel == (3, 3) and kernel == (5, 5) for cut, kernel in both)
    assert not any(
        all(size <= most for size, most in zip(kernel, cut.step.kernel, strict=True)) for cut, kernel in both
    )
    assert all(cut.sites for cut in narrow)
    assert not any(
        cut.step.kind == "regress" for cut in round_cuts(options.model_copy(update={"regress": False}), problem)
    )


def test_scores_of_fitted_operators_count_as_often_as_these_miss_more_than_they_reproduce() -> None:
    problem = problem_of("resnet-b", 0.6)
    cuts = round_cuts(EasierOptions(max_kernel=5), problem)
    gone = {site for cut in cuts for site in cut.sites}
    look = Look(dict.fromkeys(gone, 2.0), State(problem.graph, problem.graph), lambda _sites: {})
    fitted = {cut.step for cut in cuts if cut.step.kind == "regress"}
    quiet, noisy = (cut_harms(look, cuts, dict.fromkeys(fitted, noise)) for noise in (0.1, 3.0))
    for cut in cuts:
        scores = 2.0 * len(cut.sites)
        assert quiet[cut.step] == pytest.approx(0.1 * 1.3 * scores if cut.step in fitted else scores, abs=1e-5)
        assert noisy[cut.step] == pytest.approx(30 * quiet[cut.step] if cut.step in fitted else scores, abs=1e-4)


def test_of_operators_in_place_of_activations_that_nothing_needs_the_one_that_misses_least_is_best() -> None:
    problem = problem_of("resnet-b", 0.6)
    fitted = [cut for cut in round_cuts(EasierOptions(max_kernel=5), problem) if cut.step.kind == "regress"]
    noise = {cut.step: 0.1 * (at + 1) / len(cut.sites) for at, cut in enumerate(fitted)}
    look = Look({"elsewhere": 1.0}, State(problem.graph, problem.graph), lambda _sites: {})
    harms = cut_harms(look, fitted, noise)
    assert sorted(harms, key=lambda step: harms[step]) == [cut.step for cut in fitted]


@pytest.mark.parametrize("name", ["easier", "tlc", "layer_folding"])
def test_a_residual_network_gets_faster_than_merging_alone_can_make_it(name: str) -> None:
    problem = problem_of("resnet-b", 0.7)
    merging = started(problem, name, regress=False).floor()
    assert (merging.predicted_seconds or 0.0) > problem.budget_seconds
    best, *_ = started(problem, name, refit="none").candidates(problem.budget_seconds)
    assert (best.seconds or 0.0) <= problem.budget_seconds
    assert any(step.kind == "regress" for step in best.plan.steps)
    unfitted = Reference.of(problem.graph, problem.selection, 32, 64, problem.task)
    assert best.score.divergence < unfitted.score(apply(problem.graph, best.plan.steps).module).divergence


def test_what_is_left_of_a_pruned_stretch_is_fitted_to_it() -> None:
    problem = problem_of("resnet-b", 0.6)
    fitted, merged = (started(problem, "layer_merge", regress=regress) for regress in (True, False))
    best, alone = (search.candidates(problem.budget_seconds)[0] for search in (fitted, merged))
    assert any(step.pruned for step in alone.plan.steps)
    assert any(step.kind == "regress" for step in best.plan.steps)
    assert best.score.divergence < alone.score.divergence
    assert (best.seconds or 0.0) <= problem.budget_seconds


@pytest.mark.parametrize("name", ["easier", "tlc", "layer_folding"])
def test_plans_are_compared_on_few_samples_before_any_is_fitted_in_full(name: str) -> None:
    seen = Recorder()
    problem = problem_of("mobilenet", 0.8, progress=seen)
    found = started(problem, name, plans=2).candidates(problem.budget_seconds)
    said = [message for _, message, _ in seen.calls if "plan" in message or "refitting" in message]
    compared = [message for message in said if message.startswith("comparing plans")]
    assert len(compared) >= len(found) > 1
    assert said.index("refitting what follows the merges") > said.index(compared[-1])


class Ruining(ShortTrainer):
    """Trains a little, and hands back a network that has forgotten everything."""

    def __call__(self, candidate: Graph, share: float, regulariser=None, seconds: float = math.inf) -> Graph:
        trained = super().__call__(candidate, share, regulariser, seconds)
        with torch.no_grad():
            for parameter in trained.module.parameters():
                if parameter.dim() > 1:
                    parameter.copy_(0.1 * torch.randn_like(parameter))
        return trained


@pytest.mark.parametrize(("name", "rounds"), [("layer_folding", 1), ("easier", 2)])
def test_cuts_are_made_in_the_original_where_training_on_the_way_has_made_it_worse(name: str, rounds: int) -> None:
    problem = problem_of("resnet-b", 0.7)
    ruining = problem_of("resnet-b", 0.7, train=Ruining(problem.graph))
    best, *_ = started(ruining, name, rounds=rounds).candidates(problem.budget_seconds)
    assert ruining.train.shares
    fitted = fit(
        problem.graph,
        apply(
            problem.graph,
            best.plan.steps,
            site_lines(problem.graph, problem.analysis.sites, "fitted", problem.calibration),
        ),
        best.plan.steps,
        problem.calibration,
        FitConfig("all", QUICK["calibration_samples"]),
    ).graph
    reference = Reference.of(problem.graph, problem.selection, 32, 64, problem.task)
    assert best.score.divergence == pytest.approx(reference.score(fitted.module).divergence, rel=0.05)


class Trained:
    """A method that has trained the network: lines fit there that are not known of the original."""

    def __init__(self, problem: Problem) -> None:
        self.graph = problem.graph.copied()
        self.lines = site_lines(self.graph, problem.analysis.sites, "fitted", problem.calibration)

    def look(
        self,
        state: State,  # noqa: ARG002
        sites: Sequence[Site],
        alternatives: Sequence[Alternative],  # noqa: ARG002
        needed: float,  # noqa: ARG002
    ) -> Look:
        lines = {site.node: self.lines[site.node] for site in sites if site.node in self.lines}
        return Look({site.node: 1.0 for site in sites}, State(self.graph, self.graph), lambda _chosen: lines)


def test_cuts_are_made_in_the_trained_network_where_they_do_better_there() -> None:
    problem = problem_of("mobilenet", 0.85)
    options = EasierOptions(regress=False)
    settings = RoundSettings("easier", 1, way="identity", refit="none", plans=1, comparisons=0)
    search = RoundSearch(problem, round_cuts(options, problem), Trained(problem), settings)
    best, *_ = search.candidates(problem.budget_seconds)
    assert best.plan.steps
    reference = Reference.of(problem.graph, problem.selection, 32, 64, problem.task)
    original = apply(problem.graph, best.plan.steps)
    assert best.score.divergence < 0.9 * reference.score(original.module).divergence

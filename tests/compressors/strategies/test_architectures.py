"""Searches on the architectures that each method is for: one block of each is made easy to do without, and goes first.

An activation is easy to do without where its inputs are far on one side of its kink, and a convolution where it passes
its input on. All networks have another block like it, in which nothing was changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import nn

from compressors.analysis.sites import norm_sites
from compressors.gates import amounts
from compressors.graph import Graph
from compressors.problem import Candidate, Problem, Search
from compressors.score import Reference
from compressors.strategies import find
from compressors.strategies.fitted import site_lines
from compressors.surgery import apply, fold_norms
from compressors.tasks.noise import NoiseSchedule, NoisySamples
from tests.compressors.architectures import architecture
from tests.compressors.problems import problem_with, started
from tests.compressors.samples import Tensors
from tests.compressors.strategies.test_parity import Arriving


@dataclass(frozen=True)
class Blocks:
    """Node names of the activations of two blocks; and what passes its input on in the easy one."""

    easy: tuple[str, ...]
    other: tuple[str, ...]
    passing: str | None = None


BLOCKS = {
    "resnet": Blocks(("layer1_1_act1",), ("layer1_0_act1",), "layer1.1.conv2"),
    "mobilenet": Blocks(("features_3_conv_0_2", "features_3_conv_1_2"), ("features_4_conv_0_2", "features_4_conv_1_2")),
    "ddpm": Blocks(
        ("mid_block_resnets_0_nonlinearity_2",), ("mid_block_resnets_1_nonlinearity_2",), "mid_block.resnets.0.conv2"
    ),
    "vgg": Blocks(("classifier_4",), ("classifier_1",)),
    "mixer": Blocks(("blocks_0_mlp_channels_act",), ("blocks_1_mlp_channels_act",)),
    "vit": Blocks(("blocks_0_mlp_act",), ("blocks_1_mlp_act",)),
    "swin": Blocks(("features_1_0_mlp_1",), ("features_1_1_mlp_1",)),
    "gpt2": Blocks(("transformer_h_0_mlp_act_mul_3_gelu",), ("transformer_h_1_mlp_act_mul_7_gelu",)),
} | {
    name: Blocks(*((f"{name}_encoder_layer_{layer}_intermediate_intermediate_act_fn",) for layer in (0, 1)))
    for name in ("bert", "roberta")
}
PAIRS = {
    "tlc": ("resnet", "swin", "bert", "roberta"),
    "layer_collapse": ("vgg", "mixer", "vit", "bert", "gpt2"),
    "layer_folding": ("resnet", "mobilenet"),
    "layer_merge": ("resnet", "mobilenet", "ddpm"),
    "easier": ("resnet", "bert"),
}
"""Networks that each strategy is for."""
SLOW = {"roberta", "mixer", "mobilenet"}
"""Of the same kinds as others; lifting takes most of the time."""
SHARE = 0.995
"""Of the latency: one merge is enough, whichever it is."""
OPTIONS = {"margin": 0, "refit": "none", "max_kernel": 5}


class Marking:
    """A training that leaves a mark on every weight, and keeps what it returned."""

    def __init__(self) -> None:
        self.trained: list[Graph] = []

    def __call__(self, candidate: Graph, share: float, regulariser=None, seconds: float = math.inf) -> Graph:  # noqa: ARG002
        self.trained.append(candidate.copied())
        with torch.no_grad():
            for parameter in self.trained[-1].module.parameters():
                parameter.mul_(1.001)
        return self.trained[-1]


@cache
def eased(name: str) -> Graph:
    """A network with one block that is easy to do without."""
    graph, blocks = architecture(name).copied(), BLOCKS[name]
    nodes = {node.name: node for node in graph.module.graph.nodes}
    with torch.no_grad():
        for site in blocks.easy:
            before = graph.module.get_submodule(str(nodes[site].all_input_nodes[0].target))
            before.weight.mul_(0.1)
            before.bias.fill_(3.0)
        if blocks.passing is not None:
            nn.init.dirac_(graph.module.get_submodule(blocks.passing).weight)
    return graph


def problem_of(name: str, **changes) -> Problem:
    """What is asked of a network; a denoiser is asked for the noise in images."""
    graph = eased(name)
    if name == "ddpm":
        noisy = (
            NoisySamples(Tensors(graph.inputs[0].random(count, count)), NoiseSchedule(), seed=count)
            for count in (64, 32)
        )
        changes |= dict(zip(("calibration", "selection"), noisy, strict=True)) | {"task": "denoising"}
    return problem_with(graph, SHARE, **changes)


def gone(candidate: Candidate, problem: Problem) -> set[str]:
    """The activations that a network does without."""
    sites = {site.node for site in problem.analysis.sites}
    return sites & {site for step in candidate.plan.steps for site in step.sites}


def divergence(problem: Problem, graph: Graph) -> float:
    return Reference.of(problem.graph, problem.selection, 32, 64, problem.task).score(graph.module).divergence


def operations(graph: Graph) -> int:
    """How many there are in what is shipped."""
    return sum(node.op.startswith("call_") for node in fold_norms(graph).module.graph.nodes)


def pairs(*strategies: str) -> list:
    """Every strategy with every network that it is for."""
    found = [(strategy, network) for strategy in strategies for network in PAIRS[strategy]]
    marks = [[pytest.mark.slow] if network in SLOW else [] for _, network in found]
    return [pytest.param(pair, marks=mark, id="-".join(pair)) for pair, mark in zip(found, marks, strict=True)]


def begun(problem: Problem, strategy: str, **options) -> Search:
    """A search among merges: a fitted operator in a block's place would be another way to do without it."""
    merges = {"regress": False} if "regress" in find(strategy).options.model_fields else {}
    return started(problem, strategy, **OPTIONS, **merges, **options)


Searched = tuple[str, Problem, Search, Candidate]


@pytest.fixture(scope="module", params=pairs(*PAIRS))
def searched(request: pytest.FixtureRequest) -> Searched:
    """A network, and a strategy's best for a budget that one merge keeps."""
    strategy, network = request.param
    problem = problem_of(network)
    search = begun(problem, strategy)
    return network, problem, search, search.candidates(problem.budget_seconds)[0]


def test_the_block_that_is_easy_to_do_without_goes_first(searched: Searched) -> None:
    network, problem, _, best = searched
    assert gone(best, problem) == {*BLOCKS[network].easy}
    assert best.seconds <= problem.budget_seconds


def test_no_other_merge_does_less_harm(searched: Searched) -> None:
    network, problem, search, best = searched
    steps = [one.step for one in search._planner.alternatives]
    others = {step.sites: step for step in steps if not {*step.sites} & {*BLOCKS[network].easy} and not step.norm}
    norms = norm_sites(problem.graph, {site for step in steps for site in step.sites})
    lines = site_lines(problem.graph, [*problem.analysis.sites, *norms], "fitted", problem.calibration)
    harms = [divergence(problem, apply(problem.graph, [step], lines)) for step in others.values()]
    assert best.score.divergence < min(harms)


def test_what_is_shipped_computes_what_was_scored_with_fewer_operations(searched: Searched) -> None:
    _, problem, _, best = searched
    inputs = problem.graph.samples(4, seed=7)
    shipped = fold_norms(best.graph)
    with torch.no_grad():
        wanted, got = problem.graph.module(*inputs), shipped.module(*inputs)
        trained = best.graph.module(*inputs)
    assert got.shape == wanted.shape
    assert bool(got.isfinite().all())
    assert torch.allclose(got, trained, rtol=1e-4, atol=1e-5 * float(trained.abs().max()))
    assert operations(best.graph) < operations(problem.graph)


@pytest.mark.parametrize("pair", pairs("tlc", "easier"))
def test_what_comes_out_has_the_weights_of_the_original_or_of_what_was_trained_between_rounds(
    pair: tuple[str, str],
) -> None:
    """Which of the two is a matter of what does better (`test_rounds`); never is it a mixture."""
    strategy, network = pair
    trainer = Marking()
    problem = problem_of(network, train=trainer)
    best, *_ = begun(problem, strategy, rounds=2).candidates(problem.budget_seconds)
    (once,) = trainer.trained
    original, trained, found = (dict(g.module.named_parameters()) for g in (problem.graph, once, best.graph))
    kept = [name for name in original if name in trained and name in found and bool(original[name].any())]
    assert kept
    from_trained = [torch.equal(trained[name], found[name]) for name in kept]
    from_original = [torch.equal(original[name], found[name]) for name in kept]
    assert all(from_trained) != all(from_original)
    assert any(from_trained) != any(from_original)


@pytest.mark.parametrize("pair", pairs("layer_collapse", "layer_folding"))
def test_the_block_whose_gates_training_closes_goes_first(pair: tuple[str, str]) -> None:
    """Without plans that are made from what others taught: those go by more than gates."""
    strategy, network = pair
    trainer = Arriving(*BLOCKS[network].other)
    problem = problem_of(network, train=trainer)
    (best,) = begun(problem, strategy, plans=1, comparisons=0).candidates(problem.budget_seconds)
    assert gone(best, problem) == {*BLOCKS[network].other}
    (given,) = trainer.given
    assert {*BLOCKS[network].easy, *BLOCKS[network].other} <= {*amounts(given.module)}

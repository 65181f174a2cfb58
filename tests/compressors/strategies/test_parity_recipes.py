"""The papers' trainings: the rows of their tables, as the specifications have them, and who gets which."""

import math
from dataclasses import replace

import pytest

from compressors.analysis import analyse
from compressors.gates import GateRegulariser, amounts, insert_gates
from compressors.gates.insert import gates_of
from compressors.graph import Graph
from compressors.problem import Problem, Search
from compressors.strategies import find
from compressors.strategies.parity_recipes import (
    Build,
    build_of,
    easier,
    layer_collapse,
    layer_folding,
    layer_merge,
    tlc,
)
from compressors.tune import Recipe, TuneConfig
from tests.compressors.architectures import architecture
from tests.compressors.networks import graph_of
from tests.compressors.problems import problem_of, problem_with

RATES = {
    # Network: EASIER's, TLC's, LayerCollapse's, Layer Folding's, LayerMerge's (final).
    "resnet-b": (0.1, 0.1, 0.005, 0.001, 1.024),
    "mobilenet": (0.1, 0.1, 0.005, 0.001, 0.05),
    "vgg": (0.01, 0.1, 0.005, 0.001, 0.01),
    "vit": (0.001, 0.001, 0.005, 0.001, 0.05),
}


class Remembering:
    """A trainer that changes nothing but closes gates; remembers recipes and what shaped the trainings."""

    def __init__(self) -> None:
        self.recipes: list[Recipe | None] = []
        self.regularisers: list[GateRegulariser | None] = []

    def __call__(
        self,
        candidate: Graph,
        share: float,  # noqa: ARG002 - of the protocol
        regulariser=None,
        seconds: float = math.inf,  # noqa: ARG002 - of the protocol
        recipe: Recipe | None = None,
    ) -> Graph:
        self.recipes.append(recipe)
        self.regularisers.append(regulariser)
        trained = candidate.copied()
        for gate in gates_of(trained.module).values():
            gate.amount.data.fill_(0.97)
        return trained


def in_parity(problem: Problem, name: str) -> Search:
    strategy = find(name)
    return strategy.start(problem, strategy.parse({"parity": True, "max_kernel": 3, "selection_samples": 32}))


def large(graph: Graph) -> Graph:
    """The same network, said to read images of 224 pixels."""
    return replace(graph, inputs=(replace(graph.inputs[0], shape=(3, 224, 224)),))


@pytest.mark.parametrize(
    ("graph", "build"),
    [
        *((graph_of(name), build) for name, build in [
            ("resnet-a", Build.RESIDUAL), ("resnet-b", Build.RESIDUAL), ("preact", Build.RESIDUAL),
            ("mobilenet", Build.MOBILE), ("mobilenet-se", Build.MOBILE), ("vgg", Build.PLAIN),
            ("vit", Build.TRANSFORMER), ("mixer", Build.TRANSFORMER), ("convnext", Build.TRANSFORMER),
        ]),
        *((architecture(name), build) for name, build in [
            ("bert", Build.TEXT), ("gpt2", Build.TEXT), ("ddpm", Build.DENOISER), ("swin", Build.TRANSFORMER),
        ]),
    ],
)  # fmt: skip
def test_networks_are_told_apart_as_the_tables_do(graph: Graph, build: Build) -> None:
    assert build_of(graph) is build


@pytest.mark.parametrize("network", list(RATES))
def test_rates_for_small_images_are_the_published_ones(network: str) -> None:
    graph = graph_of(network)
    found = (easier(graph), tlc(graph), layer_collapse(graph), layer_folding(graph), layer_merge(graph))
    assert tuple(one.final.rate for one in found) == RATES[network]


@pytest.mark.parametrize("paper", [easier, tlc])
def test_an_epoch_in_a_half_and_in_three_quarters_of_160_lower_the_rate_tenfold(paper) -> None:
    for recipe in paper(graph_of("resnet-b")):
        assert (recipe.optimizer, recipe.momentum, recipe.nesterov, recipe.batch) == ("sgd", 0.9, False, 128)
        assert [160 * share for share in recipe.milestones] == [80, 120]
        assert (recipe.gamma, recipe.weight_decay, recipe.decay_vectors) == (0.1, 1e-4, True)


def test_large_images_have_rows_of_their_own() -> None:
    residual, plain, transformer = (large(graph_of(name)) for name in ("resnet-b", "vgg", "vit"))
    for graph in (residual, plain, transformer):
        pacs = easier(graph).final
        assert (pacs.rate, pacs.batch, pacs.weight_decay) == (0.001, 16, 5e-4)
        assert [30 * share for share in pacs.milestones] == pytest.approx([24])
    assert [90 * share for share in tlc(residual).final.milestones] == pytest.approx([30, 60])
    assert [tlc(graph).final.rate for graph in (residual, plain, transformer)] == [0.1, 0.01, 0.001]


def test_texts_have_adam_with_the_published_rates_and_decays() -> None:
    bert = architecture("bert")
    for paper in (easier, tlc):
        glue = paper(bert).final
        assert (glue.optimizer, glue.rate, glue.batch, glue.weight_decay, glue.milestones) == ("adamw", 2e-5, 32, 0, ())
    collapse = layer_collapse(bert).final
    assert (collapse.optimizer, collapse.rate, collapse.batch, collapse.clip) == ("adamw", 1e-4, 64, 10)
    assert (collapse.schedule, collapse.decay_steps, collapse.gamma) == ("steps", 50, 0.9)


def test_collapse_falls_at_the_published_epochs_of_1000() -> None:
    recipe = layer_collapse(graph_of("mixer")).way
    assert [1000 * share for share in recipe.milestones] == pytest.approx([75, 150, 250, 350])
    assert (recipe.gamma, recipe.batch, recipe.weight_decay, recipe.momentum) == (0.3, 256, 0, 0.9)


def test_folding_keeps_its_rate_but_on_a_plain_network_half_way_through_the_gates() -> None:
    assert layer_folding(graph_of("resnet-b")).way.milestones == layer_folding(graph_of("vgg")).final.milestones == ()
    assert layer_folding(graph_of("vgg")).way.milestones == (0.5,)
    assert [layer_folding(graph_of(name)).way.weight_decay for name in ("resnet-b", "vgg")] == [0, 5e-4]


@pytest.mark.parametrize(("network", "decay"), [("resnet-b", 0.0), ("vgg", 5e-4)])
def test_gates_of_a_plain_network_decay_as_published(network: str, decay: float) -> None:
    trainer = Remembering()
    problem = problem_of(network, 0.01, train=trainer)
    in_parity(problem, "layer_folding").candidates(problem.budget_seconds)
    (regulariser,) = trainer.regularisers
    assert regulariser is not None
    gated = insert_gates(problem.graph, [analyse(problem.graph).sites[0].node])
    assert [group.weight_decay for group in regulariser.parameter_groups(gated.module)] == [decay]


def test_merging_trains_entries_and_the_chosen_network_each_in_its_way() -> None:
    way, final = layer_merge(graph_of("resnet-b"))
    assert (way.rate, way.batch, way.nesterov, way.weight_decay, way.schedule) == (0.1, 256, True, 1e-5, "cosine")
    assert (final.batch, final.momentum, final.decay_vectors, final.label_smoothing) == (1024, 0.875, False, 0.1)
    assert final.warmup == pytest.approx(8 / 90)
    way, final = layer_merge(architecture("ddpm"))
    assert (way.optimizer, way.rate, final.rate, final.ema, final.clip) == ("adam", 2e-4, 4e-4, 0.9999, 1.0)


@pytest.mark.parametrize(
    ("name", "network", "share"),
    [("easier", "mobilenet", 0.9), ("tlc", "mobilenet", 0.93), ("layer_folding", "vgg", 0.5),
     ("layer_collapse", "mixer", 0.8), ("layer_merge", "resnet-b", 0.8)],
)  # fmt: skip
def test_a_search_in_parity_trains_by_its_paper_and_says_how_to_go_on(name: str, network: str, share: float) -> None:
    trainer = Remembering()
    problem = problem_of(network, share, train=trainer)
    found = in_parity(problem, name).candidates(problem.budget_seconds)
    paper = {"easier": easier, "tlc": tlc, "layer_collapse": layer_collapse, "layer_folding": layer_folding}
    way, final = paper.get(name, layer_merge)(problem.graph)
    assert trainer.recipes
    assert found
    assert all(recipe == way for recipe in trainer.recipes)
    assert all(one.recipe == final for one in found)


def test_a_language_model_collapses_wherever_the_slope_is() -> None:
    problem = problem_with(architecture("bert"), 0.01, train=lambda graph, *_, **__: graph)
    found = in_parity(problem, "layer_collapse").candidates(problem.budget_seconds)
    # The two MLPs; a PReLU is nothing like the tanh of the pooler.
    assert max(len(one.plan.steps) for one in found) == 2


def test_the_pull_beside_the_gradient_falls_with_the_rate() -> None:
    trainer = Remembering()
    problem = problem_with(architecture("bert"), 0.01, train=trainer)
    in_parity(problem, "layer_collapse").candidates(problem.budget_seconds)
    regulariser = trainer.regularisers[0]
    assert regulariser is not None
    gated = insert_gates(problem.graph, [analyse(problem.graph).sites[0].node], 0.01)
    regulariser.after_step(gated.module, 0.5)
    (amount,) = amounts(gated.module).values()
    # a + 2 lr gp (1 - a) with half of lr = 1e-4, gp = 10.
    assert amount == pytest.approx(0.01 + 2 * 0.5e-4 * 10 * 0.99)


def test_what_a_job_asks_for_comes_before_the_recipe() -> None:
    recipe = layer_merge(graph_of("resnet-b")).final
    plain = recipe.applied(TuneConfig())
    assert (plain.batch, plain.learning_rates) == (256, (1.024 / 4,))
    asked = recipe.applied(TuneConfig(), batch=32, rate=0.5)
    assert (asked.batch, asked.learning_rates) == (32, (0.5,))
    adam = layer_collapse(architecture("bert")).final.applied(TuneConfig(), batch=16)
    assert (adam.batch, adam.learning_rates) == (16, (1e-4,))
    limits = TuneConfig(epochs=3, max_seconds=7, seed=5, keep="last", task="classification")
    kept = recipe.applied(limits)
    assert (kept.epochs, kept.max_seconds, kept.seed, kept.keep, kept.task) == (3, 7, 5, "last", "classification")
    assert (kept.distillation, kept.features, kept.norm_batches) == (0, 0, 0)

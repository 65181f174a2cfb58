"""TLC as published: what its trials look at, and what says which channels go."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from compressors.analysis import analyse
from compressors.graph import Graph
from compressors.lift import Edges, lift
from compressors.problem import Problem
from compressors.score import Reference, tensors
from compressors.strategies.parity import Stage
from compressors.strategies.parity_tlc import PublishedTrials, trial_loss
from tests.compressors.networks import exported
from tests.compressors.problems import ShortTrainer, problem_of
from tests.compressors.samples import BatchedTensors

COUNT, CLASSES = 24, 5


class Heads(nn.Module):
    """A convolution and heads on what it finds, the first of them a box where there are several."""

    def __init__(self, *heads: nn.Module) -> None:
        super().__init__()
        self.stem, self.heads = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()), nn.ModuleList(heads)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        found = tuple(head(self.stem(x)) for head in self.heads)
        return found if len(found) > 1 else found[0]


def head(width: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(6, width))


def network(*names: str, heads: tuple[nn.Module, ...]) -> Graph:
    return lift(exported(Heads(*heads).eval(), (3, 8, 8)), "heads", None, Edges(output_names=names))


def asked(graph: Graph, labels: torch.Tensor) -> Problem:
    samples = BatchedTensors(torch.randn(COUNT, 3, 8, 8), labels)
    return problem_of("mixer", 0.9, graph=graph, analysis=analyse(graph), selection=samples)


def damaged(graph: Graph) -> Graph:
    copy = graph.copied()
    with torch.no_grad():
        for parameter in copy.module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return copy


def outputs(graph: Graph, problem: Problem) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return tensors(graph.module(problem.selection.inputs))


def test_one_class_per_sample_is_judged_by_the_cross_entropy_of_the_scores_wherever_they_are() -> None:
    graph, labels = network("pred_boxes", "logits", heads=(head(4), head(CLASSES))), torch.arange(COUNT) % CLASSES
    problem, other = asked(graph, labels), damaged(graph)
    wanted = F.cross_entropy(outputs(other, problem)[1], labels)
    assert trial_loss(problem)(other) == pytest.approx(float(wanted), rel=1e-5)


def test_one_class_that_is_there_or_not_is_judged_by_its_binary_cross_entropy() -> None:
    graph, labels = network("logits", heads=(head(1),)), torch.arange(COUNT) % 2
    problem, other = asked(graph, labels), damaged(graph)
    wanted = F.binary_cross_entropy_with_logits(outputs(other, problem)[0], labels[:, None].float())
    assert trial_loss(problem)(other) == pytest.approx(float(wanted), rel=1e-5)


def test_several_classes_per_sample_are_judged_by_their_binary_cross_entropy() -> None:
    graph, labels = network("logits", heads=(head(CLASSES),)), (torch.rand(COUNT, CLASSES) > 0.5).float()
    problem, other = asked(graph, labels), damaged(graph)
    wanted = F.binary_cross_entropy_with_logits(outputs(other, problem)[0], labels)
    assert trial_loss(problem)(other) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("known", [True, False])
def test_targets_that_say_nothing_about_the_output_leave_the_divergence(known: bool) -> None:
    graph = network("logits", heads=(nn.Conv2d(6, CLASSES, 1),))
    labels = torch.arange(COUNT) % CLASSES if known else torch.full((COUNT,), -1)
    problem, other = asked(graph, labels), damaged(graph)
    wanted = Reference.of(graph, problem.selection).score(other.module).divergence
    assert trial_loss(problem)(other) == pytest.approx(wanted, rel=1e-5)


class Tokens(nn.Module):
    """A linear that passes its input on, a ReLU, and the mean of the tokens that are no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.head = nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, CLASSES)
        nn.init.eye_(self.first.weight)
        nn.init.zeros_(self.first.bias)

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        kept = attention_mask.unsqueeze(-1).to(x.dtype)
        return self.head((self.act(self.first(x)) * kept).sum(1) / kept.sum(1))


class Padded(Dataset):
    """Samples of tokens near 1, half of them padding at -20; no labels."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[tuple[torch.Tensor, ...], int]:
        mask = torch.tensor([1, 1, 1, 0, 0, 0])
        x = 1 + 0.1 * torch.randn(6, 3, generator=torch.Generator().manual_seed(index))
        return (torch.where(mask[:, None] > 0, x, -20.0), mask), -1


def test_padding_counts_for_the_means_as_published() -> None:
    inputs = torch.randn(2, 6, 3), torch.ones(2, 6, dtype=torch.int64)
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    graph = lift(torch.export.export(Tokens().eval(), inputs, dynamic_shapes=shapes), "tokens")
    assert graph.inputs[1].is_mask
    changes = {"graph": graph, "analysis": analyse(graph), "selection": Padded(), "calibration": Padded()}
    problem = problem_of("mixer", 0.9, train=ShortTrainer(graph), **changes)
    stage = PublishedTrials(problem).advance(Stage(graph), problem.analysis.sites)
    assert stage is not None
    assert stage.rows["first"].all()

"""Problems for strategies, on a device whose clock is arithmetic."""

import math

import torch

from compressors.analysis import analyse
from compressors.gates import GateRegulariser
from compressors.graph import Graph
from compressors.problem import Problem, Search
from compressors.strategies import find
from compressors.table import structure
from compressors.tune import Recipe
from tests.compressors.denoisers import Pairs
from tests.compressors.networks import graph_of
from tests.compressors.samples import CountingTimer, Recorder

QUICK = {
    "calibration_samples": 64,
    "selection_samples": 32,
    "refinements": 2,
    "comparisons": 2,
    "plans": 2,
    "max_kernel": 3,
}


def problem_of(name: str, share: float, timer: CountingTimer | None = None, **changes) -> Problem:
    return problem_with(graph_of(name), share, timer, **changes)


def problem_with(graph: Graph, share: float, timer: CountingTimer | None = None, /, **changes) -> Problem:
    """A network to bring down to a share of its latency; random samples where no others are given."""
    timer = timer or CountingTimer()
    (baseline,) = timer.networks([(structure(graph, ()).module, graph.inputs)])
    fields = {
        "graph": graph,
        "analysis": analyse(graph),
        "budget_seconds": baseline * share,
        "baseline_seconds": baseline,
        "calibration": Pairs(graph, 64, 1),
        "selection": Pairs(graph, 32, 2),
        "timer": timer,
        "progress": Recorder(),
        "seed": 0,
    }
    return Problem(**(fields | changes))


def started(problem: Problem, name: str = "layerfit", **options) -> Search:
    """A search with quick options, as far as the strategy has them."""
    strategy = find(name)
    quick = {key: value for key, value in QUICK.items() if key in strategy.options.model_fields}
    return strategy.start(problem, strategy.parse(quick | options))


class ShortTrainer:
    """A few steps of plain descent towards the original's outputs; remembers the shares of time that it was given."""

    def __init__(self, original: Graph, steps: int = 3) -> None:
        self.original, self.steps = original, steps
        self.shares: list[float] = []

    def __call__(
        self,
        candidate: Graph,
        share: float,
        regulariser: GateRegulariser | None = None,
        seconds: float = math.inf,
        recipe: Recipe | None = None,  # noqa: ARG002 - of the protocol
    ) -> Graph:
        assert seconds >= 0
        self.shares.append(share)
        student = candidate.copied()
        optimizer = torch.optim.SGD(student.module.parameters(), 1e-3)
        inputs = self.original.samples(8)
        with torch.no_grad():
            wanted = self.original.module(*inputs)
        for _ in range(self.steps):
            optimizer.zero_grad()
            loss = (student.module(*inputs) - wanted).square().mean()
            if regulariser is not None:
                loss = loss + regulariser.penalty(student.module)
            loss.backward()
            optimizer.step()
            if regulariser is not None:
                regulariser.after_step(student.module)
        return student

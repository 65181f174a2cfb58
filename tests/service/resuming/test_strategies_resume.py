"""Every strategy, stopped at every boundary of its own phases, goes on and comes to the same network.

Search, trainings, memory and clocks are those of a job, in this process; the device's clock is arithmetic, so that what
the machine does meanwhile decides nothing. An attempt leaves to the next one what lies in the job's folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressors.graph import Graph
from compressors.strategies import find
from compressors.table import structure
from compressors.tasks import TASKS
from service.judging.quality import Goal
from service.pipeline.phases import Phases
from service.pipeline.search import Tools, Trial, search
from service.pipeline.trainings import Trainings
from service.resuming.journal import Journal
from service.resuming.remembered import JobMemory, Readings, RememberedTimer
from service.spec import Budget, DataReference, DataSplit, FineTuning, JobSpec, ModelSource
from service.worker.messages import WorkOrder
from tests.compressors.networks import lifted
from tests.compressors.problems import QUICK, problem_with
from tests.compressors.samples import CountingTimer, random_samples
from tests.service.runs import MODEL, TRAIN

JOBS: dict[str, tuple[str, float, dict[str, object]]] = {
    "layerfit": ("layerfit", 0.8, {}),
    "easier": ("easier", 0.6, {"rounds": 2}),
    "tlc": ("tlc", 0.6, {"rounds": 2}),
    "layer_folding": ("layer_folding", 0.8, {}),
    "layer_collapse": ("layer_collapse", 0.8, {}),
    "layer_merge": ("layer_merge", 0.8, {}),
    "auto": ("auto", 0.8, {}),
    "tlc-parity": ("tlc", 0.6, {"parity": True}),
    "layer_merge-parity": ("layer_merge", 0.85, {"parity": True}),
}

SLOW = {"layerfit", "auto"}
"""`layerfit` is killed in earnest by `test_resume`, and `auto` begins with it."""


class Killed(BaseException):
    """The end of an attempt, wherever it is."""


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act = nn.LayerNorm(8), nn.ReLU()
        self.first, self.second = nn.Linear(8, 48), nn.Linear(48, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(self.act(self.first(self.norm(x))))


@cache
def network() -> Graph:
    torch.manual_seed(0)
    return lifted(nn.Sequential(nn.Flatten(), nn.Linear(12, 8), Mlp(), Mlp(), Mlp(), nn.Linear(8, 4)), (3, 2, 2))


def attempt(folder: Path, name: str, boundaries: set[str] | None) -> Trial:
    """What a job finds that goes on from its folder; killed at the first boundary that it was not killed at."""
    strategy, share, options = JOBS[name]

    def report(phase: str, fraction: float, message: str, metrics: Mapping[str, float]) -> None:
        # Whole epochs are boundaries, steps are not.
        boundary = f"{phase}: {re.split('[.,]', message)[0]}"
        if boundaries is not None and boundary not in boundaries:
            boundaries.add(boundary)
            raise Killed

    graph, folder = network(), folder / "job"
    folder.mkdir(exist_ok=True)
    journal = Journal(folder, "me")
    memory = JobMemory(journal, folder, "me")
    phases = Phases(report, 600.0, journal.before.seconds, journal.clock)
    samples, goal = random_samples(graph, 64, 1, labelled=True), Goal(TASKS["classification"], None)
    trainings = Trainings(graph, samples, samples, order(folder), goal, memory, phases, reserve=lambda: 60.0)
    timer = RememberedTimer(CountingTimer(), memory)
    left = partial(phases.seconds_left, 60.0)
    problem = problem_with(
        graph, share, timer, progress=phases, train=trainings.on_the_way, memory=memory,
        seconds_left=Readings(memory, "planning", left), clock=left, task="classification",
    )  # fmt: skip
    tools = Tools(
        lambda shipped: timer.networks([(structure(shipped, ()).module, graph.inputs)])[0],
        lambda candidate: tuned(trainings, phases, candidate.graph),
        Readings(memory, "search", left),
        lambda: problem,
    )
    found = find(strategy)
    quick = {} if options.get("parity") else {key: QUICK[key] for key in QUICK if key in found.options.model_fields}
    with phases.phase("plan", "Planning cuts"):
        best = search(problem, found.start(problem, found.parse(quick | options)), tools, goal).best
    assert best is not None
    return best


def tuned(trainings: Trainings, phases: Phases, graph: Graph) -> Any:
    with phases.phase("tune", "Fine-tuning"):
        return trainings.fine_tuned(graph, phases)


def order(folder: Path) -> WorkOrder:
    spec = JobSpec(
        model=ModelSource(pt2_artifact=MODEL),
        budget=Budget(fraction=0.8),
        data=DataReference(train=DataSplit(artifact=TRAIN)),
        fine_tuning=FineTuning(epochs=2, batch=16, learning_rate=1e-3),
    )
    return WorkOrder(
        job="optimizationJobs/test", task="optimize", spec=spec, folder=folder, cache_folder=folder,
        deadline_seconds=600,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in JOBS]
)
def test_stopped_at_every_boundary_it_comes_to_the_same_network(name: str, tmp_path: Path) -> None:
    for place in ("whole", "stopped"):
        (tmp_path / place).mkdir()
    whole = attempt(tmp_path / "whole", name, None)
    boundaries: set[str] = set()
    found = None
    while found is None:
        try:
            found = attempt(tmp_path / "stopped", name, boundaries)
        except Killed:
            continue
    assert len(boundaries) > 5
    assert whole.candidate.plan.steps
    assert found.candidate.plan == whole.candidate.plan
    weights = [trial.graph.module.state_dict() for trial in (whole, found)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())

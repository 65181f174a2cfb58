"""What the scoring of files costs a job, and that each file is scored once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from compressors.graph import Graph
from compressors.tasks import TASKS
from deploy.bench import LocalBench
from service.judging.quality import Goal
from service.pipeline.scorings import FINISHING_SECONDS, Scored, Scorings
from service.pipeline.shipping import ship
from tests.compressors.networks import graph_of
from tests.compressors.samples import BatchedTensors, random_samples
from tests.compressors.test_memory import Shelf

PAUSE = 0.05


class Slow(BatchedTensors):
    """Samples that take a while to be read."""

    reads = 0

    def batch(self, indices):
        self.reads += 1
        time.sleep(PAUSE)
        return super().batch(indices)


@pytest.fixture(scope="module")
def network() -> Graph:
    return graph_of("vgg")


def scorings(network: Graph, folder: Path, memory: Shelf, *, labelled: bool) -> tuple[Scorings, Slow]:
    data = random_samples(network, 640, 0, labelled=True)
    slow = Slow(data.inputs, data.labels if labelled else None)
    file = ship(network, folder / "original.onnx").artifact
    goal = Goal(TASKS["classification"])
    return Scorings(network, file, slow, goal, memory, LocalBench()), slow


@pytest.mark.parametrize("labelled", [True, False])
def test_twice_the_original_s_scoring_is_kept_back_for_the_result_s(
    network: Graph, tmp_path: Path, labelled: bool
) -> None:
    asked, slow = scorings(network, tmp_path, Shelf(), labelled=labelled)
    kept_back = asked.wind_up_seconds()
    took = asked.of(asked.original).seconds
    assert took >= slow.reads * PAUSE > 0
    assert kept_back == FINISHING_SECONDS + 2 * took


def test_a_file_is_scored_once_also_by_a_job_that_goes_on(network: Graph, tmp_path: Path) -> None:
    memory = Shelf()
    first, _ = scorings(network, tmp_path, memory, labelled=True)
    found = first.of(first.original)
    again, slow = scorings(network, tmp_path, memory, labelled=True)
    assert again.of(again.original) == found
    assert slow.reads == 0


def test_without_samples_nothing_is_found_and_no_time_is_needed(network: Graph, tmp_path: Path) -> None:
    asked, _ = scorings(network, tmp_path, Shelf(), labelled=True)
    nothing = Scorings(network, asked.original, None, asked.goal, Shelf(), LocalBench())
    found = nothing.of(nothing.original)
    assert isinstance(found, Scored)
    assert found.score.quality is None
    assert found.seconds < PAUSE

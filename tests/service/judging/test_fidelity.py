from __future__ import annotations

import math

import pytest
import torch

from compressors.problem import Score
from compressors.tasks import TASKS
from service.judging.fidelity import _First, shortfall
from service.judging.quality import Goal
from tests.compressors.samples import BatchedTensors


def score(metric: float | None = None, agreement: float = 1.0, divergence: float = 0.0) -> Score:
    return Score(divergence, agreement, metric, 1000, metric)


@pytest.mark.parametrize(("after", "fits"), [(0.95, True), (0.896, True), (0.894, False)])
def test_without_a_floor_half_a_point_may_be_lost(after: float, fits: bool) -> None:
    reason = shortfall(Goal(TASKS["classification"]), score(0.90), score(after, agreement=0.9))
    assert (reason is None) == fits
    assert fits or reason == "its top-1 accuracy is 89.40% and that of the float32 file 90.00%"


@pytest.mark.parametrize(("after", "fits"), [(0.81, True), (0.79, False)])
def test_with_a_floor_only_that_counts(after: float, fits: bool) -> None:
    reason = shortfall(Goal(TASKS["classification"], floor=0.8), score(0.90), score(after))
    assert (reason is None) == fits
    assert fits or reason == "its top-1 accuracy of 79.00% misses the floor of 80.00%"


@pytest.mark.parametrize(("agreement", "fits"), [(0.991, True), (0.989, False)])
def test_without_labels_decisions_have_to_stay(agreement: float, fits: bool) -> None:
    for floor in (None, 0.8):
        goal = Goal(TASKS["classification"], floor)
        assert (shortfall(goal, score(), score(agreement=agreement)) is None) == fits


@pytest.mark.parametrize(("divergence", "fits"), [(0.009, True), (0.011, False), (math.inf, False)])
def test_of_networks_that_decide_nothing_the_error_counts(divergence: float, fits: bool) -> None:
    reason = shortfall(Goal(TASKS["none"]), score(), score(divergence=divergence))
    assert (reason is None) == fits


def test_an_error_may_grow_by_a_hundredth() -> None:
    goal = Goal(TASKS["denoising"])
    assert shortfall(goal, score(0.100), score(0.1009)) is None
    assert shortfall(goal, score(0.100), score(0.1011)) is not None


def test_the_first_samples_are_those_that_the_dataset_has() -> None:
    samples = BatchedTensors(torch.arange(12.0).reshape(6, 2), None)
    first = _First(samples, 4)
    assert len(first) == 4
    assert len(_First(samples, 40)) == 6
    assert torch.equal(first.batch([1, 3])[0][0], samples.batch([1, 3])[0][0])
    assert torch.equal(first[2][0][0], samples[2][0][0])

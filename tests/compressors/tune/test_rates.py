"""Which learning rate a training takes by what short trials of each led to."""

import math

import pytest

from compressors.score import Reference
from compressors.tune.devices import Devices
from compressors.tune.rates import Rates
from compressors.tune.training import Course
from tests.compressors.networks import graph_of
from tests.compressors.samples import random_samples
from tests.compressors.tune.test_run import config, damaged


def rates(steps: int) -> tuple[Rates, float]:
    """Returns rates for a training of so many steps, trials of five, and the divergence that it starts with."""
    graph, start = graph_of("resnet-a"), damaged(graph_of("resnet-a"))
    data = random_samples(graph, 64, 1, labelled=True)
    reference = Reference.of(graph, data, None)
    settings = config(learning_rates=(0.1, 0.01, 0.001), trial_steps=5)
    course = Course(graph, data, reference.task, settings, Devices("cpu", "float32"))
    return Rates(course, start, reference, steps), reference.score(start.module).divergence


@pytest.mark.parametrize(
    ("steps", "harm", "chosen"),
    [(20, 2.3, 0.1), (20, 2.5, 0.01), (124, 2.5, 0.01), (125, 2.5, 0.1), (125, 3.9, 0.1), (125, 4.1, 0.01)],
)
def test_a_long_training_takes_the_highest_rate_whose_harm_it_repairs(steps: int, harm: float, chosen: float) -> None:
    choice, start = rates(steps)
    assert choice.chosen({0.1: harm * start, 0.01: 1.2 * start, 0.001: 0.8 * start}) == chosen


def test_a_training_hardly_longer_than_the_trials_takes_the_rate_that_did_best() -> None:
    choice, start = rates(19)
    assert choice.chosen({0.1: 1.1 * start, 0.01: 0.7 * start, 0.001: 0.8 * start}) == 0.01


def test_where_no_harm_can_be_repaired_it_is_the_rate_that_did_least() -> None:
    choice, start = rates(20)
    assert choice.chosen({0.1: math.nan, 0.01: 9.0 * start, 0.001: 7.0 * start}) == 0.001


def test_rates_are_tried_until_one_can_be_taken() -> None:
    choice, start = rates(20)
    trials: dict[float, float] = {}
    for rate in choice.left(trials):
        trials[rate] = (9.0 if rate > 0.05 else 2.3) * start
    assert list(trials) == [0.1, 0.01]

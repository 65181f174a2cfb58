"""What a search does with the time that it has, and with plans that come to one network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from torch import nn

from compressors.choose import Choice
from compressors.graph import TensorSpec
from compressors.plan import Step
from compressors.strategies.clocks import fitted_in_time
from compressors.strategies.comparing import Wanted, shortlisted
from compressors.strategies.planner import Measured, Planner
from compressors.surgery import cut_name
from compressors.table import Alternative, segment_cuts
from tests.compressors.problems import problem_of
from tests.compressors.samples import CountingTimer

PLANS = [Measured(Choice((), 0.0, harm), 1.0, f"network {harm}") for harm in (0.1, 0.2, 0.3, 0.4)]


@pytest.mark.parametrize(("seconds", "fits"), [(0.0, 1), (-5.0, 1), (15.0, 1), (25.0, 2), (39.0, 3), (math.inf, 4)])
def test_no_fit_but_the_first_is_begun_that_would_be_broken_off(seconds: float, fits: int) -> None:
    left = seconds

    def fitted(plan: Measured) -> Any:
        nonlocal left
        left -= 10
        return plan

    problem = problem_of("resnet-b", 0.8, seconds_left=lambda: left)
    found: list[Any] = list(fitted_in_time(problem, PLANS, fitted))
    assert found == PLANS[:fits]


def test_cuts_that_come_to_one_network_are_one_plan_and_measured_once() -> None:
    """Two removals side by side, and the one of both."""
    timer = CountingTimer()
    problem = problem_of("preact", 0.8, timer)
    cuts = [cut for segment in problem.analysis.segments for cut in segment_cuts(segment) if cut.step.kind == "remove"]
    planner = Planner(problem, cuts)
    at = {(one.cut.start, one.cut.end): one for one in planner.alternatives if one.cut.chain == "convs_1"}
    whole, parts = Choice((at[1, 3],), 0.0, 0.0), Choice((at[1, 2], at[2, 3]), 0.0, 0.0)
    before = timer.networks_timed

    planner.measure([parts, whole])

    assert timer.networks_timed == before + 2  # The original beside one of them.
    planner.aim(2 * problem.baseline_seconds)
    harms = {one.step: 1.0 for one in planner.alternatives}
    (plan,) = planner.within(harms)
    assert plan.choice.steps == whole.steps  # Which does less harm than both do, as far as anybody knows.


class Slow(CountingTimer):
    """Takes two seconds for each measurement, and half a second for each network."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.left, self.measured = seconds, list[int]()

    def networks(self, networks: Sequence[tuple[nn.Module, tuple[TensorSpec, ...]]]) -> list[float]:
        self.left -= 2 + len(networks) / 2
        self.measured.append(len(networks) - 1)
        return super().networks(networks)


@pytest.mark.parametrize(("seconds", "hurried"), [(3.0, True), (13.0, True), (40.0, False), (math.inf, False)])
def test_where_time_is_short_one_measurement_of_plans_below_the_budget_has_to_do(seconds: float, hurried: bool) -> None:
    timer = Slow(seconds)
    problem = problem_of("preact", 0.6, timer, seconds_left=lambda: timer.left)
    cuts = [cut for segment in problem.analysis.segments for cut in segment_cuts(segment)]
    planner = Planner(problem, cuts)
    planner.fastest()
    timer.measured.clear()

    planner.settle(harms := {one.step: one.saved for one in planner.alternatives})

    shares = [one.seconds / planner.target for one in planner.within(harms)]
    assert (min(shares) < 0.95) is hurried
    assert max(shares) > 0.95
    assert len(timer.measured) == 1


@pytest.mark.parametrize(("seconds", "measured"), [(4.0, 0), (400.0, 1)])
def test_plans_that_others_taught_are_measured_where_there_is_time(seconds: float, measured: int) -> None:
    timer = Slow(1000.0)
    problem = problem_of("preact", 0.6, timer, seconds_left=lambda: timer.left)
    planner = Planner(problem, [cut for segment in problem.analysis.segments for cut in segment_cuts(segment)])
    planner.fastest()
    harms = {one.step: one.saved for one in planner.alternatives}
    planner.measure(planner.choices(harms)[:1])
    timer.left = seconds
    timer.measured.clear()

    best, *_ = shortlisted(problem, planner, harms, Wanted(2, 4), lambda _steps, number: 1 / number)

    assert len(timer.measured) == measured
    assert best.seconds <= planner.target


def test_plans_are_made_without_removals_too() -> None:
    """Removals look best alone, so plans of all cuts would be full of them."""
    problem = problem_of("preact", 0.6)
    planner = Planner(problem, [cut for segment in problem.analysis.segments for cut in segment_cuts(segment)])
    harms = {one.step: 0.01 if one.step.kind == "remove" else 1.0 for one in planner.alternatives}

    kinds = [{step.kind for step in choice.steps} for choice in planner.choices(harms)]

    assert any("remove" in some for some in kinds)
    assert any("remove" not in some for some in kinds)


class Skewed(CountingTimer):
    """Takes twice as long over whole networks with one of the cuts in them as its table says."""

    def __init__(self, slow: str) -> None:
        super().__init__()
        self.slow = slow

    def networks(self, networks: Sequence[tuple[nn.Module, tuple[TensorSpec, ...]]]) -> list[float]:
        seconds = super().networks(networks)
        skewed = [any(name == self.slow for name, _ in module.named_children()) for module, _ in networks]
        return [2 * one if slow else one for one, slow in zip(seconds, skewed, strict=True)]


def test_the_target_is_neared_from_the_best_plan_too_where_tables_err_by_cut() -> None:
    plain = problem_of("vgg", 0.6)
    cuts = [cut for segment in plain.analysis.segments for cut in segment_cuts(segment)]
    slow, *_ = (cut.step for cut in cuts if cut.step.kind == "regress")
    problem = problem_of("vgg", 0.6, Skewed(cut_name(slow)))
    planner = Planner(problem, cuts)
    whole = planner._chooser.whole
    a, b = (Choice((one,), whole - one.saved, 0.0) for one in _slow_and_other(planner, slow))
    planner.measure([a, b])
    planner.aim(planner.seconds(a) / 0.98)  # nothing is nearer to the target than the cut that its table has wrong
    assert planner.seconds(b) < planner.target
    harms = {one.step: 1.0 if one.step == slow else 0.01 * one.saved for one in planner.alternatives}

    assert max(choice.seconds for choice in planner.choices(harms)) > 1.1 * a.seconds


def _slow_and_other(planner: Planner, slow: Step) -> tuple[Alternative, Alternative]:
    """Returns the alternative of a step, and the one elsewhere that saves most."""
    mine = next(one for one in planner.alternatives if one.step == slow)
    others = [one for one in planner.alternatives if one.step.exit != slow.exit]
    return mine, max(others, key=lambda one: one.saved)

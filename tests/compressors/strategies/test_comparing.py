"""Which plans are worth fitting, and plans that are made from what others taught."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count

import pytest

from compressors.choose import Choice
from compressors.plan import Step
from compressors.strategies.beliefs import Beliefs
from compressors.strategies.comparing import Wanted, learned, shortlisted, worth_fitting
from compressors.strategies.planner import Measured, Planner
from compressors.table import Alternative, Cut, segment_cuts
from tests.compressors.problems import problem_of


def plan(number: int) -> Measured:
    cut = Cut("chain", number, number + 1, Step("remove", f"in_{number}", f"out_{number}"), (1,), (1,))
    return Measured(Choice((Alternative(cut, 0.0, 1.0),), 0.0, 0.1 * number), 1.0, f"network {number}")


PLANS = [plan(number) for number in range(4)]


def ranked(*together: float) -> list[int]:
    known = {one.choice.steps: harm for one, harm in zip(PLANS, together, strict=False)}
    return [PLANS.index(one) for one in worth_fitting(PLANS, known)]


def test_plans_are_fitted_in_the_order_of_what_their_cuts_do_together() -> None:
    assert ranked(0.55, 0.5, 0.6, 0.52) == [1, 3, 0, 2]


@pytest.mark.parametrize(
    ("harms", "worth_it"),
    [((0.7, 0.5, 0.9, 0.6), [1, 3]), ((0.62, 0.5, 0.9, 0.6), [1, 3, 0]), ((0.7, 0.1, 0.9, 0.6), [1, 3])],
)
def test_plans_that_do_far_more_harm_than_the_best_are_not_fitted_but_for_one(
    harms: Sequence[float], worth_it: Sequence[int]
) -> None:
    assert ranked(*harms) == worth_it


def test_plans_that_nobody_had_time_to_compare_stay_in_order_behind_the_others() -> None:
    assert ranked(0.7, 0.5) == [1, 0, 2, 3]


class Judge:
    """Plans of a network whose cuts do little alone, and what they do together: some far more than they look.

    Those that only look harmless are the ones that save most, so whoever goes by looks takes them.
    """

    def __init__(self) -> None:
        self.problem = problem_of("preact", 0.6)
        cuts = [cut for segment in self.problem.analysis.segments for cut in segment_cuts(segment)]
        self.planner = Planner(self.problem, cuts)
        self.planner.fastest()
        self.harms = {one.step: 0.1 + 0.01 * at for at, one in enumerate(self.planner.alternatives)}
        self.numbers: list[int] = []
        looks = self.planner.choices(self.harms)
        self.bad = {step for choice in looks for step in choice.steps}

    def __call__(self, steps: Sequence[Step], number: int) -> float:
        self.numbers.append(number)
        return sum(math.sqrt(self.harms[step] * (30 if step in self.bad else 1)) for step in steps) ** 2

    def known(self) -> dict[tuple[Step, ...], float]:
        return {choice.steps: self(choice.steps, 0) for choice in self.planner.choices(self.harms)}

    def learned(self, known: dict[tuple[Step, ...], float], most: int = 40, enough: int = 1000) -> list[Choice]:
        asked = count()
        return learned(self.planner, Beliefs(self.harms), known, most, self, lambda: next(asked) >= enough)


def test_what_plans_do_together_teaches_better_plans() -> None:
    judge = Judge()
    known = judge.known()
    before = min(known.values())
    best, *_ = judge.learned(known)
    assert known[best.steps] < 0.5 * before
    assert not judge.bad & set(best.steps)
    assert best.seconds <= max(judge.planner._budgets(judge.harms))


def test_new_plans_come_best_first_and_hopeless_ones_not_at_all() -> None:
    judge = Judge()
    known = judge.known()
    harms = [known[choice.steps] for choice in judge.learned(known)]
    assert harms == sorted(harms)
    assert harms[-1] <= 1.25 * harms[0]
    assert max(known.values()) > 1.25 * harms[0]


@pytest.mark.parametrize(("most", "enough", "judged"), [(0, 1000, 0), (3, 1000, 3), (40, 0, 0)])
def test_no_more_plans_are_judged_than_wanted_and_than_there_is_time_for(most: int, enough: int, judged: int) -> None:
    judge = Judge()
    known = judge.known()
    before = len(known)
    judge.learned(known, most, enough)
    assert len(known) == before + judged


def test_a_plan_whose_network_puts_out_no_numbers_is_the_last_choice() -> None:
    judge = Judge()
    judge.planner.settle(judge.harms)
    (first, *_) = shortlisted(judge.problem, judge.planner, judge.harms, Wanted(2, 0), judge)
    ruined = first.choice.steps
    chosen = shortlisted(
        judge.problem,
        judge.planner,
        judge.harms,
        Wanted(2, 10),
        lambda steps, number: math.nan if steps == ruined else judge(steps, number),
    )
    assert ruined not in {one.choice.steps for one in chosen[:1]}


def test_it_ends_where_nothing_better_is_found() -> None:
    judge = Judge()
    known = dict.fromkeys(judge.known(), 1e-9)
    before = len(known)
    assert judge.learned(known, most=1000) == []
    assert len(known) <= before + 24


def test_what_was_learned_is_measured_and_stands_beside_the_others() -> None:
    judge = Judge()
    judge.planner.measure(judge.planner.choices(judge.harms))
    plain = shortlisted(judge.problem, judge.planner, judge.harms, Wanted(2, 0), judge)
    taught = shortlisted(judge.problem, judge.planner, judge.harms, Wanted(2, 40), judge)
    assert judge(taught[0].choice.steps, 0) < 0.5 * judge(plain[0].choice.steps, 0)
    assert taught[0].seconds <= judge.planner.target
    assert len(taught) <= 2


def test_of_measured_plans_four_times_as_many_are_compared_as_are_fitted() -> None:
    judge = Judge()
    judge.planner.aim(2 * judge.problem.baseline_seconds)
    judge.planner.measure([Choice((one,), 0.0, 0.0) for one in judge.planner.alternatives])
    judge.numbers.clear()
    shortlisted(judge.problem, judge.planner, judge.harms, Wanted(1, 0), judge)
    assert judge.numbers == [1, 2, 3, 4]


def test_where_only_the_fastest_is_within_the_budget_nothing_is_compared() -> None:
    judge = Judge()
    judge.planner.aim(0.5 * judge.planner.fastest().seconds)
    judge.numbers.clear()
    assert shortlisted(judge.problem, judge.planner, judge.harms, Wanted(4, 40), judge) == [judge.planner.fastest()]
    assert judge.numbers == []

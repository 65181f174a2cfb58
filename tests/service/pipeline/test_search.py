"""What is tried and what is shipped, with real searches on a device whose clock is arithmetic."""

import math
from dataclasses import replace
from functools import cache

import pytest

from compressors.errors import SurgeryError
from compressors.graph import Graph
from compressors.problem import Candidate, Problem, Score, Search
from compressors.surgery import fold_norms
from compressors.tasks import TASKS
from compressors.tune import Tuned
from service.judging.quality import Goal
from service.pipeline.search import AIM_ROUNDS, SAFE, Found, Tools, search
from tests.compressors.problems import problem_of, started
from tests.compressors.samples import random_samples


class Device:
    """Times exported graphs: as the problem's timer does, times `slower` each."""

    def __init__(self, problem: Problem, *slower: float) -> None:
        self.problem, self.slower, self.times = problem, list(slower), []

    def __call__(self, graph: Graph) -> float:
        factor = self.slower.pop(0) if self.slower else 1.0
        (seconds,) = self.problem.timer.networks([(fold_norms(graph).module, graph.inputs)])
        self.times.append(seconds * factor)
        return self.times[-1]


def run(problem: Problem, *slower: float, tune=lambda _: None, floor=None, left=math.inf) -> tuple[Found, Device]:
    device = Device(problem, *slower)
    tools = Tools(device, tune, lambda: left)
    return search(problem, started(problem), tools, Goal(TASKS["classification"], floor)), device


def tuned(candidate: Candidate, accuracy: float, divergence: float | None = None) -> Tuned:
    divergence = candidate.score.divergence if divergence is None else divergence
    after = Score(divergence, candidate.score.agreement, accuracy, candidate.score.samples, accuracy)
    return Tuned(candidate.graph.copied(), candidate.score, after, (), 0.01, {}, "float32")


def test_the_first_network_within_the_budget_is_kept_with_its_own_time() -> None:
    problem = problem_of("resnet-b", 0.8)
    found, device = run(problem)
    assert found.best is not None
    assert found.best.seconds == pytest.approx(device.times[0])
    assert found.best.seconds <= SAFE * problem.budget_seconds
    assert len(device.times) == 1
    assert found.best in found.trials


def test_a_file_slower_than_its_structure_promised_tightens_the_aim() -> None:
    problem = problem_of("resnet-b", 0.8)
    found, device = run(problem, 1.2)
    assert len(device.times) == 2
    assert found.best is not None
    assert found.best.seconds == pytest.approx(device.times[1])
    assert found.best.seconds <= SAFE * problem.budget_seconds


def test_a_budget_out_of_reach_returns_the_fastest_after_one_look() -> None:
    problem = problem_of("resnet-a", 0.01)
    found, device = run(problem)
    assert len(device.times) == 1
    assert found.best is not None
    assert found.best.candidate.plan.steps == started(problem).floor().steps


def test_files_that_never_keep_the_aim_end_with_the_closest_one() -> None:
    problem = problem_of("resnet-b", 0.8)
    found, device = run(problem, *[3.0] * AIM_ROUNDS)
    assert len(device.times) <= AIM_ROUNDS
    assert found.best is not None
    assert found.best.seconds == pytest.approx(min(device.times))


def test_no_network_is_listed_twice() -> None:
    found, _ = run(problem_of("resnet-b", 0.8), 1.05, 1.05)
    plans = [trial.candidate.plan.steps for trial in found.trials]
    assert len(plans) == len(set(plans))


def test_training_that_found_nothing_better_adds_no_network() -> None:
    problem = problem_of("resnet-b", 0.8)
    found, _ = run(problem, tune=lambda one: Tuned(one.graph, one.score, one.score, (), 0.01, {}, "float32"))
    assert found.best is not None
    assert found.best.graph is found.best.candidate.graph
    assert found.best.tuned is not None
    assert not found.best.tuned.improved
    assert len(found.trials) == len({trial.candidate.plan.steps for trial in found.trials})


def labelled(share: float) -> Problem:
    samples = random_samples(problem_of("resnet-b", share).graph, 32, 2, labelled=True)
    return problem_of("resnet-b", share, selection=samples)


def test_with_an_accuracy_floor_the_aim_is_relaxed_until_it_holds() -> None:
    seen = []

    def tune(candidate: Candidate) -> Tuned | None:
        seen.append(candidate)
        return None if len(seen) == 1 else tuned(candidate, 1.01)

    found, _ = run(labelled(0.7), tune=tune, floor=1.01)
    assert len(seen) == 2
    assert found.best is not None
    assert found.best.score.accuracy == 1.01


def test_a_floor_that_nothing_holds_ships_nothing_and_keeps_what_was_tried() -> None:
    found, device = run(labelled(0.7), floor=1.01)
    assert found.best is None
    assert found.trials
    assert len(device.times) >= 3


class Known:
    """A search that found some networks, of the given accuracies, and finds no others."""

    def __init__(self, problem: Problem, *accuracies: float) -> None:
        search, budgets = started(problem), (problem.baseline_seconds * share for share in (0.5, 0.7, 0.9))
        every = [one for budget in budgets for one in search.candidates(budget)]
        found = [one for _, one in sorted({round((one.seconds or 0.0) * 1e6): one for one in every}.items())]
        self.found = [
            replace(one, score=replace(one.score, divergence=1 - accuracy, accuracy=accuracy, metric=accuracy))
            for one, accuracy in zip(found, accuracies, strict=False)
        ]

    def floor(self):
        return self.found[0].plan

    def candidates(self, budget_seconds: float) -> list[Candidate]:
        within = [one for one in self.found if one.seconds <= budget_seconds]
        return sorted(within, key=lambda one: one.score.divergence) or self.found


def test_the_fastest_network_that_holds_the_floor_as_it_is_is_gone_back_to() -> None:
    problem = problem_of("resnet-b", 0.9)
    known = Known(problem, 0.5, 0.8, 0.9)
    first, second, third = (one.seconds or 0.0 for one in known.found)
    assert first < second < third
    # Nothing is fast enough: the fastest is tried for every aim, and does not hold the floor.
    impossible = replace(problem, budget_seconds=0.5 * first, baseline_seconds=first)
    found = search(
        impossible, known, Tools(Device(problem), lambda _: None, lambda: math.inf), Goal(TASKS["classification"], 0.75)
    )
    assert found.best is not None
    assert found.best.candidate is known.found[1]
    assert found.best.seconds == found.aim


@pytest.mark.parametrize(("other", "kept"), [(0.86, False), (0.6, True)])
def test_a_network_just_within_the_budget_is_kept_where_a_faster_one_is_far_worse(other: float, kept: bool) -> None:
    problem = problem_of("resnet-b", 0.8)
    strategy = Known(problem, other, 0.9)
    fast, close = strategy.found
    aimed = replace(problem, budget_seconds=(close.seconds or 0.0) / 0.995)
    device = Device(aimed)
    found = search(
        aimed, strategy, Tools(device, lambda _: None, lambda: math.inf), Goal(TASKS["classification"], None)
    )

    assert len(device.times) == 2
    assert found.best is not None
    assert found.best.candidate == (close if kept else fast)


@pytest.mark.parametrize(("left", "timed"), [(40.0, 1), (80.0, 2), (math.inf, 2)])
def test_a_network_just_within_the_budget_is_enough_where_planning_again_takes_the_time(
    left: float, timed: int
) -> None:
    """The first plan takes a minute."""
    problem = problem_of("resnet-b", 0.8)
    strategy = Known(problem, 0.86, 0.9)
    aimed = replace(problem, budget_seconds=(strategy.found[1].seconds or 0.0) / 0.995)
    device = Device(aimed)
    tools = Tools(device, lambda _: None, lambda: left if device.times else left + 60)
    search(aimed, strategy, tools, Goal(TASKS["classification"], None))
    assert len(device.times) == timed


class Counted(Known):
    """Counts how often it is asked to plan."""

    asked = 0

    def candidates(self, budget_seconds: float) -> list[Candidate]:
        self.asked += 1
        return super().candidates(budget_seconds)


@pytest.mark.parametrize(
    ("accuracies", "slow", "asked", "kept"),
    [
        ((0.5, 0.86, 0.9), False, 1, 1),  # the second best is fitted already and fast enough
        ((0.86, 0.2, 0.9), False, 1, 0),  # so is the third best, and the second best is far worse
        ((0.5, 0.2, 0.9), False, 2, 0),  # all that is fast enough is far worse: something else may be found
        ((0.5, 0.86, 0.9), True, 2, 0),  # the second best's file would be too slow too
    ],
)
def test_a_network_that_is_fitted_already_is_timed_before_anything_is_planned_again(
    accuracies: tuple[float, ...], slow: bool, asked: int, kept: int
) -> None:
    """The best one's file misses the budget by a per mille, or by a lot."""
    problem = problem_of("resnet-b", 0.8)
    strategy = Counted(problem, *accuracies)
    _, second, best = (one.seconds or 0.0 for one in strategy.found)
    aimed = replace(problem, budget_seconds=best)
    slower = best / second if slow else 1.0
    device = Device(aimed, 1.001 * slower, slower)
    tools = Tools(device, lambda _: None, lambda: math.inf)
    found = search(aimed, strategy, tools, Goal(TASKS["classification"], None))
    assert strategy.asked == asked
    assert found.best is not None
    assert found.best.candidate == strategy.found[kept]


def test_no_new_aim_is_tried_when_the_time_is_up() -> None:
    found, device = run(labelled(0.7), 2.0, floor=1.01, left=0.0)
    assert len(device.times) == 1
    assert found.best is None


class Doubtful(Device):
    """Finds that the first files that it gets do not compute what their graphs do."""

    doubts = 1

    def __call__(self, graph: Graph) -> float:
        if len(self.times) < self.doubts:
            self.times.append(0.0)
            raise SurgeryError("model.onnx differs")
        return super().__call__(graph)


def test_a_network_whose_file_differs_is_refused_and_the_next_one_taken() -> None:
    problem = problem_of("resnet-b", 0.8)
    tools = Tools(Doubtful(problem), lambda _: None, lambda: math.inf)
    found = search(problem, started(problem), tools, Goal(TASKS["classification"], None))
    refused = [trial for trial in found.trials if trial.refusal]
    assert [trial.refusal for trial in refused] == ["model.onnx differs"]
    assert found.refusals == []
    assert found.best is not None
    assert found.best.candidate.plan.steps != refused[0].candidate.plan.steps


def test_where_all_that_was_planned_is_refused_it_plans_again() -> None:
    problem = problem_of("resnet-b", 0.8)
    search_on = started(problem)
    device = Doubtful(problem)
    device.doubts = len(search_on.candidates(problem.budget_seconds))
    found = search(
        problem, search_on, Tools(device, lambda _: None, lambda: math.inf), Goal(TASKS["classification"], None)
    )
    assert len([trial for trial in found.trials if trial.refusal]) == device.doubts
    assert found.best is not None
    assert found.best.seconds is not None
    assert found.best.seconds <= problem.budget_seconds


class Wrong(Device):
    """Finds that no file computes what its graph does."""

    def __call__(self, graph: Graph) -> float:  # noqa: ARG002 (as all tools take it)
        raise SurgeryError("its file differs")


def test_where_every_network_s_file_differs_each_says_so() -> None:
    problem = problem_of("resnet-b", 0.8)
    tools = Tools(Wrong(problem), lambda _: None, lambda: math.inf)
    found = search(problem, started(problem), tools, Goal(TASKS["classification"], None))
    assert found.best is None
    assert len(found.refusals) == len(found.trials) > 0
    assert set(found.refusals) == {"its file differs"}


def test_a_tuned_network_whose_file_differs_gives_way_to_the_one_before() -> None:
    problem = problem_of("resnet-b", 0.8)
    found, _ = run(problem, tune=lambda candidate: tuned(candidate, 1.0, 0.0))
    assert found.best is not None
    before = found.fall_back("model.onnx differs")
    assert before is found.best
    assert before.graph is before.candidate.graph
    assert [trial.refusal for trial in found.trials if trial.tuned] == ["model.onnx differs"]
    assert found.fall_back("model.onnx differs") is None


class Clock:
    """Seconds that are left; what is done takes as long as it is said to."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def __call__(self) -> float:
        return self.left

    def spend(self, seconds: float) -> None:
        self.left -= seconds


@cache
def real(strategy: str) -> tuple[Problem, Search]:
    """A problem and a strategy's search on it; what it finds does not depend on when it is asked."""
    problem = problem_of("resnet-b", 0.8)
    return problem, started(problem, strategy)


STAGES = ("auto", "others", "last")
"""`auto`, those who wait behind it, and those who wait behind these."""


@cache
def waiting(stage: int) -> Search:
    problem, search = real("auto")
    return waiting(stage - 1).others(problem) if stage else search


@cache
def found_by(name: str, budget_seconds: float) -> tuple[Candidate, ...]:
    search = waiting(STAGES.index(name)) if name in STAGES else real(name)[1]
    return tuple(search.candidates(budget_seconds))


class Slow:
    """A search that takes its time over every plan."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name, self.clock = name, clock

    def floor(self):
        return real("layerfit")[1].floor()

    def candidates(self, budget_seconds: float) -> list[Candidate]:
        self.clock.spend(SECONDS["plan"])
        return list(found_by(self.name, budget_seconds))


class SlowStage(Slow):
    """The same, with others behind it that take as long; `begun` says who was begun, and with which problem."""

    def __init__(self, name: str, clock: Clock, begun: list[tuple[str, Problem]] | None = None) -> None:
        super().__init__(name, clock)
        self.begun = [] if begun is None else begun

    def others(self, problem: Problem) -> Search | None:
        if self.name == STAGES[-1]:
            return None
        behind = STAGES[STAGES.index(self.name) + 1]
        self.begun.append((behind, problem))
        return SlowStage(behind, self.clock, self.begun)


SECONDS = {"plan": 30.0, "training": 100.0}


class Job:
    """One search against a clock: planning takes 30 seconds, training 100 or what is left.

    A training makes of a network what its strategy is worth: the share that it cuts the divergence to.
    """

    def __init__(self, strategy: str, seconds: float, worth: dict[str, float]) -> None:
        self.problem, _ = real(strategy)
        self.clock, self.worth = Clock(seconds), worth
        self.trained: list[tuple[str, float]] = []
        self.renewed: list[Problem] = []
        self.search = (SlowStage if strategy == "auto" else Slow)(strategy, self.clock)

    def tune(self, candidate: Candidate) -> Tuned | None:
        granted = min(SECONDS["training"], 0.9 * self.clock.left)
        if granted <= 0:
            return None
        name = candidate.plan.strategy
        self.clock.spend(granted)
        self.trained.append((name, granted))
        return tuned(candidate, 0.5, candidate.score.divergence * self.worth.get(name, 1.5))

    def renew(self) -> Problem:
        self.renewed.append(replace(self.problem, seconds_left=lambda: self.clock.left / 2))
        return self.renewed[-1]

    def run(self) -> Found:
        tools = Tools(Device(self.problem), self.tune, self.clock, self.renew)
        return search(self.problem, self.search, tools, Goal(TASKS["classification"], None))


@pytest.mark.parametrize("seconds", [20.0, 60.0, 135.0, 170.0, 400.0, 10_000.0])
@pytest.mark.parametrize("worth", [{"layerfit": 0.5}, {"layerfit": 0.9, "layer_merge": 1e-6}], ids=["worse", "better"])
def test_auto_does_what_layerfit_does_in_the_same_time_before_anything_else(seconds: float, worth: dict) -> None:
    alone, auto = Job("layerfit", seconds, worth), Job("auto", seconds, worth)
    wanted, got = alone.run().best, auto.run().best
    assert wanted is not None
    assert got is not None
    assert auto.trained[: len(alone.trained)] == alone.trained
    assert got.score.divergence <= wanted.score.divergence
    assert got.seconds is not None
    assert got.seconds <= SAFE * auto.problem.budget_seconds


def test_the_network_of_another_ships_only_where_it_is_better() -> None:
    names = ("layer_merge", "easier", "tlc")
    better = Job("auto", 10_000.0, {"layerfit": 0.9} | dict.fromkeys(names, 1e-6))
    worse = Job("auto", 10_000.0, {"layerfit": 1e-6})
    best, kept = better.run().best, worse.run().best
    assert best is not None
    assert kept is not None
    assert best.candidate.plan.strategy in names
    assert kept.candidate.plan.strategy == "layerfit"


@pytest.mark.parametrize(("seconds", "asked"), [(155.0, False), (165.0, True)])
def test_others_begin_only_where_planning_once_more_fits_in(seconds: float, asked: bool) -> None:
    job = Job("auto", seconds, {})
    job.run()
    assert bool(job.renewed) == asked


@pytest.mark.parametrize(("seconds", "stages"), [(165.0, 1), (700.0, 2), (10_000.0, 2)])
def test_those_who_wait_behind_others_get_what_these_leave(seconds: float, stages: int) -> None:
    job = Job("auto", seconds, {"layerfit": 0.5})
    best = job.run().best
    assert best is not None
    assert best.candidate.plan.strategy == "layerfit"
    assert job.search.begun == list(zip(STAGES[1 : stages + 1], job.renewed[:stages], strict=True))


def test_others_get_the_clocks_of_what_is_left() -> None:
    job = Job("auto", 1_000.0, {"layerfit": 0.5})
    job.run()
    assert job.search.begun[0] == ("others", job.renewed[0])


def two_strategies(problem: Problem, tune, lefts: list[float]) -> Found:
    searches = started(problem), started(problem, "layer_merge", regress=False)

    class Both:
        def candidates(self, budget_seconds: float) -> list[Candidate]:
            return [candidate for one in searches for candidate in one.candidates(budget_seconds)]

        def floor(self):
            return searches[0].floor()

    left = iter(lefts)
    tools = Tools(Device(problem), tune, lambda: next(left, 0.0))
    return search(problem, Both(), tools, Goal(TASKS["classification"], None))


@pytest.mark.parametrize(("lefts", "wanted"), [([100.0] * 4 + [90.0, 90.0, 80.0], 2), ([100.0] * 4 + [10.0, 10.0], 1)])
def test_another_strategy_is_tuned_too_where_there_is_time_for_it(lefts: list[float], wanted: int) -> None:
    asked: list[Candidate] = []

    def tune(candidate: Candidate) -> Tuned:
        asked.append(candidate)
        return tuned(candidate, 1.0, 1e-9 / len(asked))

    found = two_strategies(problem_of("resnet-b", 0.8), tune, lefts)
    assert len({candidate.plan.strategy for candidate in asked}) == len(asked) == wanted
    assert found.best is not None
    assert found.best.candidate.plan.strategy == asked[-1].plan.strategy

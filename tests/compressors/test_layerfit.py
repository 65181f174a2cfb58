"""The strategy as a whole, on a device whose clock is arithmetic: budgets are met, choices are sound and repeatable."""

import math

import pytest
import torch

from compressors.choose import Chooser
from compressors.errors import OptionError
from compressors.graph import Graph
from compressors.line import Line
from compressors.plan import Plan
from compressors.problem import Problem
from compressors.strategies import STRATEGIES, find
from compressors.surgery import apply
from compressors.table import measure_table, segment_cuts, structure
from tests.compressors.networks import NETWORKS, graph_of, randomise
from tests.compressors.problems import problem_of, started
from tests.compressors.samples import CountingTimer, Recorder


def search(problem: Problem, **options):
    return started(problem, **options).candidates(problem.budget_seconds)


@pytest.fixture(scope="module")
def searched() -> tuple[Problem, list]:
    """One search that several tests look at."""
    problem = problem_of("resnet-b", 0.8)
    return problem, list(search(problem, plans=3))


@pytest.mark.parametrize("name", ["mobilenet-se", "vgg", "vit", "branches"])
def test_budget_is_met_by_what_is_returned_first(name: str) -> None:
    problem = problem_of(name, 0.9)
    best = search(problem)[0]
    assert best.seconds is not None
    assert best.seconds <= problem.budget_seconds
    again = problem.timer.networks([(structure(best.graph, ()).module, problem.graph.inputs)])
    assert again == pytest.approx([best.seconds])
    assert math.isfinite(best.score.divergence)


def test_candidates_within_budget_come_first_and_best_first(searched) -> None:
    _, candidates = searched
    assert len(candidates) >= 2
    divergences = [candidate.score.divergence for candidate in candidates]
    assert divergences == sorted(divergences)
    assert len({candidate.plan.steps for candidate in candidates}) == len(candidates)


def test_plan_is_replayable_and_names_the_strategy(searched) -> None:
    problem, (best, *_) = searched
    plan = Plan.from_json(best.plan.to_json())
    assert plan.strategy == "layerfit"
    replayed = apply(problem.graph, plan.steps)
    assert [node.name for node in replayed.module.graph.nodes] == [node.name for node in best.graph.module.graph.nodes]


def test_budget_above_the_original_changes_nothing() -> None:
    best = search(problem_of("resnet-a", 1.5))[0]
    assert best.plan.steps == ()
    assert best.score.divergence == pytest.approx(0, abs=1e-6)


def test_impossible_budget_is_answered_with_the_floor() -> None:
    problem = problem_of("resnet-a", 0.01)
    (only,) = search(problem)
    assert only.seconds is not None
    assert only.seconds > problem.budget_seconds
    assert only.plan.steps == started(problem).floor().steps


def test_floor_is_as_fast_as_any_plan(searched) -> None:
    problem, candidates = searched
    floor = started(problem).floor()
    assert floor.predicted_seconds is not None
    for candidate in candidates:
        assert candidate.seconds is not None
        assert floor.predicted_seconds <= candidate.seconds


def test_equal_seeds_give_equal_plans_and_scores(searched) -> None:
    _, one = searched
    two = search(problem_of("resnet-b", 0.8), plans=3)
    assert [(c.plan, c.score) for c in one] == [(c.plan, c.score) for c in two]


def test_options_narrow_what_is_done() -> None:
    only_removals = search(problem_of("resnet-a", 0.85), regress=False)[0]
    assert {step.kind for step in only_removals.plan.steps} == {"remove"}
    only_regressions = search(problem_of("resnet-a", 0.85), remove=False, refit="none")[0]
    assert {step.kind for step in only_regressions.plan.steps} == {"regress"}
    assert not only_regressions.plan.refit


def test_operators_with_too_many_unknowns_are_not_fitted() -> None:
    problem = problem_of("resnet-b", 0.8)
    assert "regress" in {step.kind for step in started(problem).floor().steps}
    assert "regress" not in {step.kind for step in started(problem, max_unknowns=2).floor().steps}


def test_stops_early_with_a_result_when_time_is_up() -> None:
    problem = problem_of("resnet-a", 0.8, seconds_left=lambda: 0.0)
    assert len(search(problem, plans=8, refinements=100)) == 1


def test_progress_goes_up_and_may_stop_the_search() -> None:
    recorder = Recorder()
    search(problem_of("resnet-a", 0.8, progress=recorder))
    seen = recorder.fractions
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] <= 1

    def stop(fraction, message, metrics=None):
        if fraction > 0.1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        search(problem_of("resnet-a", 0.8, progress=stop))


def test_another_budget_repeats_nothing_that_is_known() -> None:
    timer, recorder = CountingTimer(), Recorder()
    problem = problem_of("resnet-b", 0.8, timer, progress=recorder)
    one = started(problem)
    one.candidates(problem.budget_seconds)
    operators, told = len(timer.timed), len(recorder.calls)
    tighter = one.candidates(problem.budget_seconds * 0.9)[0]
    assert "judging each cut alone" not in [message for _, message, _ in recorder.calls[told:]]
    assert tighter.seconds is not None
    assert tighter.seconds <= problem.budget_seconds * 0.9
    assert len(timer.timed) == operators


def test_original_is_not_changed(searched) -> None:
    problem, _ = searched
    torch.manual_seed(0)
    fresh = randomise(NETWORKS["resnet-b"][0]())
    x = problem.graph.samples(2, 5)
    with torch.no_grad():
        torch.testing.assert_close(problem.graph.module(*x), fresh(*x))


def table_of(graph: Graph, timer: CountingTimer):
    problem = problem_of("resnet-b", 1.0, timer)
    cuts = [cut for segment in problem.analysis.segments for cut in segment_cuts(segment)]
    return problem, measure_table(problem, cuts)


def test_equal_operators_are_timed_once() -> None:
    timer = CountingTimer()
    table_of(graph_of("resnet-b"), timer)
    assert len(timer.timed) == len(set(timer.timed))


def test_every_alternative_saves_time() -> None:
    _, table = table_of(graph_of("resnet-b"), CountingTimer())
    assert table.alternatives
    assert all(alternative.saved > 0 for alternative in table.alternatives)


def test_sum_of_the_table_predicts_structures() -> None:
    timer = CountingTimer(overhead=0.0, slope=1.0)
    problem, table = table_of(graph_of("resnet-b"), timer)
    chooser = Chooser(problem.graph, problem.analysis, table)
    assert chooser.whole == pytest.approx(problem.baseline_seconds, rel=0.05)
    harms = {alternative.step: 1.0 for alternative in table.alternatives}
    choice = chooser.least_harm(harms, chooser.whole * 0.7)
    assert choice is not None
    assert choice.seconds <= chooser.whole * 0.7
    (measured,) = timer.networks([(structure(problem.graph, choice.steps).module, problem.graph.inputs)])
    assert choice.seconds == pytest.approx(measured, rel=0.1)


def test_less_time_never_means_less_harm() -> None:
    problem, table = table_of(graph_of("resnet-b"), CountingTimer())
    chooser = Chooser(problem.graph, problem.analysis, table)
    harms = {alternative.step: 1.0 / (1 + at) for at, alternative in enumerate(table.alternatives)}
    choices = [chooser.least_harm(harms, chooser.whole * share) for share in (1.01, 0.9, 0.8, 0.7, 0.6)]
    found = [choice.harm for choice in choices if choice is not None]
    assert found[0] == 0
    assert found == sorted(found)
    assert chooser.least_harm(harms, 0.0) is None


def test_line_learns_overhead_and_slope() -> None:
    line = Line()
    assert line.actual(2.0) == 2.0
    line.add(1.0, 2.0)
    assert line.actual(3.0) == pytest.approx(6.0)
    line.add(2.0, 3.0)
    assert line.coefficients() == pytest.approx((1.0, 1.0))
    assert line.table(line.actual(1.7)) == pytest.approx(1.7)


def test_unknown_strategy_and_options_are_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"there are: auto, easier, .*layerfit") as caught:
        find("layerfold")
    assert caught.value.field == "strategy"
    strategy = find("layerfit")
    with pytest.raises(OptionError, match="has no option 'refits'; it has: way, refit, ") as caught:
        strategy.parse({"refits": "all"})
    assert caught.value.field == "refits"
    with pytest.raises(OptionError, match=r"option plans: .* greater than or equal to 1") as caught:
        strategy.parse({"plans": 0})
    assert caught.value.field == "plans"


def test_every_option_of_every_strategy_is_described() -> None:
    for strategy in STRATEGIES.values():
        assert strategy.summary.endswith(".")
        for name, field in strategy.schema()["properties"].items():
            assert field.get("description"), f"{strategy.name}.{name}"
            assert "default" in field

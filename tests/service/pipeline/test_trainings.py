"""How many passes the trainings of a job get, all together, and after an interruption."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from compressors.analysis import analyse
from compressors.gates import GateRegulariser, amounts, insert_gates
from compressors.graph import Graph
from compressors.tasks import TASKS
from compressors.tune import Recipe
from service.judging.quality import Goal
from service.pipeline.phases import Phases
from service.pipeline.trainings import Trainings
from service.spec import Budget, DataReference, DataSplit, FineTuning, JobSpec, ModelSource
from service.worker.messages import WorkOrder
from tests.compressors.networks import graph_of
from tests.compressors.samples import Recorder, random_samples
from tests.compressors.test_memory import Shelf
from tests.service.runs import MODEL, TRAIN, quiet

EPOCHS, SITES = 2, 4


def trainings(folder: Path, memory: Shelf, seconds: float = 600.0) -> Trainings:
    """Of a job whose epochs have ten steps."""
    graph = graph_of("resnet-a")
    spec = JobSpec(
        model=ModelSource(pt2_artifact=MODEL),
        budget=Budget(fraction=0.9),
        data=DataReference(train=DataSplit(artifact=TRAIN)),
        fine_tuning=FineTuning(epochs=EPOCHS, batch=16, learning_rate=1e-3),
    )
    order = WorkOrder(
        job="optimizationJobs/test", task="optimize", spec=spec, folder=folder, cache_folder=folder,
        deadline_seconds=600,
    )  # fmt: skip
    samples = random_samples(graph, 160, 1, labelled=True)
    goal, phases = Goal(TASKS["classification"], None), Phases(quiet, seconds)
    return Trainings(graph, samples, samples, order, goal, memory, phases, reserve=lambda: 60.0)


def removed_one_by_one(some: Trainings) -> Graph:
    """What a loop does that trains after each of some activations."""
    graph = some.original
    for waiting in range(SITES, 0, -1):
        graph = some.on_the_way(graph, 1 / (waiting + 1))
    return graph


def test_all_trainings_of_a_network_together_are_the_passes_that_were_asked_for(tmp_path: Path) -> None:
    some = trainings(tmp_path, Shelf())
    tuned = some.fine_tuned(removed_one_by_one(some), some.phases)
    assert tuned is not None
    assert [*some.used.values(), tuned.history[-1].epoch] == pytest.approx([EPOCHS / (SITES + 1)] * (SITES + 1))


def test_a_job_that_goes_on_gives_every_training_the_same_passes(tmp_path: Path) -> None:
    memory = Shelf()
    first, again = trainings(tmp_path, memory), trainings(tmp_path, memory)
    wanted, got = removed_one_by_one(first), removed_one_by_one(again)
    assert again.used == first.used
    values = got.module.state_dict()
    assert all(torch.equal(value, values[key]) for key, value in wanted.module.state_dict().items())


@pytest.mark.parametrize(
    ("left", "floor", "granted"),
    [(100.0, None, 90.0), (200.0, None, 180.0), (2000.0, None, 1980.0), (200.0, 0.9, 120.0)],
)
def test_a_fine_tuning_leaves_a_tenth_of_the_time_or_seconds_or_what_a_second_network_needs(
    left: float, floor: float | None, granted: float, tmp_path: Path
) -> None:
    some = trainings(tmp_path, Shelf(), seconds=left + 60.0)  # of which a minute is kept back for the end
    some = replace(some, goal=replace(some.goal, floor=floor))
    assert some._granted(some.original, 1.0).seconds == pytest.approx(granted, abs=1.0)


def test_patience_ends_a_training_that_gets_no_better(tmp_path: Path) -> None:
    some = trainings(tmp_path, Shelf())
    spec = some.order.spec
    # A rate that moves nothing: every look finds what was there before.
    idle = FineTuning(epochs=20, batch=16, learning_rate=1e-12, patience=3)
    order = some.order.model_copy(update={"spec": spec.model_copy(update={"fine_tuning": idle})})
    tuned = replace(some, order=order).fine_tuned(some.original, some.phases, refitted=True)
    assert tuned is not None
    assert len(tuned.history) == 3


def test_moments_that_cuts_have_spoilt_are_estimated_anew_where_nothing_was_refitted(tmp_path: Path) -> None:
    some = trainings(tmp_path, Shelf())
    spoilt = some.original.copied()
    for module in spoilt.module.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean += 3
    (tmp_path / "other").mkdir()
    anew = some.fine_tuned(spoilt, some.phases)
    other = trainings(tmp_path / "other", Shelf())
    as_it_was = other.fine_tuned(spoilt, other.phases, refitted=True)
    assert anew is not None
    assert as_it_was is not None
    assert anew.history[0].score.divergence < as_it_was.history[0].score.divergence


def test_fine_tuning_a_network_leaves_what_was_trained_on_the_way_to_it(tmp_path: Path) -> None:
    memory, steps = Shelf(), Recorder()
    some = trainings(tmp_path, memory)
    wanted = some.on_the_way(some.original, 0.1)
    some.fine_tuned(some.original, some.phases)
    again = trainings(tmp_path, memory)
    again.phases._report = lambda _phase, fraction, message, metrics: steps(fraction, message, metrics)
    got = again.on_the_way(again.original, 0.1).module.state_dict()
    assert not [message for _, message, _ in steps.calls if "step" in message]
    assert all(torch.equal(value, got[key]) for key, value in wanted.module.state_dict().items())


def test_fine_tunings_of_two_networks_take_no_passes_from_each_other(tmp_path: Path) -> None:
    some = trainings(tmp_path, Shelf())
    for name in ("resnet-a", "preact"):
        tuned = some.fine_tuned(graph_of(name), some.phases)
        assert tuned is not None
        assert tuned.history[-1].epoch == pytest.approx(EPOCHS)


def test_trainings_that_need_less_than_a_step_do_one_and_leave_something_for_the_next(tmp_path: Path) -> None:
    some = trainings(tmp_path, Shelf())
    graph = some.original
    for share in (0.001, 0.002, 0.003):
        graph = some.on_the_way(graph, share)
    assert sum(some.used.values()) == pytest.approx(0.006 * EPOCHS, rel=0.01)


@pytest.mark.parametrize(("seconds", "tries"), [(160.0, False), (600.0, True)])
def test_a_short_training_with_gates_tries_no_rates(tmp_path: Path, seconds: float, tries: bool) -> None:
    some, steps = trainings(tmp_path, Shelf(), seconds), Recorder()
    free = FineTuning(epochs=EPOCHS, batch=16)
    order = some.order.model_copy(update={"spec": some.order.spec.model_copy(update={"fine_tuning": free})})
    some.phases._report = lambda _phase, fraction, message, metrics: steps(fraction, message, metrics)
    gated = insert_gates(some.original, [site.node for site in analyse(some.original).sites])
    trained = replace(some, order=order).on_the_way(gated, 0.5, GateRegulariser())
    assert any("learning rate" in message for _, message, _ in steps.calls) is tries
    assert amounts(trained.module) != amounts(gated.module)


def test_no_time_gives_the_network_back_as_it_is(tmp_path: Path) -> None:
    some = trainings(tmp_path, Shelf())
    assert some.on_the_way(some.original, 0.5, seconds=0.0) is some.original
    assert some.used == {}


def free(some: Trainings) -> Trainings:
    """Of a job that asks for no batch and no rate."""
    spec = some.order.spec.model_copy(update={"fine_tuning": FineTuning(epochs=EPOCHS)})
    return replace(some, order=some.order.model_copy(update={"spec": spec}))


def test_a_papers_recipe_sets_batch_and_rate_unless_the_job_does(tmp_path: Path) -> None:
    recipe = Recipe("sgd", 0.02, batch=32)
    for name, asks, rate, steps in (("free", False, 0.02, 5), ("asked", True, 1e-3, 10)):
        (tmp_path / name).mkdir()
        some = trainings(tmp_path / name, Shelf())
        tuned = (some if asks else free(some)).fine_tuned(some.original, some.phases, recipe=recipe)
        assert tuned is not None
        assert (tuned.learning_rate, tuned.trials) == (rate, {})
        assert tuned.history[-1].step == EPOCHS * steps


def test_on_the_way_a_papers_training_goes_on_from_its_end(tmp_path: Path) -> None:
    some = free(trainings(tmp_path, Shelf()))
    # A rate at which nothing gets better: the best moment would be the start.
    after = some.on_the_way(some.original, 0.5, recipe=Recipe("sgd", 0.5, batch=32))
    before = some.original.module.state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in after.module.state_dict().items())
    tuned = some.fine_tuned(some.original, some.phases, recipe=Recipe("sgd", 0.5, batch=32))
    assert tuned is not None
    assert not tuned.before.better_than(tuned.after)

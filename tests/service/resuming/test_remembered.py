"""A search that goes on with what an earlier one remembered asks nothing twice and comes to the same end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from compressors.graph import TensorSpec
from compressors.problem import Candidate, Problem
from compressors.strategies import STRATEGIES
from deploy.measure.report import Budget, compare, meets
from deploy.measure.settings import TimingSettings
from deploy.measure.whole import measure
from deploy.references import write_dispatch
from service.pipeline.shipping import Contest
from service.resuming import remembered
from service.resuming.journal import FITS, Journal
from service.resuming.remembered import JobMemory, Readings, RememberedTimer, recalled
from tests.compressors.networks import graph_of
from tests.compressors.problems import problem_of, started
from tests.compressors.samples import CountingTimer, Recorder
from tests.compressors.strategies.test_contract import NETWORKS
from tests.compressors.test_memory import Shelf

QUICK = ("layerfit", "easier", "tlc", "layer_folding")
"""One of every kind of search; the others are made of the same parts."""


class Stopper(Recorder):
    """Stops the work at the first message with some words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def __call__(self, fraction, message, metrics=None) -> None:
        super().__call__(fraction, message, metrics)
        if self.words in message:
            raise KeyboardInterrupt


def asked(name: str, memory, timer: CountingTimer, **changes) -> Problem:
    """The strategy's problem, on a device that is asked through a memory."""
    network, share = NETWORKS[name]
    return problem_of(network, share, RememberedTimer(timer, memory), memory=memory, **changes)


def memory_in(folder: Path, writer: str = "me") -> JobMemory:
    """What a job keeps in its folder."""
    return JobMemory(Journal(folder, writer), folder, writer)


def best(name: str, problem: Problem) -> Candidate:
    return started(problem, name).candidates(problem.budget_seconds)[0]


def same(one: Candidate, two: Candidate) -> bool:
    states = [candidate.graph.module.state_dict() for candidate in (one, two)]
    return one.plan == two.plan and all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.fixture(scope="module")
def whole() -> tuple[Candidate, Shelf]:
    """What `layerfit` found, and what it remembers."""
    shelf = Shelf()
    return best("layerfit", asked("layerfit", shelf, CountingTimer())), shelf


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in STRATEGIES])
def test_a_second_search_judges_fits_and_times_nothing(name: str) -> None:
    shelf = Shelf()
    first = best(name, asked(name, shelf, CountingTimer()))
    kept, timer = list(shelf), CountingTimer()
    problem = asked(name, shelf, timer)
    second = best(name, problem)

    assert same(first, second)
    assert (timer.timed, timer.networks_timed) == ([], 0)
    assert list(shelf) == kept
    assert not [message for _, message, _ in problem.progress.calls if "judging" in message]


@pytest.mark.parametrize(
    ("words", "later"), [("judging with refitting: ", CountingTimer()), ("fitting plan 2", CountingTimer(slope=2.0))]
)
def test_a_search_that_was_stopped_comes_to_the_same_end(
    words: str, later: CountingTimer, whole: tuple[Candidate, Shelf], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        best("layerfit", asked("layerfit", memory_in(tmp_path), CountingTimer(), progress=Stopper(words)))

    # Once the plans are measured, a device that has become slower changes nothing.
    assert same(whole[0], best("layerfit", asked("layerfit", memory_in(tmp_path), later)))


def test_other_settings_are_judged_anew(whole: tuple[Candidate, Shelf]) -> None:
    problem = asked("layerfit", Shelf(whole[1]), CountingTimer(), progress=Stopper("judging each cut alone"))
    with pytest.raises(KeyboardInterrupt):
        started(problem, "layerfit", refit="last").candidates(problem.budget_seconds)


def test_networks_of_other_structure_are_timed() -> None:
    timer = CountingTimer()
    remembered, graphs = RememberedTimer(timer, Shelf()), [graph_of(name) for name in ("resnet-a", "mobilenet")]
    times = [remembered.networks([(graph.module, graph.inputs)]) for graph in (*graphs, *graphs)]
    assert timer.networks_timed == 2
    assert times[:2] == times[2:]
    assert times[0] != times[1]


class AnyTimer(CountingTimer):
    """Times what is no graph too."""

    def networks(self, networks):
        self.networks_timed += len(networks)
        return [1.0 for _ in networks]


def test_a_network_without_a_graph_is_timed_each_time() -> None:
    timer = AnyTimer()
    remembered = RememberedTimer(timer, Shelf())
    for _ in range(2):
        remembered.networks([(nn.ReLU(), (TensorSpec("x", (3,)),))])
    assert timer.networks_timed == 2


def test_a_clock_is_read_again_as_it_was_read_and_goes_on_from_there() -> None:
    shelf = Shelf()
    first = Readings(shelf, "left", iter([9.0, 4.0]).__next__)
    assert [first(), first()] == [9.0, 4.0]
    second = Readings(shelf, "left", iter([-1.0]).__next__)
    assert [second(), second(), second()] == [9.0, 4.0, -1.0]


def test_what_is_not_of_its_kind_is_found_out_anew() -> None:
    shelf = Shelf(some="text")
    assert recalled(shelf, "some", float, lambda: 2.0) == 2.0
    assert shelf["some"] == 2.0


def test_a_whole_measurement_survives_the_journal(tmp_path: Path) -> None:
    file = write_dispatch(tmp_path / "net.onnx", 3, 1)
    settings = TimingSettings(min_seconds=0.2, max_seconds=0.5, warmup_seconds=0.1, precision=None, processes=2)

    def timed() -> Contest:
        before, after = measure([file, file], settings)
        return Contest(before, after, compare(before, after), meets(Budget(None, 0.5), before, after))

    first = recalled(Journal(tmp_path, "me"), "contest", Contest, timed)
    assert recalled(Journal(tmp_path, "me"), "contest", Contest, lambda: pytest.fail("measured again")) == first
    assert math.isfinite(first.ratio.speedup)


def test_weights_are_kept_for_the_same_writer_and_key_only(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3, 4), "b": torch.arange(5)}
    memory_in(tmp_path).keep_weights("key", weights)
    again = memory_in(tmp_path).recall_weights("key")
    assert again is not None
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert memory_in(tmp_path).recall_weights("other key") is None
    assert memory_in(tmp_path, "another").recall_weights("key") is None


def test_weights_are_kept_as_far_as_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MAX_WEIGHT_BYTES", 10_000)
    memory = memory_in(tmp_path)
    for name in ("first", "second"):
        memory.keep_weights(name, {"a": torch.ones(1500)})
    assert memory.recall_weights("first") is not None
    assert memory.recall_weights("second") is None


def test_a_job_goes_on_where_no_weights_can_be_written(tmp_path: Path) -> None:
    memory = memory_in(tmp_path)
    (tmp_path / FITS).write_text("a file where the folder would be")
    memory.keep_weights("key", {"a": torch.ones(3)})
    assert memory.recall_weights("key") is None

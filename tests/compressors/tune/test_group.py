"""A group of processes trains one network: equal gradients, one decision. On the processor here, as on several GPUs."""

import io
import os
from dataclasses import replace

import pytest
import torch

from compressors.errors import OptionError
from compressors.tune import TuneConfig, Tuned, tune
from compressors.tune.group import GroupError, Work, group_size, tune_in_group
from compressors.tune.parcel import packed, unpacked
from tests.compressors.networks import NETWORKS, graph_of
from tests.compressors.samples import BatchedTensors, Recorder, random_samples
from tests.compressors.tune.test_run import damaged

RECIPE = TuneConfig(
    epochs=2.0,
    batch=32,
    learning_rates=(0.02, 0.002),
    trial_steps=2,
    features=0.0,
    augment=False,
    optimizer="sgd",
    evaluations=2,
    device="cpu",
    precision="float32",
)


def train(name: str, progress, **changes) -> Tuned:
    graph = graph_of(name)
    data = random_samples(graph, 96, 1)
    return tune(graph, damaged(graph), data, data, replace(RECIPE, **changes), progress)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_graphs_arrive_with_their_names(name: str) -> None:
    graph = graph_of(name)
    file = io.BytesIO()
    torch.save(packed(graph), file)
    file.seek(0)
    arrived = unpacked(torch.load(file, weights_only=False))
    told = [[(n.op, n.name, n.target, n.meta.get("path")) for n in g.module.graph.nodes] for g in (graph, arrived)]
    assert told[0] == told[1]
    x = graph.samples(2)
    with torch.no_grad():
        assert torch.equal(graph.module(*x), arrived.module(*x))


@pytest.mark.slow
def test_two_processes_train_as_one_does() -> None:
    # Without batch norms the mean of the gradients of two halves is the gradient of the whole.
    seen = Recorder()
    together, alone = train("vit", seen, processes=2), train("vit", Recorder(), processes=1)
    assert seen.fractions[-1] == 1.0
    assert not any("one process" in message for _, message, _ in seen.calls)
    assert together.learning_rate == alone.learning_rate
    assert [entry.step for entry in together.history] == [entry.step for entry in alone.history]
    weights = alone.graph.module.state_dict()
    for key, value in together.graph.module.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_batch_norms_of_a_group_end_as_one_network() -> None:
    tuned = train("resnet-a", Recorder(), processes=2, features=1.0, ema=0.9)
    assert tuned.after.better_than(tuned.before)


@pytest.mark.slow
def test_stopping_ends_every_process() -> None:
    def stop(fraction, message, metrics=None):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train("vit", stop, processes=2)


def test_what_is_the_callers_fault_is_said_as_by_one_process() -> None:
    graph = graph_of("vit")
    data = BatchedTensors(graph.inputs[0].random(32, 1), torch.zeros(32, 3))
    with pytest.raises(OptionError, match="Name the task") as caught:
        tune_in_group(Work(graph, graph, data, data, RECIPE), 1, Recorder())
    assert caught.value.field == "task"


def test_samples_that_do_not_travel_are_trained_on_here() -> None:
    class Local(BatchedTensors):
        pass

    graph = graph_of("vit")
    data, seen = Local(graph.inputs[0].random(64, 1)), Recorder()
    with pytest.raises(GroupError, match="cannot be handed"):
        tune_in_group(Work(graph, graph, data, data, RECIPE), 2, seen)
    settings = replace(RECIPE, processes=2, learning_rates=(0.01,))
    assert tune(graph, damaged(graph), data, data, settings, seen).history
    assert "training in one process" in seen.calls[0][1]


def test_groups_are_of_the_size_asked_for_or_one_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert group_size(TuneConfig(device="cpu")) == 1
    assert group_size(TuneConfig(device="cuda:0")) == 1
    assert group_size(TuneConfig(processes=3)) == 3
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    assert group_size(TuneConfig(processes=3)) == 1

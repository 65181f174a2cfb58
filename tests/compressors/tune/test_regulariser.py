"""What a strategy adds to a training: gates with a penalty, their rate, and what happens to them."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import fx, nn

from compressors.graph import Graph
from compressors.tune import ParameterGroup, TuneConfig, tune
from tests.compressors.networks import graph_of
from tests.compressors.samples import Recorder, random_samples


class Gate(nn.Module):
    """Between an activation (0) and the identity (1); remembers in a buffer how often it was moved."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation, self.share = activation, nn.Parameter(torch.zeros(1))
        self.register_buffer("moved", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return self.share * x + (1 - self.share) * self.activation(x)


class Closing:
    """Pulls every gate towards 1 and keeps it in [0, 1]."""

    def gates(self, module: fx.GraphModule) -> list[Gate]:
        return [part for part in module.modules() if isinstance(part, Gate)]

    def penalty(self, module: fx.GraphModule) -> torch.Tensor:
        return 10 * torch.stack([(1 - gate.share).square().sum() for gate in self.gates(module)]).sum()

    def after_step(self, module: fx.GraphModule, rate: float = 1.0) -> None:
        assert 0 <= rate <= 1
        with torch.no_grad():
            for gate in self.gates(module):
                gate.share.clamp_(0, 1)
                gate.moved += 1

    def parameter_groups(self, module: fx.GraphModule) -> list[ParameterGroup]:
        return [ParameterGroup(tuple(gate.share for gate in self.gates(module)), rate=0.02)]

    def metrics(self, module: fx.GraphModule) -> dict[str, float]:
        return {"gates_closed": float(sum(float(gate.share.detach()) > 0.9 for gate in self.gates(module)))}


class Breaking:
    """Closes gates as `Closing` does, and after some steps destroys them."""

    def __init__(self, steps: int) -> None:
        self.steps, self.closing = steps, Closing()
        self.penalty, self.metrics = self.closing.penalty, self.closing.metrics
        self.parameter_groups = self.closing.parameter_groups

    def after_step(self, module: fx.GraphModule, rate: float = 1.0) -> None:
        self.closing.after_step(module, rate)
        for gate in self.closing.gates(module):
            if int(gate.moved) >= self.steps:
                gate.share.data.fill_(math.nan)


def gated() -> Graph:
    graph = graph_of("resnet-a").copied()
    for name, part in list(graph.module.named_modules()):
        if isinstance(part, nn.ReLU):
            graph.module.set_submodule(name, Gate(part))
    return graph


RECIPE = TuneConfig(
    epochs=4.0,
    batch=16,
    learning_rates=(0.01,),
    device="cpu",
    precision="float32",
    keep="last",
    evaluations=2,
    regulariser=Closing(),
)


def test_gates_train_at_their_own_rate_and_come_back_whole() -> None:
    start, data = gated(), random_samples(graph_of("resnet-a"), 128, 1, labelled=True)
    assert Closing().gates(start.module)
    seen = Recorder()
    tuned = tune(graph_of("resnet-a"), start, data, data, RECIPE, seen)
    gates = Closing().gates(tuned.graph.module)
    assert len(gates) == len(Closing().gates(start.module))
    assert all(float(gate.share.detach()) > 0.9 for gate in gates)
    assert [int(gate.moved) for gate in gates] == [32] * len(gates)
    assert all(float(gate.share.detach()) == 0 for gate in Closing().gates(start.module))
    assert (seen.calls[-1][2] or {})["gates_closed"] == len(gates)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_gates_that_nothing_holds_arrive_in_a_training_of_any_length(optimizer: Literal["sgd", "adamw"]) -> None:
    start, data = gated(), random_samples(graph_of("resnet-a"), 128, 1, labelled=True)
    regulariser = Closing()
    regulariser.parameter_groups = lambda module: [  # type: ignore[method-assign]
        ParameterGroup(tuple(gate.share for gate in regulariser.gates(module)), travel=3.0, gradient=10.0)
    ]
    for epochs in (2.0, 8.0):
        recipe = replace(RECIPE, epochs=epochs, optimizer=optimizer, regulariser=regulariser)
        tuned = tune(graph_of("resnet-a"), start, data, data, recipe, Recorder())
        assert all(float(gate.share.detach()) > 0.9 for gate in regulariser.gates(tuned.graph.module))


def test_penalty_and_steps_follow_the_copies_that_trials_train() -> None:
    start, data = gated(), random_samples(graph_of("resnet-a"), 64, 1)
    recipe = replace(RECIPE, learning_rates=(0.01, 0.001), trial_steps=2, epochs=1.0)
    tuned = tune(graph_of("resnet-a"), start, data, data, recipe, Recorder())
    assert {int(gate.moved) for gate in Closing().gates(tuned.graph.module)} == {4}


def test_average_of_the_weights_holds_gates_too() -> None:
    start, data = gated(), random_samples(graph_of("resnet-a"), 64, 1)
    tuned = tune(graph_of("resnet-a"), start, data, data, replace(RECIPE, ema=0.9), Recorder())
    assert all(0 < float(gate.share.detach()) <= 1 for gate in Closing().gates(tuned.graph.module))


def test_the_last_moment_is_kept_where_that_is_asked_for() -> None:
    graph, data = graph_of("resnet-a"), random_samples(graph_of("resnet-a"), 64, 1, labelled=True)
    recipe = replace(RECIPE, regulariser=None, learning_rates=(5.0,), epochs=1.0)
    last = tune(graph, graph, data, data, recipe, Recorder())
    assert last.after == last.history[-1].score
    assert not last.improved
    best = tune(graph, graph, data, data, replace(recipe, keep="best"), Recorder())
    assert best.after.divergence == pytest.approx(0.0)


def test_a_training_that_diverges_at_once_gives_the_start_back() -> None:
    graph, data = graph_of("resnet-a"), random_samples(graph_of("resnet-a"), 64, 1, labelled=True)
    recipe = replace(RECIPE, regulariser=None, learning_rates=(1e30,), epochs=1.0)
    seen = Recorder()
    tuned = tune(graph, graph, data, data, recipe, seen)
    assert tuned.diverged
    assert tuned.after == tuned.before
    weights = tuned.graph.module.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in graph.module.state_dict().items())
    assert "diverged at learning rate" in seen.calls[-1][1]
    assert "going back to step 0" in seen.calls[-1][1]


def test_a_training_that_diverges_later_gives_the_last_finite_moment_back() -> None:
    start, data = gated(), random_samples(graph_of("resnet-a"), 128, 1, labelled=True)
    tuned = tune(graph_of("resnet-a"), start, data, data, replace(RECIPE, regulariser=Breaking(20)), Recorder())
    assert tuned.diverged
    gates = Closing().gates(tuned.graph.module)
    assert {int(gate.moved) for gate in gates} == {16}
    assert all(bool(gate.share.isfinite()) for gate in gates)


def test_a_training_that_goes_well_has_not_diverged() -> None:
    start, data = gated(), random_samples(graph_of("resnet-a"), 64, 1)
    assert not tune(graph_of("resnet-a"), start, data, data, RECIPE, Recorder()).diverged

"""Optimisers and schedules: which network gets which, what decays, and how the rate goes."""

import pytest
import torch
from torch import nn

from compressors.tune import ParameterGroup, TuneConfig
from compressors.tune.optimise import Kind, choose_optimizer, learning_rates, make_optimizer, make_schedule, set_rate
from tests.compressors.networks import graph_of


def rates_over(recipe: TuneConfig, peak: float) -> list[float]:
    optimizer = make_optimizer(graph_of("resnet-a").module, "sgd", peak, recipe)
    schedule = make_schedule(optimizer, peak, recipe)
    found = []
    for at in range(101):
        set_rate(schedule, at / 100, 0.01)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_rate_rises_to_its_peak_and_ends_at_zero(shape: str) -> None:
    values = rates_over(TuneConfig(schedule=shape, warmup=0.25), 0.3)
    assert max(values) == pytest.approx(0.3)
    assert values.index(max(values)) == 25
    assert values[-1] == pytest.approx(0.0, abs=1e-6)
    assert values[:26] == sorted(values[:26])
    assert values[25:] == sorted(values[25:], reverse=True)


def test_line_is_straight_and_cosine_is_half_a_wave() -> None:
    line, wave = (rates_over(TuneConfig(schedule=shape, warmup=0.0), 1.0) for shape in ("linear", "cosine"))
    assert line == pytest.approx([1 - at / 100 for at in range(101)], abs=1e-6)
    expected = [0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * at / 100)))) for at in range(101)]
    assert wave == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"), [("resnet-a", "sgd"), ("vgg", "sgd"), ("vit", "adamw"), ("mixer", "adamw"), ("convnext", "adamw")]
)
def test_layer_norms_and_attention_get_adamw(name: str, kind: str) -> None:
    assert choose_optimizer(graph_of(name).module, TuneConfig()) == kind
    assert choose_optimizer(graph_of(name).module, TuneConfig(optimizer="sgd")) == "sgd"


def test_rates_fit_the_optimiser_unless_told() -> None:
    assert max(learning_rates("adamw", TuneConfig())) < max(learning_rates("sgd", TuneConfig()))
    assert learning_rates("adamw", TuneConfig(learning_rates=(0.1, 0.5))) == (0.5, 0.1)


@pytest.mark.parametrize("name", ["resnet-a", "vit"])
def test_every_parameter_is_trained_once_and_vectors_do_not_decay(name: str) -> None:
    module = graph_of(name).module
    optimizer = make_optimizer(module, "adamw", 0.1, TuneConfig(weight_decay=0.5))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(module.parameters())) == sum(len(g["params"]) for g in optimizer.param_groups)
    for parameter in module.parameters():
        wide = sum(size > 1 for size in parameter.shape) > 1
        assert decay[id(parameter)] == (0.5 if wide else 0.0)


def test_momentum_is_nesterovs_where_there_is_any() -> None:
    module = graph_of("resnet-a").module
    assert make_optimizer(module, "sgd", 0.1, TuneConfig()).param_groups[0]["nesterov"]
    assert make_optimizer(module, "sgd", 0.1, TuneConfig(momentum=0.0)).param_groups[0]["momentum"] == 0


def test_own_groups_keep_their_rate_and_decay_and_leave_the_others() -> None:
    module = graph_of("resnet-a").copied().module
    gate, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(3))
    module.register_parameter("gate", gate)
    module.register_parameter("other", other)
    own = (ParameterGroup((gate,), rate=7.0, weight_decay=0.25), ParameterGroup((other,)))
    recipe = TuneConfig(warmup=0.5)
    optimizer = make_optimizer(module, "sgd", 0.1, recipe, own)
    schedule = make_schedule(optimizer, 0.1, recipe)
    set_rate(schedule, 0.5, 0.01)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.1, 7.0, 0.1])
    set_rate(schedule, 0.75, 0.01)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.05, 3.5, 0.05])
    assert optimizer.param_groups[2]["weight_decay"] == 0.25
    assert all(p is not gate for group in optimizer.param_groups[:2] for p in group["params"])


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("steps", [40, 400])
def test_a_parameter_travels_as_far_as_was_asked_for_however_many_steps_there_are(kind: Kind, steps: int) -> None:
    module = graph_of("resnet-a").copied().module
    gate = nn.Parameter(torch.zeros(()))
    module.register_parameter("gate", gate)
    own = (ParameterGroup((gate,), travel=3.0, gradient=0.25),)
    optimizer = make_optimizer(module, kind, 0.1, TuneConfig(), own)
    schedule = make_schedule(optimizer, 0.1, TuneConfig())
    for step in range(steps):
        set_rate(schedule, step / steps, 1 / steps)
        gate.grad = torch.full_like(gate, -0.25)
        optimizer.step()
    # What momentum still holds at the end is not travelled.
    assert float(gate.detach()) == pytest.approx(3.0, rel=0.3 if steps == 40 else 0.03)

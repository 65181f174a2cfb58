"""Short fine-tuning: it learns, it stops in time, and it never returns worse than it was given."""

import math
import time

import pytest
import torch

from compressors.errors import OptionError
from compressors.graph import Graph
from compressors.problem import Score
from compressors.tune import TuneConfig, reestimate, tune
from compressors.tune.run import better
from tests.compressors.networks import graph_of
from tests.compressors.samples import BatchedTensors, Recorder, Tensors, random_samples

silent = Recorder()


def damaged(graph: Graph) -> Graph:
    """Returns a copy whose classifier has been disturbed."""
    copy = graph.copied()
    with torch.no_grad():
        weight = copy.module.get_submodule("head").weight
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)) * weight.std())
    return copy


def config(**changes) -> TuneConfig:
    return TuneConfig(
        **{
            "epochs": 3.0,
            "batch": 32,
            "learning_rates": (0.05,),
            "augment": False,
            "device": "cpu",
            "precision": "float32",
        }
        | changes
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_repairs_a_damaged_network(labelled: bool) -> None:
    graph = graph_of("resnet-a")
    start = damaged(graph)
    train, held = (random_samples(graph, count, seed, labelled=labelled) for count, seed in ((256, 1), (128, 2)))
    tuned = tune(graph, start, train, held, config(), silent)
    assert better(tuned.after, tuned.before)
    assert tuned.after.divergence < tuned.before.divergence
    assert (tuned.after.accuracy is None) is not labelled
    assert len(tuned.history) >= 3
    assert not tuned.graph.module.training


def test_returns_the_start_when_training_destroys_it() -> None:
    graph = graph_of("resnet-a")
    train, held = (random_samples(graph, 64, seed, labelled=True) for seed in (1, 2))
    tuned = tune(graph, graph, train, held, config(learning_rates=(50.0,)), silent)
    assert tuned.after == tuned.before
    for key, value in tuned.graph.module.state_dict().items():
        torch.testing.assert_close(value, graph.module.state_dict()[key], rtol=0, atol=0)


def test_inputs_are_not_changed() -> None:
    graph, start = graph_of("resnet-b"), damaged(graph_of("resnet-b"))
    before = {key: value.clone() for key, value in start.module.state_dict().items()}
    data = random_samples(graph, 64, 1)
    tune(graph, start, data, data, config(learning_rates=(0.05, 0.01), trial_steps=2), silent)
    assert all(torch.equal(value, before[key]) for key, value in start.module.state_dict().items())


def test_reported_score_is_that_of_the_returned_network() -> None:
    from compressors.score import score

    graph = graph_of("resnet-a")
    train, held = (random_samples(graph, 128, seed, labelled=True) for seed in (1, 2))
    tuned = tune(graph, damaged(graph), train, held, config(), silent)
    assert score(graph, tuned.graph, held) == tuned.after


def test_a_long_training_takes_the_highest_rate_whose_harm_it_repairs() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 128, 1)
    settings = config(learning_rates=(1e-5, 1e3, 0.01, 1e-4), trial_steps=2, epochs=4.0)
    tuned = tune(graph, damaged(graph), data, data, settings, silent)
    assert tuned.learning_rate == 0.01
    assert list(tuned.trials) == [1e3, 0.01]


def test_search_prefers_a_rate_that_works() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 128, 1)
    tuned = tune(graph, damaged(graph), data, data, config(learning_rates=(1e3, 0.03), trial_steps=8), silent)
    assert tuned.learning_rate == 0.03
    assert set(tuned.trials) == {1e3, 0.03}


@pytest.mark.parametrize("rate", [0.01, 1e20])
def test_of_rates_that_diverge_the_lowest_is_taken_and_of_others_the_best(rate: float) -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 64, 1)
    settings = config(learning_rates=(1e30, rate), trial_steps=4, epochs=1.0)
    tuned = tune(graph, damaged(graph), data, data, settings, silent)
    assert not math.isfinite(tuned.trials[1e30])
    assert tuned.learning_rate == rate


def test_equal_seeds_give_equal_networks() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 96, 1)
    one, two = (tune(graph, damaged(graph), data, data, config(augment=True), silent).graph.module for _ in range(2))
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())


def test_stops_in_time_with_the_rate_brought_down() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 64, 1)
    seen = Recorder()
    started = time.monotonic()
    limits = config(epochs=10_000.0, max_seconds=2.0, evaluations=2)
    tuned = tune(graph, damaged(graph), data, data, limits, seen)
    assert time.monotonic() - started < 8
    assert seen.fractions[-1] == 1.0
    assert tuned.history


def test_a_training_that_time_ends_early_is_not_scored_for_passes_it_never_makes() -> None:
    graph = graph_of("resnet-a")
    train, held = random_samples(graph, 16_384, 1), random_samples(graph, 64, 2)
    limits = config(epochs=10_000.0, max_seconds=1.5, evaluations=2)
    tuned = tune(graph, damaged(graph), train, held, limits, silent)
    assert tuned.history[-1].epoch < 2
    assert 1 <= len(tuned.history) <= 4


@pytest.mark.parametrize(
    ("least", "seconds", "epochs", "trained"),
    [(1, 0.01, 10_000.0, True), (1_000_000, 1.0, 10_000.0, False), (1_000_000, 600.0, 1.0, True)],
)
def test_a_training_that_time_would_end_too_early_returns_the_start(
    least: int, seconds: float, epochs: float, trained: bool
) -> None:
    graph = graph_of("resnet-a")
    start, data = damaged(graph), random_samples(graph, 64, 1)
    limits = config(epochs=epochs, max_seconds=seconds, least_steps=least, keep="last")
    tuned = tune(graph, start, data, data, limits, silent)
    assert bool(tuned.history) is trained
    if not trained:
        weights = tuned.graph.module.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in start.module.state_dict().items())


@pytest.mark.parametrize(("seconds", "all_of_them"), [(0.05, False), (3600.0, True), (math.inf, True)])
def test_a_short_time_limit_scores_fewer_held_back_samples(seconds: float, all_of_them: bool) -> None:
    graph = graph_of("resnet-a")
    train, held = random_samples(graph, 64, 1, labelled=True), random_samples(graph, 1500, 2, labelled=True)
    tuned = tune(graph, graph, train, held, config(epochs=0.1, max_seconds=seconds), silent)
    assert (tuned.before.samples == 1500) is all_of_them
    assert tuned.before.samples >= 128


def test_progress_may_stop_the_training_and_tells_what_is_left() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 64, 1, labelled=True)

    def stop(fraction, message, metrics=None):
        assert metrics is not None
        assert {"step", "epoch", "loss", "seconds_left", "holdout_accuracy"} <= set(metrics)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        tune(graph, damaged(graph), data, data, config(), stop)


def test_single_and_batched_samples_train_alike() -> None:
    graph = graph_of("resnet-a")
    batched = random_samples(graph, 64, 1, labelled=True)
    single = Tensors(batched.inputs, batched.labels)
    one, two = (tune(graph, damaged(graph), data, batched, config(epochs=1.0), silent) for data in (batched, single))
    assert one.history[-1].loss == two.history[-1].loss


def test_bfloat16_with_channels_last_trains_and_comes_back_as_float32() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 64, 1)
    tuned = tune(graph, damaged(graph), data, data, config(epochs=2.0, precision="bfloat16"), silent)
    assert better(tuned.after, tuned.before)
    for parameter in tuned.graph.module.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.is_contiguous()


def test_better_is_accuracy_then_divergence() -> None:
    def of(accuracy, divergence):
        return Score(divergence, 0.5, accuracy, 10)

    assert better(of(0.9, 2.0), of(0.8, 1.0))
    assert better(of(0.8, 1.0), of(0.8, 2.0))
    assert better(of(None, 1.0), of(None, 2.0))
    assert not better(of(None, float("nan")), of(None, 2.0))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"epochs": 0.0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"max_seconds": -1.0}, "max_seconds"),
        ({"distillation": 1.5}, "distillation"),
        ({"learning_rates": ()}, "learning_rates"),
        ({"learning_rates": (0.1, -1.0)}, "learning_rates"),
    ],
)
def test_refuses_settings_out_of_bounds(changes: dict, field: str) -> None:
    with pytest.raises(OptionError) as caught:
        TuneConfig(**changes)
    assert caught.value.field == field


def test_refuses_to_train_on_nothing() -> None:
    graph = graph_of("resnet-a")
    with pytest.raises(OptionError, match="got none"):
        tune(graph, graph, BatchedTensors(torch.zeros(0, 3, 16, 16)), random_samples(graph, 4, 1), config(), silent)


def test_average_of_the_weights_competes() -> None:
    graph = graph_of("resnet-a")
    train, held = (random_samples(graph, count, seed, labelled=True) for count, seed in ((128, 1), (64, 2)))
    plain, averaged = (tune(graph, damaged(graph), train, held, config(ema=ema), silent) for ema in (0.0, 0.9))
    assert [entry.loss for entry in plain.history] == [entry.loss for entry in averaged.history]
    for alone, both in zip(plain.history, averaged.history, strict=True):
        assert both.score == alone.score or better(both.score, alone.score)


def test_stops_early_when_nothing_gets_better() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 64, 1, labelled=True)
    tuned = tune(graph, graph, data, data, config(epochs=10.0, patience=2, learning_rates=(5.0,)), silent)
    assert len(tuned.history) == 2
    assert tuned.after == tuned.before


def test_norms_are_estimated_anew_only_where_that_helps() -> None:
    data = random_samples(graph_of("resnet-a"), 128, 1)
    graph = reestimate(graph_of("resnet-a"), data, batches=1)
    spoilt = graph.copied()
    spoilt.module.get_buffer("bn.running_var").mul_(16)
    idle = config(learning_rates=(1e-9,), epochs=0.1, norm_batches=1)
    found = tune(graph, spoilt, data, data, idle, silent)
    assert found.after.divergence < 0.01 * found.before.divergence
    assert tune(graph, graph, data, data, idle, silent).after.divergence == 0


def test_stops_when_the_loss_is_no_number_any_more() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 64, 1)
    tuned = tune(graph, damaged(graph), data, data, config(learning_rates=(1e30,), epochs=50.0), silent)
    assert tuned.history[-1].step < 10
    assert tuned.after == tuned.before


def test_without_held_back_samples_some_of_the_training_data_are_held_back() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 100, 1, labelled=True)
    assert tune(graph, damaged(graph), data, None, config(epochs=1.0), silent).after.samples == 20


def test_progress_says_what_a_watcher_wants_to_know() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 64, 1, labelled=True)
    seen = Recorder()
    tune(graph, damaged(graph), data, data, config(epochs=2.0), seen)
    _, message, metrics = seen.calls[-1]
    assert message == "epoch 2.00 of 2, step 4"
    assert metrics is not None
    assert (metrics["step"], metrics["epoch"], metrics["seconds_left"]) == (4, 2, 0)
    assert {"loss", "holdout_accuracy", "learning_rate"} <= set(metrics)
    assert seen.fractions == sorted(seen.fractions)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_trains_on_a_gpu_in_reduced_precision(precision: str) -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 128, 1)
    tuned = tune(graph, damaged(graph), data, data, config(device="cuda", precision=precision), silent)
    assert better(tuned.after, tuned.before)
    assert all(parameter.device.type == "cpu" for parameter in tuned.graph.module.parameters())

# ruff: noqa: T201 (stdout is the answer)
"""Trains networks on the processor and on a second device, and prints how the two compare, as JSON."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from compressors.graph import Graph
from compressors.tune import TuneConfig, Tuned, tune
from tests.compressors import second_device
from tests.compressors.networks import graph_of, lifted
from tests.compressors.samples import BatchedTensors, Recorder, random_samples
from tests.compressors.tune.test_regulariser import RECIPE, gated
from tests.compressors.tune.test_run import config, damaged

Case = tuple[Graph, Graph, Dataset, Dataset, TuneConfig]
THOROUGH = {"ema": 0.9, "norm_batches": 2, "augment": True, "mixup": 0.3, "erasing": 0.3, "clip": 1.0}


class Masked(nn.Module):
    """Makes its mask on a device that its exported program names, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        mask = torch.arange(x.shape[0], device=x.device)[:, None] >= 0
        return self.head(torch.relu(self.body(x))) * mask


def images(**changes: Any) -> Case:
    graph = graph_of("resnet-a")
    train, held = (random_samples(graph, count, seed, labelled=True) for count, seed in ((128, 1), (64, 2)))
    return graph, damaged(graph), train, held, config(epochs=2.0, **changes)


def unlabelled() -> Case:
    graph = graph_of("resnet-a")
    train, held = (random_samples(graph, count, seed) for count, seed in ((128, 1), (64, 2)))
    return graph, damaged(graph), train, held, config(learning_rates=(0.05, 0.01), trial_steps=2)


def named() -> Case:
    graph = lifted(Masked(), (6,))
    data = BatchedTensors(torch.randn(128, 6, generator=torch.Generator().manual_seed(1)))
    return graph, damaged(graph), data, data, config(task="none")


def gates() -> Case:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 64, 1, labelled=True)
    return graph, gated(), data, data, RECIPE


def resumed(case: Case, device: str) -> Tuned:
    """Trains with a break in the middle."""
    graph, start, train, held, recipe = case

    def stop(fraction: float, message: str, metrics: Any = None) -> None:
        if "step 5" in message:
            raise KeyboardInterrupt

    with TemporaryDirectory() as folder:
        recipe = replace(recipe, device=device, checkpoint=Path(folder))
        try:
            tune(graph, start, train, held, recipe, stop)
        except KeyboardInterrupt:
            return tune(graph, start, train, held, recipe, Recorder())
    raise AssertionError("it was to be stopped")


def straight(case: Case, device: str) -> Tuned:
    graph, start, train, held, recipe = case
    return tune(graph, start, train, held, replace(recipe, device=device), Recorder())


CASES: dict[str, tuple[Case, Callable[[Case, str], Tuned]]] = {
    "images": (images(**THOROUGH), straight),
    "without labels": (unlabelled(), straight),
    "a program that names its device": (named(), straight),
    "gates": (gates(), straight),
    "resumed": (images(**THOROUGH), resumed),
    "bfloat16": (images(precision="bfloat16"), straight),
    "float16": (images(precision="float16"), straight),
}


def compare(case: Case, way: Callable[[Case, str], Tuned]) -> dict[str, Any]:
    graph, start, train, held, recipe = case
    # The processor's accelerate has no float16.
    on_cpu = replace(recipe, precision="float32") if recipe.precision == "float16" else recipe
    here = way((graph, start, train, held, on_cpu), "cpu")
    second_device.SEEN.clear()
    with second_device.in_use():
        there = way(case, second_device.NAME)
    return {
        "seen": dict(second_device.SEEN),
        "losses": [[entry.loss for entry in tuned.history] for tuned in (here, there)],
        "divergences": [score.divergence for score in (there.before, here.after, there.after)],
        "apart": farthest(here.graph, there.graph),
        "moved": farthest(start, there.graph),
        "devices": sorted({value.device.type for value in there.graph.module.state_dict().values()}),
        "as_before": there.graph.module.code == here.graph.module.code,
    }


def farthest(one: Graph, two: Graph) -> float:
    """Returns the largest difference of two weights."""
    theirs = two.module.state_dict()
    return max(
        float((value.float() - theirs[key].float()).abs().max()) for key, value in one.module.state_dict().items()
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    second_device.install()
    print(json.dumps({name: compare(*case) for name, case in CASES.items()}))

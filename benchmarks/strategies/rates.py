"""`python -m benchmarks.strategies.rates MODEL PLAN --data DIR --seconds S --rates R ...`: a plan trained at each rate.

PLAN is the `plan.json` that a job returned for MODEL. Its cuts are fitted in closed form once, and fine-tuned from
there for the same time at each learning rate alone. DIR holds CIFAR-10 as Parquet files; one in six training images is
held back, and the moment that is best on those is what counts. Run it on a core of its own (`taskset`): what a rate
comes to depends on how many steps there is time for.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from benchmarks.strategies.images import Images, read
from compressors.analysis import analyse
from compressors.analysis.sites import norm_sites
from compressors.fit import FitConfig, fit
from compressors.graph import Graph
from compressors.plan import Plan
from compressors.score import Reference
from compressors.sources import ModelSource, load
from compressors.strategies.fitted import site_lines
from compressors.surgery import apply
from compressors.tune import TuneConfig, tune

_HELD_BACK = 6
"""One in so many training images is held back, as jobs do where there are enough."""


def fitted(graph: Graph, plan: Plan, training: Images, samples: int) -> Graph:
    """Returns the network that a plan comes to, fitted in closed form on the first `samples` images."""
    wanted = {site for step in plan.steps for site in step.sites}
    sites = [*(site for site in analyse(graph).sites if site.node in wanted), *norm_sites(graph, wanted)]
    ways = {step.way for step in plan.steps}
    found = {name: line for way in ways for name, line in site_lines(graph, sites, way, training).items()}
    config = FitConfig("all" if plan.refit else "none", samples)
    return fit(graph, apply(graph, plan.steps, found), plan.steps, training, config).graph


def main() -> int:
    """Fits, trains at each rate, and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help=".pt2 file")
    parser.add_argument("plan", type=Path, help="plan.json of a job for the model")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--seconds", type=float, required=True, help="of each training")
    parser.add_argument("--rates", type=float, nargs="+", required=True)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--images", type=int, default=24_000, help="of the training split")
    parser.add_argument("--samples", type=int, default=2048, help="that the cuts are fitted on")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = read(asked.data, "train")
    images, labels = images[: asked.images], labels[: asked.images]
    kept = torch.arange(len(labels)) % _HELD_BACK != 0
    training, held_back = Images(images[kept], labels[kept]), Images(images[~kept], labels[~kept])
    original = load(ModelSource("pt2", asked.model))
    cut = fitted(original, Plan.from_json(asked.plan.read_text()), training, asked.samples)
    reference = Reference.of(original, Images(*read(asked.data, "test")), task="classification")
    print(f"fitted: {_percent(reference.score(cut.module).accuracy)} % of the test images, before any training\n")
    print("| rate | passes | held back before | held back | held back at the end | test |\n|---|---|---|---|---|---|")
    for rate in asked.rates:
        config = TuneConfig("classification", asked.epochs, asked.seconds, learning_rates=(rate,))
        tuned = tune(original, cut, training, held_back, config, lambda *_, **__: None)
        last = tuned.history[-1] if tuned.history else None
        cells = [
            f"{rate:g}",
            f"{last.epoch:.2f}" if last else "0",
            *(_percent(score.accuracy) for score in (tuned.before, tuned.after, last.score if last else tuned.before)),
            _percent(reference.score(tuned.graph.module).accuracy),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    return 0


def _percent(share: float | None) -> str:
    return f"{100 * (math.nan if share is None else share):.2f}"


if __name__ == "__main__":
    raise SystemExit(main())

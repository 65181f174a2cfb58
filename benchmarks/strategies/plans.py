"""`python -m benchmarks.strategies.plans MODEL --data DIR --budget 0.5 --seconds S`: what a search plans in a time.

No training: a strategy searches MODEL with so many seconds to plan in, on one core, and each plan that it fitted is
scored on the test images. DIR holds CIFAR-10 as Parquet files. A strategy may carry options, as in
`layerfit,comparisons=0`. Timings of the latency table are kept in `--cache`, so that searches are compared on one.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.strategies.images import Images, read
from compressors.analysis import analyse
from compressors.graph import Graph
from compressors.problem import Problem
from compressors.score import Reference
from compressors.sources import ModelSource, load
from compressors.strategies import find
from compressors.surgery import fold_norms
from deploy.table import LatencyTable, TableSettings


class Spent:
    """Progress of a search, which adds up how long each thing took."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.times: defaultdict[str, int] = defaultdict(int)
        self._since, self._doing = time.monotonic(), "starting"

    def __call__(self, fraction: float, message: str, metrics: Any = None) -> None:  # noqa: ARG002
        """Takes what the search does from now on."""
        now = time.monotonic()
        self.seconds[self._doing] += now - self._since
        self.times[self._doing] += 1
        self._since, self._doing = now, message.partition(":")[0].partition(",")[0]


def main() -> int:
    """Searches, and prints where the time went and what every plan came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help=".pt2 file")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--budget", type=float, required=True, help="share of the original's latency")
    parser.add_argument("--seconds", type=float, required=True, help="to plan in")
    parser.add_argument("--strategies", nargs="+", default=["layerfit"])
    parser.add_argument("--cache", type=Path, help="folder for timings")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    graph = load(ModelSource("pt2", asked.model))
    test = Reference.of(graph, Images(*read(asked.data, "test")), task="classification")
    with TemporaryDirectory() as folder:
        cache = asked.cache or Path(folder)
        cache.mkdir(parents=True, exist_ok=True)
        for strategy in asked.strategies:
            _search(strategy, graph, asked, LatencyTable(TableSettings(), cache / "latency.sqlite", cache), test)
    return 0


def _search(strategy: str, graph: Graph, asked: argparse.Namespace, table: LatencyTable, test: Reference) -> None:
    images, labels = read(asked.data, "train")
    folded = fold_norms(graph)
    (baseline,) = table.networks([(folded.module, folded.inputs)])
    spent = Spent()
    begun = time.monotonic()

    def left() -> float:
        return asked.seconds - (time.monotonic() - begun)

    problem = Problem(
        graph,
        analyse(graph),
        asked.budget * baseline,
        baseline,
        Images(images[:2048], labels[:2048]),
        Images(images[2048:3072], labels[2048:3072]),
        table,
        spent,
        asked.seed,
        seconds_left=left,
        clock=left,
        task="classification",
        precision="bfloat16",
    )
    name, *given = strategy.split(",")
    found = find(name)
    options = found.parse(dict(option.split("=") for option in given))
    candidates = found.start(problem, options).candidates(asked.budget * baseline)
    spent(1.0, "")
    print(f"{strategy}: {sum(spent.seconds.values()):.1f} s of {asked.seconds:g}")
    for doing, seconds in spent.seconds.items():
        print(f"  {seconds:6.1f} s, {spent.times[doing]} times: {doing}")
    for one in candidates:
        share = (one.seconds or 0.0) / baseline
        accuracy = 100 * (test.score(one.graph.module).accuracy or 0.0)
        cuts = ", ".join(step.label for step in one.plan.steps)
        print(f"  {share:.3f} of the latency, divergence {one.score.divergence:.4f}, {accuracy:.2f} % right: {cuts}")
    print(flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

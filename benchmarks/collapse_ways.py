"""What it costs to replace one activation by a line, three ways: `python -m benchmarks.collapse_ways --data DIR`.

DIR holds `models/NAME.pt2`, `DATASET/train.parquet` and `DATASET/test.parquet` (columns `image`, PNG bytes, and
`label`). No training. Calibration images are the first of the training split, without labels; accuracy is that of the
first test images. The second table compares the moments that the weights let expect with those of the calibration
images.
"""

from __future__ import annotations

import argparse
import io
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from compressors.analysis.segments import Site
from compressors.analysis.sites import find_sites
from compressors.collapse import Line, Moments, SiteStatistics, Way, gaussian_moments, linearise, lines, site_statistics
from compressors.graph import Graph
from compressors.shapes import propagate
from compressors.sources import ModelSource, load

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 250


@dataclass(frozen=True)
class Split:
    """Images and labels of one split, ready for the network."""

    images: torch.Tensor
    labels: torch.Tensor

    def batches(self) -> Iterator[tuple[torch.Tensor]]:
        """Yields the network's inputs."""
        for images in self.images.split(BATCH):
            yield (images,)


def read(path: Path, count: int) -> Split:
    """Returns the first `count` images of a split, scaled and normalised."""
    rows = next(pq.ParquetFile(path).iter_batches(count, columns=["image", "label"])).to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")) for row in rows])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # (count, 3, rows, columns)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return Split((images - mean) / std, torch.tensor([row["label"] for row in rows]))


def accuracy(graph: Graph, split: Split) -> float:
    """Returns the percentage of images whose label comes first."""
    with torch.no_grad():
        guesses = torch.cat([graph.module(*inputs).argmax(1) for inputs in split.batches()])
    return 100 * float((guesses == split.labels).double().mean())


def drops(graph: Graph, sites: Sequence[Site], test: Split, found: Mapping[str, Mapping[str, object]]) -> None:
    """Prints one row per site and the means over inner and all sites."""
    whole = accuracy(graph, test)
    print(f"Accuracy before: {whole:.2f} % of {len(test.labels)} images.\n")
    ways = list(found)
    print("| site | " + " | ".join(f"{way}: points lost (relative error)" for way in ways) + " |")
    print("|---|" + "---:|" * len(ways), flush=True)
    lost: dict[str, list[float]] = {}
    for site in sites:
        cells = []
        lost[site.node] = []
        for way in ways:
            line = found[way][site.node]
            assert isinstance(line, Line)
            lost[site.node].append(whole - accuracy(linearise(graph, {site.node: line}), test))
            cells.append(f"{lost[site.node][-1]:.2f} ({line.error:.3f})")
        print(f"| {site.node} | " + " | ".join(cells) + " |", flush=True)
    inner = [name for name in lost if name.endswith("_relu")]
    for label, names in (("mean of inner sites", inner), ("mean of all sites", list(lost))):
        if names:
            print(
                f"| {label} | " + " | ".join(f"{column:.2f}" for column in np.mean([lost[n] for n in names], 0)) + " |"
            )


def moments(graph: Graph, statistics: Mapping[str, SiteStatistics]) -> None:
    """Prints how far expected means and deviations of every site's input lie from measured ones."""
    expected = gaussian_moments(graph)
    print(
        "\n| site | moments from | mean: error / spread | deviation: expected / measured (10th, 50th, 90th centile) |"
    )
    print("|---|---|---:|---:|")
    for node in graph.module.graph.nodes:
        seen = statistics.get(node.name)
        found = expected[node.all_input_nodes[0].name] if seen is not None else None
        if seen is None or not isinstance(found, Moments):
            continue
        mean, variance = found.along(seen.axis, len(propagate(graph.module, graph.inputs).full[node.name]))
        alive = seen.var_in > 1e-6
        error = float(((mean - seen.mean_in) ** 2 / seen.var_in)[alive].mean().sqrt())
        ratio = (variance / seen.var_in)[alive].sqrt().quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
        print(f"| {node.name} | {found.source} | {error:.3f} | {', '.join(f'{value:.2f}' for value in ratio)} |")


def main() -> int:
    """Runs everything and prints Markdown."""
    parser = argparse.ArgumentParser(description="One activation at a time replaced by a line.")
    parser.add_argument("--data", type=Path, required=True, help="folder with models/ and the data set")
    parser.add_argument("--model", default="resnet20_cifar10")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--calibration", type=int, default=512)
    asked = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    print(f"Command: python -m benchmarks.collapse_ways {' '.join(sys.argv[1:])}")
    print(f"Commit {commit.stdout.strip()}, Python {platform.python_version()}, torch {torch.__version__}.\n")
    graph = load(ModelSource("pt2", asked.data / "models" / f"{asked.model}.pt2"))
    folder = asked.data / asked.dataset
    test, calibration = (
        read(folder / f"{split}.parquet", count)
        for split, count in (("test", asked.images), ("train", asked.calibration))
    )
    statistics = site_statistics(graph, calibration.batches())
    sites = find_sites(graph.module, propagate(graph.module, graph.inputs))
    found = {str(way): lines(graph, sites, way, statistics) for way in Way}
    found["fitted, one line"] = {name: seen.pooled_line() for name, seen in statistics.items()}
    drops(graph, sites, test, found)
    moments(graph, statistics)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

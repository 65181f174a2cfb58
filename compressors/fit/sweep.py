"""One walk through a cut network that fits each operator to the original, on what the operators before it give.

No labels and no gradients: the inputs come from the cut network as fitted so far, the targets from the original at the
same place, so each operator also repairs what those before it could not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch import nn

from compressors.batches import count, in_order
from compressors.execute import Stream, live_bytes
from compressors.fit.gain import fit_gain
from compressors.fit.points import FitPoint, evaluation_order, fit_points
from compressors.fit.regression import FEWEST_BATCHES, PointReport, RegressionConfig, fit_point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from torch import fx

    from compressors.graph import Graph
    from compressors.plan import Step
    from compressors.problem import Samples

Refit = Literal["none", "last", "all"]

_LIVE_AT = 2, 4
"""Samples at once that live values are counted at; counting is a run of the network, and fits are made by the dozen."""
LEAST_SAMPLES = 256


@dataclass(frozen=True)
class FitConfig:
    """How a cut network is fitted.

    Attributes:
        refit: Which operators behind a cut are refitted: none, the last of each block (those that feed an addition, and
            the classifier), or all.
        samples: At most this many calibration samples are used; fewer where their tensors would not fit in memory.
        batch: Samples per batch.
        memory_bytes: Intermediate tensors are kept between operators, up to this. Fewer samples are taken to stay
            below, but not fewer than `LEAST_SAMPLES`: rather, the tensors are computed again for each operator.
        regression: How each operator is fitted.
    """

    refit: Refit = "all"
    samples: int = 2048
    batch: int = 128
    memory_bytes: int = 4 * 2**30
    regression: RegressionConfig = field(default_factory=RegressionConfig)


@dataclass(frozen=True)
class FitResult:
    """A fitted network.

    Attributes:
        graph: A copy of the cut network, with fitted weights.
        points: What was achieved at each operator that was looked at, in order; those that the time did not suffice for
            are left out.
    """

    graph: Graph
    points: tuple[PointReport, ...]


def fit(
    original: Graph,
    cut: Graph,
    steps: Sequence[Step],
    samples: Samples,
    config: FitConfig,
    heartbeat: Callable[[float], None] = lambda _: None,
) -> FitResult:
    """Returns the cut network with its new operators regressed and those behind them refitted.

    Args:
        original: The network before the cuts.
        cut: The network after them, new operators not yet fitted; not changed.
        steps: The cuts, in topological order.
        samples: Calibration samples; labels are not read.
        config: How.
        heartbeat: Told the share done, 0 to 1; may raise to stop.
    """
    result = cut.copied()
    points = _chosen(fit_points(original, result, steps, refit=config.refit != "none"), config.refit)
    order = evaluation_order(result, points)
    rank = {node.name: at for at, node in enumerate(order)}
    points.sort(key=lambda point: rank[point.operator])
    batches, cached = _batches(original, result, samples, config)
    targets = {point.target for point in points}
    streams = (
        Stream(original.module, batches, targets, cached=cached),
        Stream(result.module, batches, order=order, cached=cached),
    )
    reports = []
    for done, point in enumerate(points):
        heartbeat(done / len(points))
        if point.new or not config.regression.enough():
            reports.append(_fit_one(result.module, point, streams, len(batches), config.regression))
        for name in {point.target} - {later.target for later in points[done + 1 :]}:
            streams[0].release(name)
    return FitResult(result, tuple(reports))


def _fit_one(
    cut: fx.GraphModule, point: FitPoint, streams: tuple[Stream, Stream], batches: int, config: RegressionConfig
) -> PointReport:
    """Fits one operator, or the norm behind a merge, in place."""
    call = next(str(node.target) for node in cut.graph.nodes if node.name == point.operator)
    norm = cut.get_submodule(call)
    if not isinstance(norm, nn.GroupNorm):
        return fit_point(cut, point, streams, batches, config)
    streams[0].advance(point.target)
    streams[1].advance(point.input)

    def pairs() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in range(batches):
            yield streams[1].at(batch)[point.input], streams[0].at(batch)[point.target]
            if batch + 1 >= FEWEST_BATCHES and config.enough():
                return

    return PointReport(point.operator, point.target, 0.0, fit_gain(norm, pairs()), None)


def _chosen(points: Sequence[FitPoint], refit: Refit) -> list[FitPoint]:
    """Returns the points that are fitted; with "last", a later operator must feed an addition or end the network."""
    if refit != "last":
        return list(points)
    final = points[-1:] if points else ()
    return [point for point in points if point.new or point.other is not None or point in final]


def _bytes_each(graph: Graph, samples: Samples) -> float:
    """Returns the most bytes that live values take at any point, for each sample: what does not grow does not count."""
    few, more = (next(in_order(samples, size, size)) for size in _LIVE_AT)
    grown = live_bytes(graph.module, more.inputs) - live_bytes(graph.module, few.inputs)
    return max(1, grown) / max(1, len(more) - len(few))


def _batches(
    original: Graph, cut: Graph, samples: Samples, config: FitConfig
) -> tuple[list[tuple[torch.Tensor, ...]], bool]:
    """Returns the inputs to fit on, and whether all their intermediate tensors may be kept at once."""
    each = sum(_bytes_each(graph, samples) for graph in (original, cut))
    limit = min(config.samples, max(LEAST_SAMPLES, int(config.memory_bytes / each)))
    batches = [batch.inputs for batch in in_order(samples, config.batch, limit)]
    return batches, each * min(limit, count(samples)) <= config.memory_bytes

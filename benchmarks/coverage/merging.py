"""The one place that says how the benchmark merges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from compressors.graph import Graph
from compressors.modules import BATCH_NORMS, NORMS, OPERATORS
from compressors.surgery import apply, maximal_steps, merge


@dataclass(frozen=True)
class Outcome:
    """A merged graph.

    Attributes:
        graph: With everything merged that could be.
        regions: How many regions became one operator each.
        folds: How many norms beside them were folded.
        reference: What it must compute: the regions' activations gone and their padding moved, nothing merged yet.
    """

    graph: Graph
    regions: int
    folds: int
    reference: Graph


def merge_all(graph: Graph) -> Outcome:
    """Returns the graph with as many merges as there can be: activations gone, padding first, everything merged.

    Without its activations a network's values grow until what is left of them saturates and hides every error, so the
    statistics of its batch norms are set anew first, as training would.
    """
    steps = maximal_steps(graph)
    reference = apply(graph, steps).copied()
    settle(reference)
    merged = merge(reference)
    return Outcome(merged.graph, len(steps), len(merged.verifications) - len(steps), reference)


def settle(graph: Graph) -> None:
    """Sets the statistics of a graph's batch norms near those of random inputs; changes the graph."""
    generator = torch.Generator().manual_seed(3)
    norms = [module for module in graph.module.modules() if isinstance(module, BATCH_NORMS)]
    hooks = [norm.register_forward_pre_hook(partial(_settle_norm, generator=generator)) for norm in norms]
    with torch.no_grad():
        graph.module(*graph.samples(4, seed=2))
    for hook in hooks:
        hook.remove()


def _settle_norm(norm: nn.Module, inputs: tuple[Any, ...], generator: torch.Generator) -> None:
    mean, variance = norm.running_mean, norm.running_var
    if isinstance(mean, torch.Tensor) and isinstance(variance, torch.Tensor):
        settle_statistics(inputs[0], (mean, variance), generator)


def settle_statistics(x: torch.Tensor, statistics: Sequence[torch.Tensor], generator: torch.Generator) -> None:
    """Sets mean and variance, in place, near those of a norm's input (n, channels, ...): half centred, random otherwise.

    Statistics that fit the random inputs exactly would make a deep random network amplify rounding a thousandfold.
    """
    mean, variance = statistics
    over = [axis for axis in range(x.dim()) if axis != 1]
    means = x.mean(over)
    mean.copy_(means * (0.3 + 0.4 * torch.rand(mean.shape, generator=generator)))
    spread = x.var(over, correction=0) + (means - mean) ** 2 + 1e-3
    variance.copy_(spread * (0.7 + 0.6 * torch.rand(mean.shape, generator=generator)))


def count_layers(graph: Graph) -> int:
    """Returns how many convolutions, linears and norms a graph calls, those inside merged regions included."""
    return _count(graph.module)


def _count(module: fx.GraphModule) -> int:
    called = [module.get_submodule(str(node.target)) for node in module.graph.nodes if node.op == "call_module"]
    inner = sum(_count(one) for one in called if isinstance(one, fx.GraphModule))
    layers = sum(isinstance(part, (*OPERATORS, *NORMS)) for one in called for part in _parts(one))
    return inner + layers


def _parts(module: nn.Module) -> list[nn.Module]:
    """Returns what runs when a module of a merged graph is called: itself, or the steps of a sequence."""
    return list(module) if isinstance(module, nn.Sequential) else [module]


def in_float64(graph: Graph) -> Graph:
    """Returns a copy that computes in float64; casts to float32 inside become casts to float64."""
    copy = graph.copied()
    for node in copy.module.graph.nodes:
        node.args = fx.node.map_aggregate(node.args, _widened)  # type: ignore[assignment]
        node.kwargs = fx.node.map_aggregate(node.kwargs, _widened)  # type: ignore[assignment]
    copy.module.recompile()
    copy.module.double()
    inputs = tuple(replace(spec, dtype=_widened(spec.dtype)) for spec in graph.inputs)
    return replace(copy, inputs=inputs)


def _widened(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value

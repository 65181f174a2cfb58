"""Tensors inside two networks that should be alike: those between the cuts, which both compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import fx
from torch.autograd.function import once_differentiable

from compressors.analysis import analyse
from compressors.surgery import fold_norms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.graph import Graph

_CACHED = 2**17
"""Values that are compared at a time: float32, and their differences beside them, they fill half of a core's cache."""


@final
@dataclass(frozen=True)
class Features:
    """Tensors from inside a network; whoever turns its outputs into float32 leaves these as they are.

    Attributes:
        tensors: In the precision that they were computed in.
    """

    tensors: tuple[torch.Tensor, ...]


def shared_positions(original: Graph, student: fx.GraphModule) -> tuple[str, ...]:
    """Returns the names of the positions of the original's main chain that the student has too, but for the output."""
    final = {str(node) for output in student.graph.find_nodes(op="output") for node in output.all_input_nodes}
    names = {node.name for node in student.graph.nodes if node.op not in ("placeholder", "output")} - final
    main = next((chain for chain in analyse(original).chains if chain.parent is None), None)
    outputs = () if main is None else tuple(position.output for position in main.positions)
    return tuple(name for name in outputs if name in names)


def folded(teacher: Graph, names: Sequence[str]) -> fx.GraphModule:
    """Returns a copy of a network that is only run, its norms folded where the named tensors are all still there."""
    without = fold_norms(teacher).module
    kept = {node.name for node in without.graph.nodes}
    return without if kept.issuperset(names) else teacher.copied().module


def with_features(module: fx.GraphModule, names: Sequence[str]) -> fx.GraphModule:
    """Returns a module on the same weights that gives its output and, after it, the named tensors as `Features`."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(module.graph, copies)
    by_name = {node.name: copy for node, copy in copies.items()}
    graph.output((output, graph.call_function(Features, (tuple(by_name[name] for name in names),))))
    return fx.GraphModule(module, graph)


def difference(student: Features, teacher: Features, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the mean over the pairs of ||s - t||^2 / ||t - mean t||^2: 0 is equal, 1 as good as a constant.

    Args:
        student: Tensors of what is trained, (batch, ...); only they get a gradient.
        teacher: The same of the original.
        mask: Which tokens count, bool (batch, tokens); tensors (batch, tokens, width) are compared there only.
    """
    pairs = zip(student.tensors, teacher.tensors, strict=True)
    errors = [_RelativeError.apply(counted(mine, mask), counted(wanted, mask)) for mine, wanted in pairs]
    return torch.stack(errors).mean()


def counted(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Returns values without padding: (tokens that count, width) of (batch, tokens, width), others whole."""
    if mask is None or values.dim() != 3 or values.shape[:2] != mask.shape:
        return values
    return values[mask]


class _RelativeError(torch.autograd.Function):
    """One pair's share of `difference`, summed in float32.

    These tensors are the largest of a step, and there is one after every block: what counts is how often they pass
    through memory. So they are compared a cache's worth at a time, and nothing of their size is written before the
    gradient.
    """

    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        apart, squares, total = (torch.zeros((), dtype=torch.float64, device=mine.device) for _ in range(3))
        parts = _parts(wanted)
        near = parts[0].float().mean()  # squares around something near the mean: around zero rounding would eat them
        for here, part in zip(_parts(mine), parts, strict=True):
            there = part.float()
            apart += torch.linalg.vector_norm(here.float() - there).double().square()
            there = there - near
            squares += torch.linalg.vector_norm(there).double().square()
            total += there.sum().double()
        spread = (squares - total.square() / wanted.numel()).clamp_min(1e-12 * wanted.numel())
        ctx.save_for_backward(mine, wanted, (2 / spread).float())
        return (apart / spread).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        mine, wanted, twice = ctx.saved_tensors
        return (mine - wanted.to(mine.dtype)).mul_(gradient * twice), None


def _parts(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Returns some samples after the others, as many at a time as stay in a processor's cache; all of them on a GPU."""
    if values.device.type != "cpu" or values.dim() == 0:
        return (values,)
    each = max(1, values.numel() // max(1, len(values)))
    return torch.split(values, max(1, _CACHED // each))

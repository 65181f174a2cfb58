"""Tensors inside two networks that should be alike: those between the cuts, which both compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx

from compressors.analysis import analyse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.graph import Graph


def shared_positions(original: Graph, student: fx.GraphModule) -> tuple[str, ...]:
    """Returns the names of the positions of the original's main chain that the student has too, but for the output."""
    final = {str(node) for output in student.graph.find_nodes(op="output") for node in output.all_input_nodes}
    names = {node.name for node in student.graph.nodes if node.op not in ("placeholder", "output")} - final
    main = next((chain for chain in analyse(original).chains if chain.parent is None), None)
    outputs = () if main is None else tuple(position.output for position in main.positions)
    return tuple(name for name in outputs if name in names)


def with_features(module: fx.GraphModule, names: Sequence[str]) -> fx.GraphModule:
    """Returns a module on the same weights that gives its output and, after it, a tuple of the named tensors."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(module.graph, copies)
    by_name = {node.name: copy for node, copy in copies.items()}
    graph.output((output, tuple(by_name[name] for name in names)))
    return fx.GraphModule(module, graph)


def difference(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Returns the mean over the pairs of ||s - t||^2 / ||t - mean t||^2: 0 is equal, 1 as good as a constant.

    Args:
        student: Tensors of what is trained, (batch, ...).
        teacher: The same of the original.
        mask: Which tokens count, bool (batch, tokens); tensors (batch, tokens, width) are compared there only.
    """
    errors = []
    for mine, wanted in zip(student, teacher, strict=True):
        here, there = counted(mine, mask), counted(wanted, mask)
        errors.append((here - there).square().mean() / there.var(correction=0).clamp_min(1e-12))
    return torch.stack(errors).mean()


def counted(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Returns float32 values without padding: (tokens that count, width) of (batch, tokens, width), others whole."""
    values = values.float()
    if mask is None or values.dim() != 3 or values.shape[:2] != mask.shape:
        return values
    return values[mask]

"""Affine stretches: what is trained unmerged, and the one operator that it becomes when it ships.

A bias that comes out the same at every position is the operator's bias; otherwise it is added as a constant map. What
side inputs add is computed from them by a small linear and added at every position.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import final

import torch
from torch import fx, nn

from compressors import algebra
from compressors.algebra import Affine, Refused
from compressors.errors import SurgeryError
from compressors.graph import TensorSpec
from compressors.surgery.compose import Composed, compose_body
from compressors.tidy import tidy

_SAME = 1e-12
"""Relative. Biases by position that differ by less are one bias."""


@final
class AffineStretch(nn.Module):
    """A stretch that is affine, kept as the operators that it is made of, so that it can be trained."""

    def __init__(self, body: fx.GraphModule, specs: Sequence[TensorSpec]) -> None:
        """Takes over `body`; `specs` are its inputs per sample: the stretch's own, then side inputs."""
        super().__init__()
        self.body = body
        self.specs = tuple(specs)

    def in_float64(self) -> AffineStretch:
        """Returns a copy that computes in float64."""
        specs = (replace(spec, dtype=torch.float64) if spec.dtype.is_floating_point else spec for spec in self.specs)
        return AffineStretch(deepcopy(self.body).double(), tuple(specs))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Returns the stretch's output."""
        return self.body(*inputs)  # type: ignore[no-any-return]


def merged(stretch: AffineStretch) -> nn.Module:
    """Returns what a stretch becomes, in float64: an operator, with a constant map or side inputs where there are any.

    Raises:
        SurgeryError: The stretch is not affine, or not exactly one operator; it should not have been made.
    """
    composed = compose_body(stretch.body, stretch.specs)
    if isinstance(composed, Refused):
        raise SurgeryError(f"a stretch cannot be merged: {composed.reason}")
    dtype = torch.float64
    mapped = composed.mapped
    flat = mapped.biases.flatten(1) if mapped.affine.axes else mapped.biases[:, None]
    centre = flat.mean(1)
    spread = (flat - centre[:, None]).abs().max()
    constant = bool(spread <= _SAME * (1 + flat.abs().max()))
    operator = algebra.to_module(replace(mapped.affine, bias=centre if constant else torch.zeros_like(centre)), dtype)
    if constant and not composed.sides:
        return operator
    return _assembled(stretch, operator, None if constant else mapped.biases, composed)


def _assembled(
    stretch: AffineStretch, operator: nn.Module, biases: torch.Tensor | None, composed: Composed
) -> nn.Module:
    """Returns a module that adds a constant map and side inputs to an operator."""
    root = deepcopy(stretch.body)
    root.add_submodule("operator", operator)
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {}
    for node in stretch.body.graph.nodes:
        if node.op == "placeholder":
            known[node] = graph.placeholder(node.name)
    (entry, *_) = known
    value = graph.call_module("operator", (known[entry],))
    if biases is not None:
        root.register_buffer("bias_map", biases[None])
        value = graph.call_function(torch.ops.aten.add.Tensor, (value, graph.get_attr("bias_map")))
    for index, (side, matrix) in enumerate(composed.sides.items()):
        spread = _missing_axes(operator, stretch.specs[0])
        value = _add_side(root, (value, _copied(graph, side, known)), (f"side_{index}", matrix), spread)
    graph.output(value)
    return tidy(fx.GraphModule(root, graph, class_name="Merged")).eval()


def _add_side(
    root: fx.GraphModule, operands: tuple[fx.Node, fx.Node], named: tuple[str, torch.Tensor], spread: range
) -> fx.Node:
    """Adds M e, the same at every position, to a tensor; `spread` are the positions' axes."""
    value, side = operands
    graph = value.graph
    name, matrix = named
    root.add_submodule(name, algebra.to_module(Affine(matrix, matrix.new_zeros(len(matrix))), torch.float64))
    flat = graph.call_function(torch.ops.aten.flatten.using_ints, (side, 1))
    added = graph.call_module(name, (flat,))
    for axis in spread:
        added = graph.call_function(torch.ops.aten.unsqueeze.default, (added, axis))
    return graph.call_function(torch.ops.aten.add.Tensor, (value, added))


def _missing_axes(operator: nn.Module, spec: TensorSpec) -> range:
    """Returns the positions' axes: behind the channels of a convolution, before those of a linear."""
    (weight, *_) = operator.parameters()
    spatial = weight.dim() - 2
    return range(2, 2 + spatial) if spatial else range(1, len(spec.shape))


def _copied(graph: fx.Graph, node: fx.Node, known: dict[fx.Node, fx.Node]) -> fx.Node:
    """Copies what a side tensor is computed from."""
    for source in node.all_input_nodes:
        if source not in known:
            _copied(graph, source, known)
    if node not in known:
        known[node] = graph.node_copy(node, known.__getitem__)
    return known[node]

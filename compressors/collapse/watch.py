"""Running a graph and looking at what goes into its activations, and what comes out, as (channels, entries)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import fx

from compressors.analysis.segments import Site
from compressors.analysis.sites import find_sites
from compressors.collapse.axes import channel_axes, line_axis
from compressors.errors import OptionError
from compressors.graph import Graph
from compressors.shapes import propagate

Look = Callable[[str, int | None, torch.Tensor, torch.Tensor], None]
"""Told of every site in every batch: node name, axis as in `Line` (None where the channels are not known, and all of
the tensor is one channel), inputs and outputs, each (channels, entries)."""


def watch(
    graph: Graph,
    batches: Iterable[tuple[torch.Tensor, ...]],
    look: Look,
    sites: Sequence[Site] | None = None,
    mask: str | None = None,
) -> tuple[str, ...]:
    """Runs the graph on all batches without gradients; returns the names of the sites that were looked at.

    Args:
        graph: The model, run in whatever mode it is in.
        batches: Its inputs, one tuple per batch, read once; on the model's device.
        look: Called for every site and batch.
        sites: Which activation calls; all by default.
        mask: Name of the model input of shape (batch, tokens) that is zero for padding. At sites whose tensor has a
            dimension of that many tokens besides its channels, padding is left out.

    Raises:
        OptionError: There is no such input, or no batch.
    """
    shapes = propagate(graph.module, graph.inputs)
    axes = channel_axes(graph)
    chosen = find_sites(graph.module, shapes) if sites is None else sites
    known = {site.node: line_axis(axes, site.node, len(shapes.full[site.node])) for site in chosen}
    watcher = _Watcher(graph.module, known, _mask_index(graph, mask), look)
    seen = False
    with torch.no_grad():
        for inputs in batches:
            watcher.watch(inputs)
            seen = True
    if known and not seen:
        raise OptionError("samples", f"no batches to calibrate {graph.name!r} on: give at least one sample")
    return tuple(known)


def _mask_index(graph: Graph, mask: str | None) -> int | None:
    names = [spec.name for spec in graph.inputs]
    if mask is not None and mask not in names:
        raise OptionError("mask", f"{graph.name!r} has no input {mask!r}; it has {', '.join(names)}")
    return None if mask is None else names.index(mask)


@final
class _Watcher(fx.Interpreter):
    """Runs the graph and hands out both sides of its activations."""

    def __init__(self, module: fx.GraphModule, axes: Mapping[str, int | None], mask: int | None, look: Look) -> None:
        super().__init__(module)
        self._axes = axes
        self._mask_index = mask
        self._mask: torch.Tensor | None = None
        self._look = look

    def watch(self, inputs: tuple[torch.Tensor, ...]) -> None:
        """Runs one batch."""
        self._mask = None if self._mask_index is None else inputs[self._mask_index] != 0
        self.run(*inputs)

    def run_node(self, n: fx.Node) -> Any:
        if n.name not in self._axes:
            return super().run_node(n)
        z: torch.Tensor = self.fetch_args_kwargs_from_env(n)[0][0]
        s: torch.Tensor = super().run_node(n)
        axis = self._axes[n.name]
        self._look(n.name, axis, self._entries(z, axis), self._entries(s, axis))
        return s

    def _entries(self, x: torch.Tensor, axis: int | None) -> torch.Tensor:
        """Returns the tensor as (channels, entries), without masked tokens."""
        channel = None if axis is None else axis % x.dim()
        token = self._token_dimension(x, channel)
        if token is not None:
            assert self._mask is not None
            x = x.movedim(token, 1)  # (batch, tokens, ...)
            if channel is not None and channel < token:
                channel += 1
            x = x[self._mask]  # (kept tokens, ...)
            channel = None if channel is None else channel - 1
        return x.reshape(1, -1) if channel is None else x.movedim(channel, 0).flatten(1)

    def _token_dimension(self, x: torch.Tensor, channel: int | None) -> int | None:
        """Returns the first dimension after the batch that is as long as the mask and does not hold channels."""
        if self._mask is None or x.dim() < 3 or x.shape[0] != self._mask.shape[0]:
            return None
        tokens = self._mask.shape[1]
        return next((dim for dim in range(1, x.dim()) if dim != channel and x.shape[dim] == tokens), None)

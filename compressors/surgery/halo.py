"""Pad-first: all padding of a stretch moved to its entry, so that what is trained is what is merged.

Inside the stretch every tensor is computed on a grid that is larger than before by a halo: as many positions more on
each side as the operators behind it read beyond its border. There, where zeros stood, are now values that the same
operators compute from the zeros around the stretch's input. A convolution of kernel k, stride s, dilation d and padding
p whose output needs the halo (b, a) on one axis needs of its input

    before = s*b + p,     after = s*(H_out - 1 + a) - p + d*(k - 1) - (H_in - 1)

and pads nothing. A tensor that is read with different halos gets the largest, and each reader crops what it does not
need: that is how the identity of a residual block meets its branch. The stretch's output has no halo: its size stays.
(Padding reordering of LayerMerge, 2024, for any stride, dilation and graph.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import fx, nn

from compressors.algebra import Refused
from compressors.analysis.kinds import Kind, module_of
from compressors.analysis.reach import Blocked, Labels, layout
from compressors.analysis.windows import average_pool_settings, pad_amounts, paddings, slice_windows
from compressors.graph import TensorSpec
from compressors.shapes import Shapes, propagate
from compressors.surgery.compose import data_kinds

Halo = tuple[tuple[int, int], ...]
"""Positions more than before on each side of each axis; negative: fewer."""


@dataclass(frozen=True)
class _Window:
    """What one node reads, along one axis."""

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0

    def needs(self, halo: tuple[int, int], size_in: int, size_out: int) -> tuple[int, int]:
        """Returns the halo of the input that an output with a halo needs."""
        last = self.stride * (size_out - 1 + halo[1]) - self.before + self.dilation * (self.kernel - 1)
        return self.stride * halo[0] + self.before, last - (size_in - 1)


def pad_first(body: fx.GraphModule, specs: Sequence[TensorSpec]) -> Refused | None:
    """Moves all padding in a graph to its first input, in place; returns why not where that cannot be.

    Args:
        body: A stretch that is nobody else's: its modules are changed.
        specs: Its inputs per sample: the stretch's own, then side inputs.
    """
    shapes = propagate(body, specs)
    entry = next(iter(body.graph.nodes))
    kinds = data_kinds(body, entry)
    labels = layout(kinds, entry, shapes)
    if isinstance(labels, Blocked):
        return Refused(labels.reason)
    if labels[entry][-1] == "C":
        return None
    if any("*" in label for found in labels.values() for label in found):
        return Refused("positions are joined inside, so that they have no border to pad")
    mover = _Mover(body, kinds, labels, shapes)
    mover.move(entry)
    body.graph.lint()
    body.recompile()
    return None


@final
class _Mover:
    """Works out halos from the exit back to the entry, then edits from the entry on."""

    def __init__(self, body: fx.GraphModule, kinds: Mapping[fx.Node, Kind], labels: Labels, shapes: Shapes) -> None:
        self.body = body
        self.kinds = kinds
        self.labels = labels
        self.shapes = shapes
        (entry, *_) = labels
        self.axes = len(labels[entry]) - 2
        self.halos: dict[fx.Node, Halo] = {}
        self.wanted: dict[tuple[fx.Node, fx.Node], Halo] = {}

    def move(self, entry: fx.Node) -> None:
        """Does it."""
        nodes = list(self.kinds)
        self.halos[nodes[-1]] = ((0, 0),) * self.axes
        for node in reversed(nodes):
            self._demand(node)
        padded = self._padded(entry)
        for node in nodes:
            for source in {source for source in node.all_input_nodes if (node, source) in self.wanted}:
                self._feed(node, source, padded)
            self._unpad(node)

    def _demand(self, node: fx.Node) -> None:
        """Notes what a node needs of what it reads."""
        windows = self._windows(node)
        for source in node.all_input_nodes:
            if source not in self.labels:
                continue
            sizes = zip(self._sizes(source), self._sizes(node), strict=True)
            need = tuple(
                window.needs(halo, size_in, size_out)
                for window, halo, (size_in, size_out) in zip(windows, self.halos[node], sizes, strict=True)
            )
            self.wanted[node, source] = need
            known = self.halos.get(source, need)
            self.halos[source] = tuple((max(a, c), max(b, d)) for (a, b), (c, d) in zip(known, need, strict=True))

    def _windows(self, node: fx.Node) -> list[_Window]:
        """Returns what a node reads along each axis."""
        kind = self.kinds[node]
        if kind is Kind.OPERATOR:
            module = module_of(node)
            if isinstance(module, nn.Linear):
                return [_Window()] * self.axes
            assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            parts = zip(module.kernel_size, module.stride, module.dilation, paddings(module)[0], strict=True)
            return [_Window(*part) for part in parts]
        if kind is Kind.AVERAGE_POOL:
            pool = average_pool_settings(node, self.axes)
            assert pool is not None
            return [_Window(k, s, 1, p) for k, s, p in zip(*pool, strict=True)]
        if kind is Kind.PAD:
            amounts = pad_amounts(node, len(self.labels[node])) or []
            return self._by_axis(node, [_Window(before=before) for before, _ in amounts])
        if kind is Kind.SLICE:
            windows = slice_windows(node, self.shapes) or []
            return self._by_axis(node, [_Window(stride=step, before=before) for before, _, step in windows])
        return [_Window()] * self.axes

    def _by_axis(self, node: fx.Node, values: Sequence[Any]) -> list[Any]:
        """Returns the values of the dimensions that are positions, by axis."""
        pairs = [(label, value) for label, value in zip(self.labels[node], values, strict=True) if label[0] == "S"]
        return [value for _, value in sorted(pairs, key=lambda pair: int(pair[0][1:]))]

    def _sizes(self, node: fx.Node) -> list[int]:
        return self._by_axis(node, self.shapes.full[node.name])

    def _padded(self, entry: fx.Node) -> fx.Node:
        """Returns the entry with its halo of zeros."""
        halo = self.halos[entry]
        if not any(amount for pair in halo for amount in pair):
            return entry
        with self.body.graph.inserting_after(entry):
            return self._resized(entry, entry, halo)

    def _feed(self, node: fx.Node, source: fx.Node, padded: fx.Node) -> None:
        """Gives a node its input with the halo that it needs."""
        given, need = self.halos[source], self.wanted[node, source]
        (entry, *_) = self.labels
        actual = padded if source is entry else source
        surplus = tuple((c - a, d - b) for (a, b), (c, d) in zip(given, need, strict=True))
        if any(amount for pair in surplus for amount in pair):
            with self.body.graph.inserting_before(node):
                actual = self._resized(actual, source, surplus)
        if actual is not source:
            node.replace_input_with(source, actual)

    def _resized(self, node: fx.Node, like: fx.Node, halo: Halo) -> fx.Node:
        """Returns a tensor padded with zeros, or cropped where the halo is negative."""
        labels = self.labels[like]
        by_label = {f"S{axis}": pair for axis, pair in enumerate(halo)}
        pads = [amount for label in reversed(labels) for amount in by_label.get(label, (0, 0))]
        return self.body.graph.call_function(torch.ops.aten.constant_pad_nd.default, (node, pads))

    def _unpad(self, node: fx.Node) -> None:
        """Takes the padding, and the positions of a slice, out of a node that has its halo now."""
        kind = self.kinds[node]
        if kind is Kind.OPERATOR:
            module = module_of(node)
            if not isinstance(module, nn.Linear):
                assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
                module.padding = (0,) * self.axes
                module._reversed_padding_repeated_twice = [0] * (2 * self.axes)  # noqa: SLF001 - torch's own copy of it
        elif kind is Kind.AVERAGE_POOL:
            kernel, stride, _ = average_pool_settings(node, self.axes) or ((), (), ())
            node.args = (node.args[0], list(kernel), list(stride))
            node.kwargs = {}
        elif kind is Kind.PAD:
            amounts = pad_amounts(node, len(self.labels[node])) or []
            kept = [pair if label[0] != "S" else (0, 0) for pair, label in zip(amounts, self.labels[node], strict=True)]
            pads = [amount for pair in reversed(kept) for amount in pair]
            node.target = torch.ops.aten.constant_pad_nd.default
            node.args, node.kwargs = (node.args[0], pads), {}
        elif kind is Kind.SLICE:
            self._whole_slice(node)

    def _whole_slice(self, node: fx.Node) -> None:
        """A slice of positions takes every step-th position of what it is given."""
        labels = self.labels[node]
        names = ("input", "dim", "start", "end", "step")
        given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        axis = given.get("dim", 0) % len(labels)
        if labels[axis][0] == "S":
            node.args, node.kwargs = (node.args[0], axis, 0, 2**63 - 1, given.get("step", 1)), {}

"""Activations out, lines in: surgery on call sites, not on modules.

A module that is called twice has two sites; each goes on its own, and the module stays while anything calls it. A line
that is the identity leaves nothing behind. The result is run beside the original, whose activations are replaced while
it runs, and has to give the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import fx

from compressors.analysis.kinds import module_of
from compressors.channel_line import ChannelLine, Line
from compressors.errors import OptionError, SurgeryError
from compressors.graph import Graph
from compressors.modules import activation_kind
from compressors.shapes import Shapes, propagate, remember
from compressors.surgery.verify import output_error
from compressors.tidy import tidy

_TOLERANCE = 1e-4


def linearise(graph: Graph, lines: Mapping[str, Line]) -> Graph:
    """Returns a new graph in which every named activation call is a `ChannelLine`, or nothing where it is the identity.

    The module that stands for site `relu_3` is called `line_relu_3`; its parameters can be trained. The given graph is
    not changed.

    Args:
        graph: Where the sites are.
        lines: What to put in the place of which site (by node name, as in `Site.node`).

    Raises:
        OptionError: A name is no activation call, or a line has another number of channels than its tensor or is not
            finite.
        SurgeryError: The result does not compute what it should (our fault).
    """
    shapes = propagate(graph.module, graph.inputs)
    nodes = {node.name: node for node in graph.module.graph.nodes}
    for name, line in lines.items():
        _check(graph, nodes.get(name), name, line, shapes)
    copy = graph.copied()
    became = {node.name: _replace(copy.module, node, lines, shapes) for node in list(copy.module.graph.nodes)}
    tidy(copy.module)
    _remember(copy, shapes, {name: new for name, new in became.items() if new is not None})
    _verify(graph, copy, lines)
    return copy


def line_name(site: str) -> str:
    """Returns the name of the module that stands for an activation site."""
    return f"line_{site}"


def _check(graph: Graph, node: fx.Node | None, name: str, line: Line, shapes: Shapes) -> None:
    if node is None or node.op != "call_module" or activation_kind(module_of(node)) is None:
        raise OptionError("lines", f"{graph.name!r} has no activation {name!r}")
    shape = shapes.full[name]
    channels = line.slope.numel()
    if channels != 1 and (line.axis >= len(shape) or shape[line.axis] != channels):
        raise OptionError(
            "lines", f"the line for {name!r} has {channels} channels along axis {line.axis}; the tensor has {shape[1:]}"
        )
    if line.intercept.shape != line.slope.shape:
        raise OptionError("lines", f"the line for {name!r} has {channels} slopes, {line.intercept.numel()} intercepts")
    if not bool((line.slope.isfinite() & line.intercept.isfinite()).all()):
        raise OptionError("lines", f"the line for {name!r} is not finite: its statistics hold NaN or infinities")


def _replace(module: fx.GraphModule, node: fx.Node, lines: Mapping[str, Line], shapes: Shapes) -> str | None:
    """Replaces one call where a line is given; returns the new node's name."""
    line = lines.get(node.name)
    if line is None:
        return None
    source: Any = node.args[0]
    if line.is_identity:
        node.replace_all_uses_with(source)
        module.graph.erase_node(node)
        return None
    name = line_name(node.name)
    module.add_submodule(name, ChannelLine(line, shapes.dtypes[node.name]).to(_device(module)).eval())
    with module.graph.inserting_after(node):
        new = module.graph.call_module(name, (source,))
    new.meta.update({key: value for key, value in node.meta.items() if key == "path"})
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)
    return new.name


def _remember(copy: Graph, shapes: Shapes, became: Mapping[str, str]) -> None:
    """Notes the shapes, which are all as before."""
    full = shapes.full | {new: shapes.full[old] for old, new in became.items()}
    dtypes = shapes.dtypes | {new: shapes.dtypes[old] for old, new in became.items()}
    remember(copy.module, copy.inputs, Shapes(full, dtypes, shapes.carriers | set(became.values())))


@final
class _Substituted(fx.Interpreter):
    """Runs a graph with lines computed where it has activations."""

    def __init__(self, module: fx.GraphModule, lines: Mapping[str, Line]) -> None:
        super().__init__(module)
        self._lines = lines

    def run_node(self, n: fx.Node) -> Any:
        line = self._lines.get(n.name)
        if line is None:
            return super().run_node(n)
        x: torch.Tensor = self.fetch_args_kwargs_from_env(n)[0][0]
        shape = [1] * x.dim()
        shape[line.axis] = -1
        return x * line.slope.to(x).reshape(shape) + line.intercept.to(x).reshape(shape)


def _verify(graph: Graph, result: Graph, lines: Mapping[str, Line]) -> None:
    """Compares the result with the original whose activations are replaced as it runs."""
    inputs = tuple(value.to(_device(graph.module)) for value in graph.samples(2))
    with torch.no_grad():
        wanted, got = _Substituted(graph.module, lines).run(*inputs), result.module(*inputs)
    error = output_error(wanted, got)
    if not error <= _TOLERANCE:
        raise SurgeryError(f"replacing {len(lines)} activations of {graph.name!r} is off by {error:.3g} (relative)")


def _device(module: fx.GraphModule) -> torch.device:
    """Returns where the model is."""
    return next(module.parameters(), torch.empty(0)).device

"""Parts of a graph as modules of their own: one stretch, or everything up to some tensors. Weights are shared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from compressors.analysis.kinds import function_name
from compressors.errors import OptionError
from compressors.graph import Graph, TensorSpec
from compressors.shapes import propagate
from compressors.tidy import tidy


def extract(graph: Graph, entry: str, exit: str) -> tuple[fx.GraphModule, TensorSpec]:  # noqa: A002
    """Returns the stretch between two tensors as a module with one input, and what it takes.

    The module shares its weights with `graph`: run it, do not train it.

    Args:
        graph: Where the stretch is.
        entry: Node whose output is the stretch's only data input.
        exit: Node whose output the module returns.

    Raises:
        OptionError: There is no such stretch, or it reads another tensor as well.
    """
    nodes = {node.name: node for node in graph.module.graph.nodes}
    shapes = propagate(graph.module, graph.inputs)
    shape = shapes.per_sample(entry)
    if shape is None or exit not in nodes:
        raise OptionError("plan", f"{graph.name!r} has no stretch from {entry!r} to {exit!r}")
    copier = fx.Graph()
    known = {nodes[entry]: copier.placeholder("x")}
    for node in _needed(nodes[exit], nodes[entry]):
        if node.op == "placeholder":
            raise OptionError("plan", f"the stretch from {entry!r} to {exit!r} also reads {node.name!r}")
        known[node] = _copy(copier, node, known, nodes[entry])
    return _close(graph, copier, known[nodes[exit]]), TensorSpec(entry, shape, shapes.dtypes[entry])


def prefix_outputs(graph: Graph, nodes: Sequence[str]) -> fx.GraphModule:
    """Returns a module that takes the graph's inputs and returns the tensors of `nodes`, as a tuple in that order.

    It computes nothing that they do not need, and frees every other tensor as soon as it has been read. It shares its
    weights with `graph`.

    Raises:
        OptionError: A node does not exist.
    """
    known = {node.name: node for node in graph.module.graph.nodes}
    missing = [name for name in nodes if name not in known]
    if missing:
        raise OptionError("plan", f"{graph.name!r} has no tensor {missing[0]!r}")
    copier = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    copier.graph_copy(graph.module.graph, copied)
    return _close(graph, copier, tuple(copied[known[name]] for name in nodes))


def _needed(exit_: fx.Node, entry: fx.Node) -> list[fx.Node]:
    """Returns what `exit_` is computed from, back to `entry`, in topological order."""
    found: set[fx.Node] = set()
    pending = [exit_]
    while pending:
        node = pending.pop()
        if node in found or node is entry:
            continue
        found.add(node)
        if not _is_batch_size(node):
            pending.extend(node.all_input_nodes)
    return [node for node in exit_.graph.nodes if node in found]


def _copy(copier: fx.Graph, node: fx.Node, known: dict[fx.Node, fx.Node], entry: fx.Node) -> fx.Node:
    """Copies one node; the batch size is read off the stretch's own input."""
    if _is_batch_size(node):
        return copier.call_function(torch.ops.aten.sym_size.int, (known[entry], 0))
    return copier.node_copy(node, known.__getitem__)


def _is_batch_size(node: fx.Node) -> bool:
    return node.op == "call_function" and function_name(node) == "sym_size" and bool(node.args[1] == 0)


def _close(graph: Graph, copier: fx.Graph, result: fx.Node | tuple[fx.Node, ...]) -> fx.GraphModule:
    """Returns a cleaned module around the copied nodes."""
    copier.output(result)
    return tidy(fx.GraphModule(graph.module, copier, class_name="Stretch")).eval()

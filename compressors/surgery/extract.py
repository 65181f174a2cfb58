"""Parts of a graph as modules of their own: one stretch, or everything up to some tensors. Weights are shared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from compressors.analysis.flow import side_data
from compressors.analysis.kinds import function_name
from compressors.errors import OptionError
from compressors.graph import Graph, TensorSpec
from compressors.shapes import Shapes, propagate
from compressors.tidy import tidy


def extract(graph: Graph, entry: str, exit: str) -> tuple[fx.GraphModule, tuple[TensorSpec, ...]]:  # noqa: A002
    """Returns the stretch between two tensors as a module, and what it takes: the entry, then side inputs.

    A side input (see `compressors.analysis.flow.main_region`) is taken where the stretch and the rest of the model part
    ways. The module shares its weights with `graph`: run it, do not train it.

    Args:
        graph: Where the stretch is.
        entry: Node whose output is the stretch's only input on the main way through the network.
        exit: Node whose output the module returns.

    Raises:
        OptionError: There is no such stretch, or it reads another tensor of the main way as well.
    """
    nodes = {node.name: node for node in graph.module.graph.nodes}
    shapes = propagate(graph.module, graph.inputs)
    if shapes.per_sample(entry) is None or exit not in nodes:
        raise OptionError("plan", f"{graph.name!r} has no stretch from {entry!r} to {exit!r}")
    needed = _needed(nodes[exit], nodes[entry])
    sides = _side_inputs(graph, needed, shapes)
    copier = fx.Graph()
    known = {nodes[entry]: copier.placeholder("x")}
    known |= {node: copier.placeholder(node.name) for node in sides}
    for node in _needed(nodes[exit], nodes[entry], sides):
        if node.op == "placeholder":
            raise OptionError("plan", f"the stretch from {entry!r} to {exit!r} also reads {node.name!r}")
        known[node] = _copy(copier, node, known, nodes[entry])
    specs = tuple(_spec(shapes, name) for name in (entry, *(node.name for node in sides)))
    return _close(graph, copier, known[nodes[exit]]), specs


def _side_inputs(graph: Graph, needed: Sequence[fx.Node], shapes: Shapes) -> list[fx.Node]:
    """Returns the tensors off the main way that the stretch reads and others read too, or that come from outside."""
    sides, inside = side_data(graph.module, shapes), set(needed)
    return [
        node
        for node in needed
        if node in sides and (node.op == "placeholder" or any(user not in inside for user in node.users))
    ]


def _spec(shapes: Shapes, name: str) -> TensorSpec:
    shape = shapes.per_sample(name)
    if shape is None:
        raise OptionError("plan", f"the first dimension of {name!r} is not the batch, so no stretch can read it")
    return TensorSpec(name, shape, shapes.dtypes[name])


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


def _needed(exit_: fx.Node, entry: fx.Node, known: Sequence[fx.Node] = ()) -> list[fx.Node]:
    """Returns what `exit_` is computed from, back to `entry` and what is known, in topological order."""
    found: set[fx.Node] = set()
    pending = [exit_]
    while pending:
        node = pending.pop()
        if node in found or node is entry or node in known:
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

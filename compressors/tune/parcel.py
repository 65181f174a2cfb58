"""Graphs in a file for a process of our own, node names and all.

`torch.fx` records a graph module anew when it is unpickled and gives its nodes other names; cuts and features are found
by name. These files go from one process to its children and back, through a private folder, and are never anybody
else's: reading one runs what it says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from compressors.errors import SurgeryError

if TYPE_CHECKING:
    from pathlib import Path

    from compressors.graph import Graph

Parcel = tuple["Graph", tuple[tuple[str, dict[str, Any]], ...]]
"""A graph, and every node's name and where in the original model it comes from."""


def packed(graph: Graph) -> Parcel:
    """Returns what has to be written down for a graph."""
    kept = ("path",)
    nodes = graph.module.graph.nodes
    return graph, tuple((node.name, {key: node.meta[key] for key in kept if key in node.meta}) for node in nodes)


def unpacked(parcel: Parcel) -> Graph:
    """Returns the graph that was packed, on modules that the parcel alone holds.

    Raises:
        SurgeryError: It was recorded anew with other nodes than it had.
    """
    graph, labels = parcel
    nodes = list(graph.module.graph.nodes)
    if len(nodes) != len(labels):
        raise SurgeryError(f"{graph.name}: {len(labels)} operators were sent to another process and {len(nodes)} came")
    named = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node, (name, meta) in zip(nodes, labels, strict=True):
        args, kwargs = (fx.node.map_arg(part, copies.__getitem__) for part in (node.args, node.kwargs))
        copies[node] = named.create_node(node.op, node.target, args, kwargs, name)
        copies[node].meta.update(meta)
    return replace(graph, module=fx.GraphModule(graph.module, named).eval())


def write(path: Path, content: Any) -> None:
    """Writes anything that pickles."""
    torch.save(content, path)


def read(path: Path) -> Any:
    """Returns what `write` wrote; for files of our own processes only."""
    return torch.load(path, map_location="cpu", weights_only=False)

"""The order in which operators can run."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from compressors.errors import ModelError
from compressors.sources.onnx.model import Body, Node


def sort_nodes(nodes: list[Node], known: set[str], where: str) -> list[Node]:
    """Returns the operators in an order in which each finds its inputs; the file's own order as far as that goes.

    Args:
        nodes: In any order.
        known: Names of inputs and stored tensors.
        where: The file's name, for messages.

    Raises:
        ModelError: A value is computed twice or by nothing, or operators wait for each other.
    """
    maker = _makers(nodes, known, where)
    waits = [set(_needs(node, index, maker, known, where)) for index, node in enumerate(nodes)]
    readers: dict[int, list[int]] = {}
    for index, others in enumerate(waits):
        for other in others:
            readers.setdefault(other, []).append(index)
    ready = [index for index, others in enumerate(waits) if not others]
    heapq.heapify(ready)
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(nodes[index])
        for reader in readers.get(index, ()):
            waits[reader].discard(index)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = next(node for node, others in zip(nodes, waits, strict=True) if others)
        raise ModelError(f"{where}: the operators go in a circle, through {stuck.label}")
    return order


def reads(node: Node) -> Iterator[str]:
    """Yields the names that an operator reads, those of its branches too (without what they compute themselves)."""
    yield from (name for name in node.inputs if name)
    for body in node.attributes.values():
        if isinstance(body, Body):
            made = {name for inner in body.nodes for name in inner.outputs}
            yield from (name for inner in body.nodes for name in reads(inner) if name not in made)
            yield from (name for name in body.outputs if name not in made)


def _makers(nodes: list[Node], known: set[str], where: str) -> dict[str, int]:
    maker: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.outputs):
            if name in maker or name in known:
                raise ModelError(f"{where}: the value {name!r} is there twice; {node.label} computes it again")
            maker[name] = index
    return maker


def _needs(node: Node, index: int, maker: dict[str, int], known: set[str], where: str) -> Iterator[int]:
    for name in reads(node):
        if name in maker:
            yield maker[name]
        elif name not in known:
            raise ModelError(f"{where}: {node.label} (operator {index}) reads {name!r}, which nothing computes")

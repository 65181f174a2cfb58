"""Names for people: which part of the original model a set of nodes is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import final

from torch import fx

from compressors.analysis.kinds import Kind


def path_of(node: fx.Node) -> str:
    """Returns the dotted module path that a node came from; empty at the top level."""
    if node.op == "call_module":
        return str(node.target)
    return str(node.meta.get("path", ""))


def common_path(nodes: Sequence[fx.Node]) -> str:
    """Returns the deepest module path that holds all nodes with weights or activations."""
    paths = [path_of(node).split(".") for node in nodes if node.op == "call_module"]
    if not paths:
        return ""
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


@final
class Names:
    """Names stretches of one graph."""

    def __init__(self, kinds: Mapping[fx.Node, Kind]) -> None:
        """Counts, for every module path, how many calls of operators and norms lie below it."""
        self._weighted = {n for n, kind in kinds.items() if n.op == "call_module" and kind is not Kind.ACTIVATION}
        self._totals = self._counts(self._weighted)

    def stretch(self, nodes: Sequence[fx.Node]) -> str:
        """Returns `layer1.0` for a block, `layer1.0..layer1.2` for several, `layer1.0.conv1..layer1.0.bn2` for a part.

        Args:
            nodes: The stretch, in topological order.
        """
        called = [node for node in nodes if node.op == "call_module"]
        if not called:
            return path_of(nodes[-1]) or nodes[-1].name
        counts = self._counts(node for node in called if node in self._weighted)
        first, last = (self._largest_inside(path_of(node), counts) for node in (called[0], called[-1]))
        return first if first == last else f"{first}..{last}"

    def _counts(self, nodes: Iterable[fx.Node]) -> Counter[str]:
        return Counter(prefix for node in nodes for prefix in _prefixes(path_of(node)))

    def _largest_inside(self, path: str, counts: Counter[str]) -> str:
        """Returns the outermost module around `path` whose weights all lie inside, or `path` itself."""
        return next((prefix for prefix in _prefixes(path) if 0 < self._totals[prefix] == counts[prefix]), path)


def _prefixes(path: str) -> list[str]:
    """Returns `a` and `a.b` for `a.b.c`."""
    parts = path.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]

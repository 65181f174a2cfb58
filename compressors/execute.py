"""Running a graph a stretch at a time over many batches, so that what comes later can be fitted to what came before."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from compressors.batches import channels_last

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

Values = dict[str, Any]
"""Node name to what it computed; tensors, batch first."""


def evaluate(module: fx.GraphModule, nodes: Iterable[fx.Node], values: Values) -> None:
    """Computes `nodes`, in the order given, and adds them to `values`, which holds everything they read.

    Args:
        module: The graph that the nodes belong to.
        nodes: Any of its nodes but placeholders; the output node yields what the graph returns.
        values: What is known so far; extended in place.
    """
    for node in nodes:
        args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda read: values[read.name])
        values[node.name] = _call(module, node, args, kwargs)


def _call(module: fx.GraphModule, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    match node.op:
        case "call_module":
            return module.get_submodule(str(node.target))(*args, **kwargs)
        case "call_function":
            assert callable(node.target)
            return node.target(*args, **kwargs)
        case "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        case "get_attr":
            return reduce(getattr, str(node.target).split("."), module)
        case "output":
            return args[0]
        case _:
            raise ValueError(f"node {node.name} ({node.op}) cannot be computed: its value has to be given")


def descendants(module: fx.GraphModule, name: str) -> list[fx.Node]:
    """Returns every node that depends on node `name`, in topological order, without the node itself."""
    reached = {name}
    found = []
    for node in module.graph.nodes:
        if any(read.name in reached for read in node.all_input_nodes):
            reached.add(node.name)
            found.append(node)
    return found


def live_ends(nodes: Sequence[fx.Node]) -> dict[str, int]:
    """Returns, for every node, the index of the last node that reads it (its own where nobody does)."""
    index = {node: at for at, node in enumerate(nodes)}
    return {node.name: max((index[user] for user in node.users), default=at) for node, at in index.items()}


class Stream:
    """One graph over many batches, all standing at the same node; only what is still to be read is kept.

    Weights of nodes that lie ahead may change at any time: nothing ahead has been computed.

    Args:
        module: The graph, in eval mode.
        batches: The graph's inputs, one tuple per batch.
        wanted: Nodes that are read from outside and have to be kept until `release`d.
        order: All nodes in the order to compute them; the graph's own by default.
        cached: Whether the values are kept between calls; if not, each visit starts again from the inputs.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        batches: Sequence[tuple[torch.Tensor, ...]],
        wanted: Collection[str] = (),
        order: Sequence[fx.Node] | None = None,
        *,
        cached: bool = True,
    ) -> None:
        self._module = module
        self._nodes = list(order or module.graph.nodes)
        self._index = {node.name: at for at, node in enumerate(self._nodes)}
        self._last_read = live_ends(self._nodes)
        self._batches = batches
        self._wanted = set(wanted)
        self._cached = cached
        self._position = -1
        self._kept: dict[int, tuple[int, Values]] = {}

    def advance(self, name: str) -> None:
        """Moves on so that node `name` and all before it count as computed; never moves back."""
        self._position = max(self._position, self._index[name])

    def release(self, name: str) -> None:
        """Lets go of a wanted node."""
        self._wanted.discard(name)

    def at(self, batch: int) -> Values:
        """Returns the live values of one batch at the present position."""
        start, values = self._kept.get(batch, (-1, {}))
        values = dict(values)
        if start < 0:
            values |= self._inputs(batch)
        with torch.no_grad():
            for at in range(start + 1, self._position + 1):
                if self._nodes[at].op != "placeholder":
                    evaluate(self._module, [self._nodes[at]], values)
                self._drop_read(values, at)
        if self._cached:
            self._kept[batch] = (self._position, values)
        return values

    def _inputs(self, batch: int) -> Values:
        names = [node.name for node in self._nodes if node.op == "placeholder"]
        return dict(zip(names, map(channels_last, self._batches[batch]), strict=True))

    def _drop_read(self, values: Values, at: int) -> None:
        gone = [name for name in values if self._last_read[name] <= at and name not in self._wanted]
        for name in gone:
            # The node just computed may be what the caller advanced for.
            if self._index[name] != at:
                del values[name]


def live_bytes(module: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> int:
    """Returns the most bytes that live values take at any point, for this batch."""
    stream = Stream(module, [inputs], cached=True)
    most = 0
    for node in module.graph.nodes:
        stream.advance(node.name)
        most = max(most, sum(value.nbytes for value in stream.at(0).values() if isinstance(value, torch.Tensor)))
    return most

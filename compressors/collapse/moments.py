"""What is known of a tensor's distribution, and the walk through a network that finds it out.

Moments are kept as tensors that broadcast against their tensor, with 1 for the batch dimension. What is unknown says
why; everything that is computed from it is unknown for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, final

import torch
from torch import fx

from compressors.analysis.kinds import Kind, function_name, kind_of
from compressors.graph import Graph
from compressors.shapes import PROBE, propagate


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of one tensor.

    Attributes:
        mean: float64; broadcasts against the tensor, 1 for the batch.
        variance: Same shape, >= 0.
        origins: Where it comes from: "batch-norm", "layer-norm", "group-norm", "input", "table" or "constant".
        propagated: Whether anything but a norm lies between the origins and this tensor.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    origins: frozenset[str]
    propagated: bool = True

    @property
    def source(self) -> str:
        """For reports: e.g. `batch-norm`, or `propagated from batch-norm, input`."""
        names = ", ".join(sorted(self.origins))
        return f"propagated from {names}" if self.propagated else names

    def along(self, axis: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns mean and variance per entry of one dimension, shape (channels,), or (1,) if they are all alike.

        What differs between positions of a channel counts as variance.

        Args:
            axis: A dimension of the tensor, negative from the end.
            rank: Of the tensor.
        """
        mean, variance = (value.reshape((1,) * (rank - value.dim()) + value.shape) for value in self.pair())
        mean, variance = (value.movedim(axis, 0).flatten(1) for value in (mean, variance))  # (channels, positions)
        return mean.mean(1), variance.mean(1) + mean.var(1, correction=0)

    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns mean and variance in one shape."""
        return self.mean + torch.zeros_like(self.variance), self.variance + torch.zeros_like(self.mean)


@dataclass(frozen=True)
class Unknown:
    """Why nothing is known of a tensor."""

    reason: str


class UnknownError(Exception):
    """Ends one node's rule; never leaves this package."""


Rule = Callable[["Walk", fx.Node], Moments]


@final
class Walk:
    """What is known so far, and how to find out more.

    Args:
        graph: Whose tensors.
        rules: How to work out the moments of one kind of node; they raise `UnknownError` where they cannot.
    """

    def __init__(self, graph: Graph, rules: Mapping[Kind, Rule]) -> None:
        self.graph = graph
        self.rules = rules
        self.shapes = propagate(graph.module, graph.inputs)
        self.known: dict[fx.Node, Moments | Unknown] = {}

    def visit(self, node: fx.Node) -> None:
        """Adds one tensor."""
        try:
            self.known[node] = self._outcome(node)
        except UnknownError as exc:
            self.known[node] = Unknown(str(exc))

    def _outcome(self, node: fx.Node) -> Moments:
        if node.op == "get_attr":
            value = reduce(getattr, str(node.target).split("."), self.graph.module)
            assert isinstance(value, torch.Tensor)
            return constant(value.detach())
        rule = self.rules.get(kind_of(node))
        if rule is None:
            raise UnknownError(f"{label(node)} has no rule for moments")
        found = rule(self, node)
        return replace(found, mean=compressed(found.mean), variance=compressed(found.variance))

    def size(self, node: Any) -> tuple[int, ...]:
        """Returns a tensor's shape for a batch of one."""
        return tuple(size // PROBE if size and size % PROBE == 0 else size for size in self.shapes.full[node.name])

    def of(self, node: Any) -> Moments:
        """Returns the moments of an operand."""
        if isinstance(node, int | float):
            return constant(torch.tensor(float(node)))
        found = self.known.get(node)
        if isinstance(found, Moments):
            return found
        reason = found.reason if found is not None else f"{node} is no tensor"
        raise UnknownError(reason)

    def first(self, node: fx.Node) -> Moments:
        """Returns the moments of the first argument."""
        return self.of(node.args[0])

    def full(self, node: Any) -> Moments:
        """Returns the moments of an operand in its full shape, for a batch of one."""
        found, size = self.of(node), self.size(node)
        return replace(found, mean=found.mean.expand(size), variance=found.variance.expand(size))


def label(node: fx.Node) -> str:
    """Returns how to call a node in a message."""
    return repr(str(node.target)) if node.op == "call_module" else f"{function_name(node)!r} ({node.name})"


def constant(value: torch.Tensor) -> Moments:
    """Returns the moments of what does not depend on the inputs."""
    value = value.double().cpu()
    return Moments(value, torch.zeros_like(value), frozenset({"constant"}), propagated=False)


def compressed(value: torch.Tensor) -> torch.Tensor:
    """Returns the tensor with length 1 wherever it does not vary."""
    for dim, size in enumerate(value.shape):
        if size > 1:
            first = value.narrow(dim, 0, 1)
            if bool((value == first).all()):
                value = first
    return value


def joined(mean: torch.Tensor, variance: torch.Tensor, *parts: Moments) -> Moments:
    """Returns moments that come from several; constants are worth a mention only where there is nothing else."""
    origins = frozenset().union(*(part.origins for part in parts))
    return Moments(mean, variance.clamp_min(0), origins - {"constant"} or origins)

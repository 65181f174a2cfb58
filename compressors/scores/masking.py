"""TLC's removal of channels as the published code does it: on the weights, for training under parity.

For a site whose input has means m (beta, or measured):

1. The operator in front loses the weights of every channel with m <= 0, for good: they are zero again after each step.
   Its bias stays.
2. A batch norm between operator and site loses gamma and beta where beta < 0. Both may be trained: gamma's gradient is
   zero then, beta's is not, so that a removed channel becomes a constant that is learnt.
3. Where the site reads a sum, all this happens to its first operand; the others pass through every channel.
4. The activation goes; nothing takes its place.
An operator or norm that is called elsewhere too is left alone: it would change the other call as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import fx, nn

from compressors.analysis.kinds import module_of
from compressors.channel_line import identity_line
from compressors.collapse.linearise import linearise
from compressors.graph import Graph
from compressors.modules import BATCH_NORMS, CONVOLUTIONS
from compressors.scores.likelihood import Likelihood, summand
from compressors.tune.regulariser import ParameterGroup


@dataclass(frozen=True, eq=False)
class Masked:
    """A graph without some channels.

    Attributes:
        graph: The new graph.
        rows: Module path of every masked operator, and which of its rows are zero for good; bool, (channels,).
    """

    graph: Graph
    rows: Mapping[str, torch.Tensor]


def mask_channels(graph: Graph, found: Iterable[Likelihood]) -> Masked:
    """Returns a new graph in which the sites are linear and their irrelevant channels removed, as published.

    Args:
        graph: Not changed.
        found: From `compressors.scores.likelihood.likelihoods` with parity, one per site.

    Raises:
        OptionError: A site is no activation call of the graph.
        SurgeryError: The activations were not removed as they should (our fault).
    """
    chosen = list(found)
    copy = linearise(graph, {one.node: identity_line() for one in chosen})
    nodes = {node.name: node for node in graph.module.graph.nodes}
    calls = Counter(str(node.target) for node in nodes.values() if node.op == "call_module")
    rows: dict[str, torch.Tensor] = {}
    for one in chosen:
        source = summand(nodes[one.node])
        if _alone(source, BATCH_NORMS, calls):
            _zero_norm(copy.module.get_submodule(str(source.target)), one.mean < 0)
            source = source.all_input_nodes[0]
        if _alone(source, (*CONVOLUTIONS, nn.Linear), calls):
            rows[str(source.target)] = one.mean <= 0
    Mask(rows).after_step(copy.module)
    return Masked(copy, rows)


@final
class Mask:
    """Keeps masked weights at zero while they are trained (case 1); a `compressors.tune.regulariser.Regulariser`.

    Args:
        rows: From `mask_channels`.
    """

    def __init__(self, rows: Mapping[str, torch.Tensor]) -> None:
        self._rows = dict(rows)

    def penalty(self, module: nn.Module) -> torch.Tensor:
        """Returns nothing to add to the loss."""
        return torch.zeros((), device=next(module.parameters()).device)

    def after_step(self, module: nn.Module, rate: float = 1.0) -> None:  # noqa: ARG002 - of the protocol
        """Sets the masked weights to zero."""
        with torch.no_grad():
            for path, gone in self._rows.items():
                weight: Any = module.get_submodule(path).weight
                weight[gone.to(weight.device)] = 0

    def parameter_groups(self, module: nn.Module) -> tuple[ParameterGroup, ...]:  # noqa: ARG002 - of the protocol
        """Returns no groups: weights train like all others."""
        return ()

    def metrics(self, module: nn.Module) -> dict[str, float]:  # noqa: ARG002 - of the protocol
        """Returns how many channels are masked."""
        return {"masked_channels": float(sum(int(gone.sum()) for gone in self._rows.values()))}


def _alone(node: fx.Node, kinds: tuple[type[nn.Module], ...], calls: Counter[str]) -> bool:
    return node.op == "call_module" and calls[str(node.target)] == 1 and isinstance(module_of(node), kinds)


def _zero_norm(norm: nn.Module, gone: torch.Tensor) -> None:
    """Case 2."""
    with torch.no_grad():
        for value in norm.parameters():
            value[gone.to(value.device)] = 0

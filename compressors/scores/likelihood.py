"""How likely it is that a line in an activation's place errs (TLC, 2025), and which line to take per channel.

With z ~ N(m, s^2) in front of a ReLU, a channel is off with probability P = Phi(-m/s). The identity errs where it is
off; deleting the channel errs where it is on. Choosing by the sign of m leaves the smaller of both,

    E = Phi(-|m| / s),                                                                            (TLC, section 3)

and a layer's likelihood is the mean over its channels. m and s are beta and |gamma| of a batch norm right in front of
the activation, or measured there. What happens to each channel:

1. An activation with a second kink (ReLU6) errs there too: the identity with P + Phi((m - 6) / s).
2. Likelihoods do not see how large an error is. The costs do: E[(s(z) - z)^2] for the identity, E[s(z)^2] for deletion,
   Var[s(z)] for deletion to the mean, whose constant folds into what comes next. They hold for any activation.
3. parity: channels with m <= 0 lose the weights of the operator in front; that is `compressors.scores.masking`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import fx, nn
from torch.special import ndtr

from compressors.analysis.kinds import Kind, kind_of, module_of
from compressors.analysis.segments import Refusal, Site
from compressors.channel_line import Line
from compressors.collapse.axes import channel_axes, line_axis
from compressors.collapse.expectation import expect
from compressors.collapse.statistics import SiteStatistics
from compressors.graph import Graph
from compressors.modules import BATCH_NORMS
from compressors.shapes import propagate

Rule = Literal["sign", "cost"]
Removed = Literal["zero", "mean"]

_SMALLEST = 1e-5
"""What the published code bounds the logarithm's argument by."""


@dataclass(frozen=True, eq=False)
class Costs:
    """Mean squared errors of what may take a channel's place (case 2); float64, shape (channels,), >= 0.

    Attributes:
        identity: Of passing the input on.
        zero: Of zero: the power of the output.
        mean: Of the mean output.
        level: The mean output itself, of any sign.
    """

    identity: torch.Tensor
    zero: torch.Tensor
    mean: torch.Tensor
    level: torch.Tensor


@dataclass(frozen=True, eq=False)
class Likelihood:
    """What is to be expected at one site. Tensors are float64 of shape (channels,).

    Attributes:
        node: Node name of the site.
        axis: As in `Line`.
        mean: Of the activation's input.
        std: Of the activation's input, >= 0.
        error: Probability that the better of identity and deletion errs, in [0, 1].
        costs: How large the errors are.
        source: Where mean and standard deviation are from: "batch-norm" or "measured".
    """

    node: str
    axis: int
    mean: torch.Tensor
    std: torch.Tensor
    error: torch.Tensor
    costs: Costs
    source: str

    @property
    def layer(self) -> float:
        """Mean error likelihood over the channels, in [0, 1]; the lower, the safer to linearise."""
        return float(self.error.mean())

    @property
    def off(self) -> torch.Tensor:
        """Probability that a channel is off, in [0, 1]."""
        return off_probability(self.mean, self.std)

    @property
    def entropy(self) -> torch.Tensor:
        """Bits per channel, in [0, 1]; the published code computes them and does nothing with them."""
        return sign_entropy(self.off)

    @property
    def cost(self) -> float:
        """Mean squared error of the best choice per channel, summed, relative to the output's power; >= 0."""
        best = torch.minimum(self.costs.identity, torch.minimum(self.costs.zero, self.costs.mean)).sum()
        return float(best / self.costs.zero.sum().clamp_min(torch.finfo(torch.float64).tiny))


def off_probability(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Returns P(z <= 0) for z ~ N(mean, std^2); without width 1 where the mean is <= 0, else 0."""
    return _below(torch.zeros_like(mean), mean, std)


def error_likelihood(mean: torch.Tensor, std: torch.Tensor, upper: float | None = None) -> torch.Tensor:
    """Returns the probability that the better of identity and deletion errs, in [0, 1].

    Args:
        mean: Of the activation's input, float64.
        std: Its standard deviation; the sign does not matter (gamma may be negative).
        upper: The second kink, 6 for a ReLU6 (case 1).
    """
    off = off_probability(mean, std.abs())
    identity = off if upper is None else off + 1 - _below(torch.full_like(mean, upper), mean, std.abs())
    return torch.minimum(identity, 1 - off)


def sign_entropy(off: torch.Tensor) -> torch.Tensor:
    """Returns bits per channel of the probability of being off."""
    on = 1 - off
    return -off * torch.log2(off.clamp_min(_SMALLEST)) - on * torch.log2(on.clamp_min(_SMALLEST))


def likelihoods(
    graph: Graph,
    sites: Sequence[Site],
    statistics: Mapping[str, SiteStatistics] | None = None,
    *,
    parity: bool = False,
) -> dict[str, Likelihood | Refusal]:
    """Returns what is to be expected at every site by node name, or why nothing is known.

    A batch norm's parameters count where the site reads it, nothing between; costs are measured wherever there
    are statistics. Where there is no such norm, mean and (unbiased) standard deviation are measured.

    Args:
        graph: The model.
        sites: Activation calls of it.
        statistics: From `compressors.collapse.site_statistics`; not needed behind batch norms.
        parity: Whether a norm's input counts as standard normal, whatever its running variance, whether the norm of an
            add's first operand counts for the sum, and whether costs are computed even where they could be measured.
    """
    reader = _Reader(graph, statistics or {}, parity=parity)
    return {site.node: reader.read(site) for site in sites}


def kept_channels(found: Likelihood, rule: Rule = "cost", removed: Removed = "mean") -> torch.Tensor:
    """Returns which channels are passed on; bool, shape (channels,).

    Args:
        found: One site.
        rule: "sign" keeps a mean above zero (the paper; zero is removed), "cost" what errs less (case 2).
        removed: What a removed channel becomes.
    """
    if rule == "sign":
        return found.mean > 0
    return found.costs.identity < (found.costs.zero if removed == "zero" else found.costs.mean)


def channel_lines(found: Likelihood, rule: Rule = "cost", removed: Removed = "mean") -> Line:
    """Returns the line that passes some channels on and removes the others; see `kept_channels`."""
    kept = kept_channels(found, rule, removed)
    zero = removed == "zero"
    constant = torch.zeros_like(found.mean) if zero else found.costs.level
    cost = torch.where(kept, found.costs.identity, found.costs.zero if zero else found.costs.mean).sum()
    power = float(found.costs.zero.sum())
    intercept = torch.where(kept, torch.zeros_like(constant), constant)
    return Line(kept.double(), intercept, found.axis, float(cost) / power if power > 0 else 0.0, f"tlc: {found.source}")


def _norm(node: fx.Node) -> nn.modules.batchnorm._BatchNorm | None:
    """Returns the batch norm that a node calls, if it has parameters and statistics."""
    module = module_of(node) if node.op == "call_module" else None
    if not isinstance(module, BATCH_NORMS) or module.weight is None or module.running_var is None:
        return None
    return module


def _below(edge: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Returns P(z <= edge)."""
    t = (edge - mean) / std.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(std > 0, ndtr(t), (mean <= edge).double())


@final
class _Reader:
    """Reads sites of one graph."""

    def __init__(self, graph: Graph, statistics: Mapping[str, SiteStatistics], *, parity: bool) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph.module.graph.nodes}
        self._full = propagate(graph.module, graph.inputs).full
        self._axes = channel_axes(graph)
        self._statistics = statistics
        self._parity = parity

    def read(self, site: Site) -> Likelihood | Refusal:
        axis = line_axis(self._axes, site.node, len(self._full[site.node]))
        if axis is None:
            return Refusal(site.target, f"Nothing tells which dimension of {site.target} has its channels.", "axis")
        seen = self._statistics.get(site.node)
        pair = self._norm_moments(self._nodes[site.node])
        if pair is not None:
            return self._likelihood(site, axis, pair, "batch-norm")
        if seen is None:
            reason = f"No batch norm lies right before {site.target}, and nothing was measured. Give calibration data."
            return Refusal(site.target, reason, "no-moments")
        unbiased = seen.var_in * (seen.count / max(seen.count - 1, 1))
        return self._likelihood(site, axis, (seen.mean_in, unbiased.sqrt()), "measured")

    def _norm_moments(self, node: fx.Node) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Returns beta and |gamma| of the norm that the site reads."""
        norm = _norm(summand(node) if self._parity else node.all_input_nodes[0])
        if norm is None:
            return None
        std = norm.weight.detach().double().cpu().abs()
        if not self._parity:
            assert norm.running_var is not None
            running = norm.running_var.double().cpu()
            std = std * (running / (running + norm.eps)).sqrt()
        return norm.bias.detach().double().cpu(), std

    def _likelihood(self, site: Site, axis: int, pair: tuple[torch.Tensor, torch.Tensor], source: str) -> Likelihood:
        activation = self._graph.module.get_submodule(site.target)
        mean, std = pair
        error = error_likelihood(mean, std, _upper_kink(activation))
        seen = None if self._parity else self._statistics.get(site.node)
        costs = _expected_costs(activation, mean, std) if seen is None else _measured_costs(seen)
        return Likelihood(site.node, axis, mean, std, error, costs, source)


def summand(site: fx.Node) -> fx.Node:
    """Returns what a site reads; where that is a sum, its first operand: a residual block's branch (parity)."""
    source = site.all_input_nodes[0]
    while kind_of(source) is Kind.ADD:
        source = source.all_input_nodes[0]
    return source


def _upper_kink(activation: nn.Module) -> float | None:
    """Returns where an activation stops growing (case 1)."""
    return 6.0 if isinstance(activation, nn.ReLU6) else None


def _expected_costs(activation: nn.Module, mean: torch.Tensor, std: torch.Tensor) -> Costs:
    """Returns the costs for Gaussian inputs."""
    found = expect(activation, mean, std)
    off = (found.mean - mean).square()
    spread = found.variance - 2 * found.slope * std**2 + std**2
    return Costs(off + spread.clamp_min(0), found.variance + found.mean**2, found.variance, found.mean)


def _measured_costs(seen: SiteStatistics) -> Costs:
    one = torch.ones(1, dtype=torch.float64)
    return Costs(seen.squared_error(one, torch.zeros_like(one)), seen.power_out, seen.var_out, seen.mean_out)

"""What goes into an activation and what comes out of it, streamed over calibration batches.

Per call site and channel, over samples and positions: count, means, variances and covariance of input z and output
s(z), and counts of signs. Nothing else is kept, so that memory does not grow with the data. Each batch's central
moments are found around its own mean, in float64, and joined to what is known (Chan, Golub, LeVeque, "Updating formulae
and a pairwise algorithm for computing sample variances", 1979):

    C = C_a + C_b + (mean_z,b - mean_z,a) (mean_s,b - mean_s,a) n_a n_b / (n_a + n_b)

so that a large mean costs no digits, and the order and size of batches do not matter. The best line follows: slope
Cov(z, s) / Var(z), intercept mean_s - slope * mean_z.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from compressors.analysis.segments import Site
from compressors.channel_line import Line
from compressors.collapse.watch import watch
from compressors.graph import Graph

_CONSTANT = 1e-14
"""Variance relative to the squared mean below which float32 inputs are one and the same number."""


@dataclass(frozen=True, eq=False)
class SiteStatistics:
    """What one activation site saw. Tensors are float64 of shape (channels,), counts int64.

    Attributes:
        axis: As in `Line`. Where the channels are not known there is one channel, which holds everything.
        count: Entries per channel: samples times positions (without masked tokens).
        mean_in: Mean of the inputs z.
        mean_out: Mean of the outputs s(z).
        var_in: Variance of the inputs (population).
        var_out: Variance of the outputs.
        covariance: Of inputs and outputs.
        positive: Inputs above zero.
        negative: Inputs below zero; the rest are zero or NaN.
        nonzero_out: Outputs that are not zero.
    """

    axis: int
    count: int
    mean_in: torch.Tensor
    mean_out: torch.Tensor
    var_in: torch.Tensor
    var_out: torch.Tensor
    covariance: torch.Tensor
    positive: torch.Tensor
    negative: torch.Tensor
    nonzero_out: torch.Tensor

    @property
    def zero(self) -> torch.Tensor:
        """Inputs that are exactly zero, per channel."""
        return self.count - self.positive - self.negative

    @property
    def r_squared(self) -> torch.Tensor:
        """Squared correlation of inputs and outputs per channel, in [0, 1]; 1 where the output is constant."""
        explained = self.covariance**2 / self.var_in.clamp_min(_tiny())
        ratio = explained / self.var_out.clamp_min(_tiny())
        return torch.where(self.var_out > 0, ratio, torch.ones_like(ratio)).clamp(0, 1)

    @property
    def positive_rate(self) -> torch.Tensor:
        """Fraction of positive inputs among those that are not zero, per channel; 0 where all are zero.

        Source: EASIER, probability of the ON state, the zero state left out.
        """
        signed = self.positive + self.negative
        return self.positive.double() / signed.clamp_min(1)

    @property
    def entropy(self) -> torch.Tensor:
        """Entropy of the inputs' sign in bits per channel, in [0, 1], of the counts of all batches together."""
        p = self.positive_rate
        return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)) / torch.log(torch.tensor(2.0, dtype=torch.float64))

    @property
    def power_out(self) -> torch.Tensor:
        """Mean of the squared outputs per channel: the error of removing the channel, output zero."""
        return self.var_out + self.mean_out**2

    def squared_error(self, slope: torch.Tensor, intercept: torch.Tensor) -> torch.Tensor:
        """Returns the mean of (s - slope z - intercept)^2 per channel.

        Args:
            slope: float64, shape (channels,) or (1,).
            intercept: Same shape.
        """
        spread = self.var_out - 2 * slope * self.covariance + slope**2 * self.var_in
        return spread.clamp_min(0) + (self.mean_out - slope * self.mean_in - intercept) ** 2

    def relative_error(self, slope: torch.Tensor, intercept: torch.Tensor) -> float:
        """Returns the squared error over all channels, relative to the outputs' sum of squares; 1: as bad as zero."""
        power = float(self.power_out.sum())
        error = float(self.squared_error(slope, intercept).sum())
        return error / power if power > 0 else float(error > 0)

    @property
    def identity_error(self) -> float:
        """Relative squared error of passing the input on."""
        one = torch.ones(1, dtype=torch.float64)
        return self.relative_error(one, torch.zeros_like(one))

    @property
    def constant_error(self) -> float:
        """Relative squared error of every channel's mean output in place of the channel."""
        return self.relative_error(torch.zeros(1, dtype=torch.float64), self.mean_out)

    def line(self) -> Line:
        """Returns the least-squares line per channel; a channel whose input never changes gets slope 0."""
        constant = self.var_in <= _CONSTANT * self.mean_in**2 + _tiny()
        slope = torch.where(constant, torch.zeros_like(self.var_in), self.covariance / self.var_in.clamp_min(_tiny()))
        intercept = self.mean_out - slope * self.mean_in
        return Line(slope, intercept, self.axis, self.relative_error(slope, intercept), "fitted")

    def pooled_line(self) -> Line:
        """Returns the one least-squares line for all channels, shape (1,), and its error over them."""
        line = self.pooled().line()
        return replace(line, error=self.relative_error(line.slope, line.intercept), source="fitted: all channels")

    def pooled(self) -> SiteStatistics:
        """Returns the statistics with all channels as one."""

        def between(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return ((left - left.mean()) * (right - right.mean())).mean().reshape(1)

        return SiteStatistics(
            axis=-1,
            count=self.count * self.mean_in.numel(),
            mean_in=self.mean_in.mean().reshape(1),
            mean_out=self.mean_out.mean().reshape(1),
            var_in=self.var_in.mean() + between(self.mean_in, self.mean_in),
            var_out=self.var_out.mean() + between(self.mean_out, self.mean_out),
            covariance=self.covariance.mean() + between(self.mean_in, self.mean_out),
            positive=self.positive.sum().reshape(1),
            negative=self.negative.sum().reshape(1),
            nonzero_out=self.nonzero_out.sum().reshape(1),
        )

    def merged(self, other: SiteStatistics) -> SiteStatistics:
        """Returns the statistics of both sets of entries together; see the module docstring."""
        count = self.count + other.count
        share = other.count / max(count, 1)
        far_in, far_out = other.mean_in - self.mean_in, other.mean_out - self.mean_out

        def join(mine: torch.Tensor, theirs: torch.Tensor, between: torch.Tensor) -> torch.Tensor:
            return mine + (theirs - mine) * share + between * (share * (1 - share))

        return SiteStatistics(
            axis=self.axis,
            count=count,
            mean_in=self.mean_in + far_in * share,
            mean_out=self.mean_out + far_out * share,
            var_in=join(self.var_in, other.var_in, far_in**2),
            var_out=join(self.var_out, other.var_out, far_out**2),
            covariance=join(self.covariance, other.covariance, far_in * far_out),
            positive=self.positive + other.positive,
            negative=self.negative + other.negative,
            nonzero_out=self.nonzero_out + other.nonzero_out,
        )


def _tiny() -> float:
    return torch.finfo(torch.float64).tiny


def measure(z: torch.Tensor, s: torch.Tensor, axis: int) -> SiteStatistics:
    """Returns the statistics of one batch of inputs and outputs.

    Args:
        z: Inputs, shape (channels, entries).
        s: Outputs, same shape.
        axis: To be noted in the result.
    """
    wide_in, wide_out = z.double(), s.double()
    count = z.shape[1]
    if not count:
        nothing, none = wide_in.new_zeros(z.shape[0]), torch.zeros(z.shape[0], dtype=torch.int64)
        return SiteStatistics(axis, 0, nothing, nothing, nothing, nothing, nothing, none, none, none)
    mean_in, mean_out = wide_in.mean(1), wide_out.mean(1)
    off_in, off_out = wide_in - mean_in[:, None], wide_out - mean_out[:, None]
    moments = [(left * right).mean(1) for left, right in ((off_in, off_in), (off_out, off_out), (off_in, off_out))]
    counts = [(z > 0).sum(1), (z < 0).sum(1), (s != 0).sum(1)]
    return SiteStatistics(axis, count, *(value.cpu() for value in [mean_in, mean_out, *moments, *counts]))


def site_statistics(
    graph: Graph,
    batches: Iterable[tuple[torch.Tensor, ...]],
    sites: Sequence[Site] | None = None,
    mask: str | None = None,
) -> dict[str, SiteStatistics]:
    """Returns what every site saw in all batches together, by node name.

    Args:
        graph: The model, in eval mode.
        batches: Its inputs, one tuple per batch, read once; on the model's device.
        sites: Which activation calls; all by default.
        mask: Name of the model input of shape (batch, tokens) that is zero for padding. At sites whose tensor has a
            dimension of that many tokens besides its channels, padding is left out.

    Raises:
        OptionError: There is no such input, or no batch.
    """
    found: dict[str, SiteStatistics] = {}

    def look(name: str, axis: int | None, z: torch.Tensor, s: torch.Tensor) -> None:
        seen = measure(z, s, -1 if axis is None else axis)
        found[name] = found[name].merged(seen) if name in found else seen

    return {name: found[name] for name in watch(graph, batches, look, sites, mask)}

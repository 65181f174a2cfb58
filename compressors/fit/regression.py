"""One operator fitted by least squares, and its weights put in place.

Plain least squares minimises ||y_hat - y||^2. Where only relu(y) is read, what is wanted is the convex one-sided loss

    sum over y > 0 of (y_hat - y)^2  +  sum over y <= 0 of max(y_hat, 0)^2,

solved by majorise-minimise: fit to targets t, then set t := min(y_hat, 0) where y <= 0 and refit; t = y elsewhere.
Each round lowers the loss and needs a new X^T t only, since X^T X does not change (Zhang et al., "Accelerating Very
Deep Convolutional Networks", 2015, solve the same problem with auxiliary variables).

Installing (W, b) in op -> norm keeps the scale s = gamma / sqrt(var + eps) of the norm, so that weights stay as large
as training expects them: op.weight = W / s; the norm's statistics become those of the fitted output, and its gain and
shift undo them, so that in eval mode the pair is exactly x -> W x + b, and in train mode nearly so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx

from compressors.calibrate import Fit, Moments, Operator, Rows, fittable, picks, solve_ridge
from compressors.fit.points import FitPoint, Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from compressors.execute import Stream

FEWEST_BATCHES = 2
"""An operator is fitted on at least so many batches, however little time is left: to learn from, and to judge by."""

_SMALLEST_SCALE = 1e-3
"""A norm whose gain is below this share of its median switches a channel off; its scale is no guide for weights."""


@dataclass(frozen=True)
class RegressionConfig:
    """How one operator is fitted.

    Attributes:
        ridges: Strengths tried, relative to the mean variance of a patch entry; the best on held-back rows is taken.
        held_every: Every so many-th batch is held back for that choice, then used for the final fit too.
        rows_per_feature: Rows to gather per unknown of one output; beyond that, positions are sub-sampled.
        least_rows: Never fewer than this, where the data has them.
        one_sided_rounds: Rounds of the one-sided fit where a ReLU follows; 0 fits plainly.
        seed: For the positions.
        enough: Asked after each batch. Once it says so, an operator is fitted on the batches seen by then, and at least
            on `FEWEST_BATCHES`.
    """

    ridges: tuple[float, ...] = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    held_every: int = 5
    rows_per_feature: int = 40
    least_rows: int = 20_000
    one_sided_rounds: int = 0
    seed: int = 0
    enough: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class PointReport:
    """What a fit achieved at one operator.

    Attributes:
        operator: Its node.
        target: Node of the original that it reproduces.
        ridge: Strength that was chosen.
        error: Relative squared error on held-back rows: 0 is perfect, 1 is no better than a constant.
        before: The same for the weights that were there before; None for a new operator.
    """

    operator: str
    target: str
    ridge: float
    error: float
    before: float | None


def fit_point(
    cut: fx.GraphModule, point: FitPoint, streams: tuple[Stream, Stream], batches: int, config: RegressionConfig
) -> PointReport:
    """Fits one operator of `cut` in place.

    Args:
        cut: The cut network; everything before the operator is final.
        point: The operator and its target.
        streams: The original and the cut network over the same batches, in this order; moved on to the operator.
        batches: How many batches the streams have.
        config: How.
    """
    problem = _Regression(cut, point, streams, batches, config)
    fit, report = problem.solve()
    # What little was seen in haste may teach less than what the operator knew already.
    if not problem.hurried or report.before is None or report.error < report.before:
        install(problem.operator, problem.norm, fit, problem.total())
    return report


class _Regression:
    """The rows of one fit point, gathered anew on each pass so that no pass holds more than one batch."""

    def __init__(
        self,
        cut: fx.GraphModule,
        point: FitPoint,
        streams: tuple[Stream, Stream],
        batches: int,
        config: RegressionConfig,
    ) -> None:
        calls = {node.name: str(node.target) for node in cut.graph.nodes if node.op == "call_module"}
        operator = cut.get_submodule(calls[point.operator])
        assert fittable(operator)
        self.operator = operator
        self.norm = _norm(cut, calls[point.norm]) if point.norm else None
        self._point, self._batches, self._planned, self._config = point, batches, batches, config
        self.hurried = False
        self._original, self._cut = streams
        self._original.advance(point.target)
        self._cut.advance(point.input)
        if point.other is not None:
            self._cut.advance(point.other)
        self._rows = Rows(operator)
        self._fitted: Moments | None = None
        self._held: Moments | None = None

    def total(self) -> Moments:
        """Returns the moments of all rows."""
        assert self._fitted is not None
        return self._fitted if self._held is None else self._fitted + self._held

    def solve(self) -> tuple[Fit, PointReport]:
        """Returns the best map, and how good it is."""
        self._accumulate()
        assert self._fitted is not None
        present = None if self._point.new else effective(self.operator, self.norm)
        prior = None if present is None else present.matrix
        judge = self._fitted if self._held is None else self._held
        errors = {ridge: judge.error(solve_ridge(self._fitted, ridge, prior)) for ridge in self._config.ridges}
        ridge = min(errors, key=lambda value: errors[value])
        fit = solve_ridge(self.total(), ridge, prior)
        if self._point.rectified:
            fit = self._one_sided(fit, ridge, prior)
        spread = max(judge.spread(), torch.finfo(torch.float64).tiny)
        before = None if present is None else judge.error(present) / spread
        return fit, PointReport(self._point.operator, self._point.target, ridge, errors[ridge] / spread, before)

    def _accumulate(self) -> None:
        for batch, (x, y) in enumerate(self._passes()):
            moments = Moments.of(x, y)
            seen = batch + 1
            self.hurried = FEWEST_BATCHES <= seen < self._batches and self._config.enough()
            last = self.hurried and self._held is None
            if last or (self._batches >= 2 and seen % self._config.held_every == 0):
                self._held = moments if self._held is None else self._held + moments
            else:
                self._fitted = moments if self._fitted is None else self._fitted + moments
            if self.hurried:
                self._batches = seen
                return

    def _one_sided(self, fit: Fit, ridge: float, prior: torch.Tensor | None) -> Fit:
        total = self.total()
        for _ in range(self._config.one_sided_rounds):
            xy, y_sum = torch.zeros_like(total.xy), torch.zeros_like(total.y)
            for x, y in self._passes():
                x64, wanted = x.double(), y.double()
                predicted = x64 @ fit.matrix + fit.bias[:, None, :]
                wanted = torch.where(wanted > 0, wanted, predicted.clamp(max=0))
                xy += x64.transpose(1, 2) @ wanted
                y_sum += wanted.sum(1)
            moved = Moments(total.xx, xy, total.x, y_sum, total.yy, total.weight)
            fit = solve_ridge(moved, ridge, prior)
        return fit

    def _passes(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields patches (groups, rows, features) and targets (groups, rows, outputs), the same ones on every pass."""
        for batch in range(self._batches):
            original, cut = self._original.at(batch), self._cut.at(batch)
            y = original[self._point.target]
            if self._point.other is not None:
                y = y - cut[self._point.other]
            picked = self._picked(batch, y)
            yield self._rows.inputs(cut[self._point.input], picked), self._rows.outputs(y, picked)

    def _picked(self, batch: int, y: torch.Tensor) -> torch.Tensor:
        wanted = max(self._config.least_rows, self._config.rows_per_feature * self._rows.features)
        per_sample = -(-wanted // (len(y) * self._planned))
        generator = torch.Generator().manual_seed(self._config.seed * 1_000_003 + batch)
        return picks(self._rows.positions(y), per_sample, generator)


def _norm(module: fx.GraphModule, target: str) -> Norm:
    norm = module.get_submodule(target)
    assert isinstance(norm, Norm)
    return norm


def effective(operator: Operator, norm: Norm | None) -> Fit:
    """Returns the linear map that operator and norm are together in eval mode."""
    rows = Rows(operator)
    matrix = rows.matrix(operator.weight.detach().double())
    outputs = matrix.shape[0] * matrix.shape[2]
    bias = torch.zeros(outputs, dtype=torch.float64)
    if isinstance(operator.bias, torch.Tensor):
        bias = operator.bias.detach().double()
    if norm is not None:
        assert norm.running_mean is not None
        scale = _scale(norm)
        bias = (bias - norm.running_mean.double()) * scale + norm.bias.detach().double()
        matrix = matrix * scale.reshape(matrix.shape[0], 1, -1)
    return Fit(matrix, bias.reshape(matrix.shape[0], -1))


def install(operator: Operator, norm: Norm | None, fit: Fit, moments: Moments) -> None:
    """Puts a fitted map into an operator and the batch norm behind it, in place.

    Args:
        operator: Its weight, and bias where it has one, are overwritten.
        norm: Its statistics, gain and shift are overwritten; None where the operator stands alone and has a bias.
        fit: The map.
        moments: Of the rows that it was fitted to, for the norm's statistics.
    """
    rows = Rows(operator)
    with torch.no_grad():
        if norm is None:
            operator.weight.copy_(rows.weight(fit.matrix))
            if isinstance(operator.bias, torch.Tensor):
                operator.bias.copy_(fit.bias.flatten())
            return
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = _usable(_scale(norm))
        mean, variance = (part.flatten() for part in moments.output(fit))
        operator.weight.copy_(rows.weight(fit.matrix / scale.reshape(fit.matrix.shape[0], 1, -1)))
        shift = torch.zeros_like(mean)
        if isinstance(operator.bias, torch.Tensor):
            # The operator's own bias takes the fitted one, so that the norm has nothing left to do in eval mode.
            shift = fit.bias.flatten() / scale
            operator.bias.copy_(shift)
        norm.running_mean.copy_((mean - fit.bias.flatten()) / scale + shift)
        norm.running_var.copy_(variance / scale.square())
        norm.weight.copy_(scale * (norm.running_var.double() + norm.eps).sqrt())
        norm.bias.copy_(mean)


def _scale(norm: Norm) -> torch.Tensor:
    assert norm.running_var is not None
    return norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()


def _usable(scale: torch.Tensor) -> torch.Tensor:
    """Returns the scale, with one where a channel is switched off."""
    off = scale.abs() <= _SMALLEST_SCALE * scale.abs().median().clamp(min=1e-12)
    return torch.where(off, torch.ones_like(scale), scale)

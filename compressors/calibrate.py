"""Streamed least-squares statistics of one linear operator: what has to be known of the data, and no more.

A convolution or linear layer without its bias is a matrix product: row r of the design matrix X holds the input patch
that one output element reads (zero where the patch hangs over the border, exactly as the operator pads), row r of Y
holds the outputs wanted there. Per group g of the operator, with n rows seen so far,

    S_xx = X^T W X,   S_xy = X^T W Y,   s_x = X^T w,   s_y = Y^T w,   s_yy = diag(Y^T W Y),   s_w = sum(w)

are all that a fit, its error, and the mean and variance of the fitted output need (W = diag(w): optional row weights).
They are summed in float64, batch by batch. Sums of disjoint batches add up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import nn
from torch.nn import functional as F
from typing_extensions import TypeIs

from compressors.errors import UnsupportedModelError

Operator = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
"""What can be fitted in closed form."""


def fittable(module: nn.Module) -> TypeIs[Operator]:
    """Returns whether `module` is an operator whose output is its weight times patches of its input."""
    if isinstance(module, nn.Linear):
        return True
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.padding_mode == "zeros"


@dataclass(frozen=True)
class Rows:
    """How one operator's input and output become rows.

    Attributes:
        operator: The operator; its weights are not read.
    """

    operator: Operator

    def __post_init__(self) -> None:
        if not fittable(self.operator):
            raise UnsupportedModelError(f"{self.operator} cannot be fitted: only zero padding has a linear form.")

    @property
    def groups(self) -> int:
        """Independent systems to solve."""
        return 1 if isinstance(self.operator, nn.Linear) else self.operator.groups

    @property
    def features(self) -> int:
        """Entries of one patch, in one group."""
        return self.operator.weight[0].numel()

    def positions(self, output: torch.Tensor) -> int:
        """Returns how many rows one sample of `output`, the operator's output or of its shape, stands for."""
        sizes = output.shape[1:-1] if isinstance(self.operator, nn.Linear) else output.shape[2:]
        return int(torch.Size(sizes).numel())

    def inputs(self, x: torch.Tensor, picked: torch.Tensor) -> torch.Tensor:
        """Returns the patches at the picked output positions.

        Args:
            x: The operator's input, batch first.
            picked: Flat output positions, int64, shape (m,); the same ones in every sample.

        Returns:
            Shape (groups, batch * m, features).
        """
        if isinstance(self.operator, nn.Linear):
            tokens = x.reshape(len(x), -1, x.shape[-1])[:, picked]  # (batch, m, features)
            return tokens.reshape(1, -1, x.shape[-1])
        return self._patches(self.operator, x, picked)

    def outputs(self, y: torch.Tensor, picked: torch.Tensor) -> torch.Tensor:
        """Returns the values of `y`, shaped like the operator's output: (groups, batch * m, outputs per group)."""
        if isinstance(self.operator, nn.Linear):
            return y.reshape(len(y), -1, y.shape[-1])[:, picked].reshape(1, -1, y.shape[-1])
        flat = y.flatten(2)[:, :, picked].permute(0, 2, 1)  # (batch, m, channels)
        return flat.reshape(-1, self.groups, y.shape[1] // self.groups).transpose(0, 1)

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns a weight of the operator's shape as (groups, features, outputs per group)."""
        return weight.reshape(self.groups, -1, self.features).transpose(1, 2)

    def weight(self, matrix: torch.Tensor) -> torch.Tensor:
        """Returns (groups, features, outputs per group) in the shape of the operator's weight."""
        return matrix.transpose(1, 2).reshape(self.operator.weight.shape)

    def _patches(self, conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: torch.Tensor, picked: torch.Tensor) -> torch.Tensor:
        windows = F.pad(x, _padding(conv))
        for axis, (size, stride, dilation) in enumerate(zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)):
            reach = dilation * (size - 1) + 1
            windows = windows.unfold(2 + axis, reach, stride)[..., ::dilation]
        spatial = len(conv.kernel_size)
        where = torch.unravel_index(picked, windows.shape[2 : 2 + spatial])
        everything = (slice(None), slice(None))
        patches = windows[everything + tuple(where)]  # (batch, channels, m, *kernel)
        batch, channels, rows = patches.shape[:3]
        flat = patches.reshape(batch, channels, rows, -1).transpose(1, 2)  # (batch, m, channels, kernel)
        return flat.reshape(batch * rows, conv.groups, -1).transpose(0, 1)


def _padding(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[int]:
    """Returns zeros on both sides of each axis, last axis first, as `F.pad` takes them."""
    if conv.padding == "valid":
        return [0] * (2 * len(conv.kernel_size))
    if isinstance(conv.padding, str):
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(int(amount), int(amount)) for amount in conv.padding]
    return [amount for side in reversed(sides) for amount in side]


@dataclass(frozen=True)
class Moments:
    """The sums above, in float64.

    Attributes:
        xx: (groups, features, features).
        xy: (groups, features, outputs).
        x: (groups, features).
        y: (groups, outputs).
        yy: (groups, outputs).
        weight: Sum of the row weights; the number of rows where they are all one.
    """

    xx: torch.Tensor
    xy: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    yy: torch.Tensor
    weight: torch.Tensor

    @staticmethod
    def of(x: torch.Tensor, y: torch.Tensor, row_weights: torch.Tensor | None = None) -> Moments:
        """Returns the sums over one batch.

        Args:
            x: Patches, (groups, rows, features).
            y: Targets, (groups, rows, outputs).
            row_weights: How much each row counts, (rows,), >= 0; all one by default.
        """
        x, y = x.double(), y.double()
        w = torch.ones(x.shape[1], dtype=torch.float64) if row_weights is None else row_weights.double()
        weighted = x if row_weights is None else x * w[:, None]
        transposed = weighted.transpose(1, 2)
        return Moments(
            xx=transposed @ x,
            xy=transposed @ y,
            x=weighted.sum(1),
            y=(y * w[:, None]).sum(1),
            yy=(y.square() * w[:, None]).sum(1),
            weight=w.sum(),
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    def covariances(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns Cov(x, x), (groups, features, features), and Cov(x, y), (groups, features, outputs)."""
        mean_x, mean_y = self.x / self.weight, self.y / self.weight
        cov_xx = self.xx / self.weight - mean_x[:, :, None] * mean_x[:, None, :]
        cov_xy = self.xy / self.weight - mean_x[:, :, None] * mean_y[:, None, :]
        return cov_xx, cov_xy

    def error(self, fit: Fit) -> float:
        """Returns the mean squared error of `fit` on these rows, summed over all outputs."""
        w, b = fit.matrix, fit.bias
        quadratic = (w * (self.xx @ w)).sum(1) + 2 * b * (self.x[:, None, :] @ w)[:, 0] + b.square() * self.weight
        linear = (w * self.xy).sum(1) + b * self.y
        return float(((quadratic - 2 * linear + self.yy) / self.weight).sum())

    def spread(self) -> float:
        """Returns the variance of the targets, summed over all outputs: the error of the best constant."""
        return float((self.yy / self.weight - (self.y / self.weight).square()).sum())

    def output(self, fit: Fit) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns mean and (biased) variance of the fitted output on these rows, each (groups, outputs)."""
        cov_xx, _ = self.covariances()
        mean = ((self.x / self.weight)[:, None, :] @ fit.matrix)[:, 0] + fit.bias
        variance = (fit.matrix * (cov_xx @ fit.matrix)).sum(1).clamp(min=0)
        return mean, variance


@dataclass(frozen=True)
class Fit:
    """A linear map from patches to outputs, in float64.

    Attributes:
        matrix: (groups, features, outputs).
        bias: (groups, outputs).
    """

    matrix: torch.Tensor
    bias: torch.Tensor


def solve_ridge(moments: Moments, ridge: float, prior: torch.Tensor | None = None) -> Fit:
    """Returns the map with the least squared error, pulled towards a prior.

    Minimises mean ||x^T M + b - y||^2 + lambda ||M - M0||^2 with lambda = ridge * trace(Cov(x, x)) / features; the
    bias is free. Channels that never vary keep the prior's weight.

    Args:
        moments: The data.
        ridge: Strength relative to the mean variance of a patch entry, > 0.
        prior: M0, (groups, features, outputs); zero by default.

    Returns:
        The fit.
    """
    cov_xx, cov_xy = moments.covariances()
    start = torch.zeros_like(cov_xy) if prior is None else prior.double()
    scale = cov_xx.diagonal(dim1=1, dim2=2).mean(1).clamp(min=torch.finfo(torch.float64).tiny)
    system = cov_xx + torch.eye(cov_xx.shape[1], dtype=torch.float64) * (ridge * scale)[:, None, None]
    factor = _factor(system, moments)
    matrix = start + torch.cholesky_solve(cov_xy - cov_xx @ start, factor)
    bias = (moments.y - (moments.x[:, None, :] @ matrix)[:, 0]) / moments.weight
    return Fit(matrix, bias)


def _factor(system: torch.Tensor, moments: Moments) -> torch.Tensor:
    """Returns the Cholesky factor, (groups, features, features), of a system that is positive but for rounding.

    Where features hardly vary around a large mean, their covariance is lost in the rounding of its square. So the
    diagonal is raised by that rounding, and further until a factor exists.
    """
    eye = torch.eye(system.shape[1], dtype=torch.float64)
    square = (moments.xx.diagonal(dim1=1, dim2=2).mean(1) / moments.weight).clamp(min=torch.finfo(torch.float64).tiny)
    raised = 10 * torch.finfo(torch.float64).eps * square
    while True:
        factor, failed = torch.linalg.cholesky_ex(system + raised[:, None, None] * eye)
        if not bool(failed.any()) or not bool(raised.isfinite().all()):
            return torch.as_tensor(factor)
        raised = 10 * raised


def picks(positions: int, wanted: int, generator: torch.Generator) -> torch.Tensor:
    """Returns `wanted` different positions (all of them where there are no more), random, sorted."""
    if wanted >= positions:
        return torch.arange(positions)
    return torch.randperm(positions, generator=generator)[:wanted].sort().values

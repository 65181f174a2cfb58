"""Streamed least-squares statistics against the operators themselves and against solving everything at once."""

import pytest
import torch
from torch import nn

from compressors.calibrate import Fit, Moments, Rows, picks, solve_ridge
from compressors.errors import UnsupportedModelError

OPERATORS = [
    (nn.Conv2d(4, 6, 3, padding=1), (4, 7, 7)),
    (nn.Conv2d(4, 6, 1), (4, 5, 5)),
    (nn.Conv2d(3, 5, 5, stride=2, padding=2), (3, 9, 8)),
    (nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(0, 1), dilation=(2, 1)), (4, 9, 7)),
    (nn.Conv2d(6, 6, 3, padding=1, groups=6), (6, 5, 5)),
    (nn.Conv2d(6, 4, 3, padding="same", groups=2), (6, 5, 5)),
    (nn.Conv2d(4, 4, 3, padding="valid"), (4, 6, 6)),
    (nn.Conv1d(4, 6, 3, padding=1, stride=2), (4, 9)),
    (nn.Conv3d(2, 3, 3, padding=1), (2, 4, 5, 3)),
    (nn.Linear(5, 7), (5,)),
    (nn.Linear(5, 7), (3, 5)),
]


@pytest.mark.parametrize(("operator", "shape"), OPERATORS, ids=lambda value: str(value)[:40])
def test_patches_times_weight_are_what_the_operator_gives(operator: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(3, *shape)
    with torch.no_grad():
        y = operator(x)
    rows = Rows(operator)
    picked = torch.arange(rows.positions(y))[::2]
    matrix = rows.matrix(operator.weight.detach())
    bias = operator.bias.detach().reshape(rows.groups, 1, -1)
    torch.testing.assert_close(rows.inputs(x, picked) @ matrix + bias, rows.outputs(y, picked))
    torch.testing.assert_close(rows.weight(matrix), operator.weight.detach(), rtol=0, atol=0)


def rows_of(groups: int = 2, rows: int = 60, features: int = 5, outputs: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(groups, rows, features, dtype=torch.float64) + 2
    y = x @ torch.randn(groups, features, outputs, dtype=torch.float64) + torch.randn(groups, rows, outputs)
    return x, y


def test_streamed_solution_is_the_least_squares_solution() -> None:
    x, y = rows_of()
    parts = [Moments.of(x[:, at : at + 7], y[:, at : at + 7]) for at in range(0, 60, 7)]
    moments = sum(parts[1:], parts[0])
    fit = solve_ridge(moments, 1e-12)
    with_one = torch.cat([x, torch.ones_like(x[..., :1])], dim=2)
    expected = torch.linalg.lstsq(with_one, y).solution
    torch.testing.assert_close(fit.matrix, expected[:, :-1], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(fit.bias, expected[:, -1], rtol=1e-8, atol=1e-8)


def test_row_weights_count_rows_several_times() -> None:
    x, y = rows_of(rows=20)
    times = torch.randint(0, 4, (20,))
    repeated = Moments.of(x.repeat_interleave(times, dim=1), y.repeat_interleave(times, dim=1))
    weighted = Moments.of(x, y, times.double())
    torch.testing.assert_close(solve_ridge(weighted, 1e-6).matrix, solve_ridge(repeated, 1e-6).matrix)
    assert float(weighted.weight) == int(times.sum())


def test_error_spread_and_output_statistics_equal_the_direct_ones() -> None:
    x, y = rows_of()
    moments = Moments.of(x, y)
    fit = Fit(torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64))
    predicted = x @ fit.matrix + fit.bias[:, None]
    assert moments.error(fit) == pytest.approx(float((predicted - y).square().mean(1).sum()), rel=1e-10)
    assert moments.spread() == pytest.approx(float(y.var(1, correction=0).sum()), rel=1e-10)
    mean, variance = moments.output(fit)
    torch.testing.assert_close(mean, predicted.mean(1))
    torch.testing.assert_close(variance, predicted.var(1, correction=0))


def test_ridge_pulls_towards_the_prior() -> None:
    x, y = rows_of()
    prior = torch.randn(2, 5, 3, dtype=torch.float64)
    moments = Moments.of(x, y)
    distances = [float((solve_ridge(moments, ridge, prior).matrix - prior).norm()) for ridge in (1e-6, 1e-1, 1e1, 1e8)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-6


def test_feature_that_never_varies_keeps_its_prior() -> None:
    x, y = rows_of()
    x[..., 2] = 0
    prior = torch.full((2, 5, 3), 7.0)
    assert torch.allclose(solve_ridge(Moments.of(x, y), 1e-4, prior).matrix[:, 2], torch.tensor(7.0).double())


@pytest.mark.parametrize("spread", [0.0, 1e-9])
def test_features_that_hardly_vary_around_a_large_mean_are_solved_for(spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 1000 + spread * torch.randn(1, 200, 40, generator=generator, dtype=torch.float64)
    y = torch.randn(1, 200, 3, generator=generator, dtype=torch.float64)
    fit = solve_ridge(Moments.of(x, y), 1e-4)
    assert bool(fit.matrix.isfinite().all())
    predicted = x @ fit.matrix + fit.bias[:, None]
    assert float((predicted - y.mean(1, keepdim=True)).abs().max()) < 1


def test_fitted_operator_is_recovered_with_its_borders() -> None:
    operator, shape = OPERATORS[0]
    rows = Rows(operator)
    x = torch.randn(40, *shape)
    with torch.no_grad():
        y = operator(x)
    everywhere = torch.arange(rows.positions(y))
    fit = solve_ridge(Moments.of(rows.inputs(x, everywhere), rows.outputs(y, everywhere)), 1e-10)
    torch.testing.assert_close(rows.weight(fit.matrix).float(), operator.weight.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fit.bias.flatten().float(), operator.bias.detach(), atol=1e-5, rtol=1e-4)


def test_picks_are_distinct_sorted_and_repeatable() -> None:
    first = picks(100, 10, torch.Generator().manual_seed(3))
    assert first.tolist() == sorted(set(first.tolist()))
    assert len(first) == 10
    assert torch.equal(first, picks(100, 10, torch.Generator().manual_seed(3)))
    assert torch.equal(picks(4, 9, torch.Generator()), torch.arange(4))


def test_refuses_padding_that_is_not_linear() -> None:
    with pytest.raises(UnsupportedModelError, match="zero padding"):
        Rows(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"))

"""Penalties and their slopes: oracles 7 and 8 of the specification, and the table of its section 0."""

import pytest
import torch

from compressors.gates import collapse_penalty, folding_penalty, saving_weights
from compressors.gates.penalty import pulled


def value_and_slope(penalty, amount):
    a = torch.tensor(amount, dtype=torch.float64, requires_grad=True)
    value = penalty(a)
    value.backward()
    return float(value.detach()), float(a.grad)


@pytest.mark.parametrize(
    ("amount", "value", "slope"), [(0.25, 0.234375, -0.125), (0.0, 0.25, 0.0), (1.1, 0.0525, 0.55)]
)
def test_folding_penalty_with_weight_a_quarter(amount, value, slope):
    found = value_and_slope(lambda a: 0.25 * folding_penalty(a), amount)
    assert found == pytest.approx((value, slope), abs=1e-12)


@pytest.mark.parametrize(("amount", "value", "slope"), [(0.25, 0.5625, -1.5), (0.0, 1.0, -2.0), (1.0, 0.0, 0.0)])
def test_collapse_penalty(amount, value, slope):
    assert value_and_slope(collapse_penalty, amount) == pytest.approx((value, slope), abs=1e-12)


def test_the_folding_penalty_holds_a_gate_at_one_and_the_collapse_penalty_does_not():
    below = value_and_slope(lambda a: 0.25 * folding_penalty(a), 1 - 1e-9)[1]
    above = value_and_slope(lambda a: 0.25 * folding_penalty(a), 1 + 1e-9)[1]
    assert (below, above) == pytest.approx((-0.5, 0.5), abs=1e-6)
    assert abs(value_and_slope(collapse_penalty, 1 - 1e-9)[1]) < 1e-8


def test_other_powers():
    assert float(folding_penalty(torch.tensor(0.5), 3)) == 0.875


def test_decoupled_pull():
    a, seen = torch.tensor(0.01, dtype=torch.float64), []
    for _ in range(3):
        a = pulled(a, 1e-4 * 10)
        seen.append(float(a))
    assert seen == pytest.approx([0.01198, 0.01395604, 0.01592812792], abs=1e-14)


def test_weights_follow_what_is_saved():
    found = saving_weights({"a": 3e-3, "b": 1e-3, "c": 0.0, "d": -1.0})
    assert found == pytest.approx({"a": 1.5, "b": 0.5, "c": 0.0, "d": 0.0})
    assert saving_weights({"a": 0.0}) == {"a": 0.0}

"""What is believed of cuts after sets of them were judged, against the posterior computed the long way."""

from __future__ import annotations

import math

import pytest
import torch

from compressors.plan import Step
from compressors.strategies.beliefs import _DOUBT, _NOISE, _SCALE_DOUBT, Beliefs

STEPS = [Step("remove", f"in_{at}", f"out_{at}") for at in range(5)]
ALONE = dict(zip(STEPS, (0.01, 0.02, 0.05, 0.2, 0.5), strict=True))
SETS = {(0, 1): 0.9, (1, 2, 3): 1.7, (0, 4): 1.2, (2,): 0.4}


def told(seed: int = 0) -> Beliefs:
    beliefs = Beliefs(ALONE, seed)
    for places, harm in SETS.items():
        beliefs.learn([STEPS[place] for place in places], harm)
    return beliefs


def surprise(logs: torch.Tensor) -> torch.Tensor:
    """Minus the log of the posterior's density, up to a constant."""
    prior = torch.tensor([*map(math.log, ALONE.values()), 0.0], dtype=torch.float64)
    doubt = torch.tensor([_DOUBT] * len(STEPS) + [_SCALE_DOUBT], dtype=torch.float64)
    total = (((logs - prior) / doubt) ** 2).sum() / 2
    for places, harm in SETS.items():
        together = logs[-1] + (logs[list(places)] / 2).exp().sum().log() * 2
        total = total + ((math.log(harm) - together) / _NOISE) ** 2 / 2
    return total


def test_nothing_judged_changes_nothing() -> None:
    assert Beliefs(ALONE).expected() == pytest.approx(ALONE)


def test_what_is_likeliest_is_where_the_density_is_highest() -> None:
    mode, _ = told()._mode()
    mode.requires_grad_()
    (slope,) = torch.autograd.grad(surprise(mode), mode)
    assert slope.abs().max() < 1e-3
    for _ in range(20):
        elsewhere = mode.detach() + 0.1 * torch.randn(len(mode), dtype=torch.float64)
        assert surprise(elsewhere) > surprise(mode.detach())


def test_draws_scatter_as_the_posterior_does() -> None:
    beliefs = told()
    mode, slopes = beliefs._mode()
    precision = torch.diag(1 / beliefs._variance) + slopes.T @ slopes / _NOISE**2
    wanted = torch.linalg.inv(precision)[:-1, :-1]
    drawn = torch.tensor([list(beliefs.draw().values()) for _ in range(6000)], dtype=torch.float64).log()
    assert drawn.mean(0) == pytest.approx(mode[:-1], abs=0.08)
    assert drawn.T.cov() == pytest.approx(wanted, abs=0.12)


def test_a_set_that_does_more_than_expected_makes_its_cuts_look_worse_than_others() -> None:
    same = dict.fromkeys(STEPS, 0.1)
    beliefs = Beliefs(same)
    for places, harm in (((0, 1), 2.0), ((2, 3), 0.4)):
        beliefs.learn([STEPS[place] for place in places], harm)
    after = list(beliefs.expected().values())
    assert min(after[0], after[1]) > 1.5 * after[4]
    assert max(after[2], after[3]) < after[4]


def test_units_do_not_matter() -> None:
    """Harms of cuts alone may be scores of any size."""
    one, other = Beliefs(ALONE), Beliefs({step: 20 * harm for step, harm in ALONE.items()})
    for beliefs in (one, other):
        for places, harm in SETS.items():
            beliefs.learn([STEPS[place] for place in places], harm)
    ratios = [b / a for a, b in zip(one.expected().values(), other.expected().values(), strict=True)]
    assert max(ratios) / min(ratios) < 1.2


def test_a_seed_draws_the_same() -> None:
    assert told(3).draw() == told(3).draw()
    assert told(3).draw() != told(4).draw()


def test_no_harm_at_all_is_a_harm() -> None:
    beliefs = Beliefs(dict.fromkeys(STEPS, 0.0))
    beliefs.learn(STEPS[:2], 0.0)
    assert all(math.isfinite(harm) for harm in beliefs.draw().values())


def test_a_cut_that_cannot_be_had_stays_so_and_spoils_nothing() -> None:
    beliefs = Beliefs({**ALONE, STEPS[4]: math.inf})
    beliefs.learn(STEPS[3:], 0.5)  # of which nothing is learned
    beliefs.learn(STEPS[:2], 0.5)
    drawn = beliefs.draw()
    assert drawn.pop(STEPS[4]) == math.inf
    assert all(math.isfinite(harm) for harm in drawn.values())
    assert beliefs.expected()[STEPS[3]] == pytest.approx(ALONE[STEPS[3]])


@pytest.mark.parametrize("harm", [math.inf, math.nan])
def test_a_network_without_numbers_is_as_bad_as_can_be(harm: float) -> None:
    beliefs = Beliefs(ALONE)
    beliefs.learn(STEPS[:2], 0.5)
    beliefs.learn(STEPS[2:4], harm)
    after = beliefs.expected()
    assert after[STEPS[2]] / ALONE[STEPS[2]] > 2 * after[STEPS[0]] / ALONE[STEPS[0]]
    assert all(math.isfinite(drawn) for drawn in beliefs.draw().values())

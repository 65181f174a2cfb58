"""How often somebody may call."""

from __future__ import annotations

import pytest

from service.access.rates import RateLimit
from service.errors import QuotaError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_a_steady_rate() -> None:
    clock = Clock()
    rates = RateLimit(per_second=2.0, burst=3, clock=clock)
    for _ in range(3):
        rates.take("alice")

    with pytest.raises(QuotaError, match="more than 2 calls per second") as caught:
        rates.take("alice")
    assert caught.value.retry_seconds == pytest.approx(0.5)

    clock.now += 0.5
    rates.take("alice")
    with pytest.raises(QuotaError):
        rates.take("alice")


def test_a_refused_call_costs_nothing() -> None:
    clock = Clock()
    rates = RateLimit(per_second=1.0, burst=1, clock=clock)
    rates.take("alice")
    for _ in range(5):
        with pytest.raises(QuotaError):
            rates.take("alice")
    clock.now += 1.0
    rates.take("alice")


def test_each_principal_has_a_bucket_of_its_own() -> None:
    rates = RateLimit(per_second=1.0, burst=1, clock=Clock())
    rates.take("alice")
    rates.take("bob")


def test_a_bucket_never_holds_more_than_a_burst() -> None:
    clock = Clock()
    rates = RateLimit(per_second=10.0, burst=2, clock=clock)
    rates.take("alice")
    clock.now += 1000.0
    rates.take("alice")
    rates.take("alice")
    with pytest.raises(QuotaError):
        rates.take("alice")

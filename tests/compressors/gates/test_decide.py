import math

import pytest

from compressors.gates import at_least, near_one, rounded

AMOUNTS = {"a": 0.9, "b": 0.5, "c": 0.51, "d": 1.04, "e": 0.0, "f": 14.7}


def test_published_decisions():
    assert at_least(AMOUNTS) == ("a", "d", "f")
    assert rounded(AMOUNTS) == ("a", "c", "d", "f")
    assert near_one(AMOUNTS) == ("d",)
    assert near_one({"x": 0.95, "y": 0.951}) == ("y",)
    assert near_one({"x": 0.98}, 0.01) == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gate_that_is_not_finite_is_not_linear(value):
    broken = {"x": value, "y": 0.97}
    assert at_least(broken) == rounded(broken) == near_one(broken) == ("y",)

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from compressors import algebra
from compressors.algebra import Refused
from tests.compressors.algebra.maps import TOLERANCE, error, form, normal, pair_of, quick

POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


@quick
@given(
    axes=st.integers(1, 3), kernel=st.integers(1, 4), stride=st.integers(1, 3), padding=st.integers(0, 2),
    rounding=st.tuples(st.booleans(), st.booleans()), size=st.integers(4, 9),
)  # fmt: skip
def test_pool_is_the_module_or_refused(axes, kernel, stride, padding, rounding, size):
    assume(padding <= kernel // 2)
    ceil_mode, counts = rounding
    pool = POOLS[axes](kernel, stride, padding, ceil_mode=ceil_mode, count_include_pad=counts)
    x = normal(1, 2, *(size,) * axes)
    result = algebra.of_average_pool(pool, 2, (size,) * axes)
    if isinstance(result, Refused):
        assert (padding and not counts) or ceil_mode
    else:
        assert error(pool(x), result(x)) < TOLERANCE


@pytest.mark.parametrize(
    ("pool", "size", "reason"),
    [
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), 8, "padding"),
        (nn.AvgPool2d(3, 2, ceil_mode=True), 8, "hangs over"),
    ],
)
def test_pool_that_divides_by_fewer_is_refused(pool, size, reason):
    result = algebra.of_average_pool(pool, 3, (size, size))
    assert isinstance(result, Refused)
    assert reason in result.reason


def test_rounding_up_without_a_hanging_window_is_a_map():
    pool, x = nn.AvgPool2d(3, 2, ceil_mode=True), normal(1, 3, 9, 9)
    assert error(pool(x), algebra.of_average_pool(pool, 3, (9, 9))(x)) < TOLERANCE


def test_pool_with_a_divisor_of_its_own():
    pool, x = nn.AvgPool2d((2, 3), divisor_override=5), normal(1, 3, 6, 7)
    assert error(pool(x), algebra.of_average_pool(pool, 3, (6, 7))(x)) < TOLERANCE


def test_global_pool():
    x = normal(2, 3, 4, 5)
    assert error(x.mean((2, 3), keepdim=True), algebra.global_average_pool(3, (4, 5))(x)) < TOLERANCE


@pytest.mark.parametrize("wanted", [1, 2, (3, 4), (None, 2)])
def test_adaptive_pool(wanted):
    pool, x = nn.AdaptiveAvgPool2d(wanted), normal(1, 3, 6, 8)
    assert error(pool(x), algebra.of_adaptive_pool(pool, 3, (6, 8))(x)) < TOLERANCE


def test_adaptive_pool_of_uneven_windows_is_refused():
    assert isinstance(algebra.of_adaptive_pool(nn.AdaptiveAvgPool2d(4), 3, (6, 8)), Refused)


def test_convolution_then_pool_is_one_convolution():
    module, one = pair_of(form(2, pad=1), 3, 5)
    x = normal(1, 3, 8, 8)
    whole = algebra.compose(one, algebra.average_pool(5, (2, 2), (2, 2), (0, 0)))
    assert (whole.kernel, whole.stride) == ((4, 4), (2, 2))
    assert error(nn.functional.avg_pool2d(module(x), 2), whole(x)) < TOLERANCE

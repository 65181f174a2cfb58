from __future__ import annotations

from dataclasses import replace

import pytest

from compressors.plan import Step
from compressors.table import Alternative, Cut, Table, undominated

SHAPE = (8, 16, 16)
FITTED = Step("regress", "a", "c", (3, 3), (1, 1))
MERGED = Step("merge", "a", "c", (3, 3), (1, 1), sites=("b",))


def alternative(step: Step, seconds: float, *, end: int = 2, bias_map: bool = False) -> Alternative:
    cut = Cut("main", 0, end, step, SHAPE, SHAPE, bias_map=bias_map)
    return Alternative(cut, seconds, 10.0 - seconds)


def left(*alternatives: Alternative) -> list[str]:
    return [one.step.kind for one in undominated(Table({"main": (5.0, 5.0)}, alternatives)).alternatives]


def test_a_merge_goes_where_a_regression_of_its_shape_is_as_fast():
    assert left(alternative(FITTED, 3.0), alternative(MERGED, 3.0)) == ["regress"]


@pytest.mark.parametrize(
    "merged",
    [
        alternative(MERGED, 2.5),
        alternative(MERGED, 3.0, end=1),
        alternative(MERGED, 3.0, bias_map=True),
        alternative(replace(MERGED, kernel=(5, 5)), 3.0),
        alternative(replace(MERGED, stride=(2, 2)), 3.0),
        alternative(replace(MERGED, kernel=(), stride=()), 3.0),
        alternative(replace(MERGED, norm=2), 3.0),
    ],
    ids=["faster", "other stretch", "bias by position", "larger kernel", "other stride", "linear", "norm behind"],
)
def test_a_merge_stays_where_it_can_do_what_no_regression_can(merged):
    assert left(alternative(FITTED, 3.0), merged) == ["regress", "merge"]


def test_merges_stay_where_nothing_is_fitted():
    assert left(alternative(MERGED, 3.0), alternative(replace(MERGED, kernel=(5, 5)), 4.0)) == ["merge", "merge"]

import math

import pytest

from compressors.scores.importance import accuracy_change, importance, loss_change


@pytest.mark.parametrize(("points", "wanted"), [(-5, 0.951), (-20, 0.819), (-70, 0.497), (0, 1), (1.2, 1.012)])
def test_published_importance_of_a_change_of_accuracy(points, wanted):
    before = 0.75
    assert importance(accuracy_change(before + points / 100, before)) == pytest.approx(wanted, abs=5e-4)
    assert importance(accuracy_change(before + points / 100, before)) == pytest.approx(math.exp(points / 100))


def test_published_importance_of_a_change_of_loss():
    assert importance(loss_change(0.03, 0.02)) == pytest.approx(math.exp(-0.5))
    assert importance(loss_change(0.02, 0.02)) == 1


def test_a_change_that_is_no_number_is_the_worst():
    assert importance(math.nan) == 0


def test_refusals():
    with pytest.raises(ValueError, match="positive loss"):
        loss_change(1.0, 0.0)

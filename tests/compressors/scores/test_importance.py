import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressors.scores.importance import (
    accuracy_change,
    importance,
    importances,
    loss_change,
    refine,
    shifted_importances,
)
from compressors.solve import Edge, Grid, Path, solve


@pytest.mark.parametrize(("points", "wanted"), [(-5, 0.951), (-20, 0.819), (-70, 0.497), (0, 1), (1.2, 1.012)])
def test_published_importance_of_a_change_of_accuracy(points, wanted):
    before = 0.75
    assert importance(accuracy_change(before + points / 100, before)) == pytest.approx(wanted, abs=5e-4)
    assert importance(accuracy_change(before + points / 100, before)) == pytest.approx(math.exp(points / 100))


def test_published_importance_of_a_change_of_loss():
    assert importance(loss_change(0.03, 0.02)) == pytest.approx(math.exp(-0.5))
    assert importance(loss_change(0.02, 0.02)) == 1


@given(st.floats(-1, 1))
def test_additive_form_is_the_logarithm(change):
    assert importance(change, "additive") == pytest.approx(math.log(importance(change)), abs=1e-12)


def test_a_change_that_is_no_number_is_the_worst():
    assert importance(math.nan) == 0
    assert importance(math.nan, "additive") == -math.inf


@pytest.mark.parametrize(("form", "still"), [("exponential", 1.0), ("additive", 0.0)])
def test_what_stays_as_it_is_is_not_measured(form, still):
    found = importances({"a": -0.05}, ["b"], form)
    assert found["b"] == still
    assert found["a"] < still


def test_the_additive_form_never_pays_to_split_and_the_exponential_does():
    edges = {"whole": (0, 2), "one": (0, 1), "two": (1, 2)}
    changes = {"whole": -0.01, "one": -0.02, "two": -0.02}

    def best(form):
        values = importances(changes, form=form)
        path = Path(2, tuple(Edge(*ends, 0.1, values[name], name) for name, ends in edges.items()))
        return [edge.label for edge in solve(path, Grid(10), 10).at(10).edges]

    assert best("additive") == ["whole"]
    assert best("exponential") == ["one", "two"]


def test_shifted_importance():
    found = shifted_importances({"a": -1.0, "b": -3.0, "ab": -5.0}, ["a", "b"], 1.6)
    assert found == pytest.approx({"a": 2.2, "b": 0.2, "ab": -1.8})


def test_refusals():
    with pytest.raises(ValueError, match="positive loss"):
        loss_change(1.0, 0.0)
    with pytest.raises(ValueError, match="such a segment"):
        shifted_importances({"a": 1.0}, [], 1.0)


ENDS = [(i, j) for i in range(5) for j in range(i + 1, 5)]


def path_of(values, times):
    edges = tuple(Edge(*key, time, values[key], key) for key, time in zip(ENDS, times, strict=True))
    return [edge.label for edge in solve(Path(4, edges), Grid(10), 15).at(15).edges]


def worth(path, values):
    return sum(values[key] for key in path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_with_guesses_that_are_never_too_low_the_lazy_path_is_the_best(data):
    numbers = st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=len(ENDS), max_size=len(ENDS))
    truth = dict(zip(ENDS, data.draw(numbers), strict=True))
    guesses = {key: truth[key] + extra for key, extra in zip(ENDS, data.draw(numbers), strict=True)}
    times = [0.1 + value / 10 for value in data.draw(numbers)]
    found = refine(guesses, lambda values: path_of(values, times), truth.__getitem__)
    assert found.settled
    assert worth(found.path, truth) == pytest.approx(worth(path_of(truth, times), truth), abs=1e-6)
    assert len(set(found.measured)) == len(found.measured)
    assert set(found.path) <= set(found.measured)


def test_only_what_lies_on_a_best_path_is_measured():
    truth = dict.fromkeys(ENDS, 0.1) | {(0, 1): 1.0, (1, 4): 1.0}
    times = [0.1] * len(ENDS)
    guesses = truth | {(0, 1): 1.1}
    found = refine(guesses, lambda values: path_of(values, times), truth.__getitem__)
    assert set(found.measured) == {(0, 1), (1, 4)}


def test_what_is_known_is_not_measured_again_and_the_limit_holds():
    truth = {key: 1.0 + 0.01 * index for index, key in enumerate(ENDS)}
    times = [0.1] * len(ENDS)
    asked = []

    def measure(key):
        asked.append(key)
        return truth[key]

    singles = [(i, i + 1) for i in range(4)]
    found = refine(truth, lambda values: path_of(values, times), measure, dict.fromkeys(singles, 1.5))
    assert found.settled
    assert asked == []
    found = refine(truth, lambda values: path_of(values, times), measure, limit=2)
    assert len(asked) == 2
    assert not found.settled
    again = refine(truth, lambda v: path_of(v, times), measure, {key: found.values[key] for key in found.measured})
    assert again.settled
    assert len(asked) == len(set(asked))

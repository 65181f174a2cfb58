from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.data import DataError
from service.data.labels import ClassSets, Labelling, read_labels


def read(labels: list[Any], names: list[str] | None = None) -> Labelling:
    return read_labels(((label, f"sample {index}") for index, label in enumerate(labels)), "data.train", names)


def dense(labels: list[Any]) -> list[list[float]]:
    found = read(labels)
    return found.targets(np.arange(len(labels))).tolist()


@pytest.mark.parametrize(
    ("labels", "wanted", "classes"),
    [
        ([0, 2, 1], [0, 2, 1], None),
        (["0", "2", "-1"], [0, 2, -1], None),
        ([1.0, 0.0], [1, 0], None),
        ([True, False], [1, 0], None),
        ([None, 1, ""], [-1, 1, -1], None),
        (["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog")),
        (["dog", None, "cat"], [1, -1, 0], ("cat", "dog")),
    ],
)
def test_one_label_per_sample(labels: list[Any], wanted: list[int], classes: tuple[str, ...] | None):
    found = read(labels)
    assert found.labels.tolist() == wanted
    assert found.classes == classes
    assert found.by_position == (classes is not None)
    assert found.sets is None


def test_names_that_the_source_states_keep_their_places():
    found = read(["b", "a", "b"], ["b", "c", "a"])
    assert found.labels.tolist() == [0, 2, 0]
    assert not found.by_position


def test_vectors_and_lists_of_classes():
    assert dense([[0, 1, 1], [1, 0, 0]]) == [[0, 1, 1], [1, 0, 0]]
    assert dense([[2], [0, 1], []]) == [[0, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert dense([["x"], ["y", "x"]]) == [[1, 0], [1, 1]]
    assert dense([[0, 1], [1, 0], [1, 2]]) == [[1, 1, 0], [1, 1, 0], [0, 1, 1]]


@given(st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=12))
def test_lists_equal_a_plain_reading(labels: list[list[int]]):
    length = len(labels[0])
    vectors = length > 1 and all(len(label) == length and set(label) <= {0, 1} for label in labels)
    if vectors:
        wanted = labels
    else:
        width = max((max(label) for label in labels if label), default=0) + 1
        wanted = [[int(column in label) for column in range(width)] for label in labels]
    assert dense(labels) == wanted


def test_lists_of_classes_leave_open_how_many_there_are():
    found = read([[2], [0]])
    assert found.widened(5).targets(np.array([0])).tolist() == [[0, 0, 1, 0, 0]]
    assert read([[0, 1, 1], [1, 0, 0]]).widened(5).targets(np.array([0])).shape == (1, 3)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["cat", 3], "1 labels are names such as 'cat' and 1 are numbers"),
        ([[1], 0], "lists for some samples and not for others, such as sample 1"),
        ([0, [1]], "lists for some samples"),
        ([[1, 2], None], "lists for some samples"),
        ([0.5, 1], "sample 0 has the label 0.5"),
        (["0.5"], "sample 0 has the label '0.5'"),
        ([{"a": 1}], "whole numbers, names, or lists"),
        ([-2], "sample 0 has the label -2"),
        ([10**9], "sample 0 has the label 1000000000"),
        ([[[0]]], "whole numbers, names, or lists"),
        ([[-1, 2]], "the class -1 in its list"),
    ],
)
def test_what_is_no_label_is_refused_with_its_sample(labels: list[Any], said: str):
    with pytest.raises(DataError) as caught:
        read(labels)
    assert said in str(caught.value)


def test_a_name_that_is_none_of_the_classes_is_refused():
    with pytest.raises(DataError, match="none of the classes' names"):
        read(["z"], ["a", "b"])


@given(st.integers(1, 30), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_a_matrix_is_what_it_was(rows: int, classes: int, seed: int):
    matrix = np.random.default_rng(seed).integers(0, 2, (rows, classes))
    sets = ClassSets.of_matrix(matrix, "data.train")
    assert np.array_equal(sets.dense(np.arange(rows)), matrix)
    firsts = [next((c for c in range(classes) if row[c]), -1) for row in matrix]
    assert sets.first().tolist() == firsts

"""What was found out once is not found out again, as far as it is what was asked for."""

import pytest
import torch

from compressors.memory import NoMemory, key_of, remembered, remembered_fit, remembered_for
from tests.compressors.networks import graph_of


class Shelf(dict):
    """Keeps things, weights under the key and a word."""

    def recall_weights(self, key):
        return self.get(f"{key} weights")

    def keep_weights(self, key, weights) -> None:
        self[f"{key} weights"] = {name: value.clone() for name, value in weights.items()}

    def recall(self, key):
        return self.get(key)

    def keep(self, key, value) -> None:
        self[key] = value


def test_numbers_are_found_out_once() -> None:
    shelf, asked = Shelf(), []

    def find_out() -> dict[str, float]:
        asked.append(1)
        return {"a": 0.1, "b": float("inf")}

    first, second = (remembered(shelf, "some", ["a", "b"], find_out) for _ in range(2))
    assert first == second == {"a": 0.1, "b": float("inf")}
    assert len(asked) == 1


@pytest.mark.parametrize("kept", [3.0, [1.0], {"a": 1.0, "b": "2"}, {"a": True, "b": 1.0}, {"a": 1.0}])
def test_anything_but_a_number_for_each_name_is_found_out_anew(kept: object) -> None:
    shelf = Shelf(some=kept)
    assert remembered(shelf, "some", ["a", "b"], lambda: {"a": 1.0, "b": 2.0}) == {"a": 1.0, "b": 2.0}
    assert shelf["some"] == {"a": 1.0, "b": 2.0}


def test_whole_numbers_come_back_as_they_were_meant() -> None:
    found = remembered(Shelf(some={"a": 1}), "some", ["a"], dict)
    assert type(found["a"]) is float


def test_without_a_memory_everything_is_found_out_again() -> None:
    asked = []
    for _ in range(2):
        remembered(NoMemory(), "some", [], lambda: asked.append(1) or {})
    assert len(asked) == 2


def test_numbers_of_things_come_back_by_the_thing_in_its_place() -> None:
    shelf, things, asked = Shelf(), [("x", 3), ("y", 1)], []

    def find_out() -> dict[tuple[str, int], float]:
        asked.append(1)
        return {("y", 1): 2.0, ("x", 3): 1.0}

    first, second = (remembered_for(shelf, "some", things, find_out) for _ in range(2))
    assert first == second == {("x", 3): 1.0, ("y", 1): 2.0}
    assert len(asked) == 1
    assert remembered_for(shelf, "none", [], find_out) == {}
    assert len(asked) == 1


def test_a_key_tells_kinds_and_parts_apart() -> None:
    keys = {key_of("a", 1, 2), key_of("a", 12), key_of("b", 1, 2), key_of("a", "1", 2)}
    assert len(keys) == 4
    assert key_of("a", 1, (2, "x")) == key_of("a", 1, (2, "x"))


def test_a_fit_is_done_once_and_that_of_another_structure_anew() -> None:
    shelf, graphs = Shelf(), [graph_of(name) for name in ("resnet-a", "mobilenet")]
    for graph in graphs:
        assert remembered_fit(shelf, "key", graph, graph.copied) is not graph
    kept = remembered_fit(shelf, "key", graphs[1], lambda: pytest.fail("fitted again"))
    weights = graphs[1].module.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in kept.module.state_dict().items())


def test_a_start_is_not_changed_by_what_was_kept() -> None:
    shelf, graph = Shelf(), graph_of("resnet-a")
    before = {name: value.clone() for name, value in graph.module.state_dict().items()}
    shelf.keep_weights("key", {name: torch.zeros_like(value) for name, value in before.items()})
    remembered_fit(shelf, "key", graph, graph.copied)
    assert all(torch.equal(value, before[name]) for name, value in graph.module.state_dict().items())

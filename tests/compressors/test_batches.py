from __future__ import annotations

import torch
from torch.utils.data import Dataset

from compressors.batches import fetch, in_order
from compressors.problem import Sample


class Listed(Dataset[Sample]):
    def __init__(self, targets: list[int] | list[torch.Tensor]) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample:
        return (torch.full((2,), float(index)),), self.targets[index]


def test_class_indices_are_stacked_as_whole_numbers() -> None:
    batch = fetch(Listed([3, -1, 0]), [2, 0, 1])
    assert batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [0, 3, -1]
    assert batch.inputs[0].tolist() == [[2, 2], [0, 0], [1, 1]]


def test_vectors_are_stacked_as_floating_point() -> None:
    batch = fetch(Listed([torch.tensor([1.0, 0.0, 1.0]), torch.zeros(3)]), [1, 0, 0])
    assert batch.labels.dtype == torch.float32
    assert batch.labels.tolist() == [[0, 0, 0], [1, 0, 1], [1, 0, 1]]


def test_index_tensors_count_as_indices() -> None:
    assert fetch(Listed([torch.tensor(4), torch.tensor(1)]), [0, 1]).labels.tolist() == [4, 1]


def test_batches_in_order_end_with_what_is_left() -> None:
    assert [len(batch) for batch in in_order(Listed([0] * 7), 3)] == [3, 3, 1]
    assert [len(batch) for batch in in_order(Listed([0] * 7), 3, limit=4)] == [3, 1]

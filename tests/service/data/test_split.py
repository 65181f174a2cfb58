from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
import pytest
import torch

from compressors.batches import fetch
from compressors.problem import BatchedSamples
from service.data import DataError, Split, parts
from service.data.errors import BrokenSampleError
from service.data.images import Images
from service.data.labels import Labelling
from service.data.store import ArrayStore, ImageStore
from tests.service.data.made import PLAIN, pixels


@final
class CountedImages(Images):
    """Image i has `pixels(i)`; counts what it decodes."""

    def __init__(self, count: int, broken: Sequence[int] = ()) -> None:
        self._count = count
        self._broken = set(broken)
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return self._count

    def load(self, indices: Sequence[int]) -> list[npt.NDArray[np.uint8] | BrokenSampleError]:
        self.decoded += indices
        return [BrokenSampleError("torn") if i in self._broken else pixels(i).transpose(2, 0, 1) for i in indices]

    def name(self, index: int) -> str:
        return f"image {index}"


def split_of(images: CountedImages, cached: int, labels: Any = None) -> Split:
    labels = np.arange(len(images), dtype=np.int64) % 2 if labels is None else np.asarray(labels, dtype=np.int64)
    store = ImageStore(images, PLAIN, "data.train", cache_bytes=cached * 192)
    return Split(store, Labelling(labels), PLAIN, "data.train")


def array_split(labels: Sequence[int]) -> Split:
    array = np.stack([pixels(index % 50).transpose(2, 0, 1) for index in range(len(labels))])
    store = ArrayStore(array, PLAIN)
    return Split(store, Labelling(np.asarray(labels, dtype=np.int64)), PLAIN, "data.train")


def truth(index: int) -> torch.Tensor:
    return torch.from_numpy(pixels(index)).permute(2, 0, 1) / 255


def test_is_what_the_engine_reads():
    split = split_of(CountedImages(10), cached=10)
    assert isinstance(split, BatchedSamples)
    batch = fetch(split, [3, 1])
    assert batch.labels.tolist() == [1, 1]
    assert torch.equal(batch.inputs[0], torch.stack([truth(3), truth(1)]))


def test_one_by_one_equals_batches():
    split = split_of(CountedImages(10), cached=10)
    for index in range(len(split)):
        (values,), label = split[index]
        (row,), labels = split.batch([index])
        assert torch.equal(values, row[0])
        assert label == int(labels[0])


def test_negative_indices_count_from_the_end_and_beyond_is_an_error():
    split = split_of(CountedImages(4), cached=4)
    assert torch.equal(split[-1][0][0], truth(3))
    with pytest.raises(IndexError):
        split[4]


def test_images_that_fit_are_decoded_once():
    images = CountedImages(20)
    split = split_of(images, cached=20)
    for _ in range(3):
        split.batch(range(20))
    assert sorted(images.decoded) == list(range(20))


def test_the_cache_stays_within_its_limit_and_what_came_first_stays():
    images = CountedImages(20)
    split = split_of(images, cached=5)
    images.decoded.clear()
    for _ in range(3):
        assert torch.equal(split.batch(range(20))[0][0], torch.stack([truth(index) for index in range(20)]))
    assert len(images.decoded) == 20 + 15 + 15


def test_subsets_share_decoded_images():
    images = CountedImages(20)
    split = split_of(images, cached=5)
    images.decoded.clear()
    view = split.subset([3, 7, 1])
    view.batch([0, 1, 2])
    split.batch([1, 3, 7])
    assert sorted(images.decoded) == [1, 3, 7]
    assert view.labels().tolist() == [1, 1, 1]
    assert torch.equal(view.subset([1])[0][0][0], truth(7))


def test_an_image_found_broken_late_is_replaced_by_the_next_with_its_own_label():
    images = CountedImages(1500)
    split = split_of(images, cached=0)
    images._broken = {7}
    (inputs,), labels = split.batch([7, 8])
    assert labels.tolist() == [0, 0]
    assert torch.equal(inputs, torch.stack([truth(8), truth(8)]))
    assert split.broken == 1
    assert split.broken_names == ("image 7: torn",)


def test_a_part_is_never_filled_up_from_another_part():
    images = CountedImages(1500)
    part = split_of(images, cached=0).subset([3, 7, 21])
    images._broken = {7}
    (inputs,), _ = part.batch([1, 1, 0])
    assert torch.equal(inputs, torch.stack([truth(21), truth(21), truth(3)]))


def test_measuring_leaves_out_what_is_found_broken_late():
    images = CountedImages(1500)
    split = split_of(images, cached=0)
    images._broken = {7}
    batches = list(split.subset(range(20)).numpy_batches(8))
    assert [len(labels) for _, labels in batches] == [7, 8, 4]
    assert np.array_equal(batches[0][0][0][-1], truth(6).numpy())


def test_too_many_found_broken_late_are_refused():
    images = CountedImages(100)
    split = split_of(images, cached=0)
    images._broken = set(range(6))
    with pytest.raises(DataError, match="6 of 100"):
        split.batch(range(6))


def test_a_sample_of_a_large_source_is_tried_at_once():
    with pytest.raises(DataError, match="cannot be decoded"):
        split_of(CountedImages(5000, broken=range(0, 5000, 3)), cached=0)


def test_numpy_batches_hold_everything_in_order():
    split = split_of(CountedImages(10), cached=10)
    batches = list(split.numpy_batches(4))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    values = np.concatenate([inputs[0] for inputs, _ in batches])
    assert values.dtype == np.float32
    assert np.array_equal(values, split.batch(range(10))[0][0].numpy())


# Parts


def test_parts_are_disjoint_and_complete():
    split = array_split([index % 3 for index in range(300)])
    divided = parts(split, seed=1, calibration_size=50)
    fit, selection, calibration = (
        set(part._indices.tolist()) for part in (divided.fit, divided.selection, divided.calibration)
    )
    assert len(selection) == 60
    assert fit | selection == set(range(300))
    assert not fit & selection
    assert calibration < fit
    assert len(calibration) == 50


def test_parts_depend_on_the_seed_alone():
    split = array_split([index % 3 for index in range(300)])
    again = [parts(split, seed=seed).selection._indices.tolist() for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


@pytest.mark.parametrize("seed", range(5))
def test_every_part_holds_each_class_in_proportion(seed: int):
    counts = np.array([700, 200, 90, 10])
    split = array_split(np.repeat(np.arange(4), counts).tolist())
    divided = parts(split, seed, calibration_size=200)
    for part, total in ((divided.selection, 1000), (divided.calibration, 800)):
        whole = counts if total == 1000 else np.bincount(divided.fit.labels(), minlength=4)
        share = whole * len(part) / total
        assert (abs(np.bincount(part.labels(), minlength=4) - share) <= 1.5).all()


def test_unlabelled_samples_are_divided_too():
    divided = parts(array_split([-1] * 100), seed=0)
    assert (len(divided.fit), len(divided.selection), len(divided.calibration)) == (80, 20, 80)


def test_the_selection_is_limited():
    assert len(parts(array_split([0, 1] * 20_000), seed=0).selection) == 5000


def test_too_few_samples_are_refused():
    with pytest.raises(DataError, match="9 usable samples"):
        parts(array_split([0, 1, 0, 1, 0, 1, 0, 1, 0]), seed=0)

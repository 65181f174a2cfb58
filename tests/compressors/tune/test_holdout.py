"""Samples held back where the caller has none."""

import pytest
import torch

from compressors.batches import count, fetch
from compressors.errors import OptionError
from compressors.tasks import DrawnSamples, NoiseSchedule, NoisySamples
from compressors.tune.holdout import Part, split
from tests.compressors.samples import BatchedTensors, Tensors

DATA = BatchedTensors(torch.arange(20.0)[:, None], torch.arange(20))


def labels(part: Part) -> list[int]:
    return fetch(part, range(len(part))).labels.tolist()


def test_parts_are_disjoint_whole_and_repeatable() -> None:
    train, held = split(DATA, 0.25, 100, seed=3)
    assert (count(train), count(held)) == (15, 5)
    assert sorted(labels(train) + labels(held)) == list(range(20))
    assert labels(split(DATA, 0.25, 100, seed=3)[1]) == labels(held)
    assert labels(split(DATA, 0.25, 100, seed=4)[1]) != labels(held)


def test_no_more_are_held_back_than_asked() -> None:
    assert count(split(DATA, 0.9, 4, seed=0)[1]) == 4
    assert count(split(DATA, 0.001, 4, seed=0)[1]) == 1


def test_single_and_batched_reading_agree() -> None:
    part = Part(Tensors(DATA.inputs, DATA.labels), [4, 2, 9])
    assert [part[at][1] for at in range(3)] == [4, 2, 9]
    assert fetch(part, [2, 0]).labels.tolist() == [9, 4]


def test_noise_is_still_drawn_anew_for_what_is_left() -> None:
    clean = BatchedTensors(torch.arange(20.0)[:, None, None, None].expand(20, 3, 2, 2))
    train, held = split(NoisySamples(clean, NoiseSchedule(steps=1, first=1e-9, last=1e-9)), 0.25, 100, seed=3)
    assert isinstance(train, DrawnSamples)
    assert not isinstance(held, DrawnSamples)
    (images, _), _ = train.drawn(range(15), torch.Generator().manual_seed(0))
    (same, _), _ = train.batch(range(15))  # type: ignore[attr-defined]
    assert images[:, 0, 0, 0].round().tolist() == same[:, 0, 0, 0].round().tolist()
    assert not torch.equal(images, same)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_to_hold_back_is_refused(share: float) -> None:
    with pytest.raises(OptionError, match="others to choose by"):
        split(DATA, share, 10, seed=0)
    with pytest.raises(OptionError, match="got 1"):
        split(Part(DATA, [0]), 0.5, 10, seed=0)

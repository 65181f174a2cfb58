"""Changes of images: whole images move, labels go with them, the originals stay."""

import random

import numpy as np
import torch
from torch.nn import functional as F

from compressors.tune import TuneConfig
from compressors.tune.augment import changed, default_shift, is_image, mixed_up, shift_and_flip
from compressors.tune.randomness import generator, seeded


def test_shift_and_flip_moves_whole_images() -> None:
    images = torch.rand(32, 3, 8, 6) + 1
    moved = shift_and_flip(images, 2, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    padded = F.pad(images, [2] * 4)
    for image, source in zip(moved, padded, strict=True):
        windows = [source[:, top : top + 8, left : left + 6] for top in range(5) for left in range(5)]
        assert any(torch.equal(image, window) or torch.equal(image, window.flip(2)) for window in windows)


def test_images_of_one_channel_are_never_mirrored() -> None:
    images = torch.rand(32, 1, 8, 6) + 1
    moved = shift_and_flip(images, 1, torch.Generator().manual_seed(0))
    padded = F.pad(images, [1] * 4)
    for image, source in zip(moved, padded, strict=True):
        windows = [source[:, top : top + 8, left : left + 6] for top in range(3) for left in range(3)]
        assert any(torch.equal(image, window) for window in windows)


def test_images_are_recognised_by_shape() -> None:
    assert is_image((3, 32, 32))
    assert is_image((1, 8, 8))
    assert not is_image((17, 12))
    assert not is_image((64, 8, 8))
    assert (default_shift((3, 32, 32)), default_shift((3, 224, 224))) == (4, 28)


def test_erasing_replaces_a_rectangle_and_leaves_the_original_alone() -> None:
    images = torch.zeros(16, 3, 8, 8)
    erased = changed(images, TuneConfig(augment=False, erasing=1.0), torch.Generator())
    assert images.abs().sum() == 0
    assert all(0 < int((image[0] != 0).sum()) < 64 for image in erased)
    assert changed(images, TuneConfig(augment=False), torch.Generator()) is images


def test_mixing_lays_images_and_labels_over_each_other_in_equal_shares() -> None:
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 2])
    mixed, soft = mixed_up(images, labels, 3, TuneConfig(mixup=1.0))
    hard = F.one_hot(labels, 3).float()
    share = float(soft[0, 0])
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * images + (1 - share) * images.flip(0))
    torch.testing.assert_close(soft, share * hard + (1 - share) * hard.flip(0))
    _, several = mixed_up(images, hard, 3, TuneConfig(mixup=1.0))
    torch.testing.assert_close(several.sum(1), torch.ones(4))


def test_mixed_images_without_all_labels_have_none() -> None:
    images = torch.rand(4, 3, 8, 8)
    mixed, labels = mixed_up(images, torch.tensor([0, -1, 2, 2]), 3, TuneConfig(mixup=1.0))
    assert not torch.equal(mixed, images)
    assert labels.tolist() == [-1] * 4
    odd = mixed_up(images[:3], torch.tensor([0, 1, 2]), 3, TuneConfig(mixup=1.0))
    assert torch.equal(odd[0], images[:3])


def test_what_is_seeded_repeats_and_leaves_the_rest_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002

    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    expected = draw()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    with seeded(3, "step", 7) as source:
        inside = (*draw(), float(torch.rand((), generator=source)))
    with seeded(3, "step", 7) as source:
        assert (*draw(), float(torch.rand((), generator=source))) == inside
    with seeded(3, "step", 8):
        assert draw() != inside[:3]
    assert draw() == expected
    assert generator(1, 2).initial_seed() != generator(12).initial_seed()

"""What the benchmark of strategies is made of: its texts, its networks, its images."""

from __future__ import annotations

import random

import pytest
import torch

from benchmarks.strategies import texts
from benchmarks.strategies.__main__ import stolen
from benchmarks.strategies.images import augmented
from benchmarks.strategies.networks import build


def read(text: str) -> int:
    """Says whether a review is positive, from its words alone: the clauses behind the last "but" decide."""
    total = 0
    for clause in text.rsplit(" but ", maxsplit=1)[-1].split(" and "):
        words = set(clause.split())
        praise = 1 if words & set(texts._PRAISE) else -1
        total += -praise if words & set(texts._NEGATIONS) else praise
    return int(total > 0)


def test_labels_of_texts_follow_from_their_words():
    generator = random.Random(1)
    rows = [texts.text(generator) for _ in range(200)]
    assert [label for _, label in rows] == [read(words) for words, _ in rows]
    assert {label for _, label in rows} == {0, 1}


def test_every_word_has_a_token_and_every_text_fits():
    generator = random.Random(2)
    rows = [texts.text(generator) for _ in range(200)]
    assert {word for words, _ in rows for word in words.split()} <= set(texts.WORDS)
    ids, mask, _ = texts._encoded(rows)
    assert torch.equal(mask, (ids != 0).long())
    assert int(mask.sum(1).max()) <= texts.LENGTH


@pytest.mark.parametrize("name", ["vgg16_bn", "vit", "resnet-8"])
def test_networks_give_ten_scores(name):
    assert build(name).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_augmentation_only_moves_and_mirrors():
    images = torch.full((8, 3, 32, 32), 7, dtype=torch.uint8)
    moved = augmented(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert set(moved.unique().tolist()) <= {0, 7}
    assert float((moved == 7).float().mean()) > 0.7


def test_stolen_time_is_a_share_of_all_time() -> None:
    before = [100, 0, 50, 1000, 0, 0, 0, 30]
    assert stolen(before, [130, 0, 60, 1020, 0, 0, 0, 70]) == 0.4
    assert stolen([], []) is None

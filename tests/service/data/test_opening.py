"""Which format something is, and whether it fits the model and the other split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.data import DataError, ResolvedPreprocessing, check_against, check_same_classes, open_split
from tests.service.data.made import PLAIN, write_folders
from tests.service.data.opened import ANY, RAW, opened, refusal, save, stack

# Telling formats


def test_a_wrong_statement_about_the_format_is_refused(tmp_path: Path):
    message = refusal(save(tmp_path / "blob", images=stack(4)), tmp_path, stored_as="FORMAT_PARQUET")
    assert "said to be Parquet and is a NumPy archive" in message


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 2000])
def test_unknown_content_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "x.parquet").write_bytes(content)
    refusal(tmp_path / "x.parquet", tmp_path)


@pytest.mark.parametrize("recipe", [RAW, ResolvedPreprocessing((4, 8, 8), (0.0,) * 4, (1.0,) * 4)])
def test_images_for_a_model_that_takes_none_are_refused(tmp_path: Path, recipe: ResolvedPreprocessing):
    assert ".npz" in refusal(write_folders(tmp_path / "d", {"a": 1, "b": 1}), tmp_path, recipe)


# Against the model and each other


def test_a_label_beyond_the_outputs_is_refused(tmp_path: Path):
    split = opened(save(tmp_path / "blob", x=stack(4), y=[0, 1, 2, 9]), tmp_path)
    check_against(split, 10)
    with pytest.raises(DataError, match="highest 9"):
        check_against(split, 9)


def test_folders_must_be_as_many_as_the_outputs(tmp_path: Path):
    split = opened(write_folders(tmp_path / "d", {"a": 2, "b": 2}), tmp_path)
    check_against(split, 2)
    with pytest.raises(DataError, match=r"2 classes \('a', 'b'\) and the model has 1000 outputs"):
        check_against(split, 1000)


def test_numeric_labels_may_use_only_some_outputs(tmp_path: Path):
    check_against(opened(save(tmp_path / "blob", x=stack(4), y=[0, 1, 1, 0]), tmp_path), 1000)


def test_unlabelled_samples_fit_any_model(tmp_path: Path):
    check_against(opened(save(tmp_path / "blob", x=stack(4)), tmp_path), 7)


def test_one_class_in_one_split_and_several_in_the_other_are_refused(tmp_path: Path):
    one = opened(save(tmp_path / "one", x=stack(4), y=[0, 1, 2, 0]), tmp_path)
    several = opened(save(tmp_path / "several", x=stack(4), y=np.eye(4, 3)), tmp_path)
    check_same_classes(several, several)
    with pytest.raises(DataError, match="training has one class per sample and validation several"):
        check_same_classes(one, several)


def test_different_class_folders_are_refused(tmp_path: Path):
    train = opened(write_folders(tmp_path / "t", {"a": 1, "b": 1}), tmp_path)
    same = opened(write_folders(tmp_path / "s", {"a": 2, "b": 1}), tmp_path)
    other = open_split(write_folders(tmp_path / "o", {"a": 1, "c": 1}), ANY, PLAIN, tmp_path, "data.validation")
    check_same_classes(train, same)
    with pytest.raises(DataError, match="missing 'b'; unknown 'c'") as caught:
        check_same_classes(train, other)
    assert caught.value.field == "data.validation"

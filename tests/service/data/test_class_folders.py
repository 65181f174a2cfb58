"""Folders with a folder for each class, the images in them, and splits of them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from service.data import DataError, open_split
from tests.service.data.made import PLAIN, pixels, png, write_folders
from tests.service.data.opened import ANY, expected, opened, refusal

# Class folders


def test_class_folders_are_numbered_by_name(tmp_path: Path):
    split = opened(write_folders(tmp_path / "d", {"b": 2, "a": 3}), tmp_path)
    assert split.classes == ("a", "b")
    assert split.labels().tolist() == [0, 0, 0, 1, 1]
    (inputs,), labels = split.batch([0, 4])
    assert torch.equal(inputs, expected([2, 1]))
    assert labels.tolist() == [0, 1]


def test_folders_inside_a_class_count_to_it_and_hidden_files_do_not(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 1, "b": 1})
    (root / "a" / "more").mkdir()
    (root / "a" / "more" / "x.png").write_bytes(png(pixels(9)))
    (root / "a" / ".DS_Store").write_bytes(b"?")
    (root / ".git").mkdir()
    assert opened(root, tmp_path).labels().tolist() == [0, 0, 1]


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 1, "b": 1})
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(pixels(9)))
    (root / "a" / "link.png").symlink_to(secret)
    assert len(opened(root, tmp_path)) == 2


def test_a_flat_folder_is_unlabelled(tmp_path: Path):
    split = opened(write_folders(tmp_path / "d", {"a": 3}) / "a", tmp_path)
    assert split.labels().tolist() == [-1, -1, -1]
    assert split.classes is None
    assert not split.labelled


def test_one_class_is_refused(tmp_path: Path):
    message = refusal(write_folders(tmp_path / "d", {"cat": 3}), tmp_path)
    assert "one class (cat)" in message


def test_an_empty_folder_is_refused(tmp_path: Path):
    (tmp_path / "d").mkdir()
    assert "is empty" in refusal(tmp_path / "d", tmp_path)


@pytest.mark.parametrize(("field", "classes"), [("data.train", ("a", "b")), ("data.validation", ("c", "d"))])
def test_of_several_splits_the_right_one_is_taken(tmp_path: Path, field: str, classes: tuple[str, ...]):
    write_folders(tmp_path / "d" / "train", {"a": 1, "b": 1})
    write_folders(tmp_path / "d" / "val", {"c": 1, "d": 1})
    write_folders(tmp_path / "d" / "test", {"e": 1, "f": 1})
    assert open_split(tmp_path / "d", ANY, PLAIN, tmp_path, field).classes == classes


def test_the_test_split_validates_where_there_is_no_other(tmp_path: Path):
    write_folders(tmp_path / "d" / "train", {"a": 1, "b": 1})
    write_folders(tmp_path / "d" / "test", {"e": 1, "f": 1})
    assert open_split(tmp_path / "d", ANY, PLAIN, tmp_path, "data.validation").classes == ("e", "f")


def test_training_samples_never_validate(tmp_path: Path):
    write_folders(tmp_path / "d" / "train", {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"another split \(train\); wanted validation or test"):
        open_split(tmp_path / "d", ANY, PLAIN, tmp_path, "data.validation")


def test_two_folders_for_one_split_are_refused(tmp_path: Path):
    message = refusal(write_folders(tmp_path / "d", {"train-1": 1, "train-2": 1}), tmp_path)
    assert "train-1, train-2, which could all be the split" in message


def test_a_class_may_be_called_train(tmp_path: Path):
    assert opened(write_folders(tmp_path / "d", {"bus": 1, "train": 1}), tmp_path).classes == ("bus", "train")


def test_a_missing_path_is_refused(tmp_path: Path):
    assert "cannot read nowhere: No such file or directory" in refusal(tmp_path / "nowhere", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_refused(tmp_path: Path):
    folder = write_folders(tmp_path / "d", {"a": 1, "b": 1})
    (folder / "a").chmod(0)
    assert "cannot read" in refusal(folder, tmp_path)


# Broken images


def test_a_few_broken_images_are_counted_named_and_skipped(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 20, "b": 21})
    (root / "a" / "007.png").write_bytes(png(pixels(7))[:60])
    (root / "b" / "000.png").write_bytes(b"not an image")
    split = opened(root, tmp_path)
    assert (len(split), split.broken) == (39, 2)
    assert split.broken_names[0].startswith("a/007.png: ")
    assert split.labels().tolist() == [0] * 19 + [1] * 20


def test_many_broken_images_are_refused(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 10, "b": 10})
    for index in (1, 2):
        (root / "a" / f"{index:03}.png").write_bytes(b"")
    message = refusal(root, tmp_path)
    assert "2 of 20 images cannot be decoded" in message
    assert "a/001.png" in message


def test_a_decompression_bomb_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    root = write_folders(tmp_path / "d", {"a": 30, "b": 30})
    for name, size in (("warned.png", 11), ("refused.png", 30)):
        (root / "a" / name).write_bytes(png(pixels(1, size, size)))
    split = opened(root, tmp_path)
    assert split.broken == 2
    assert len(split) == 60


def test_postscript_is_not_decoded(tmp_path: Path):
    root = write_folders(tmp_path / "d", {"a": 20, "b": 20})
    out = io.BytesIO()
    Image.fromarray(pixels(1)).save(out, "EPS")
    (root / "a" / "999.png").write_bytes(out.getvalue())
    assert opened(root, tmp_path).broken == 1

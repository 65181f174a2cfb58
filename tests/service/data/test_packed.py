"""Samples in tar and zip archives."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from service.data import open_split
from tests.service.data.made import PLAIN, encoded, pixels, png, tar_of, write_folders, write_parquet, write_tar, zip_of
from tests.service.data.opened import ANY, expected, opened, refusal

# Tar


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_of_class_folders(tmp_path: Path, mode: str):
    split = opened(tar_of(write_folders(tmp_path / "d", {"a": 2, "b": 2}), tmp_path / "blob", mode), tmp_path)
    assert split.classes == ("a", "b")
    assert torch.equal(split.batch([3])[0][0], expected([3]))


def test_a_tar_that_wraps_everything_in_one_folder(tmp_path: Path):
    write_folders(tmp_path / "d" / "train", {"a": 2, "b": 2})
    assert opened(tar_of(tmp_path / "d", tmp_path / "blob"), tmp_path).classes == ("a", "b")


def test_a_tar_of_one_class_is_refused(tmp_path: Path):
    assert "one class" in refusal(tar_of(write_folders(tmp_path / "d", {"a": 2}), tmp_path / "blob"), tmp_path)


def test_a_tar_of_parquet_shards(tmp_path: Path):
    (tmp_path / "d").mkdir()
    write_parquet(tmp_path / "d" / "0.parquet", {"image": encoded(3), "label": [0, 1, 0]})
    write_parquet(tmp_path / "d" / "1.parquet", {"image": encoded(2), "label": [1, 1]})
    assert opened(tar_of(tmp_path / "d", tmp_path / "blob"), tmp_path).labels().tolist() == [0, 1, 0, 1, 1]


def hostile(kind: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("../../shoal-escaped" if kind == "outside" else "a/link")
    if kind in ("symlink", "hardlink"):
        info.type = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
        info.linkname = "/etc/passwd"
    if kind == "device":
        info.type = tarfile.CHRTYPE
    return info


@pytest.mark.parametrize("kind", ["outside", "symlink", "hardlink", "device"])
def test_a_hostile_tar_is_refused_and_writes_nothing_outside(tmp_path: Path, kind: str):
    work = tmp_path / "deep" / "work"
    work.mkdir(parents=True)
    image = png(pixels(0))
    members = [(tarfile.TarInfo("a/0.png"), image), (tarfile.TarInfo("b/0.png"), image), (hostile(kind), b"")]
    file = write_tar(tmp_path / "blob", members)
    refusal(file, work)
    assert not list(tmp_path.rglob("shoal-escaped"))


def test_a_truncated_tar_is_refused(tmp_path: Path):
    file = tar_of(write_folders(tmp_path / "d", {"a": 4, "b": 4}, size=64), tmp_path / "blob", "w:gz")
    file.write_bytes(file.read_bytes()[:-3000])
    assert "tar archive" in refusal(file, tmp_path)


# Zip


def test_a_zip_of_class_folders(tmp_path: Path):
    split = opened(zip_of(write_folders(tmp_path / "d", {"a": 2, "b": 2}), tmp_path / "blob"), tmp_path)
    assert split.classes == ("a", "b")
    assert torch.equal(split.batch([3])[0][0], expected([3]))


@pytest.mark.parametrize("pack", [zip_of, tar_of])
@pytest.mark.parametrize("wrapped", ["", "everything"])
def test_splits_in_an_archive(tmp_path: Path, pack: Any, wrapped: str):
    write_folders(tmp_path / "d" / wrapped / "train", {"a": 1, "b": 1})
    write_folders(tmp_path / "d" / wrapped / "val", {"a": 2, "b": 3})
    archive = pack(tmp_path / "d", tmp_path / "blob")
    for field, count in (("data.train", 2), ("data.validation", 5)):
        assert len(open_split(archive, ANY, PLAIN, tmp_path, field)) == count


def test_archives_of_splits_in_a_folder(tmp_path: Path):
    (tmp_path / "d").mkdir()
    zip_of(write_folders(tmp_path / "t", {"a": 1, "b": 1}), tmp_path / "d" / "train.zip")
    zip_of(write_folders(tmp_path / "v", {"a": 2, "b": 3}), tmp_path / "d" / "val.zip")
    assert len(open_split(tmp_path / "d", ANY, PLAIN, tmp_path, "data.validation")) == 5


def test_a_zip_that_climbs_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "blob", "w") as archive:
        archive.writestr("../../escaped.png", b"x")
    assert "its name is unsafe" in refusal(tmp_path / "blob", tmp_path)

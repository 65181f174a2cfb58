from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli import splits
from service.cli.errors import InputError, Status


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_splits_are_told_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "train.parquet", "validation.npz", "README.md", "train.txt", ".train.parquet.part")
    found = splits.find(tmp_path)
    assert found == splits.Splits(tmp_path / "train.parquet", tmp_path / "validation.npz")


def test_class_folders_are_splits(tmp_path: Path) -> None:
    touch(tmp_path, "Training/cat/1.png", "val/cat/1.png")
    assert splits.find(tmp_path) == splits.Splits(tmp_path / "Training", tmp_path / "val")


def test_the_test_split_validates_where_there_is_no_validation_split(tmp_path: Path) -> None:
    touch(tmp_path, "train.parquet", "test.parquet")
    assert splits.find(tmp_path) == splits.Splits(tmp_path / "train.parquet", tmp_path / "test.parquet")


def test_the_test_split_is_left_alone_beside_a_validation_split(tmp_path: Path) -> None:
    touch(tmp_path, "val.npz", "test.npz")
    assert splits.find(tmp_path) == splits.Splits(None, tmp_path / "val.npz", unused=tmp_path / "test.npz")


def test_two_candidates_for_a_split_are_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "train-a.parquet", "train.npz")
    with pytest.raises(InputError, match=r"train-a\.parquet, train\.npz; keep one") as caught:
        splits.find(tmp_path)
    assert caught.value.status is Status.USAGE


@pytest.mark.parametrize(
    "names",
    [("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"), ("train-000000.tar", "train-000001.tar")],
)
def test_shards_are_one_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(tmp_path, *names, "val.csv")
    shards = splits.Shards(tuple(tmp_path / name for name in names))
    assert splits.find(tmp_path) == splits.Splits(shards, tmp_path / "val.csv")
    assert splits.pack(shards, tmp_path / "packed") == 2
    assert sorted(members(tmp_path / "packed")) == sorted(names)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".zip", ".tar", ".tar.gz", ".arrow", ".npz"])
def test_every_format_may_be_a_split(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, f"train{suffix}", f"dev{suffix}")
    assert splits.find(tmp_path) == splits.Splits(tmp_path / f"train{suffix}", tmp_path / f"dev{suffix}")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("wrapped", ["", "data/"])
def test_an_archive_is_sent_for_each_split_in_it(tmp_path: Path, kind: str, wrapped: str) -> None:
    touch(tmp_path / "d", f"{wrapped}train/cat/1.png", f"{wrapped}val/cat/1.png")
    base, format_ = str(tmp_path / "data"), {"zip": "zip", "tar": "tar", "tar.gz": "gztar"}[kind]
    archive = Path(shutil.make_archive(base, format_, tmp_path / "d"))
    assert splits.find(archive) == splits.Splits(archive, archive)


def test_an_archive_of_training_samples_does_not_validate(tmp_path: Path) -> None:
    touch(tmp_path / "d", "train/cat/1.png")
    archive = Path(shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "d"))
    assert splits.find(archive) == splits.Splits(archive, None)


def test_archives_without_splits_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "d", "cat/1.png")
    archive = shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "d")
    with pytest.raises(InputError, match="holds no split"):
        splits.find(Path(archive))
    touch(tmp_path, "torn.zip")
    with pytest.raises(InputError, match="cannot be read as an archive"):
        splits.find(tmp_path / "torn.zip")


def test_packing_a_folder_of_tables_leaves_out_everything_else(tmp_path: Path) -> None:
    touch(tmp_path / "train", "data-00000-of-00001.arrow", "state.json", "dataset_info.json", "notes.txt", "x/y.png")
    splits.pack(tmp_path / "train", tmp_path / "train.tar")
    assert sorted(members(tmp_path / "train.tar")) == ["data-00000-of-00001.arrow", "dataset_info.json", "state.json"]


def test_packing_class_folders_with_a_table_beside_them_packs_the_classes(tmp_path: Path) -> None:
    touch(tmp_path / "train", "cat/1.png", "metadata.csv")
    splits.pack(tmp_path / "train", tmp_path / "train.tar")
    assert sorted(members(tmp_path / "train.tar")) == ["cat/1.png"]


def test_a_folder_without_splits_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    with pytest.raises(InputError, match=r"holds no split.*found cat, dog"):
        splits.find(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing"):
        splits.find(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        splits.find(tmp_path / "nowhere")


def test_a_file_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train.npz")
    with pytest.raises(InputError, match="is a file"):
        splits.find(tmp_path / "train.npz")


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]


def test_packing_keeps_classes_and_contents(tmp_path: Path) -> None:
    touch(tmp_path / "train", "dog/b.png", "dog/deep/a.png", "cat/ä.png", "cat/.DS_Store", ".git/x/y", "notes.txt")
    assert splits.pack(tmp_path / "train", tmp_path / "train.tar") == 3
    assert members(tmp_path / "train.tar") == {
        "cat/ä.png": "cat/ä.png".encode(),
        "dog/b.png": b"dog/b.png",
        "dog/deep/a.png": b"dog/deep/a.png",
    }


def test_packing_follows_links_to_files(tmp_path: Path) -> None:
    touch(tmp_path, "store/1.png")
    (tmp_path / "train/cat").mkdir(parents=True)
    (tmp_path / "train/cat/1.png").symlink_to(tmp_path / "store/1.png")
    splits.pack(tmp_path / "train", tmp_path / "train.tar")
    assert members(tmp_path / "train.tar") == {"cat/1.png": b"store/1.png"}


def test_packing_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    touch(tmp_path / "one", "cat/1.png", "dog/2.png")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    os.utime(tmp_path / "two/cat/1.png", (1, 1))
    (tmp_path / "two/dog/2.png").chmod(0o600)
    for name in ("one", "two"):
        splits.pack(tmp_path / name, tmp_path / f"{name}.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


@pytest.mark.parametrize("names", [(), ("1.png",), (".hidden/1.png",)])
def test_a_folder_without_classes_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    (tmp_path / "train").mkdir()
    touch(tmp_path / "train", *names)
    with pytest.raises(InputError, match="one folder per class"):
        splits.pack(tmp_path / "train", tmp_path / "train.tar")


@given(st.sets(st.sampled_from(["train", "val", "test"]), min_size=1))
def test_some_split_is_found_in_every_folder_that_holds_one(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    touch(folder, *(f"{name}.npz" for name in names))
    found = splits.find(folder)
    assert (found.train is not None) == ("train" in names)
    assert (found.validation is not None) == bool(names & {"val", "test"})

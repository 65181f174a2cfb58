from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from service.data.archives import unpack_tar
from service.data.errors import DataError
from tests.service.data.made import write_tar


def archive(tmp_path: Path, count: int, size: int) -> Path:
    return write_tar(tmp_path / "blob", [(tarfile.TarInfo(f"{index}/x"), b"x" * size) for index in range(count)])


def test_unpacks_every_member(tmp_path: Path):
    unpack_tar(archive(tmp_path, 50, 10), tmp_path / "out", "data.train")
    assert len([file for file in (tmp_path / "out").rglob("*") if file.is_file()]) == 50


def test_too_many_bytes_are_refused_before_they_are_written(tmp_path: Path):
    with pytest.raises(DataError, match="more than 1000 bytes"):
        unpack_tar(archive(tmp_path, 5, 400), tmp_path / "out", "data.train", max_bytes=1000)
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file()) <= 1000


def test_too_many_members_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="more than 3 members"):
        unpack_tar(archive(tmp_path, 5, 1), tmp_path / "out", "data.train", max_members=3)


def test_an_absolute_name_ends_up_inside(tmp_path: Path):
    file = write_tar(tmp_path / "blob", [(tarfile.TarInfo(str(tmp_path / "escaped")), b"x")])
    unpack_tar(file, tmp_path / "out", "data.train")
    assert not (tmp_path / "escaped").exists()
    assert len(list((tmp_path / "out").rglob("escaped"))) == 1


def test_a_name_that_is_both_file_and_folder_is_the_caller_s_fault(tmp_path: Path):
    file = write_tar(tmp_path / "blob", [(tarfile.TarInfo("a"), b"x"), (tarfile.TarInfo("a/b"), b"x")])
    with pytest.raises(DataError):
        unpack_tar(file, tmp_path / "out", "data.train")


def test_a_name_too_long_for_the_disk_is_the_caller_s_fault(tmp_path: Path):
    with pytest.raises(DataError):
        unpack_tar(write_tar(tmp_path / "blob", [(tarfile.TarInfo("n" * 300), b"x")]), tmp_path / "out", "data.train")


def test_a_full_disk_is_not_the_caller_s_fault(tmp_path: Path):
    # A member of this size does not fit the process's file size limit, which fails like a full disk does.
    import errno
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    file = archive(tmp_path, 1, 100_000)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(OSError, match=r".") as caught:
            unpack_tar(file, tmp_path / "out", "data.train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG

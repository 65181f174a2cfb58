from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from service.data import open_split
from service.data.archives import decompressed, unpack_tar, unpack_zip
from service.data.errors import DataError
from tests.service.data.made import PLAIN, write_tar


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


# Zip


def zipped(tmp_path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], name: str = "blob") -> Path:
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as opened:
        for info, content in members:
            opened.writestr(info, content)
    return tmp_path / name


def refused(file: Path, tmp_path: Path, **limits: int) -> str:
    with pytest.raises(DataError) as caught:
        unpack_zip(file, tmp_path / "deep" / "out", "data.train", **limits)
    assert not list(tmp_path.rglob("escaped*"))
    return str(caught.value)


def test_a_zip_is_unpacked(tmp_path: Path):
    file = zipped(tmp_path, ("a/", b""), ("a/1.png", b"one"), ("b/c/2.png", b"two"))
    unpack_zip(file, tmp_path / "out", "data.train")
    assert (tmp_path / "out/a/1.png").read_bytes() == b"one"
    assert (tmp_path / "out/b/c/2.png").read_bytes() == b"two"


@pytest.mark.parametrize(
    "name", ["../escaped", "/escaped", "a/../../escaped", "..\\escaped", "C:/escaped", "a\x01b", "./.."]
)
def test_climbing_names_are_refused(tmp_path: Path, name: str):
    assert "its name is unsafe" in refused(zipped(tmp_path, (name, b"x")), tmp_path)


def test_links_in_a_zip_are_refused(tmp_path: Path):
    info = zipfile.ZipInfo("a/link")
    info.external_attr = 0o120777 << 16
    assert "encrypted or a link" in refused(zipped(tmp_path, (info, b"/etc/passwd")), tmp_path)


def test_a_zip_bomb_is_refused_before_it_is_written(tmp_path: Path):
    file = zipped(tmp_path, ("a/0.png", bytes(200 * 2**20)))
    assert "more than 200 times its size" in refused(file, tmp_path)
    assert not [path for path in (tmp_path / "deep").rglob("*") if path.is_file()]


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path):
    file = zipped(tmp_path, ("a/0.png", b"x" * 5000))
    content = bytearray(file.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(signature) + offset
        content[at : at + 4] = (9000).to_bytes(4, "little")
    file.write_bytes(content)
    refused(file, tmp_path)


def test_a_zip_with_too_many_members_or_bytes_is_refused(tmp_path: Path):
    file = zipped(tmp_path, *((f"{index}.png", b"x" * 100) for index in range(5)))
    assert "more than 3 members" in refused(file, tmp_path, max_members=3)
    assert "more than 250 bytes" in refused(file, tmp_path / "again", max_bytes=250)


def test_a_zip_that_holds_one_name_twice_is_refused(tmp_path: Path):
    with pytest.warns(UserWarning, match="Duplicate"):
        file = zipped(tmp_path, ("a", b"1"), ("a", b"2"))
    assert "zip member 'a' is there twice" in refused(file, tmp_path)


def test_a_table_of_contents_that_states_gigabytes_is_refused(tmp_path: Path):
    file = zipped(tmp_path, ("a", b"1"))
    content = bytearray(file.read_bytes())
    at = content.rindex(b"PK\x05\x06")
    content[at + 12 : at + 16] = (2**31).to_bytes(4, "little")
    file.write_bytes(content)
    assert "table of contents" in refused(file, tmp_path)


@pytest.mark.parametrize("cut", [1, 10, 40, 90])
def test_a_truncated_zip_is_refused(tmp_path: Path, cut: int):
    file = zipped(tmp_path, ("a", b"1" * 1000), ("b", b"2" * 1000))
    file.write_bytes(file.read_bytes()[:-cut])
    refused(file, tmp_path)


# Compressed tar


@pytest.mark.parametrize("open_", [gzip.open, bz2.open, lzma.open])
def test_what_is_compressed_is_written_out(tmp_path: Path, open_: Any):
    with open_(tmp_path / "blob", "wb") as out:
        out.write(b"content" * 1000)
    assert decompressed(tmp_path / "blob", tmp_path / "out", "data.train").read_bytes() == b"content" * 1000


@pytest.mark.parametrize("open_", [gzip.open, bz2.open, lzma.open])
def test_a_compressed_bomb_is_refused_in_time(tmp_path: Path, open_: Any):
    with open_(tmp_path / "blob", "wb") as out:
        out.write(bytes(100 * 2**20))
    with pytest.raises(DataError, match="more than 200 times its size"):
        decompressed(tmp_path / "blob", tmp_path / "out", "data.train")
    assert (tmp_path / "out").stat().st_size <= 64 * 2**20


def test_archives_in_archives_come_to_an_end(tmp_path: Path):
    file = zipped(tmp_path, ("a.txt", b"x"), name="0.zip")
    for level in range(1, 6):
        file = zipped(tmp_path, (f"{level}.zip", file.read_bytes()), name=f"{level}.zip")
    with pytest.raises(DataError):
        open_split(file, "FORMAT_UNSPECIFIED", PLAIN, tmp_path, "data.train")
    assert len(list(tmp_path.glob("split-*/unpacked-*"))) <= 2

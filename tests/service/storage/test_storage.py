"""Storage by itself: what goes in comes out, and what cannot be used says so in words for an operator."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.errors import DiskFullError, StorageSettingError, StorageUnavailableError
from service.storage.storage import SMALL, Storage

if TYPE_CHECKING:
    from tests.service.gcs import Gcs
    from tests.service.s3 import S3


@pytest.fixture(params=["folder", "s3", "gcs", "other"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param in ("s3", "gcs"):
        return Storage(request.getfixturevalue(request.param).url)
    return Storage(f"file://{tmp_path / 'files'}" if request.param == "folder" else f"memory://{tmp_path.name}")


def test_what_goes_in_comes_out(storage: Storage) -> None:
    storage.put("some/file", b"0123456789")

    assert storage.size("some/file") == 10
    assert storage.get("some/file", 4) == b"0123"
    with storage.open("some/file", 7) as stream:
        assert (stream.read(2), stream.read(), stream.read()) == (b"78", b"9", b"")
    assert storage.names("some") == ["file"]
    storage.remove("some/file")
    storage.remove("some/file")
    assert storage.size("some/file") is None
    assert storage.names("some") == []
    with pytest.raises(FileNotFoundError):
        storage.open("some/file")


def test_a_probe_leaves_nothing(storage: Storage) -> None:
    storage.put("some/file", b"x")
    storage.probe()
    assert [entry.path for entry in storage.entries("", deep=True) if not entry.folder] == [".shoal", "some/file"]


def test_a_folder_goes_with_all_in_it(storage: Storage) -> None:
    for name in ("a/b/one", "a/c/two", "ab/three"):
        storage.put(name, b"x")
    storage.remove_folder("a")
    storage.remove_folder("a")

    assert [storage.size(name) for name in ("a/b/one", "a/c/two", "ab/three")] == [None, None, 1]


@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # of gcsfs, which does
def test_a_file_of_several_parts_is_there_whole(storage: Storage) -> None:
    block = bytes(range(256)) * 4096
    with storage.writing("large") as target:
        for _ in range(2 * SMALL // len(block) + 3):
            target.write(block)
            assert storage.size("large") is None

    assert storage.size("large") == 2 * SMALL + 3 * len(block)
    with storage.open("large", SMALL - 5) as stream:
        assert stream.read(20) == (block[-5:] + block)[:20]


@pytest.mark.parametrize("size", [10, SMALL + 1])
def test_a_file_whose_writer_fails_is_not_there(storage: Storage, size: int, request: pytest.FixtureRequest) -> None:
    if "gcs" in request.node.callspec.id and size > SMALL:
        pytest.skip("gcp-storage-emulator cannot cancel an upload of several parts")

    def fail() -> None:
        with storage.writing("some/file") as target:
            target.write(bytes(size))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert storage.size("some/file") is None
    assert storage.names("some") == []


@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_what_another_server_stores_is_seen_at_once(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(kind).url
    one, two = Storage(url), Storage(url)
    assert two.names("uploads") == []
    one.put("uploads/piece", b"x")
    assert two.names("uploads") == ["piece"]
    one.remove("uploads/piece")
    assert two.size("uploads/piece") is None


def test_a_bucket_of_google_s_that_does_not_exist_is_told(gcs: Gcs) -> None:
    with pytest.raises(StorageSettingError, match="storage_url gs://nowhere-at-all/x: there is no such place"):
        Storage("gs://nowhere-at-all/x")


def test_a_bucket_that_does_not_exist_is_not_made(s3: S3) -> None:
    with pytest.raises(StorageSettingError, match="storage_url s3://nowhere-at-all/x: there is no such place"):
        Storage("s3://nowhere-at-all/x")
    assert [each["Name"] for each in s3.client.list_buckets()["Buckets"]].count("nowhere-at-all") == 0


def test_an_endpoint_where_nobody_answers_is_told(s3: S3) -> None:
    s3.stop()
    try:
        with pytest.raises(
            StorageUnavailableError, match=r"does not answer.*check the setting, and the endpoint"
        ) as caught:
            Storage(s3.url)
    finally:
        s3.start()
    assert "whispered" not in str(caught.value)


def test_missing_credentials_are_told(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StorageSettingError, match=r"cannot be used.*check the setting, and the credentials"):
        Storage(s3.url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nothing://x", "storage_url nothing://x: "),
        ("nothing://me:whispered@x?key=whispered", "storage_url nothing://x: "),
    ],
)
def test_a_url_that_nobody_knows_is_told_without_secrets(url: str, words: str) -> None:
    with pytest.raises(StorageSettingError, match=words) as caught:
        Storage(url)
    assert "whispered" not in str(caught.value)


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file")
    with pytest.raises(StorageSettingError, match="it cannot be used"):
        Storage(f"file://{tmp_path / 'files'}")


def test_a_full_disk_is_told_from_other_troubles(storage: Storage) -> None:
    with pytest.raises(DiskFullError, match="the artifact folder is full"), storage.guarded():
        raise OSError(errno.ENOSPC, "No space left on device")
    for number in (errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN):
        with pytest.raises(StorageUnavailableError, match=r"does not answer"), storage.guarded():
            raise OSError(number, "something")


def test_one_file_that_is_gone_is_told_from_all(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path / 'files'}")
    with pytest.raises(FileNotFoundError):
        storage.open("some/file")
    (tmp_path / "files").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageUnavailableError):
        storage.open("some/file")
    with pytest.raises(StorageUnavailableError):
        storage.put("some/file", b"x")
    assert not (tmp_path / "files").exists()

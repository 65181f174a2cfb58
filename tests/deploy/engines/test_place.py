from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest

from deploy.engines.place import engine_folder, private_folder, read_key, write_atomically
from deploy.errors import EngineMisfitError


def test_the_folder_is_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engine_folder() == tmp_path / "shoal" / "engines"
    assert engine_folder().stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(EngineMisfitError, match="others may write to"):
        private_folder(folder)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineMisfitError, match="cannot make the folder"):
        private_folder(tmp_path / "file")


def test_the_key_stays_the_same_and_is_readable_by_this_user_alone(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a")
    key = read_key(folder)
    assert len(key) == 32
    assert read_key(folder) == key
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    assert read_key(private_folder(tmp_path / "b")) != key


def test_two_that_make_the_key_at_once_agree(tmp_path: Path) -> None:
    folder, keys = private_folder(tmp_path / "a"), set()
    threads = [Thread(target=lambda: keys.add(read_key(folder))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 1


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a")
    (folder / "key").write_bytes(b"short")
    with pytest.raises(EngineMisfitError, match="has 5 bytes, wanted 32"):
        read_key(folder)


def test_a_file_is_replaced_whole_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"two"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]

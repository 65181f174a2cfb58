"""What an agent keeps on its disk."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from deploy.agent.errors import AgentError
from deploy.agent.store import FileCache, Finishes


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    cache, fetched = FileCache(tmp_path, 100), []

    def fetch(to: Path) -> None:
        fetched.append(to)
        to.write_bytes(b"bytes")

    paths = [cache.get(sha256(b"bytes"), fetch) for _ in range(2)]
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == b"bytes"
    assert len(fetched) == 1


def test_a_file_that_is_something_else_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="SHA-256 differs"):
        FileCache(tmp_path, 100).get(sha256(b"bytes"), lambda to: to.write_bytes(b"others") and None)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_file_that_cannot_be_fetched_whole(tmp_path: Path) -> None:
    def fetch(to: Path) -> None:
        to.write_bytes(b"by")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        FileCache(tmp_path, 100).get(sha256(b"bytes"), fetch)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, "0" * 63])
def test_a_name_that_is_no_hash_becomes_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"no SHA-256"):
        FileCache(tmp_path, 100).get(name, lambda to: to.write_bytes(b""))


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 10)
    for age, data in ((30, b"aaaa"), (20, b"bbbb"), (10, b"cccc")):
        path = cache.get(sha256(data), lambda to, data=data: to.write_bytes(data) and None)
        os.utime(path, (1e9 - age, 1e9 - age))
    cache.trim()
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"bbbb", b"cccc"]


def test_what_was_half_fetched_is_forgotten_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "x.partial").write_text("half")
    FileCache(tmp_path, 10)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_outlives_its_agent(tmp_path: Path) -> None:
    made = tmp_path / "result.json"
    made.write_text("{}")
    Finishes(tmp_path / "kept").keep("jobs/1", [made], None, 1.5)
    found = Finishes(tmp_path / "kept").find("jobs/1")
    assert found is not None
    assert (found.files[0].read_text(), found.failure, found.took) == ("{}", None, 1.5)
    assert not made.exists()


def test_a_failure_is_an_answer(tmp_path: Path) -> None:
    finishes = Finishes(tmp_path)
    finishes.keep("one", [], ("DataError", "wrong"), 0.1)
    found = finishes.find("one")
    assert found is not None
    assert found.failure == ("DataError", "wrong")


def test_half_an_answer_is_none(tmp_path: Path) -> None:
    finishes = Finishes(tmp_path)
    finishes.keep("one", [], None, 0.1)
    (kept,) = tmp_path.rglob("finished.json")
    kept.write_text(kept.read_text()[:5])
    assert finishes.find("one") is None


def test_answers_that_nobody_asks_for_are_forgotten(tmp_path: Path) -> None:
    finishes = Finishes(tmp_path)
    for work in ("one", "two"):
        finishes.keep(work, [], None, 0.1)
    finishes.forget_others("two")
    assert finishes.find("one") is None
    assert finishes.find("two") is not None
    finishes.forget("two")
    assert finishes.find("two") is None

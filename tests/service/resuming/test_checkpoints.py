from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from service.resuming.checkpoints import Checkpoints, Mirror
from service.resuming.journal import FITS, TRAININGS, Journal, read_journal
from service.storage.storage import Storage


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        return "memory://bucket"
    return f"file://{tmp_path / 'storage'}"


def mirrored(storage: str, folder: Path, attempt: int = 1) -> Mirror:
    """The mirror of a job's folder, which goes on from what is mirrored."""
    folder.mkdir(exist_ok=True)
    mirror = Checkpoints(Storage(storage)).mirror("some", attempt, folder)
    mirror.restore()
    return mirror


def write_fit(folder: Path, content: bytes, part: str = FITS) -> Path:
    path = folder / part / "abc" / "training.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def parts(storage: str) -> dict[str, bytes]:
    """The stored parts by name."""
    files, root = fsspec.core.url_to_fs(storage)
    place = f"{root}/checkpoints/some/parts"
    found = files.find(place) if files.exists(place) else []
    return {path.rpartition("/")[2]: files.cat_file(path) for path in found}


def test_another_machine_goes_on_from_what_was_kept(storage: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    mirror = mirrored(storage, here)
    journal = Journal(here, "writer")
    journal.keep("one", 1)
    journal.clock({"plan": 5.0})
    write_fit(here, b"fit")
    write_fit(here, b"training", TRAININGS)
    mirror.push()
    mirrored(storage, there, attempt=2)
    kept = read_journal(there)

    assert (kept.writer, kept.values, kept.spent) == ("writer", {"one": 1}, 5.0)
    assert (there / FITS / "abc/training.pt").read_bytes() == b"fit"
    assert (there / TRAININGS / "abc/training.pt").read_bytes() == b"training"


def test_only_what_is_new_is_written(storage: str, tmp_path: Path) -> None:
    mirror = mirrored(storage, tmp_path / "job")
    journal = Journal(tmp_path / "job", "writer")
    journal.keep("one", 1)
    fit = write_fit(tmp_path / "job", b"fit")
    mirror.push()
    first = parts(storage)
    journal.keep("two", 2)
    mirror.push()
    new = {name: content for name, content in parts(storage).items() if name not in first}

    assert len(first) == 2
    assert [b'"two"' in content and b'"one"' not in content for content in new.values()] == [True]
    fit.write_bytes(b"another fit")
    mirror.push()
    assert sorted(len(content) for content in parts(storage).values() if b"fit" in content) == [11]


def test_the_part_that_begins_the_next_line_waits(storage: str, tmp_path: Path) -> None:
    mirror = mirrored(storage, tmp_path / "job")
    Journal(tmp_path / "job", "writer").keep("one", 1)
    with (tmp_path / "job/journal.jsonl").open("ab") as file:
        file.write(b'{"type": "val')
    mirror.push()
    with (tmp_path / "job/journal.jsonl").open("ab") as file:
        file.write(b'ue", "key": "two", "value": 2}\n')
    mirror.push()
    mirrored(storage, tmp_path / "other", attempt=2)

    assert read_journal(tmp_path / "other").values == {"one": 1, "two": 2}


def test_a_journal_that_began_anew_replaces_the_one_before(storage: str, tmp_path: Path) -> None:
    mirror = mirrored(storage, tmp_path / "job")
    Journal(tmp_path / "job", "old").keep("one", 1)
    mirror.push()
    journal = Journal(tmp_path / "job", "new")
    for number in range(5):
        journal.keep(f"value {number}", number)
    mirror.push()
    mirrored(storage, tmp_path / "other", attempt=2)

    assert read_journal(tmp_path / "other") == read_journal(tmp_path / "job")
    assert len(parts(storage)) == 1


def test_many_small_parts_become_one(storage: str, tmp_path: Path) -> None:
    mirror = mirrored(storage, tmp_path / "job")
    journal = Journal(tmp_path / "job", "writer")
    for number in range(70):
        journal.keep(f"value {number}", number)
        mirror.push()
    mirrored(storage, tmp_path / "other", attempt=2)

    assert len(parts(storage)) < 65
    assert read_journal(tmp_path / "other") == read_journal(tmp_path / "job")


def test_what_was_kept_here_later_than_mirrored_stays(storage: str, tmp_path: Path) -> None:
    mirror = mirrored(storage, tmp_path / "job")
    journal = Journal(tmp_path / "job", "writer")
    journal.keep("one", 1)
    mirror.push()
    journal.keep("two", 2)
    again = mirrored(storage, tmp_path / "job", attempt=2)
    again.push()
    mirrored(storage, tmp_path / "other", attempt=3)

    assert read_journal(tmp_path / "job").values == {"one": 1, "two": 2}
    assert read_journal(tmp_path / "other").values == {"one": 1, "two": 2}


def test_what_was_done_elsewhere_meanwhile_replaces_what_is_here(storage: str, tmp_path: Path) -> None:
    mirrored(storage, tmp_path / "here", attempt=1)
    Journal(tmp_path / "here", "writer").keep("old", 1)
    write_fit(tmp_path / "here", b"stale")
    elsewhere = mirrored(storage, tmp_path / "elsewhere", attempt=2)
    Journal(tmp_path / "elsewhere", "writer").keep("new", 1)
    elsewhere.push()
    mirrored(storage, tmp_path / "here", attempt=3)

    assert read_journal(tmp_path / "here").values == {"new": 1}
    assert not (tmp_path / "here" / FITS).exists()


def test_an_attempt_that_lives_on_leaves_the_mirror_to_the_later_one(storage: str, tmp_path: Path) -> None:
    old = mirrored(storage, tmp_path / "old", attempt=1)
    journal = Journal(tmp_path / "old", "writer")
    journal.keep("one", 1)
    old.push()
    new = mirrored(storage, tmp_path / "new", attempt=2)
    Journal(tmp_path / "new", "writer").keep("two", 2)
    new.push()
    journal.keep("three", 3)
    old.push()
    mirrored(storage, tmp_path / "other", attempt=3)

    assert read_journal(tmp_path / "other").values == {"one": 1, "two": 2}


def test_what_was_damaged_is_done_again(storage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mirror = mirrored(storage, tmp_path / "job")
    Journal(tmp_path / "job", "writer").keep("one", 1)
    write_fit(tmp_path / "job", b"fit")
    mirror.push()
    files, root = fsspec.core.url_to_fs(storage)
    damaged = next(name for name, content in parts(storage).items() if content == b"fit")
    files.pipe_file(f"{root}/checkpoints/some/parts/{damaged}", b"fat")
    mirrored(storage, tmp_path / "other", attempt=2)

    assert read_journal(tmp_path / "other").values == {"one": 1}
    assert not (tmp_path / "other" / FITS / "abc/training.pt").exists()
    assert "it is not what was stored" in caplog.text


@pytest.mark.parametrize("content", [b"no index", b'{"attempt": 1, "files": {"../../evil": {}}}'])
def test_an_index_that_cannot_be_read_is_not_used(storage: str, tmp_path: Path, content: bytes) -> None:
    files, root = fsspec.core.url_to_fs(storage)
    files.makedirs(f"{root}/checkpoints/some", exist_ok=True)
    files.pipe_file(f"{root}/checkpoints/some/index.json", content)
    mirror = mirrored(storage, tmp_path / "job")
    Journal(tmp_path / "job", "writer").keep("one", 1)
    mirror.push()
    mirrored(storage, tmp_path / "other", attempt=2)

    assert read_journal(tmp_path / "other").values == {"one": 1}


def test_links_out_of_the_folder_are_not_followed(storage: str, tmp_path: Path) -> None:
    mirror = mirrored(storage, tmp_path / "job")
    secret = write_fit(tmp_path / "elsewhere", b"secret")
    (tmp_path / "job" / FITS).mkdir()
    (tmp_path / "job" / FITS / "linked").symlink_to(secret.parent)
    write_fit(tmp_path / "job", b"x").unlink()
    (tmp_path / "job" / FITS / "abc" / "training.pt").symlink_to(secret)
    mirror.push()

    assert parts(storage) == {}


def test_a_job_that_is_over_leaves_nothing(storage: str, tmp_path: Path) -> None:
    mirror = mirrored(storage, tmp_path / "job")
    Journal(tmp_path / "job", "writer").keep("one", 1)
    mirror.push()
    Checkpoints(Storage(storage)).drop("some")
    Checkpoints(Storage(storage)).drop("another")
    files, root = fsspec.core.url_to_fs(storage)

    assert not files.exists(f"{root}/checkpoints/some")


def test_storage_that_is_away_costs_no_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = tmp_path / "storage"
    mirror = mirrored(f"file://{storage}", tmp_path / "job")
    Journal(tmp_path / "job", "writer").keep("one", 1)
    storage.rename(tmp_path / "unmounted")
    mirror.push()
    (tmp_path / "unmounted").rename(storage)
    mirror.push()
    mirrored(f"file://{storage}", tmp_path / "other", attempt=2)

    assert "trying again later" in caplog.text
    assert read_journal(tmp_path / "other").values == {"one": 1}

"""A journal gives back what was written whole, and nothing else."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from service.resuming import journal
from service.resuming.journal import FILE, TRAININGS, Journal, read_journal, work_kept


def written(folder: Path, writer: str = "me") -> Path:
    """A journal of a few lines."""
    found = Journal(folder, writer)
    found.keep("a", [1.5, "x", None])
    found.clock({"load": 2.0, "plan": 3.0})
    found.keep("b", {"deep": {"er": [True]}})
    return folder / FILE


def test_what_was_kept_is_recalled_by_the_next_attempt(tmp_path: Path) -> None:
    written(tmp_path)
    again = Journal(tmp_path, "me")
    assert (again.recall("a"), again.recall("b"), again.recall("c")) == (
        [1.5, "x", None],
        {"deep": {"er": [True]}},
        None,
    )
    assert (again.before.seconds, again.before.spent) == ({"load": 2.0, "plan": 3.0}, 5.0)


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    source = random.Random(0)
    numbers = [source.uniform(-1, 1) * 10.0 ** source.randint(-30, 30) for _ in range(1000)] + [math.inf, 5e-324]
    Journal(tmp_path, "me").keep("numbers", numbers)
    assert Journal(tmp_path, "me").recall("numbers") == numbers


def test_a_torn_last_line_is_cut_off_and_written_anew(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    last = content.splitlines(keepends=True)[-1]
    for length in range(len(last)):
        path.write_bytes(content[: len(content) - len(last) + length])
        again = Journal(tmp_path, "me")
        assert (again.recall("a"), again.recall("b")) == ([1.5, "x", None], None)
        again.keep("b", 7)
        assert Journal(tmp_path, "me").recall("b") == 7


@pytest.mark.parametrize(
    "foreign",
    [
        b"no json\n",
        b"\xff\xfe\n",
        b'{"type": "value"}\n',
        b'{"type": "value", "key": "a", "value": 1, "more": 2}\n',
        b'{"type": "clock", "seconds": {"plan": -1e9}}\n',
        b'{"type": "clock", "seconds": {"plan": NaN}}\n',
        b'{"type": "header", "writer": "another"}\n',
        b'{"type": "value", "key": "a", "value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    ],
)
def test_whatever_follows_a_line_that_is_none_of_ours_is_cut_off(tmp_path: Path, foreign: bytes) -> None:
    path = written(tmp_path)
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, rest[0], foreign, *rest[1:]]))
    again = Journal(tmp_path, "me")
    assert (again.recall("a"), again.recall("b")) == ([1.5, "x", None], None)
    assert path.read_bytes() == first + rest[0]


def test_a_file_without_a_header_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"type": "value", "key": "a", "value": 1}\n')
    assert Journal(tmp_path, "me").recall("a") is None


def test_values_of_another_writer_are_forgotten_but_not_the_time_he_took(tmp_path: Path) -> None:
    written(tmp_path, "other")
    assert Journal(tmp_path, "me").recall("a") is None
    kept = read_journal(tmp_path)
    assert (kept.writer, dict(kept.values), kept.spent) == ("me", {}, 5.0)


def test_a_journal_stops_growing_and_a_larger_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_BYTES", 1000)
    kept = Journal(tmp_path, "me")
    kept.keep("small", 1)
    kept.keep("large", "x" * 2000)
    assert kept.recall("large") == "x" * 2000
    kept.keep("small again", 2)
    path = tmp_path / FILE
    assert read_journal(tmp_path).values == {"small": 1, "small again": 2}
    path.write_bytes(path.read_bytes() + b" " * 1000)
    assert read_journal(tmp_path) == journal.Kept()


def test_a_link_is_neither_read_nor_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = written(tmp_path / "elsewhere")
    before = target.read_bytes()
    (tmp_path / FILE).symlink_to(target)
    assert read_journal(tmp_path) == journal.Kept()
    Journal(tmp_path, "me").keep("mine", 1)
    assert target.read_bytes() == before
    assert read_journal(tmp_path).values == {"mine": 1}


def test_a_job_goes_on_where_nothing_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    kept = Journal(folder, "me")
    (folder / FILE).unlink()
    folder.rmdir()
    kept.keep("a", 1)
    assert kept.recall("a") == 1


def test_the_clock_is_noted_once_in_a_while(tmp_path: Path) -> None:
    kept = Journal(tmp_path, "me")
    for tenth in range(100_000):
        kept.clock({"load": 1.0, "tune": tenth / 10})
    lines = (tmp_path / FILE).read_text().splitlines()
    assert len(lines) < 1200
    last = json.loads(lines[-1])["seconds"]["tune"]
    assert 0 <= 9999.9 - last < 0.01 * 9999.9


def test_work_is_kept_when_a_value_or_a_checkpoint_is_new_and_not_when_time_went_by(tmp_path: Path) -> None:
    marks = [work_kept(tmp_path)]
    found = Journal(tmp_path, "me")
    marks.append(work_kept(tmp_path))
    found.clock({"plan": 100.0})
    marks.append(work_kept(tmp_path))
    assert marks[0] == marks[1] == marks[2]
    found.keep("a", 1)
    marks.append(work_kept(tmp_path))
    folder = tmp_path / TRAININGS / "one"
    folder.mkdir(parents=True)
    (folder / "training.pt").write_bytes(b"state")
    marks.append(work_kept(tmp_path))
    assert len(set(marks)) == 3

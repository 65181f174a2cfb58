from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.cache import Context, LatencyCache, clear_cache, list_cache
from deploy.errors import CacheError

HERE = Context("cpu|x86_64|2", "onnxruntime", "1.0", "float32", 1, 1)


def test_what_is_stored_is_found_again(tmp_path: Path) -> None:
    LatencyCache(tmp_path / "cache.db").store(HERE, {"a": 1.5, "b": 0.25}, anchor=2e-5)
    cache = LatencyCache(tmp_path / "cache.db")
    assert cache.find(HERE, ["a", "c"]) == {"a": 1.5}
    assert cache.anchor(HERE) == 2e-5


@pytest.mark.parametrize(
    "change", [{"device": "x"}, {"runtime": "x"}, {"version": "2"}, {"precision": "int8"}, {"threads": 2}, {"batch": 8}]
)
def test_a_latency_holds_in_its_context_only(change: dict[str, object], tmp_path: Path) -> None:
    cache = LatencyCache(tmp_path / "cache.db")
    cache.store(HERE, {"a": 1.0}, anchor=1e-5)
    elsewhere = replace(HERE, **change)  # type: ignore[arg-type]
    assert cache.find(elsewhere, ["a"]) == {}
    assert cache.anchor(elsewhere) is None


def test_a_later_measurement_replaces_an_earlier_one(tmp_path: Path) -> None:
    cache = LatencyCache(tmp_path / "cache.db")
    cache.store(HERE, {"a": 1.0}, anchor=1e-5)
    cache.store(HERE, {"a": 2.0}, anchor=3e-5)
    assert cache.find(HERE, ["a"]) == {"a": 2.0}
    assert cache.anchor(HERE) == 3e-5


def test_the_cache_is_listed_in_seconds_and_cleared(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    LatencyCache(path).store(HERE, {"b": 2.0, "a": 0.5}, anchor=1e-5)
    first, second = list_cache(path)
    assert (first.key, first.seconds, first.context) == ("a", 0.5e-5, HERE)
    assert (second.key, second.seconds) == ("b", 2e-5)
    assert first.measured_at.endswith("+00:00")
    assert clear_cache(path) == 2
    assert list_cache(path) == ()
    assert LatencyCache(path).anchor(HERE) is None


def test_a_cache_that_does_not_exist_is_empty_and_stays_away(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    assert list_cache(path) == ()
    assert clear_cache(path) == 0
    assert not path.exists()


def test_a_cache_of_another_version_is_started_afresh(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    LatencyCache(path).store(HERE, {"a": 1.0}, anchor=1e-5)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    assert LatencyCache(path).find(HERE, ["a"]) == {}


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"not a database, but quite long" * 100)
    with pytest.raises(CacheError, match=r"cannot be used .* it may be deleted"):
        LatencyCache(path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot make the folder"):
        LatencyCache(tmp_path / "file" / "cache.db")


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    code = (
        "import sys; from pathlib import Path; from deploy.cache import Context, LatencyCache\n"
        "cache = LatencyCache(Path(sys.argv[1]))\n"
        "for i in range(30):\n"
        "    cache.store(Context('d', 'r', 'v', 'p', 1, 1), {f'{sys.argv[2]}-{i}': 1.0}, 1e-5)\n"
    )
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], cwd=root, stderr=subprocess.PIPE)
        for name in "abc"
    ]
    said = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert len(list_cache(path)) == 90

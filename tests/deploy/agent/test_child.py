"""One piece of work in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.agent import child as module
from deploy.agent.child import do_in_child
from deploy.artifact import Artifact
from deploy.bench.work import Question, pack_models
from deploy.errors import MeasureCancelledError, MeasureError, ModelFileError
from deploy.measure.turn import wait_for_turn
from deploy.sandbox import probe

LONG = {"min_seconds": 60.0, "max_seconds": 120.0, "precision": None}


def timing(artifact: Artifact) -> Question:
    places, files = pack_models([artifact.path])
    return Question("time", {"models": places, "settings": LONG}, files)


def children() -> list[psutil.Process]:
    """The programs that this process started, and what they started."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if any("deploy." in part for part in child.cmdline())
    ]


def wait_for(count: int) -> list[psutil.Process]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if len(found := children()) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{len(children())} processes, wanted {count}")


def test_the_result_is_a_file(tmp_path: Path) -> None:
    (result,) = do_in_child(Question("describe", {"runtime": "onnxruntime"}), tmp_path, threading.Event())
    assert set(json.loads(result.read_text())) == {"device", "runtime_version"}


def test_the_wait_for_another_measurement_is_told(artifact: Artifact, tmp_path: Path) -> None:
    places, files = pack_models([artifact.path])
    quick = {"min_seconds": 0.05, "min_samples": 5, "precision": None}
    question = Question("time", {"models": places, "settings": quick}, files)
    waits: list[float] = []
    began, over = time.monotonic(), threading.Event()

    def measure() -> None:
        with wait_for_turn():
            over.wait(60)

    holder = threading.Thread(target=measure)
    holder.start()
    threading.Timer(8.0, over.set).start()
    do_in_child(question, tmp_path, threading.Event(), waited=waits.append)
    holder.join()
    assert 0.0 < waits[0] < time.monotonic() - began


def test_an_error_is_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_text("no model")
    places, files = pack_models([tmp_path / "broken.onnx"])
    question = Question("time", {"models": places, "settings": LONG}, files)
    with pytest.raises(ModelFileError, match="broken"):
        do_in_child(question, tmp_path, threading.Event())


def test_cancelling_leaves_no_process_behind(artifact: Artifact, tmp_path: Path) -> None:
    cancel = threading.Event()

    def cancel_when_timing() -> None:
        wait_for(2)  # the child, and its own that times
        cancel.set()

    watcher = threading.Thread(target=cancel_when_timing)
    watcher.start()
    with pytest.raises(MeasureCancelledError):
        do_in_child(timing(artifact), tmp_path, cancel)
    watcher.join()
    assert children() == []


def test_a_killed_child_is_told_as_such(artifact: Artifact, tmp_path: Path) -> None:
    def kill() -> None:
        os.kill(wait_for(1)[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(MeasureError, match="SIGKILL: the device ran out of memory"):
        do_in_child(timing(artifact), tmp_path, threading.Event())
    killer.join()
    assert children() == []


def test_the_work_knows_neither_the_agents_token_nor_the_rest_of_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact
) -> None:
    monkeypatch.setenv("SHOAL_AGENT_TOKEN", "a token")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    seen: list[dict[str, str]] = []
    cancel = threading.Event()

    def look() -> None:
        seen.extend(child.environ() for child in wait_for(2))
        cancel.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    with pytest.raises(MeasureCancelledError):
        do_in_child(timing(artifact), tmp_path, cancel)
    watcher.join()

    assert len(seen) == 2
    assert not [value for environment in seen for value in environment.values() if value in {"a token", "a secret"}]


def outside(folder: Path) -> Path:
    secret = folder.parent / "secret"
    secret.write_text("a secret")
    return secret


def symbolic_link(folder: Path) -> Path:
    (folder / "result.json").symlink_to(outside(folder))
    return folder / "result.json"


def hard_link(folder: Path) -> Path:
    (folder / "result.json").hardlink_to(outside(folder))
    return folder / "result.json"


def linked_folder(folder: Path) -> Path:
    outside(folder)
    (folder / "made").symlink_to(folder.parent)
    return folder / "made" / "secret"


def upwards(folder: Path) -> Path:
    return folder / ".." / outside(folder).name


def device_file(folder: Path) -> Path:
    os.mkfifo(folder / "result.json")
    return folder / "result.json"


def nothing(folder: Path) -> Path:
    return folder / "result.json"


def say(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a process that somebody else took over do the work: it says what they want."""
    code = f"import sys; sys.stdin.readline(); print({json.dumps(answer)!r})"
    monkeypatch.setattr(module, "_COMMAND", (sys.executable, "-c", code))


@pytest.mark.parametrize(
    "name", [outside, symbolic_link, hard_link, linked_folder, upwards, device_file, nothing, lambda folder: folder]
)
def test_files_that_are_not_the_works_own_are_not_taken(
    name: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "work"
    home.mkdir()
    say({"files": [str(name(home))]}, monkeypatch)
    with pytest.raises(MeasureError, match="no plain file in its own folder"):
        do_in_child(Question("describe", {}), home, threading.Event())


def test_files_in_the_works_own_folders_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made" / "edge.onnx"
    made.parent.mkdir()
    made.write_text("an edge")
    say({"files": [str(made)]}, monkeypatch)
    assert do_in_child(Question("describe", {}), tmp_path, threading.Event()) == [made]


@pytest.mark.parametrize("answer", [[], {}, {"files": []}, {"files": [1]}, {"files": "x"}, {"error": "x"}, None, 7])
def test_an_answer_that_is_none_is_the_works_failure(
    answer: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(answer, monkeypatch)
    with pytest.raises(MeasureError, match="neither files nor an error"):
        do_in_child(Question("describe", {}), tmp_path, threading.Event())


@pytest.mark.skipif(not all(one.present for one in probe()), reason="this system cannot confine processes")
def test_what_the_work_says_does_not_fill_the_agents_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.stdin.readline(); [print('x' * (1 << 20), file=sys.stderr) for _ in range(40)]"
    monkeypatch.setattr(module, "_COMMAND", (sys.executable, "-c", code))
    tracemalloc.start()
    try:
        with pytest.raises(MeasureError, match="no answer"):
            do_in_child(Question("describe", {}), tmp_path, threading.Event())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_confined_work_measures_through_links(artifact: Artifact, tmp_path: Path) -> None:
    home = tmp_path / "work"
    home.mkdir()
    linked = tmp_path / "net.onnx"
    linked.symlink_to(artifact.path)
    places, files = pack_models([linked])
    short = {"min_seconds": 0.05, "max_seconds": 1.0, "precision": None}
    question = Question("time", {"models": places, "settings": short}, files)

    assert do_in_child(question, home, threading.Event(), "required")

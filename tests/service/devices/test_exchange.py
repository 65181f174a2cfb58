"""Questions and answers through a job's folder."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.bench.work import Answer, Question
from deploy.errors import DataError, MeasureError
from service.devices.exchange import Exchange
from service.devices.letters import ANSWER, FOLDER, AskedWork, DoneWork, write_whole


class Server:
    """Answers in a thread, with what it is told to."""

    def __init__(self, folder: Path, done: DoneWork) -> None:
        self.folder, self.done = folder, done
        self.keys: list[str] = []
        self.waits: list[float] = []

    def announce(self, key: str) -> None:
        self.keys.append(key)
        threading.Timer(0.2, self.answer, [key]).start()

    def answer(self, key: str) -> None:
        home = self.folder / FOLDER / key
        self.asked = AskedWork.model_validate_json((home / "question.json").read_text())
        (home / "result.json").write_text(json.dumps({"answer": 42}))
        files = tuple(f"{FOLDER}/{key}/{name}" for name in self.done.files)
        write_whole(home / ANSWER, self.done.model_copy(update={"files": files}).model_dump_json())

    def ask(self, question: Question) -> Answer:
        return Exchange(self.folder, self.announce, self.waits.append)(question)


def question(folder: Path, content: str = "model") -> Question:
    (folder / "m.onnx").write_text(content)
    return Question("run", {"threads": 1}, (folder / "m.onnx",))


def test_the_answer_comes_through_the_folder(tmp_path: Path) -> None:
    server = Server(tmp_path, DoneWork(files=("result.json",)))
    assert server.ask(question(tmp_path)).result == {"answer": 42}
    assert server.asked == AskedWork(kind="run", request={"threads": 1}, files=("m.onnx",))


def test_only_time_on_the_device_counts(tmp_path: Path) -> None:
    server = Server(tmp_path, DoneWork(files=("result.json",), took=0.15))
    server.ask(question(tmp_path))
    (waited,) = server.waits
    assert 0.0 < waited < 5.0


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    server = Server(tmp_path, DoneWork(files=("result.json",)))
    for _ in range(2):
        server.ask(question(tmp_path))
    assert len(server.keys) == 1


def test_other_bytes_are_another_question(tmp_path: Path) -> None:
    server = Server(tmp_path, DoneWork(files=("result.json",)))
    for content in ("model", "another"):
        server.ask(question(tmp_path, content))
    assert len(set(server.keys)) == 2


def test_a_failure_is_raised_as_what_it_was_and_asked_again(tmp_path: Path) -> None:
    server = Server(tmp_path, DoneWork(failure=("DataError", "wants shape (batch, 3)")))
    for _ in range(2):
        with pytest.raises(DataError, match="wants shape"):
            server.ask(question(tmp_path))
    assert len(server.keys) == 2


def test_a_failure_of_a_kind_that_nobody_knows_is_a_failed_measurement(tmp_path: Path) -> None:
    server = Server(tmp_path, DoneWork(failure=("SystemExit", "gone")))
    with pytest.raises(MeasureError, match="gone"):
        server.ask(question(tmp_path))


def test_an_answer_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    server = Server(tmp_path, DoneWork(files=("result.json",)))
    server.ask(question(tmp_path))
    (answer,) = tmp_path.rglob(ANSWER)
    answer.write_text("{")
    with pytest.raises(MeasureError, match="cannot be read"):
        server.ask(question(tmp_path))


def test_who_has_no_patience_goes_on_without_an_answer(tmp_path: Path) -> None:
    waits: list[float] = []
    asked = replace(question(tmp_path), patience=0.2)
    with pytest.raises(MeasureError, match="the device did not answer within 0 s"):
        Exchange(tmp_path, lambda _key: None, waits.append)(asked)
    assert waits[0] >= 0.2


def test_patience_makes_no_other_question(tmp_path: Path) -> None:
    server = Server(tmp_path, DoneWork(files=("result.json",)))
    for patience in (None, 10.0):
        server.ask(replace(question(tmp_path), patience=patience))
    assert len(server.keys) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe"])
def test_a_result_that_is_none_is_a_failed_measurement(tmp_path: Path, content: bytes) -> None:
    server = Server(tmp_path, DoneWork(files=("result.json",)))
    server.ask(question(tmp_path))
    (result,) = tmp_path.rglob("result.json")
    result.write_bytes(content)
    with pytest.raises(MeasureError, match="the result that came from the device is none"):
        server.ask(question(tmp_path))

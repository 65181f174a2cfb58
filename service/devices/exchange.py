"""How a worker has work done on a device far away: it leaves a question in its folder, and waits for the answer there.

What lies there is in `service.devices.letters`; the server carries it (`service.devices.desk`). Its name is a hash of
the question with the bytes of its files, so a worker that goes on for one that died finds what was answered to it.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from pydantic import ValidationError

from deploy.artifact import hash_model
from deploy.bench.work import FAILURES, Answer, Question
from deploy.errors import MeasureError
from service.devices.letters import ANSWER, FOLDER, QUESTION, AskedWork, DoneWork, write_whole
from service.watching.spans import current

_POLL_SECONDS: Final = 0.05
_MAX_RESULT: Final = 256 << 20
"""Bytes of JSON: the times of a long measurement have some millions."""


@final
class Exchange:
    """Asks through a job's folder (`deploy.bench.work.Ask`).

    Args:
        folder: The job's.
        announce: Tells the server that there is a question, by its key.
        waited: Told how many seconds of an answer's time were spent waiting and not on the device.
    """

    def __init__(self, folder: Path, announce: Callable[[str], None], waited: Callable[[float], None]) -> None:
        self._folder, self._announce, self._waited = folder, announce, waited

    def __call__(self, question: Question) -> Answer:
        """Returns the answer, however long it takes, or as long as the question has patience.

        Raises:
            DeployError: What the device answered instead, or that there was no answer in time.
        """
        key = _key(question)
        home = self._folder / FOLDER / key
        began = time.monotonic()
        if not (home / ANSWER).exists():
            home.mkdir(parents=True, exist_ok=True)
            files = tuple(str(file.resolve().relative_to(self._folder.resolve())) for file in question.files)
            place = current()
            traceparent = "" if place is None else place.traceparent
            asked = AskedWork(kind=question.kind, request=dict(question.request), files=files, traceparent=traceparent)
            write_whole(home / QUESTION, asked.model_dump_json())
            self._announce(key)
            took = 0.0
            try:
                self._await(home / ANSWER, question.patience)
                took = self._read(home).took
            finally:
                self._waited(max(0.0, time.monotonic() - began - took))
        return self._answer(home, self._read(home))

    def _await(self, answer: Path, patience: float | None) -> None:
        end = math.inf if patience is None else time.monotonic() + patience
        while not answer.exists():
            if time.monotonic() >= end:
                msg = f"the device did not answer within {patience:.0f} s"
                raise MeasureError(msg)
            time.sleep(_POLL_SECONDS)

    def _read(self, home: Path) -> DoneWork:
        try:
            return DoneWork.model_validate_json((home / ANSWER).read_text())
        except (ValidationError, OSError) as exc:
            raise MeasureError("what the server handed on as the device's answer cannot be read") from exc

    def _answer(self, home: Path, done: DoneWork) -> Answer:
        if done.failure is not None:
            kind, message = done.failure
            home.joinpath(ANSWER).unlink(missing_ok=True)  # who asks again gets another try
            raise FAILURES.get(kind, MeasureError)(message)
        try:
            result, *files = [self._folder / path for path in done.files]
            if result.stat().st_size > _MAX_RESULT:
                msg = f"the device answered with a result of more than {_MAX_RESULT} bytes"
                raise MeasureError(msg)
            return Answer(json.loads(result.read_bytes()), tuple(files))
        except (ValueError, RecursionError, OSError) as exc:
            msg = f"the result that came from the device is none: {type(exc).__name__}"
            raise MeasureError(msg) from exc


def _key(question: Question) -> str:
    digest = hashlib.sha256(json.dumps([question.kind, question.request], sort_keys=True).encode())
    for file in question.files:
        digest.update(f"{file.name} {hash_model(file)[0]}".encode())
    return digest.hexdigest()[:32]

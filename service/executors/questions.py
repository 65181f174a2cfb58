"""Questions to devices far away, between a node, where the worker asks, and its server, whose desk carries them.

A question travels as the files that it consists of, by their paths below the job's folder, and so does its answer
(`service.devices.letters`). The server has a folder for the job too, and its desk sees no difference.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import to_thread
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, final

from service.devices.carrier import Carrier
from service.devices.letters import ANSWER, FOLDER, QUESTION, AskedWork, DoneWork, write_whole
from service.errors import WorkerProtocolError

Files = Mapping[str, bytes]
_POLL_SECONDS: Final = 0.1


@final
class NodeDesk:
    """The node's end: hands questions to the server, and takes answers (`service.devices.carrier.Carrier`)."""

    def __init__(self, folder: Path, announce: Callable[[str], None]) -> None:
        """Carries nothing yet.

        Args:
            folder: The job's, on this machine.
            announce: Tells the server that there is a question, by its key.
        """
        self._folder, self._announce = folder, announce
        self._waited = 0.0
        self._since: dict[str, float] = {}

    @property
    def waited(self) -> float:
        """Returns the seconds that do not count against the job's time."""
        present = time.monotonic()
        return self._waited + max((present - since for since in list(self._since.values())), default=0.0)

    def ask(self, key: str) -> None:
        """Takes a question from the folder."""
        self._since.setdefault(key, time.monotonic())
        self._announce(key)

    async def close(self) -> None:
        """Does nothing: the server's end closes its own."""

    def question(self, key: str) -> Files:
        """Returns a question's files. Blocks.

        Raises:
            WorkerProtocolError: It names a file that is none of its job's.
        """
        path = f"{FOLDER}/{key}/{QUESTION}"
        asked = AskedWork.model_validate_json(_inside(self._folder, path).read_bytes())
        return {name: _inside(self._folder, name).read_bytes() for name in (path, *asked.files)}

    def answer(self, key: str, files: Files) -> None:
        """Puts an answer's files into the folder. Blocks."""
        _write(self._folder, key, files, ANSWER)
        done = DoneWork.model_validate_json(files[f"{FOLDER}/{key}/{ANSWER}"])
        self._waited += max(0.0, time.monotonic() - self._since.pop(key, time.monotonic()) - done.took)


async def carried(desk: Carrier, folder: Path, key: str, files: Files) -> Files:
    """Returns the files of the answer to a question, however long it takes.

    Args:
        desk: The server's.
        folder: The job's, on the server.
        key: The question's.
        files: The question's.

    Raises:
        WorkerProtocolError: A path leads out of the folder.
    """
    answer = folder / FOLDER / key / ANSWER
    await to_thread(answer.unlink, missing_ok=True)
    await to_thread(_write, folder, key, files, QUESTION)
    desk.ask(key)
    while not answer.exists():  # noqa: ASYNC110 (the desk answers whoever looks into the folder)
        await asyncio.sleep(_POLL_SECONDS)
    return await to_thread(_read_answer, folder, key)


def failed(key: str, message: str) -> Files:
    """Returns the answer to a question that cannot be carried."""
    done = DoneWork(failure=("MeasureError", message))
    return {f"{FOLDER}/{key}/{ANSWER}": done.model_dump_json().encode()}


def _read_answer(folder: Path, key: str) -> Files:
    path = f"{FOLDER}/{key}/{ANSWER}"
    content = (folder / path).read_bytes()
    done = DoneWork.model_validate_json(content)
    return {name: _inside(folder, name).read_bytes() for name in done.files} | {path: content}


def _write(folder: Path, key: str, files: Files, last: str) -> None:
    """Writes files below a folder; the one that says that all are there comes last, and whole."""
    letter = f"{FOLDER}/{key}/{last}"
    for name, content in files.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise WorkerProtocolError("a question to a device names a file that is none of its job's")
        path.parent.mkdir(parents=True, exist_ok=True)
        if name != letter:
            path.write_bytes(content)
    write_whole(folder / letter, files[letter].decode())


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise WorkerProtocolError("a question to a device names a file that is none of its job's")
    return path

"""What an agent keeps on its disk: files that the server sent, and answers that it has not taken yet."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from deploy.agent.errors import AgentError


@dataclass(frozen=True)
class Finished:
    """An answer that waits to be taken.

    Attributes:
        files: The first is the result; none where the work failed.
        failure: Class and message of the error, None where there was none.
        took: Seconds on the device.
    """

    files: tuple[Path, ...] = ()
    failure: tuple[str, str] | None = None
    took: float = 0.0


@final
class FileCache:
    """Files by content, the least recently used forgotten first."""

    def __init__(self, folder: Path, most: int) -> None:
        """Keeps at most `most` bytes in a folder, which is made if it is missing."""
        self._folder, self._most = folder, most
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob("*.partial"):
            partial.unlink()

    def get(self, sha256: str, fetch: Callable[[Path], None]) -> Path:
        """Returns a file with these bytes; has it fetched where it is not there.

        Args:
            sha256: Hexadecimal, of the bytes.
            fetch: Writes the bytes to a path.

        Raises:
            AgentError: What was fetched has another hash.
        """
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise AgentError("the server named a file by something that is no SHA-256")
        path = self._folder / sha256
        if not path.exists():
            partial = path.with_suffix(".partial")
            try:
                fetch(partial)
            except BaseException:
                partial.unlink(missing_ok=True)  # half a file on a full disk would keep it full
                raise
            with partial.open("rb") as stream:
                got = hashlib.file_digest(stream, "sha256").hexdigest()
            if got != sha256:
                partial.unlink()
                raise AgentError("a file from the server is not what it should be: its SHA-256 differs")
            partial.replace(path)
        os.utime(path)
        return path

    def trim(self) -> None:
        """Forgets what was not used for longest, as far as there is too much."""
        files = sorted(self._folder.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > self._most:
                path.unlink()


@final
class Finishes:
    """Answers on disk, by piece of work: an agent that dies before it hands one in need not do the work again."""

    def __init__(self, folder: Path) -> None:
        """Keeps them in a folder, which is made if it is missing."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, work_id: str) -> Finished | None:
        """Returns the answer to a piece of work, if it is here whole."""
        home = self._home(work_id)
        try:
            kept = json.loads((home / "finished.json").read_text())
            failure = kept["failure"]
            files = tuple(home / name for name in kept["files"])
            return Finished(files, None if failure is None else (failure[0], failure[1]), float(kept["took"]))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None

    def keep(self, work_id: str, files: Sequence[Path], failure: tuple[str, str] | None, took: float) -> Finished:
        """Keeps an answer; its files are moved."""
        home = self._home(work_id)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        names = []
        for place, file in enumerate(files):
            name = f"{place}{file.suffix}"
            shutil.move(file, home / name)
            names.append(name)
        partial = home / "finished.partial"
        partial.write_text(json.dumps({"files": names, "failure": failure, "took": took}))
        partial.replace(home / "finished.json")
        return Finished(tuple(home / name for name in names), failure, took)

    def forget(self, work_id: str) -> None:
        """Forgets an answer."""
        shutil.rmtree(self._home(work_id), ignore_errors=True)

    def forget_others(self, work_id: str) -> None:
        """Forgets all other answers: the server asks for one piece at a time, so it wants none of them any more."""
        own = self._home(work_id)
        for home in self._folder.iterdir():
            if home != own:
                shutil.rmtree(home, ignore_errors=True)

    def _home(self, work_id: str) -> Path:
        return self._folder / hashlib.sha256(work_id.encode()).hexdigest()[:32]

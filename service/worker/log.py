"""What a worker says on stderr, in a file of limited size."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import final


@final
class BoundedLog:
    """A log file of limited size: `log` and, once that is half of it, the part before in `log.1`."""

    def __init__(self, path: Path, limit: int) -> None:
        """Starts an empty log of at most about `limit` bytes."""
        self._path = path
        self._half = limit // 2
        try:
            self._file = path.open("wb")
        except OSError:
            # Somebody has to read what the worker says, or it would wait for ever.
            self._file = open(os.devnull, "wb")  # noqa: SIM115, PTH123 (closed as the other is)

    def __enter__(self) -> BoundedLog:
        return self

    def __exit__(self, *_exc: object) -> None:
        with suppress(OSError):
            self._file.close()

    def write(self, data: bytes) -> None:
        """Appends bytes, forgetting the oldest if need be. A full disk loses log lines, nothing else."""
        # ValueError: the file could not be opened again.
        with suppress(OSError, ValueError):
            if self._file.tell() + len(data) > self._half:
                self._file.close()
                with suppress(FileNotFoundError):
                    self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._path.open("wb")
            self._file.write(data[-self._half :])
            self._file.flush()

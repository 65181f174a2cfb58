"""Where the bytes of a model lie: one file, or an archive of it with its external data."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import final

from compressors.errors import ModelError, UnsafeModelError
from compressors.sources.unpack import is_archive, unpack


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Gives the path of the one `.onnx` file: `path` itself, or what an archive holds, unpacked for as long as needed.

    Raises:
        ModelError: There is no such file, or the archive holds none or several.
        UnsafeModelError: The archive is not safe to unpack.
    """
    if not path.is_file():
        raise ModelError(f"{path.name}: there is no such file")
    if not is_archive(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="shoal-onnx-") as folder:
        yield find_model(unpack(path, Path(folder)), path.name)


def find_model(files: list[Path], where: str) -> Path:
    """Returns the one `.onnx` file among the files of an archive.

    Raises:
        ModelError: There is none, or more than one.
    """
    found = [file for file in files if file.suffix.lower() == ".onnx"]
    if len(found) != 1:
        names = ", ".join(sorted(file.name for file in found)[:5]) or "none"
        raise ModelError(f"{where} must hold exactly one .onnx file, beside its external data; found {names}")
    return found[0]


@final
class Beside:
    """The files beside a model, read without ever leaving its folder."""

    def __init__(self, model: Path) -> None:
        self.folder = model.parent
        self.where = model.name

    def read(self, location: str, offset: int, length: int, what: str) -> bytearray:
        """Returns bytes of a file below the model's folder; see `ExternalData`."""
        path = self._locate(location, what)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            raise self._missing(location, what) from exc
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise UnsafeModelError(f"{self.where}: {what} has its data in {location!r}, which is no plain file")
            if offset + length > status.st_size:
                raise ModelError(
                    f"{self.where}: {what} wants bytes {offset} to {offset + length} of {location!r}, "
                    f"which has {status.st_size}"
                )
            data = bytearray(length)
            file.seek(offset)
            if file.readinto(data) != length:
                raise ModelError(f"{self.where}: {location!r} became shorter while it was read")
            return data

    def _locate(self, location: str, what: str) -> Path:
        """Returns the path that a location names, after making sure that no part of it leads elsewhere."""
        parts = PurePosixPath(location).parts
        climbs = not parts or ".." in parts or location.startswith("/") or "\\" in location or "\0" in location
        if climbs or ":" in parts[0]:
            raise UnsafeModelError(
                f"{self.where}: {what} has its data in {location[:200]!r}; it must be a file beside the model"
            )
        path = self.folder
        for part in parts:
            path = path / part
            try:
                linked = path.is_symlink()
            except OSError as exc:
                raise self._missing(location[:200], what) from exc
            if linked:
                raise UnsafeModelError(f"{self.where}: {what} has its data behind the link {location!r}; pack the file")
        return path

    def _missing(self, location: str, what: str) -> ModelError:
        return ModelError(
            f"{self.where}: {what} has its data in {location!r}, which is missing; hand in a zip or tar of the .onnx "
            "file together with its external data"
        )

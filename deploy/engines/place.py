"""Where engines, timing caches and the key to the seals are kept: one folder of this user, closed to all others."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from deploy.errors import EngineMisfitError

_KEY = "key"
_KEY_BYTES = 32


def engine_folder() -> Path:
    """Returns the folder, made if it does not exist: `shoal/engines` in the user's cache folder.

    Raises:
        EngineMisfitError: If others may write there.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return private_folder(Path(base) / "shoal" / "engines")


def private_folder(path: Path) -> Path:
    """Returns the folder, made for this user alone if it does not exist.

    Raises:
        EngineMisfitError: If it cannot be made, or belongs to somebody else, or others may write there.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as exc:
        msg = f"cannot make the folder for engines '{path}': {exc.strerror}"
        raise EngineMisfitError(msg) from exc
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        msg = f"others may write to '{path}', and engines are programs: chmod 700 it, or set XDG_CACHE_HOME to another"
        raise EngineMisfitError(msg)
    return path


def read_key(folder: Path) -> bytes:
    """Returns the key that seals are made with, made at random the first time.

    Raises:
        EngineMisfitError: If it cannot be read, or is not what was written.
    """
    path = folder / _KEY
    try:
        with suppress(FileExistsError):
            _write_once(path, secrets.token_bytes(_KEY_BYTES))
        key = path.read_bytes()
    except OSError as exc:
        msg = f"cannot read the key to the engines' seals '{path}': {exc.strerror}"
        raise EngineMisfitError(msg) from exc
    if len(key) != _KEY_BYTES:
        msg = f"the key to the engines' seals '{path}' has {len(key)} bytes, wanted {_KEY_BYTES}: remove the folder"
        raise EngineMisfitError(msg)
    return key


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that readers see the old one or the new one, whole, readable by this user alone."""
    temporary = _write_beside(path, content)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _write_once(path: Path, content: bytes) -> None:
    """Writes a file that does not exist yet, whole; two at once agree on one.

    Raises:
        FileExistsError: It exists.
    """
    if path.exists():
        raise FileExistsError(path)
    temporary = _write_beside(path, content)
    try:
        path.hardlink_to(temporary)
    finally:
        temporary.unlink()


def _write_beside(path: Path, content: bytes) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)

"""A full disk, told from other troubles and told before it happens."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import DiskFullError

# EFBIG: a file size limit of the process or file system; to a caller it is the same thing.
FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


_SCARCE = 1 << 20
"""Less than this is no room for anything that a job writes."""


def is_scarce(folder: Path) -> bool:
    """Returns whether hardly a file can be written in a folder."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _SCARCE or (found.f_files > 0 and found.f_favail == 0)


def is_full(error: BaseException) -> bool:
    """Returns whether an error says that a disk is full, itself or what caused it, or in words if not in numbers."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL_ERRORS:
            return True
        cause = cause.__cause__
    return isinstance(error, RuntimeError | OSError) and os.strerror(errno.ENOSPC) in str(error)


@contextmanager
def disk_errors(where: str) -> Iterator[None]:
    """Turns "no space left" into ours; `where` says which place is full, in words that show no path."""
    try:
        yield
    except OSError as exc:
        if exc.errno in FULL_ERRORS:
            raise DiskFullError(f"the disk that holds {where} is full; free some space on the server") from exc
        raise


def check_free(folder: Path, wanted: int, reserve: int) -> None:
    """Makes sure that a file fits.

    Args:
        folder: Where it goes.
        wanted: Bytes still to be written.
        reserve: Bytes that must be left free afterwards.

    Raises:
        DiskFullError: It does not fit.
    """
    free = shutil.disk_usage(folder).free
    if free < wanted + reserve:
        raise DiskFullError(
            f"the server's disk has {free} bytes free, and this needs {wanted} more while {reserve} are kept in reserve"
        )

"""What is wrong with the caller's samples."""

from __future__ import annotations

import errno
from typing import Final

# Defined there, because importing this package imports torch, which the server's table of errors must not.
from service.errors import DataError

__all__ = ["TRAIN", "VALIDATION", "BrokenSampleError", "DataError", "machine_is_to_blame"]

TRAIN: Final = "data.train"
VALIDATION: Final = "data.validation"

_MACHINE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)


class BrokenSampleError(Exception):
    """One image cannot be decoded, or one text read. Counted and skipped; only too many of them are a `DataError`."""


def machine_is_to_blame(exc: BaseException | None) -> bool:
    """Tells whether an error, or what caused it, is the machine's (its disk is full, say) and not that of the data."""
    while exc is not None:
        if isinstance(exc, OSError) and exc.errno in _MACHINE:
            return True
        exc = exc.__cause__ or exc.__context__
    return False

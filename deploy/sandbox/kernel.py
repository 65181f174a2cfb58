"""The system calls that the C library has no functions for, and the one that prepares them."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

_PR_SET_NO_NEW_PRIVS = 38
_THREADS = Path("/proc/self/task")


def is_linux() -> bool:
    """Returns whether this system has these calls at all."""
    return sys.platform == "linux"


def call(number: int, *arguments: object) -> int:
    """Makes a system call by its number.

    Args:
        number: On this architecture.
        arguments: At most six, integers, pointers or None.

    Raises:
        OSError: As the kernel says.
    """
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(int(_library().syscall(ctypes.c_long(number), *wide)))


def control(option: int, *arguments: object) -> int:
    """Calls prctl(2).

    Raises:
        OSError: As the kernel says.
    """
    # All five: the kernel refuses some options where what they leave unused is not zero.
    wide = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(int(_library().prctl(ctypes.c_int(option), *wide)))


def give_up_new_privileges() -> None:
    """Has no program that is started from now on get more rights than its caller (setuid, file capabilities)."""
    control(_PR_SET_NO_NEW_PRIVS, 1)


def threads() -> int:
    """Returns how many threads this process has."""
    return len(list(_THREADS.iterdir()))


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer

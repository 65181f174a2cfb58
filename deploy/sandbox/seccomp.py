"""Seccomp: which system calls a process may make (any Linux that has it; no privilege needed)."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence
from typing import Final

from deploy.sandbox.kernel import call, is_linux
from deploy.sandbox.numbers import ARCHITECTURES, Architecture, number_of
from deploy.sandbox.program import filter_program

_SET_MODE_FILTER, _GET_ACTION = 1, 2
_ALL_THREADS: Final = 1
_KILL_PROCESS: Final = 0x80000000
_INSTRUCTION_BYTES: Final = 8


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def architecture() -> Architecture | None:
    """Returns what filters must know of this machine; None where none was written for it."""
    return ARCHITECTURES.get(platform.machine()) if is_linux() else None


def missing() -> str:
    """Returns why filters cannot be used here; empty where they can."""
    found = architecture()
    if found is None:
        return f"there is no filter for {platform.system()} on {platform.machine()}"
    wanted = ctypes.c_uint(_KILL_PROCESS)
    try:
        call(number_of("seccomp", found), _GET_ACTION, 0, ctypes.byref(wanted))
    except OSError as exc:
        return f"this kernel has no filters for system calls, or its surroundings forbid them ({exc.strerror})"
    return ""


def restrict(families: Sequence[int] = ()) -> None:
    """Filters the system calls of this process and of all that it starts, for good; `no_new_privs` must be set.

    Args:
        families: Sockets (AF_*) that may be made.

    Raises:
        OSError: The kernel refuses.
    """
    found = architecture()
    assert found is not None
    code = filter_program(found, families)
    program = _Program(len(code) // _INSTRUCTION_BYTES, code)
    call(number_of("seccomp", found), _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(program))

"""Landlock: which files a process may touch, no TCP, no signals to others (Linux 5.19 and later; no privilege needed).

Rights go from a folder to everything below it. What no rule names cannot be opened, listed, made, renamed or deleted;
what is open already stays open. A restricted process cannot look into others either (`/proc/PID/environ`, `mem`).
Source: `Documentation/userspace-api/landlock.rst` and `include/uapi/linux/landlock.h` of the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.sandbox.kernel import call, is_linux

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE = (1 << 4) | (1 << 5)
# Folders, files, sockets, pipes, links.
_MAKE = (1 << 7) | (1 << 8) | (1 << 9) | (1 << 10) | (1 << 12)
_REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

LOOK: Final = READ_DIR
"""To list folders, not to read what is in them."""
READ: Final = READ_FILE | READ_DIR
RUN: Final = READ | EXECUTE
"""To read, and to start as a program."""
USE: Final = READ | WRITE_FILE | IOCTL_DEV
"""To use as a device."""
OWN: Final = READ | WRITE_FILE | TRUNCATE | _REMOVE | _MAKE | _REFER
"""To do as one likes with, but to start programs."""
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

# What versions of the interface know: the first is without REFER, with which files cannot be moved between folders.
LEAST: Final = 2
_FILES = {2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_NEWEST_FILES = 5
_TCP_SINCE, _TCP = 4, 0b11
_SCOPES_SINCE, _SCOPES = 6, 0b11


@dataclass(frozen=True)
class Rule:
    """What may be done with a file, or with a folder and everything below it."""

    path: Path
    rights: int


def version() -> int:
    """Returns the version of the interface, 0 where this kernel has none, or it is switched off.

    Raises:
        OSError: It may not be asked.
    """
    if not is_linux():
        return 0
    try:
        return call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError as exc:
        if exc.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return 0
        raise


def restrict(rules: Iterable[Rule], *, tcp: bool) -> None:
    """Restricts this thread and all that it starts, for good; `no_new_privs` must be set.

    Args:
        rules: What may be touched. Those whose path does not exist are passed over.
        tcp: Whether TCP stays as it is.

    Raises:
        OSError: The kernel refuses.
    """
    known = version()
    files = _FILES[min(known, _NEWEST_FILES)]
    network = _TCP if known >= _TCP_SINCE and not tcp else 0
    scopes = _SCOPES if known >= _SCOPES_SINCE else 0
    told = struct.pack("=QQQ", files, network, scopes)[: 24 if scopes else 16 if known >= _TCP_SINCE else 8]
    ruleset = call(_CREATE_RULESET, ctypes.c_char_p(told), len(told), 0)
    try:
        for rule in rules:
            _add(ruleset, rule, files)
        call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _add(ruleset: int, rule: Rule, known: int) -> None:
    try:
        handle = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what cannot be reached needs no leave
    try:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        rights = rule.rights & known & (-1 if folder else _OF_FILES)
        if rights:
            call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.c_char_p(struct.pack("=Qi", rights, handle)), 0)
    finally:
        os.close(handle)

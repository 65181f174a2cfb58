"""A filter for system calls, as a program of the kernel's classic BPF.

The kernel runs it before every call, over `struct seccomp_data`: number, architecture, instruction pointer, six
arguments of 64 bits. Source: `Documentation/userspace-api/seccomp_filter.rst`, `include/uapi/linux/seccomp.h`.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from typing import Final

from deploy.sandbox.numbers import Architecture, forbidden, in_vain, number_of

_LOAD_WORD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY = 0x15, 0x35, 0x45
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _ARGUMENT = 0, 4, 16, 8

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
REFUSE: Final = _ERRNO | errno.EPERM
PRETEND: Final = _ERRNO
"""The call is not made, and told to have succeeded."""
ABSENT: Final = _ERRNO | errno.ENOSYS

_X32 = 0x40000000
_SOCKET_TYPE = 0xFF
# CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET: processes in a view of the system of their own.
_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if not, operand."""


def filter_program(architecture: Architecture, families: Sequence[int] = ()) -> bytes:
    """Returns the filter.

    Args:
        architecture: Whose calls it is for; a call of any other ends the process.
        families: Sockets (AF_*) that may be made. Pairs of connected local ones may be made in any case.
    """
    program = [_load(_ARCHITECTURE), *_unless(_IF_EQUAL, architecture.audit, KILL), _load(_NUMBER)]
    if architecture.compatible:
        program += _where(_IF_AT_LEAST, _X32, KILL)
    for number in sorted(forbidden(architecture).values()):
        program += _where(_IF_EQUAL, number, REFUSE)
    for number in sorted(in_vain(architecture).values()):
        program += _where(_IF_EQUAL, number, PRETEND)
    # Its flags lie in memory, where a filter cannot look; the C library goes on with `clone` then.
    program += _where(_IF_EQUAL, number_of("clone3", architecture), ABSENT)
    for name, body in _with_arguments(families).items():
        program += [(_IF_EQUAL, 0, len(body), number_of(name, architecture)), *body]
    return _packed([*program, _return(ALLOW)])


def _with_arguments(families: Sequence[int]) -> dict[str, list[Instruction]]:
    """Returns the parts that look at arguments; each ends with a return."""
    kinds = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
    allowed = [one for family in families for one in _where(_IF_EQUAL, family, ALLOW)]
    # A pair of datagram sockets could still send to any address.
    pairs = [one for kind in kinds for one in _where(_IF_EQUAL, kind, ALLOW)]
    local = [_argument(0), *_unless(_IF_EQUAL, socket.AF_UNIX, REFUSE), _argument(1), (_AND, 0, 0, _SOCKET_TYPE)]
    return {
        "clone": [_argument(0), *_where(_IF_ANY, _NAMESPACES, REFUSE), _return(ALLOW)],
        "socket": [_argument(0), *allowed, _return(REFUSE)],
        "socketpair": [*local, *pairs, _return(REFUSE)],
    }


def _load(offset: int) -> Instruction:
    return (_LOAD_WORD, 0, 0, offset)


def _argument(index: int) -> Instruction:
    # Its lower half: both architectures are little-endian, and the kernel ignores the upper half of these.
    return _load(_FIRST_ARGUMENT + _ARGUMENT * index)


def _return(answer: int) -> Instruction:
    return (_RETURN, 0, 0, answer)


def _where(condition: int, operand: int, answer: int) -> list[Instruction]:
    return [(condition, 0, 1, operand), _return(answer)]


def _unless(condition: int, operand: int, answer: int) -> list[Instruction]:
    return [(condition, 1, 0, operand), _return(answer)]


def _packed(program: Sequence[Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)

"""The filter, run by a small interpreter of classic BPF; its numbers, against the system's own headers."""

from __future__ import annotations

import errno
import re
import socket
import struct
from pathlib import Path

import pytest

from deploy.sandbox.numbers import ARCHITECTURES, Architecture, forbidden, in_vain, number_of
from deploy.sandbox.program import ALLOW, KILL, PRETEND, REFUSE, filter_program

HEADERS = {
    "x86_64": [Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h")],
    "aarch64": [Path("/usr/include/asm-generic/unistd.h")],
}
X86 = ARCHITECTURES["x86_64"]


def run(program: bytes, number: int, *arguments: int, audit: int = X86.audit) -> int:
    """What the kernel would answer: the machine of `net/core/filter.c`, as far as filters of ours go."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                accumulator &= operand
            case 0x06:
                return operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x35:
                at += if_true if accumulator >= operand else if_false
            case 0x45:
                at += if_true if accumulator & operand else if_false
            case _:
                raise AssertionError(f"no such operation: {operation:#x}")


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_what_is_forbidden_is_refused_and_the_rest_is_not(architecture: Architecture) -> None:
    program = filter_program(architecture)
    refused, pretended = set(forbidden(architecture).values()), set(in_vain(architecture).values())
    special = {number_of(name, architecture) for name in ("socket", "socketpair", "clone", "clone3")}
    for number in set(range(600)) - special:
        wanted = REFUSE if number in refused else PRETEND if number in pretended else ALLOW
        assert run(program, number, audit=architecture.audit) == wanted, number


def test_calls_of_other_interfaces_end_the_process() -> None:
    program = filter_program(X86)

    assert run(program, 1, audit=0x40000003) == KILL  # i386
    assert run(program, 1, audit=ARCHITECTURES["aarch64"].audit) == KILL
    assert run(program, 0x40000000 | 1) == KILL  # x32
    assert run(filter_program(ARCHITECTURES["aarch64"]), 1, audit=ARCHITECTURES["aarch64"].audit) == ALLOW


@pytest.mark.parametrize(
    ("families", "family", "answer"),
    [
        ((), socket.AF_UNIX, REFUSE),
        ((), socket.AF_INET, REFUSE),
        ((socket.AF_INET, socket.AF_INET6), socket.AF_INET6, ALLOW),
        ((socket.AF_INET, socket.AF_INET6), socket.AF_NETLINK, REFUSE),
    ],
)
def test_sockets_are_told_apart_by_family(families: tuple[int, ...], family: int, answer: int) -> None:
    assert run(filter_program(X86, families), number_of("socket", X86), family, socket.SOCK_STREAM) == answer


@pytest.mark.parametrize(
    ("family", "kind", "answer"),
    [
        (socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, ALLOW),
        (socket.AF_UNIX, socket.SOCK_SEQPACKET, ALLOW),
        (socket.AF_UNIX, socket.SOCK_DGRAM, REFUSE),
        (socket.AF_INET, socket.SOCK_STREAM, REFUSE),
    ],
)
def test_connected_local_pairs_may_be_made(family: int, kind: int, answer: int) -> None:
    assert run(filter_program(X86), number_of("socketpair", X86), family, kind) == answer


def test_threads_and_processes_may_be_made_but_no_namespaces() -> None:
    program, clone = filter_program(X86), number_of("clone", X86)

    assert run(program, clone, 0x003D0F00) == ALLOW  # a thread, as the C library makes it
    assert run(program, clone, 17) == ALLOW  # fork
    assert run(program, clone, 0x10000000 | 17) == REFUSE  # CLONE_NEWUSER
    assert run(program, number_of("clone3", X86)) & 0xFFFF == errno.ENOSYS


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_numbers_are_those_of_the_systems_headers(name: str) -> None:
    header = next((path for path in HEADERS[name] if path.exists()), None)
    if header is None:
        pytest.skip("the kernel's headers are not installed")
    told = {
        match[1]: int(match[2]) for match in re.finditer(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    }
    ours = {**forbidden(ARCHITECTURES[name]), **in_vain(ARCHITECTURES[name])}
    ours |= {one: number_of(one, ARCHITECTURES[name]) for one in ("socket", "socketpair", "clone", "seccomp")}
    # Headers may be older than a call.
    known = {one: number for one, number in ours.items() if one in told}

    assert len(known) > 50
    assert known == {one: told[one] for one in known}

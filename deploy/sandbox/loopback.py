"""A network of a process's own: one loopback device, which leads nowhere but to itself and what it starts."""

from __future__ import annotations

import os
import platform
import socket
import struct
from fcntl import ioctl
from pathlib import Path
from types import MappingProxyType
from typing import Final

from deploy.sandbox.kernel import call

_UNSHARE: Final = MappingProxyType({"x86_64": 272, "aarch64": 97})
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1
_REQUEST: Final = "=16sh14x"
"""struct ifreq: a device's name, its flags."""


def enter() -> None:
    """Moves this process to a network of its own and switches its loopback device on.

    Without the privilege to do so it becomes root of a user namespace first, where systems allow that.

    Raises:
        OSError: The system does not allow it; nothing has changed then.
    """
    number = _UNSHARE.get(platform.machine())
    if number is None:
        raise OSError(0, f"the system calls of {platform.machine()} are not known")
    try:
        call(number, _NEW_NETWORK)
    except PermissionError:
        user, group = os.getuid(), os.getgid()
        call(number, _NEW_USER | _NEW_NETWORK)
        _stay(user, group)
    _switch_on()


def _stay(user: int, group: int) -> None:
    """Has user and group be in the new namespace what they were before."""
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{user} {user} 1")
    (own / "gid_map").write_text(f"{group} {group} 1")


def _switch_on() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = struct.pack(_REQUEST, b"lo", 0)
        _, flags = struct.unpack(_REQUEST, ioctl(any_socket, _GET_FLAGS, name))
        ioctl(any_socket, _SET_FLAGS, struct.pack(_REQUEST, b"lo", flags | _UP))

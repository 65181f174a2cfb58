"""Root's powers, given up: a worker of a server that runs as root needs none but to read what the server can."""

from __future__ import annotations

import ctypes
import platform
import struct
from types import MappingProxyType
from typing import Final

from deploy.sandbox.kernel import call, is_linux

_CAPSET: Final = MappingProxyType({"x86_64": 126, "aarch64": 91})
_VERSION_3: Final = 0x20080522
_READ_ANY_FILE: Final = 1 << 2  # CAP_DAC_READ_SEARCH; where files are confined, it opens none besides
_CAPGET: Final = MappingProxyType({"x86_64": 125, "aarch64": 90})


def drop() -> None:
    """Gives up all capabilities but one, for good where `no_new_privs` is set; nothing to do for who has none.

    Raises:
        OSError: The kernel refuses.
    """
    machine = platform.machine()
    if not is_linux() or machine not in _CAPSET:
        return
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    held = ctypes.create_string_buffer(24)
    call(_CAPGET[machine], header, held)
    effective, permitted, _, *_ = struct.unpack("=6I", held.raw)
    # Two halves of 32, each effective, permitted, inheritable.
    kept = struct.pack("=6I", effective & _READ_ANY_FILE, permitted & _READ_ANY_FILE, 0, 0, 0, 0)
    call(_CAPSET[machine], header, ctypes.create_string_buffer(kept))

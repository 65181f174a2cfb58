# ruff: noqa: T201 (stdout is the line to the server)
"""Confines itself as the real worker does, then tries what no job may; reports the error number of each, 0 for none.

Arguments: a folder that is not the job's, with a `secret` in it, a socket `door` and a TCP port in `port`.
"""

import ctypes
import errno
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from service.worker.confinement import confine_worker
from service.worker.messages import WorkOrder

outside = Path(sys.argv[1])
order = WorkOrder.model_validate_json(sys.stdin.readline())
port = int((outside / "port").read_text())
state, server = order.folder.parent.parent, order.server_pid or 0
(own,) = order.files.values()
others = [path for path in (state / "artifacts").rglob("*") if path.is_file() and path != own.resolve()]
shutil.copy("/bin/true", order.folder / "program")
(order.folder / "program").chmod(0o755)
(order.folder / "way").symlink_to(state / "shoal.db")
confine_worker(order)
library = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: object) -> None:
    """A system call by its number on this architecture."""
    if library.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")


def connect(family: int, kind: int, address: object) -> None:
    with socket.socket(family, kind) as line:
        line.connect(address)
        line.send(b"x")


def write(path: Path) -> None:
    path.write_text("x")


def trace() -> None:
    attach, detach = 16, 17
    if library.ptrace(attach, server, None, None) < 0:
        raise OSError(ctypes.get_errno(), "")
    os.waitpid(server, 0x40000000)
    library.ptrace(detach, server, None, None)


def leave_the_group() -> None:
    if (child := os.fork()) == 0:
        try:
            os.setsid()
        except OSError as exc:
            os._exit(exc.errno or 1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, "")


def in_a_child(code: str) -> None:
    """What is denied to a worker is denied to what it starts."""
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise PermissionError(errno.EACCES, "") if "PermissionError" in done.stderr else RuntimeError(done.stderr)


def harden(path: Path) -> None:
    before = path.stat().st_mode
    path.chmod(0o777)
    after = path.stat().st_mode
    path.chmod(before & 0o7777)
    if after == before:
        raise PermissionError(errno.EPERM, "")


def send_unconnected() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.sendto(b"x", str(outside / "letters"))


def ring() -> None:
    call(425, 1, ctypes.create_string_buffer(120))


def read_memory() -> None:
    here = ctypes.create_string_buffer(8)
    mine = struct.pack("=QQ", ctypes.addressof(here), 8)
    try:
        call(310 if os.uname().machine == "x86_64" else 270, server, mine, 1, mine, 1, 0)
    except OSError as exc:
        # It may look, but nothing is at this address.
        if exc.errno != errno.EFAULT:
            raise


attacks: dict[str, Callable[[], object]] = {
    "own file": own.read_bytes,
    "own folder": lambda: write(order.folder / "tmp" / "mine"),
    "shared cache": lambda: write(order.cache_folder / "ours"),
    "database": (state / "shoal.db").read_bytes,
    "database, written": lambda: (state / "shoal.db").open("r+b").close(),
    "database, by a link": (order.folder / "way").read_bytes,
    "database, permissions": lambda: harden(state / "shoal.db"),
    "operator token": (state / "operator.token").read_bytes,
    "jobs of others": lambda: list((state / "jobs").iterdir()),
    "file of another": others[0].read_bytes,
    "file of another, linked": lambda: os.link(others[0], order.folder / "linked"),
    "secret outside": (outside / "secret").read_bytes,
    "written outside": lambda: write(outside / "new"),
    "deleted outside": (outside / "doomed").unlink,
    "secret outside, by a child": lambda: in_a_child(f"open({str(outside / 'secret')!r})"),
    "program of its own": lambda: subprocess.run([order.folder / "program"], check=True),
    "environment of the server": Path(f"/proc/{server}/environ").read_bytes,
    "memory of the server": lambda: Path(f"/proc/{server}/mem").open("rb").close(),
    "memory of the server, by a call": read_memory,
    "signal to the server": lambda: os.kill(server, 0),
    "trace of the server": trace,
    "TCP": lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port)),
    "TCP, by a child": lambda: in_a_child(f"import socket; socket.create_connection(('127.0.0.1', {port}))"),
    "UDP": lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", port)),
    "IPv6": lambda: socket.socket(socket.AF_INET6).close(),
    "local socket": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, str(outside / "door")),
    "local letters": send_unconnected,
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "new user namespace": lambda: call(272 if os.uname().machine == "x86_64" else 97, 0x10000000),
    "ring": ring,
    "session of its own": leave_the_group,
}

found = {}
for name, attack in attacks.items():
    try:
        attack()
        found[name] = 0
    except OSError as exc:
        found[name] = exc.errno or -1
if "x32" in sys.argv:
    library.syscall(0x40000000 + 39)
print(json.dumps({"type": "progress", "phase": "load", "fraction": 0.1, "metrics": found}), flush=True)
os.kill(os.getpid(), signal.SIGKILL)

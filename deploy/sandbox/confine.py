"""Confines this process: what it may touch is listed, all else is refused, and nothing takes that back.

To be called while the process has one thread: Landlock holds only for the thread that asks and those that it starts.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.errors import SandboxError
from deploy.sandbox import capabilities, landlock, loopback, seccomp
from deploy.sandbox.kernel import give_up_new_privileges, is_linux, threads
from deploy.sandbox.landlock import OWN, READ, WRITE_FILE, Rule
from deploy.sandbox.places import everyday, for_downloads
from deploy.sandbox.probe import Layer, probe

Mode = Literal["auto", "required", "off"]
"""Whether to use what there is, to insist on all of it, or to use nothing."""

Network = Literal["none", "own", "all"]

_INTERNET = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True)
class Policy:
    """What a process may touch besides Python, libraries and facts about the machine.

    Attributes:
        mode: How serious it is.
        reads: Files, and folders with all that is below them.
        writes: Folders to do as it likes in, short of starting programs.
        locks: Files that are there to be locked: they may be opened for writing, too.
        network: What it may call: nobody, itself and what it starts (`own`, where the system offers that, else nobody),
            or other machines.
    """

    mode: Mode = "auto"
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    locks: tuple[Path, ...] = ()
    network: Network = "none"


@dataclass(frozen=True)
class Confined:
    """What holds a process from now on: the layers that there are, and those that are missing."""

    layers: tuple[Layer, ...] = ()

    @property
    def summary(self) -> str:
        """Returns one line for logs."""
        if not self.layers:
            return "this process is not confined: the sandbox is off"
        present = [f"{one.name} {one.version}".strip() for one in self.layers if one.present]
        missing = [f"no {one.name}: {one.missing}" for one in self.layers if not one.present]
        return "; ".join([f"confined by {', '.join(present) or 'nothing'}", *missing])


def confine(policy: Policy) -> Confined:
    """Confines this process and all that it starts, for good.

    Args:
        policy: What it may touch.

    Returns:
        What holds it.

    Raises:
        SandboxError: A layer is missing and required, or cannot be put up though it is there.
    """
    if policy.mode == "off":
        return Confined()
    layers = probe()
    absent = [one for one in layers if not one.present]
    if policy.mode == "required" and absent:
        raise SandboxError("; ".join(f"{one.name} is required and missing: {one.missing}" for one in absent))
    if is_linux():
        _put_up(policy, {one.name for one in layers if one.present})
    return Confined(layers)


def _put_up(policy: Policy, present: set[str]) -> None:
    if (running := threads()) > 1:
        msg = f"{running} threads run already, and those would not be confined: confine first, import later"
        raise SandboxError(msg)
    try:
        families = _families(policy.network)
        give_up_new_privileges()
        if "landlock" in present:
            landlock.restrict(_rules(policy), tcp=bool(families))
        capabilities.drop()
        if "seccomp" in present:
            seccomp.restrict(families)
    except OSError as exc:
        msg = f"this process cannot be confined: {exc.strerror}; see `shoal doctor`, or set sandbox to off"
        raise SandboxError(msg) from exc


def _families(network: Network) -> tuple[int, ...]:
    """Returns the sockets that may be made, once what they lead to is as it shall be."""
    if network == "own":
        try:
            loopback.enter()
        except OSError:
            return ()
        # Netlink tells which devices there are: only the one.
        return (*_INTERNET, getattr(socket, "AF_NETLINK", socket.AF_INET))
    return _INTERNET if network == "all" else ()


def _rules(policy: Policy) -> Iterator[Rule]:
    yield from everyday()
    yield from for_downloads() if policy.network == "all" else ()
    # What a link leads to is opened, so that is what the rule must be for.
    yield from (Rule(Path(os.path.realpath(path)), READ) for path in policy.reads)
    yield from (Rule(path, OWN) for path in policy.writes)
    yield from (Rule(path, READ | WRITE_FILE) for path in policy.locks)

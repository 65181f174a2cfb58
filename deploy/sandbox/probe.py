"""What this machine offers to confine a process with. Asks, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.sandbox import landlock, seccomp


@dataclass(frozen=True)
class Layer:
    """One of the walls.

    Attributes:
        name: What it is called.
        forbids: What does not work behind it.
        version: Of its interface; empty where there is none.
        missing: Why it is not there, and what to do; empty where it is.
    """

    name: str
    forbids: str
    version: str = ""
    missing: str = ""

    @property
    def present(self) -> bool:
        """Whether it can be used."""
        return not self.missing


def probe() -> tuple[Layer, ...]:
    """Returns the layers, those that are missing too."""
    return (_landlock(), Layer("seccomp", "network, and system calls that no job needs", missing=seccomp.missing()))


def _landlock() -> Layer:
    forbids = "files that are not the job's"
    try:
        found = landlock.version()
    except OSError as exc:
        why = f"the kernel's surroundings forbid it ({exc.strerror}): a container needs a newer seccomp profile"
        return Layer("landlock", forbids, missing=why)
    if found < landlock.LEAST:
        why = "this kernel has none, or an early one: Linux 5.19 or later with `landlock` among its security modules"
        return Layer("landlock", forbids, str(found or ""), why)
    return Layer("landlock", forbids, str(found))

"""Numbers of the system calls that confined processes do not get, by architecture.

Source: `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h` of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class Architecture:
    """What a filter must know of a processor's system calls.

    Attributes:
        audit: The kernel's name for it, AUDIT_ARCH_*.
        column: Of the table below.
        compatible: Whether numbers may be those of another interface on the same processor (x32).
    """

    audit: int
    column: int
    compatible: bool


ARCHITECTURES: Final = MappingProxyType(
    {"x86_64": Architecture(0xC000003E, 0, compatible=True), "aarch64": Architecture(0xC00000B7, 1, compatible=False)}
)

# Name: (x86_64, aarch64); None where there is none.
_CALLS: Final = MappingProxyType(
    {
        # Other processes' memory and descriptors.
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "process_madvise": (440, 440),
        "kcmp": (312, 272),
        "pidfd_getfd": (438, 438),
        # What is mounted where, and other views of the system.
        "mount": (165, 40),
        "umount2": (166, 39),
        "pivot_root": (155, 41),
        "chroot": (161, 51),
        "open_tree": (428, 428),
        "move_mount": (429, 429),
        "fsopen": (430, 430),
        "fsconfig": (431, 431),
        "fsmount": (432, 432),
        "fspick": (433, 433),
        "mount_setattr": (442, 442),
        "unshare": (272, 97),
        "setns": (308, 268),
        # Out of the process group that the server ends.
        "setsid": (112, 157),
        "setpgid": (109, 154),
        # Files that cannot be opened: Landlock does not ask who changes their owners or attributes by their paths.
        "chown": (92, None),
        "lchown": (94, None),
        "fchownat": (260, 54),
        "setxattr": (188, 5),
        "lsetxattr": (189, 6),
        "removexattr": (197, 14),
        "lremovexattr": (198, 15),
        "setxattrat": (463, 463),
        "removexattrat": (466, 466),
        "file_setattr": (469, 469),
        # Files past their folders' permissions.
        "open_by_handle_at": (304, 265),
        "fanotify_init": (300, 262),
        "quotactl": (179, 60),
        "quotactl_fd": (443, 443),
        "acct": (163, 89),
        # Calls that no filter sees: those inside a ring are made by the kernel.
        "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
        # Large, seldom used parts of the kernel that exploits like.
        "bpf": (321, 280),
        "perf_event_open": (298, 241),
        "userfaultfd": (323, 282),
        "add_key": (248, 217),
        "request_key": (249, 218),
        "keyctl": (250, 219),
        "vmsplice": (278, 75),
        # The machine itself.
        "kexec_load": (246, 104),
        "kexec_file_load": (320, 294),
        "init_module": (175, 105),
        "finit_module": (313, 273),
        "delete_module": (176, 106),
        "reboot": (169, 142),
        "swapon": (167, 224),
        "swapoff": (168, 225),
        "settimeofday": (164, 170),
        "clock_settime": (227, 112),
        "clock_adjtime": (305, 266),
        "adjtimex": (159, 171),
        "sethostname": (170, 161),
        "setdomainname": (171, 162),
        "syslog": (103, 116),
        "vhangup": (153, 58),
        "iopl": (172, None),
        "ioperm": (173, None),
        "modify_ldt": (154, None),
        "uselib": (134, None),
    }
)

# Nor does it ask who changes permissions, which libraries do when they copy files: those are told that it was done.
_CHANGED_IN_VAIN: Final = MappingProxyType({"chmod": (90, None), "fchmodat": (268, 53), "fchmodat2": (452, 452)})

_SPECIAL: Final = MappingProxyType(
    {"socket": (41, 198), "socketpair": (53, 199), "clone": (56, 220), "clone3": (435, 435), "seccomp": (317, 277)}
)


def forbidden(architecture: Architecture) -> dict[str, int]:
    """Returns the calls that are refused whatever their arguments, by name."""
    return _of(_CALLS, architecture)


def in_vain(architecture: Architecture) -> dict[str, int]:
    """Returns the calls that seem to succeed and do nothing, by name."""
    return _of(_CHANGED_IN_VAIN, architecture)


def _of(calls: Mapping[str, tuple[int, int | None]], architecture: Architecture) -> dict[str, int]:
    found = {name: numbers[architecture.column] for name, numbers in calls.items()}
    return {name: number for name, number in found.items() if number is not None}


def number_of(name: str, architecture: Architecture) -> int:
    """Returns the number of a call whose arguments matter."""
    return _SPECIAL[name][architecture.column]

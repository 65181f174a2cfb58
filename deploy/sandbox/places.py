"""What every confined process may read: Python with its packages, the system's libraries, facts about the machine."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy.sandbox.landlock import LOOK, READ, RUN, USE, WRITE_FILE, Rule

_ROOT: Final = Path(__file__).resolve().parents[2]
_OURS: Final = ("compressors", "deploy", "protos", "service")

_PROGRAMS: Final = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt", "/nix/store", "/gnu/store")
# Not /etc as a whole: private keys and passwords of other programs lie there.
_SETTINGS: Final = (
    "/etc/alternatives",
    "/etc/debian_version",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/lsb-release",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/nv_tegra_release",
    "/etc/OpenCL",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
)
_FACTS: Final = ("/proc", "/sys")
_ALWAYS_DEVICES: Final = ("/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")
# Of NVIDIA's GPUs and Jetsons, Intel's and AMD's; only where there are any.
_DEVICES: Final = ("nvidia*", "nvhost*", "nvmap", "nvgpu", "nvsciipc", "dri", "kfd", "accel")
_NAMES: Final = (
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/run/systemd/resolve",
)
_NARROWEST: Final = 2
"""Parts of a path that a package folder must have: `/` itself is nobody's package folder."""


def everyday() -> Iterator[Rule]:
    """Yields the rules."""
    yield from (Rule(Path(path), RUN) for path in _PROGRAMS)
    yield from (Rule(path, RUN) for path in _python())
    yield from (Rule(path, READ) for path in _libraries())
    yield from (Rule(Path(path), READ) for path in (*_SETTINGS, *_FACTS))
    yield from (Rule(Path(path), READ | WRITE_FILE) for path in _ALWAYS_DEVICES)
    yield from (Rule(path, USE) for pattern in _DEVICES for path in Path("/dev").glob(pattern))
    # The source folder of a checkout holds more than its packages.
    yield Rule(_ROOT, LOOK)
    yield from (Rule(_ROOT / name, READ) for name in _OURS)
    # It says which version these are, and is looked for before any other.
    yield from (Rule(path, READ) for path in _ROOT.glob("*.egg-info"))


def for_downloads() -> Iterator[Rule]:
    """Yields what takes to find and trust other machines."""
    yield from (Rule(Path(path), READ) for path in _NAMES)


def _python() -> set[Path]:
    """Returns where the interpreter and its packages are."""
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, site.getuserbase() or ""}
    found |= {*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values(), *sys.path}
    found |= {str(Path(sys.executable).resolve().parent)}
    paths = {Path(path) for path in found if path and Path(path).is_absolute()}
    return {path for path in paths if path != _ROOT and len(path.parts) > _NARROWEST}


def _libraries() -> set[Path]:
    listed = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return {Path(path) for path in listed if path and Path(path).is_absolute() and len(Path(path).parts) > _NARROWEST}

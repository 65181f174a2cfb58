"""Timing caches: what TensorRT measured of kernels while it built one engine, used again by the next.

Candidates of a job share most of their layers, so the second engine need not try all kernels again. A cache holds for
one GPU and one version of TensorRT. Builders that end at the same time take turns, and each adds to what the one before
has left.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.engines.place import write_atomically
from deploy.gpu import Gpu


def cache_path(folder: Path, gpu: Gpu, tensorrt: str) -> Path:
    """Returns where the cache of a GPU and a version of TensorRT lies."""
    key = "|".join((gpu.name, gpu.compute_capability, str(gpu.memory_bytes >> 20), gpu.cuda, tensorrt))
    return folder / f"timing-{hashlib.sha256(key.encode()).hexdigest()[:16]}.cache"


def load_cache(path: Path) -> bytes:
    """Returns the cache's content; nothing where there is none, which TensorRT takes as an empty one."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def save_cache(path: Path, merge: Callable[[bytes], bytes]) -> None:
    """Replaces the cache, with nobody in between.

    Args:
        path: See `cache_path`.
        merge: From what is there now to what shall be there.
    """
    with _alone(path):
        write_atomically(path, merge(load_cache(path)))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

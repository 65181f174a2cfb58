"""What a worker may touch: its own folder, what its order names, the shared cache; no network."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from deploy.errors import SandboxError
from deploy.measure.turn import lock_file
from deploy.sandbox import Confined, Network, Policy, confine, probe
from service.settings import ServerSettings
from service.worker.messages import WorkOrder

_LOG = logging.getLogger(__name__)


def confine_worker(order: WorkOrder) -> Confined:
    """Confines this process to what its order takes, for good; nothing of the order's was opened before.

    Raises:
        SandboxError: It cannot be confined as it must be.
    """
    return confine(
        Policy(
            mode=order.sandbox,
            reads=tuple(order.files.values()),
            writes=(order.folder, order.cache_folder),
            locks=(lock_file(),),
            network=_network(),
        )
    )


def _network() -> Network:
    """Returns `own` where several GPUs train together: their processes talk over the loopback device."""
    if len(list(Path("/dev").glob("nvidia[0-9]*"))) < 2:
        return "none"
    # Ways to talk that need more than that: local sockets, and shared memory that all users share.
    os.environ.setdefault("NCCL_CUMEM_ENABLE", "0")
    os.environ.setdefault("NCCL_SHM_DISABLE", "1")
    return "own"


def check_sandbox(settings: ServerSettings) -> None:
    """Logs, once for a server, what this machine lacks to confine workers with.

    Raises:
        SandboxError: Something is missing, and the settings require it.
    """
    if settings.sandbox == "off":
        _LOG.warning("the sandbox is off: what a model or data file makes a worker do, it does as this server's user")
        return
    missing = [f"{one.name}: {one.missing}" for one in probe() if not one.present]
    if missing and settings.sandbox == "required":
        raise SandboxError(f"the setting `sandbox` is `required`, and this machine lacks {'; '.join(missing)}")
    for one in missing:
        _LOG.warning("workers are less confined than they could be; this machine lacks %s", one)

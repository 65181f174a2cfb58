"""Workers on the nodes of a Ray cluster.

Each errand is an actor of its own, which Ray places where there is room, or for which an autoscaler makes some. Ray
retries nothing: a job that lost its node goes back into the queue, and on from what was mirrored.
"""

from __future__ import annotations

import logging
import os
from asyncio import to_thread
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

from service.errors import ExecutorError
from service.executors.base import Ears, Ended, Errand, Executor
from service.executors.node import Parcel
from service.executors.visit import Visit, resources_of
from service.jobs.admission import artifact_references
from service.programs import version_of
from service.resuming.checkpoints import Checkpoints
from service.settings import ServerSettings
from service.storage.artifacts import ARTIFACT_PREFIX, Artifact, ArtifactStore
from service.waiting import until_there

_LOG = logging.getLogger(__name__)
_OBJECT_STORE_BYTES: Final = 256 << 20
"""Of a cluster that is started with the server. Little goes through it: files travel by the artifact store."""

# Of the server alone: what it listens on, and what nodes may not know.
_SERVERS_OWN: Final = frozenset(
    {"address", "state_dir", "database_url", "storage_url", "data_roots", "metrics_address", "executor", "workers"}
)
_NOT_FOR_NODES: Final = ("tls_", "ray_", "principal_")


@final
class RayExecutor(Executor):
    """Runs workers on a Ray cluster's nodes."""

    def __init__(self, settings: ServerSettings, artifacts: ArtifactStore) -> None:
        """Connects to nothing yet."""
        self._settings, self._artifacts = settings, artifacts
        self._checkpoints = Checkpoints(artifacts.storage) if settings.mirrors_checkpoints else None
        self._connected = False

    async def start(self) -> None:
        """Connects to the cluster, or starts one.

        Raises:
            ExecutorError: Ray is not installed, or there is no such cluster.
        """
        # In a thread: there Ray leaves this process's signals alone.
        await to_thread(self._connect)

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError as exc:
            raise ExecutorError(
                "executor ray needs the package ray, which is not installed; install shoal[ray]"
            ) from exc
        address = self._settings.ray_address
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "namespace": "shoal"}
        if address == "local":
            options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ValueError, RuntimeError, OSError) as exc:
            raise ExecutorError(
                f"there is no Ray cluster at ray_address {address!r} ({exc}); start one with `ray start --head`, or "
                "set ray_address to `local` to have one started"
            ) from exc
        self._connected = True

    def close(self) -> None:
        """Disconnects; a cluster that was started with the server ends."""
        if self._connected:
            import ray

            ray.shutdown()
            self._connected = False

    def devices(self) -> None:
        """Returns None: an autoscaler may bring a node that has what is asked for."""

    def forget(self, job_id: str) -> None:
        """Drops a job's checkpoints from the storage."""
        if self._checkpoints is not None:
            self._checkpoints.drop(job_id)

    async def run(self, errand: Errand, ears: Ears) -> Ended:
        """Runs a worker on a node; see `Executor.run`."""
        parcel = await to_thread(self._pack, errand)
        visit = Visit(self._settings, errand, ears)
        landed = await visit.make(parcel)
        if isinstance(landed, Ended):
            return landed
        if landed.log:
            await to_thread(_keep_log, errand.order.folder, landed.log)
        return await self._taken(landed.ended, ears)

    async def _taken(self, ended: Ended, ears: Ears) -> Ended:
        """Makes sure that a node's results stay in the store: the node could not say in the database that they will."""
        digests = [artifact.sha256 for artifact in ended.artifacts]
        await until_there(lambda: ears.hold(digests), ears.stop, ears.tell)
        if await until_there(lambda: self._all_there(ended.artifacts), ears.stop, ears.tell):
            return ended
        return Ended(ended.exit, lost="its results went out of the storage before they were recorded")

    def _all_there(self, artifacts: tuple[Artifact, ...]) -> bool:
        return all(self._artifacts.holds(artifact.sha256, artifact.size_bytes) for artifact in artifacts)

    def _pack(self, errand: Errand) -> Parcel:
        names = {reference.name for reference in artifact_references(errand.order.spec)}
        settings = self._settings
        given = settings.model_dump(exclude_defaults=True, exclude=set(_SERVERS_OWN))
        if settings.ray_memory_bytes is not None:
            given.setdefault("worker_memory_bytes", settings.ray_memory_bytes)
        return Parcel(
            errand=errand,
            artifacts=tuple(self._artifacts.get(name.removeprefix(ARTIFACT_PREFIX)) for name in sorted(names)),
            storage=settings.storage,
            settings={name: value for name, value in given.items() if not name.startswith(_NOT_FOR_NODES)},
            root=settings.ray_node_dir,
            mirror=self._checkpoints is not None,
            processors=settings.ray_num_cpus,
            gpus=resources_of(settings, errand.order.spec)["num_gpus"] > 0,
            silence_seconds=settings.ray_silence_seconds,
            version=version_of("shoal"),
        )


def _keep_log(folder: Path, content: bytes) -> None:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log").write_bytes(content)

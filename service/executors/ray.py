"""Workers on the nodes of a Ray cluster.

Each errand is an actor of its own, which Ray places where there is room, or for which an autoscaler makes some. Ray
retries nothing: a job that lost its node goes back into the queue, and on from what was mirrored.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from asyncio import to_thread
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

from service.admission import artifact_references
from service.artifacts import ARTIFACT_PREFIX, ArtifactStore
from service.checkpoints import Checkpoints
from service.errors import ExecutorError
from service.executors.base import Ears, Ended, Errand, Executor
from service.executors.node import Landed, NodeWorker, Parcel
from service.process import Exit
from service.programs import version_of
from service.settings import ServerSettings
from service.spec import JobSpec
from service.watching.relayed import SpanRelay
from service.work import EVENT_ADAPTER, ProgressEvent, SpanEvent

_LOG = logging.getLogger(__name__)
_PATIENCE: Final = 0.5
"""Seconds that a node keeps a question for news."""

_TELL_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.5
_PLACES: Final = 5
"""How often a node may die under a job that has not begun."""

_OBJECT_STORE_BYTES: Final = 256 << 20
"""Of a cluster that is started with the server. Little goes through it: files travel by the artifact store."""

# Of the server alone: what it listens on, and what nodes may not know.
_SERVERS_OWN: Final = frozenset(
    {"address", "state_dir", "database_url", "storage_url", "data_roots", "metrics_address", "executor"}
)
_NOT_FOR_NODES: Final = ("tls_", "ray_", "principal_")


@final
class RayExecutor(Executor):
    """Runs workers on a Ray cluster's nodes."""

    def __init__(self, settings: ServerSettings, artifacts: ArtifactStore) -> None:
        """Connects to nothing yet."""
        self._settings, self._artifacts = settings, artifacts
        self._checkpoints = Checkpoints(settings.storage) if settings.mirrors_checkpoints else None
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
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
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

    def forget(self, job_id: str) -> None:
        """Drops a job's checkpoints from the storage."""
        if self._checkpoints is not None:
            self._checkpoints.drop(job_id)

    async def run(self, errand: Errand, ears: Ears) -> Ended:
        """Runs a worker on a node; see `Executor.run`."""
        if errand.order.spec.target.agent is not None:
            raise ExecutorError(
                f"the target {errand.order.spec.target.device} cannot be asked from a Ray cluster's nodes yet; use a "
                "server with executor local for devices of agents"
            )
        parcel = await to_thread(self._pack, errand)
        visit = _Visit(self._settings, errand, ears)
        landed = await visit.make(parcel)
        if isinstance(landed, Ended):
            return landed
        if landed.log:
            await to_thread(_keep_log, errand.order.folder, landed.log)
        return landed.ended

    def _pack(self, errand: Errand) -> Parcel:
        names = {reference.name for reference in artifact_references(errand.order.spec)}
        settings = self._settings
        given = settings.model_dump(exclude_defaults=True, exclude=set(_SERVERS_OWN))
        return Parcel(
            errand=errand,
            artifacts=tuple(self._artifacts.get(name.removeprefix(ARTIFACT_PREFIX)) for name in sorted(names)),
            storage=settings.storage,
            settings={name: value for name, value in given.items() if not name.startswith(_NOT_FOR_NODES)},
            root=settings.ray_node_dir,
            mirror=self._checkpoints is not None,
            silence_seconds=settings.ray_silence_seconds,
            version=version_of("shoal"),
        )


@final
class _Visit:
    """One errand's way through a cluster."""

    def __init__(self, settings: ServerSettings, errand: Errand, ears: Ears) -> None:
        self._options = resources_of(settings, errand.order.spec)
        self._errand, self._ears = errand, ears
        self._silence = settings.ray_silence_seconds
        self._actor: Any = None
        self._going = True

    async def make(self, parcel: Parcel) -> Landed | Ended:
        """Returns what came of a parcel, or that it was stopped or lost on the way."""
        from ray.exceptions import RayError

        stopping = asyncio.create_task(self._ears.stop.wait())
        try:
            if not await self._arrive(parcel, stopping):
                return Ended(Exit(stopped=True))
            await self._listen(parcel.errand.order.traceparent, stopping)
            landed = await self._call("landed")
        except RayError as exc:
            self._going = False
            _LOG.warning("the node of job %s is lost: %s", self._errand.job_id, _why(exc))
            return Ended(Exit(stopped=self._ears.stop.is_set()), lost="its node in the Ray cluster died or went away")
        finally:
            stopping.cancel()
            self._leave()
        assert isinstance(landed, Landed)
        return landed

    def _leave(self) -> None:
        """Frees the node. One whose worker still runs is asked to stop, which it does without being watched."""
        import ray

        with suppress(Exception):
            if self._going:
                self._actor.stop.remote()
            else:
                ray.kill(self._actor)

    async def _arrive(self, parcel: Parcel, stopping: asyncio.Task[bool]) -> bool:
        """Waits for a node, which takes no time of the job's; returns whether there is one.

        A node may die before anything began on it; then another will do.
        """
        from ray.exceptions import ActorDiedError

        for left in reversed(range(_PLACES)):
            self._actor = _actor(self._options)
            arriving = asyncio.ensure_future(_future(self._actor.start.remote(parcel)))
            try:
                if not await self._placed(arriving, stopping):
                    self._going = False
                    return False
                _LOG.info("job %s runs on %s", self._errand.job_id, arriving.result())
                break
            except ActorDiedError as exc:
                if not left:
                    raise
                _LOG.info("job %s looks for another node: %s", self._errand.job_id, _why(exc))
            finally:
                arriving.cancel()
        return True

    async def _placed(self, arriving: asyncio.Future[str], stopping: asyncio.Task[bool]) -> bool:
        patience = _PATIENCE
        while True:
            await asyncio.wait({arriving, stopping}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if arriving.done() or stopping.done():
                return arriving.done()
            message = f"Waits for a node of the Ray cluster with {in_words(self._options)}"
            self._ears.on_progress(ProgressEvent(phase="wait", fraction=0, message=message))
            patience = _TELL_SECONDS

    async def _listen(self, traceparent: str, stopping: asyncio.Task[bool]) -> None:
        """Hands on what the worker says until it has said all."""
        relay, after, told = SpanRelay(traceparent), 0, False
        while True:
            if stopping.done() and not told:
                await self._call("stop")
                told = True
            lines, over = await self._call("events", after, _PATIENCE)
            after += len(lines)
            for line in lines:
                match EVENT_ADAPTER.validate_json(line):
                    case ProgressEvent() as event:
                        self._ears.on_progress(event)
                    case SpanEvent() as event:
                        relay.take(event)
            if over:
                self._going = False
                return

    async def _call(self, method: str, *arguments: Any) -> Any:
        """Asks the node, again and again where it cannot be reached for a moment.

        Raises:
            RayError: It is not there any more.
        """
        from ray.exceptions import ActorUnavailableError

        end = time.monotonic() + self._silence
        while True:
            try:
                return await _future(getattr(self._actor, method).remote(*arguments))
            except ActorUnavailableError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)


def resources_of(settings: ServerSettings, spec: JobSpec) -> dict[str, Any]:
    """Returns what a job asks Ray for, as an actor's options."""
    kind, _, number = spec.target.local_device.partition(":")
    wanted = int(number or 0) + 1 if kind == "cuda" and spec.target.agent is None else 0
    options: dict[str, Any] = {
        "num_cpus": settings.ray_num_cpus,
        "num_gpus": max(settings.ray_num_gpus, wanted),
        "resources": dict(settings.ray_resources),
    }
    if settings.ray_memory_bytes is not None:
        options["memory"] = settings.ray_memory_bytes
    return options


def in_words(options: dict[str, Any]) -> str:
    """Returns what a job asks Ray for, for people."""
    asked = [f"{options['num_cpus']:g} CPU", f"{options['num_gpus']:g} GPU" if options["num_gpus"] else ""]
    asked += [f"{options['memory'] / 1e9:g} GB" if "memory" in options else ""]
    asked += [f"{amount:g} {name}" for name, amount in options["resources"].items()]
    return ", ".join(filter(None, asked))


def _actor(options: dict[str, Any]) -> Any:
    import ray

    # Spread: neighbours on a machine disturb what is measured there. Calls at once: news, a stop, and some to spare.
    once = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 4, "scheduling_strategy": "SPREAD"}
    return ray.remote(NodeWorker).options(**once, **options).remote()


def _why(error: Exception) -> str:
    """Returns the part of an error of Ray's that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:1] + lines[4:7])[:500]


async def _future(reference: Any) -> Any:
    return await asyncio.wrap_future(reference.future())


def _keep_log(folder: Path, content: bytes) -> None:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log").write_bytes(content)

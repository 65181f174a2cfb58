"""One errand's way through a Ray cluster: an actor that waits for a node, what is said there, what comes of it."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any, Final, final

from service.errors import ServiceError
from service.executors.base import Ears, Ended, Errand
from service.executors.node import Landed, NodeWorker, Parcel
from service.executors.questions import carried, failed
from service.settings import ServerSettings
from service.spec import JobSpec
from service.watching.relayed import SpanRelay
from service.worker.messages import EVENT_ADAPTER, DeviceEvent, ProgressEvent, SpanEvent
from service.worker.process import Exit

_LOG = logging.getLogger(__name__)
_PATIENCE: Final = 0.5
"""Seconds that a node keeps a question for news."""

_TELL_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.5
_PLACES: Final = 5
"""How often a node may die under a job that has not begun."""


@final
class Visit:
    """One errand at a cluster. Goes once."""

    def __init__(self, settings: ServerSettings, errand: Errand, ears: Ears) -> None:
        self._options = resources_of(settings, errand.order.spec)
        self._errand, self._ears = errand, ears
        self._silence = settings.ray_silence_seconds
        self._actor: Any = None
        self._questions: set[asyncio.Task[None]] = set()
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
            await self._hang_up()
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
        either: set[asyncio.Future[Any]] = {arriving, stopping}
        while True:
            await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
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
                    case DeviceEvent() as event:
                        self._questions.add(asyncio.create_task(self._carry(event.key)))
            if over:
                self._going = False
                return

    async def _carry(self, key: str) -> None:
        """Has a question of the worker's answered; what goes wrong with it is its answer."""
        from ray.exceptions import RayError

        # Whoever listens to a node that is lost says so.
        with suppress(RayError):
            try:
                files = await self._call("question", key)
                assert self._ears.desk is not None
                answer = await carried(self._ears.desk, self._errand.order.folder, key, files)
            except (ServiceError, OSError, ValueError) as exc:
                _LOG.error("cannot carry device work of job %s", self._errand.job_id, exc_info=exc)
                answer = failed(key, "the server could not carry work to the device; its log says more")
            await self._call("answer", key, answer)

    async def _hang_up(self) -> None:
        for task in self._questions:
            task.cancel()
        await asyncio.gather(*self._questions, return_exceptions=True)
        if self._ears.desk is not None:
            await self._ears.desk.close()

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
    return ray.remote(NodeWorker).options(**once, **options).remote(own_process=True)


def _why(error: Exception) -> str:
    """Returns the part of an error of Ray's that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:1] + lines[4:7])[:500]


async def _future(reference: Any) -> Any:
    return await asyncio.wrap_future(reference.future())

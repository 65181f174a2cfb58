"""Which job runs when, and what becomes of it.

A server that dies or is stopped puts its jobs back into the queue, because they are not the cause; up to `max_attempts`
deaths, in case that they are. A worker that dies by itself may well be killed by its input. So its job goes on, up to
`worker_retries` times, only if it had kept some work that the attempt before had not: what kills every worker at the
same place makes the job FAILED (reason WORKER_DIED) at the second try. Both go on from what the job's journal holds.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar, final

from service.convert import result_fields
from service.devices.desk import Desk
from service.errors import DatabaseBusyError, LeaseLostError, NotFoundError, StorageUnavailableError
from service.executors import executor_for
from service.executors.base import Ears, Ended, Errand
from service.executors.leftovers import kill_leftovers
from service.faults import DISK_FULL, TIME_LIMIT, UNEXPECTED, WORKER_LOST, classify
from service.jobs.job import Failure, Job
from service.jobs.states import State
from service.jobs.store import Ending, JobStore
from service.settings import ServerSettings
from service.spec import JobSpec
from service.storage.artifacts import ArtifactStore
from service.supervision.dryruns import DryRuns
from service.supervision.orders import job_order, open_desk
from service.supervision.progress import ProgressWriter
from service.supervision.setbacks import blamed_on_disk, is_setback, make_room, wait_for_room
from service.waiting import until_there
from service.watching.jobs import JobWatch
from service.worker.failures import failure_of, has_died
from service.worker.messages import AnalysisResult, ProgressEvent

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 10.0

_LOGS = ("log", "log.1")

_T = TypeVar("_T")


@final
class Supervisor:
    """Runs workers for queued jobs and for dry runs. Belongs to one event loop."""

    def __init__(
        self, settings: ServerSettings, jobs: JobStore, artifacts: ArtifactStore, desk: Desk, watch: JobWatch
    ) -> None:
        """Runs nothing before `start`."""
        self._watch = watch
        self._settings = settings
        self._jobs = jobs
        self._executor = executor_for(settings, artifacts)
        self._desk = desk
        self._folder = settings.state_dir / "jobs"
        self._wake = asyncio.Event()
        self._stops: dict[str, asyncio.Event] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._attempts: dict[str, tuple[int, asyncio.Task[None]]] = {}
        self._lost: set[str] = set()
        self._ending: set[str] = set()
        self._scheduler: asyncio.Task[None] | None = None
        self._draining = asyncio.Event()
        self._dry_runs = DryRuns(settings, self._executor, desk, watch, self._draining)

    async def start(self) -> None:
        """Sorts out what a dead server left behind, then starts to work.

        Raises:
            ExecutorError: The executor cannot be used.
        """
        await self._executor.start()
        await asyncio.to_thread(self._clear_leftovers)
        await self.take_back(starting=True)
        self._scheduler = asyncio.create_task(self._schedule())
        self._wake.set()

    async def take_back(self, *, starting: bool = False) -> None:
        """Puts jobs back that were left behind; at the start, those that this server ran before are among them."""
        limit, held = self._settings.max_attempts, self.held()
        for job in await asyncio.to_thread(lambda: self._jobs.recover(limit, held, starting=starting)):
            _LOG.warning("job %s was left behind by a server that died; it is %s now", job.id, job.state)
            if job.finished:
                await self._desk.drop(job.name)
                await asyncio.to_thread(self._clear, job.id)
        self._wake.set()

    def held(self) -> dict[str, int]:
        """Returns the jobs that run here, with the attempt of each."""
        return {job_id: attempt for job_id, (attempt, _) in self._attempts.items()}

    def stop_job(self, job_id: str) -> None:
        """Stops the worker of a job that runs here; whether it is over or goes on later, its state says."""
        if (stop := self._stops.get(job_id)) is not None:
            stop.set()

    def lose(self, job_id: str, attempt: int) -> None:
        """Drops an attempt that runs here at what is another server's job now: its worker is killed, nothing is kept.

        One whose end is just being written is left alone: the writing finds out by itself.
        """
        present, task = self._attempts.get(job_id, (None, None))
        if task is not None and present == attempt and job_id not in self._lost | self._ending:
            _LOG.error("job %s was taken from this server, whose lease ran out; its worker is killed", job_id)
            self._lost.add(job_id)
            task.cancel()

    def wake(self) -> None:
        """Says that there may be a new job."""
        self._wake.set()

    async def cancel(self, job_id: str, principal: str | None = None) -> Job:
        """Asks for a job to be stopped and returns it as it is then.

        Raises:
            NotFoundError: There is no such job, or it is another principal's.
        """
        await asyncio.to_thread(self._jobs.get, job_id, principal)
        job = await asyncio.to_thread(self._jobs.request_cancel, job_id)
        if job.state is State.CANCELLING:
            # Where it runs elsewhere, the server that runs it will see.
            self.stop_job(job_id)
        elif job.state is State.CANCELLED:
            await asyncio.to_thread(self._clear, job_id)
        return job

    async def drain(self) -> None:
        """Stops all workers and puts their jobs back into the queue. Nothing starts after this."""
        self._draining.set()
        self._wake.set()
        if self._scheduler is not None:
            await self._scheduler
        for stop in self._stops.values():
            stop.set()
        if self._running:
            await asyncio.wait(self._running)

    def devices(self) -> Sequence[str] | None:
        """Returns the devices where workers run; None where only running a job tells. Blocks."""
        return self._executor.devices()

    def close(self) -> None:
        """Lets go of the executor, after `drain` and the last dry run. Blocks."""
        self._executor.close()

    async def analyze(self, spec: JobSpec, *, skip_floor: bool) -> AnalysisResult:
        """Runs a dry run in a worker; cancelling this call kills the worker.

        Raises:
            QuotaError: Too many wait already.
            WorkerError: The worker could not do it, or died.
            TimeLimitError: It took too long.
            DrainingError: The server is stopping.
        """
        return await self._dry_runs.analyze(spec, skip_floor=skip_floor)

    async def _schedule(self) -> None:
        while not self._draining.is_set():
            await self._wake.wait()
            self._wake.clear()
            try:
                await wait_for_room(self._settings, self._draining)
                await self._fill()
            except Exception:  # noqa: BLE001 (the queue must not stand still because of one row)
                _LOG.exception("cannot take the next job from the queue, trying again")
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()

    async def _fill(self) -> None:
        while len(self._running) < self._settings.workers and not self._draining.is_set():
            job = await self._persist(self._jobs.claim)
            if job is None:
                return
            if (before := self._attempts.get(job.id)) is not None:
                self.lose(job.id, before[0])
                await asyncio.wait({before[1]})
            self._launch(job)

    def _launch(self, job: Job) -> None:
        stop = self._stops[job.id] = asyncio.Event()
        task = asyncio.create_task(self._run(job, stop))
        self._running.add(task)
        self._attempts[job.id] = (job.attempts, task)
        task.add_done_callback(lambda task: self._landed(job.id, task))

    def _landed(self, job_id: str, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        del self._attempts[job_id], self._stops[job_id]
        self._lost.discard(job_id)
        self._ending.discard(job_id)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("a job's supervision failed; the job is put back once its lease is over", exc_info=error)

    async def _run(self, job: Job, stop: asyncio.Event) -> None:
        place = await asyncio.to_thread(self._watch.place, job)
        with self._watch.following(job, place):
            await self._see_through(job, stop)

    async def _see_through(self, job: Job, stop: asyncio.Event) -> None:
        _LOG.info("job %s starts, attempt %d", job.id, job.attempts)
        try:
            ending = await self._work(job, stop)
            self._ending.add(job.id)
            if ending is None:
                job = await self._persist(lambda: self._jobs.requeue(job.id, job.attempts))
            else:
                job = await self._persist(lambda: self._jobs.finish(job.id, ending, job.attempts))
        except LeaseLostError as exc:
            _LOG.error("job %s: %s", job.id, exc)
            self._lost.add(job.id)
            return
        finally:
            if job.id in self._lost:
                # Whoever has it now works in a folder of their own.
                await asyncio.to_thread(self._clear, job.id)
        _LOG.info("job %s is %s", job.id, job.state)
        if job.finished:
            await self._persist(lambda: self._desk.forget(job.name))
            await asyncio.to_thread(self._clear, job.id)

    async def _work(self, job: Job, stop: asyncio.Event) -> Ending | None:
        """Runs the worker; returns how the job ends, or None if it was stopped or is to go on in another worker."""
        writer = ProgressWriter(
            lambda progress: self._jobs.record_progress(job.id, progress, job.attempts),
            self._settings.progress_interval,
        )
        try:
            ended = await self._attempt(job, writer, stop)
            if ended.report is not None:
                result = result_fields(ended.report, ended.artifacts)
                return Ending(State.SUCCEEDED, result=result, artifacts=ended.artifacts)
            if ended.exit.stopped:
                return None
            if ended.lost:
                return await self._after_loss(job, ended.lost)
            failure = failure_of(ended.exit, job.spec.time_limit.total_seconds())
            return await self._set_back(job, blamed_on_disk(failure, scarce=ended.scarce), got_further=ended.went_on)
        except LeaseLostError:
            raise
        except (DatabaseBusyError, StorageUnavailableError) as exc:
            _LOG.warning("job %s goes back to the queue: %s", job.id, exc)
            return None
        except Exception as exc:  # noqa: BLE001 (the boundary: a job never gets lost)
            return await self._set_back(job, _failure_from(exc), got_further=False)
        finally:
            await writer.close()

    async def _set_back(self, job: Job, failure: Failure, *, got_further: bool) -> Ending | None:
        if not is_setback(failure, got_further=got_further):
            return _failed(failure)
        if failure.reason == DISK_FULL.reason:
            # Before anything is written: the database may be on that disk too.
            await asyncio.to_thread(make_room, self._folder / job.id, self._settings)
        count = await self._persist(lambda: self._jobs.count_against(job.id, "setbacks", job.attempts))
        if count > self._settings.worker_retries:
            return _failed(failure)
        _LOG.warning("job %s goes on in another worker: %s", job.id, failure.message)
        return None

    async def _attempt(self, job: Job, writer: ProgressWriter, stop: asyncio.Event) -> Ended:
        with self._watch.attempt(job) as attempt:

            def report(event: ProgressEvent) -> None:
                attempt.entered(event.phase)
                writer.offer(event)

            order = job_order(self._settings, self._folder / job.id, job, attempt.traceparent)
            desk = open_desk(self._desk, order, writer.remark)
            ears = Ears(report, stop, desk, writer.remark, lambda digests: self._jobs.hold(job.id, digests))
            ended = await self._executor.run(Errand(order, job.principal, job.attempts), ears)
            attempt.died = bool(ended.lost) or has_died(ended.exit)
            return ended

    async def _after_loss(self, job: Job, why: str) -> Ending | None:
        """Returns None for a job that goes on after its machine was lost; it ends when that happens again and again."""
        losses = await self._persist(lambda: self._jobs.count_against(job.id, "losses", job.attempts))
        if losses < self._settings.max_attempts:
            _LOG.warning("job %s goes on elsewhere: %s", job.id, why)
            return None
        message = f"the machine that ran this job was lost {losses} times, the last time because {why}"
        return _failed(Failure(reason=WORKER_LOST.reason, message=message, blame=WORKER_LOST.blame))

    async def _persist(self, call: Callable[[], _T]) -> _T:
        """Tries until it can be stored, however long that takes: a worker's work is not lost with a disk or database.

        When the server stops meanwhile, the next one sorts it out.
        """
        return await until_there(call, self._draining, lambda _message: self._watch.meter.database_retried())

    def _clear(self, job_id: str) -> None:
        """Removes a finished job's working files and checkpoints; its log stays."""
        self._executor.forget(job_id)
        folder = self._folder / job_id
        for path in folder.glob("*"):
            if path.name in _LOGS:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _clear_leftovers(self) -> None:
        """Kills what outlived the server that started it, and clears what it did not live to clear."""
        kill_leftovers(lambda folder: folder.parent in {self._folder, self._dry_runs.folder})
        shutil.rmtree(self._dry_runs.folder, ignore_errors=True)
        for folder in self._folder.glob("*"):
            # Of a job that is no more, `service.server.keeping` clears the log too.
            with suppress(NotFoundError):
                if any(path.name not in _LOGS for path in folder.glob("*")) and self._jobs.get(folder.name).finished:
                    self._clear(folder.name)


def _failed(failure: Failure) -> Ending:
    state = State.EXPIRED if failure.reason == TIME_LIMIT.reason else State.FAILED
    return Ending(state, failure=failure)


def _failure_from(error: Exception) -> Failure:
    fault = classify(error)
    if fault is not UNEXPECTED:
        return Failure(reason=fault.reason, message=str(error), blame=fault.blame)
    error_id = secrets.token_hex(8)
    _LOG.error("unexpected error %s", error_id, exc_info=error)
    message = f"internal error {error_id}; the server's log says more under this id"
    return Failure(reason=fault.reason, message=message, blame=fault.blame)

"""Carries questions of workers to agents, and their answers back.

A worker leaves a question in its job's folder (`service.devices.exchange`) and says so; the desk queues it. Agents come
and fetch it (`service.server.agents`). The answer goes back into the folder. Nothing of this is in memory alone: after
a restart, the worker asks again, and finds the piece of work where it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import to_thread
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, count
from pathlib import Path
from typing import Final, final

from pydantic import ValidationError

from service.database.clock import now
from service.devices.agents import AgentStore
from service.devices.files import WorkFiles
from service.devices.letters import ANSWER, FOLDER, QUESTION, AskedWork, DoneWork, write_whole
from service.devices.work import DeviceWork, WorkState, WorkStore
from service.errors import NotFoundError, StorageUnavailableError, WorkerProtocolError
from service.waiting import set_within, until_there
from service.watching.place import parse
from service.watching.spans import current, spanning

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 2.0
"""How often the queue is looked at where nobody says that it changed: another server may have changed it."""

_TELL_SECONDS: Final = 5.0
_MAX_QUESTION: Final = 3 << 20
"""Bytes: an agent gets a question in one message, with what its files are, and a message has 4 MiB at most."""

_FILE_BYTES: Final = 128
"""What a file's size and hash add to a question."""


@final
class Desk:
    """The device work of one server. Belongs to one event loop."""

    def __init__(self, agents: AgentStore, work: WorkStore, files: WorkFiles) -> None:
        """Works on an open database and store."""
        self.agents = agents
        self.work = work
        self.files = files
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def publish(self, topic: str) -> None:
        """Wakes those who wait for an agent's queue or a piece of work. From the loop's own thread."""
        for changed in self._waiting.get(topic, ()):
            changed.set()

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[asyncio.Event]:
        """Gives an event that is set when something about an agent's queue or a piece of work changes."""
        changed = asyncio.Event()
        self._waiting[topic].add(changed)
        try:
            yield changed
        finally:
            self._waiting[topic].discard(changed)
            if not self._waiting[topic]:
                del self._waiting[topic]

    async def lease(self, agent: str, session: str, patience: timedelta) -> DeviceWork | None:
        """Returns the agent's next piece of work, waiting for one if need be.

        Raises:
            AgentRefusedError: Another session speaks for the agent, perhaps since the wait began.
        """
        end = time.monotonic() + patience.total_seconds()
        with self.subscribe(agent) as changed:
            while True:
                changed.clear()
                await to_thread(self.work.expire)
                found = await to_thread(self.work.lease, agent, session)
                left = end - time.monotonic()
                if found is not None or left <= 0:
                    if found is not None:
                        self.publish(found.id)
                    return found
                await set_within(changed, min(left, _LOOK_SECONDS))

    async def drop(self, job_id: str) -> None:
        """Forgets the work of a job that ended."""
        await to_thread(self.forget, job_id)

    def forget(self, job_id: str) -> None:
        """Does so in this thread."""
        for work_id in self.work.drop(job_id):
            try:
                self.files.drop(work_id)
            except StorageUnavailableError:
                _LOG.warning("files of device work %s are left for later: the storage does not answer", work_id)

    def open(self, job_id: str, agent: str, folder: Path, tell: Callable[[str], None]) -> JobDesk:
        """Returns what carries one job's questions.

        Args:
            job_id: The job.
            agent: The device's, without prefix.
            folder: The job's.
            tell: Told what the job waits for.
        """
        return JobDesk(self, (job_id, agent), folder, tell)


@final
class JobDesk:
    """Carries the questions of one job while its worker runs."""

    def __init__(self, desk: Desk, owner: tuple[str, str], folder: Path, tell: Callable[[str], None]) -> None:
        """Carries nothing yet."""
        self._desk, self._folder, self._tell = desk, folder, tell
        self._job_id, self._agent = owner
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._waited = 0.0
        self._since: dict[str, float] = {}
        self._worked: dict[str, float] = {}
        self._again: set[str] = set()

    @property
    def waited(self) -> float:
        """Returns the seconds that do not count against the job's time.

        Those of unanswered questions are among them, less what the device says that it has worked on them by now: work
        that never ends is ended by the job's time limit.
        """
        present = time.monotonic()
        waits = (present - since - self._worked.get(key, 0.0) for key, since in self._since.items())
        return self._waited + max(0.0, max(waits, default=0.0))

    def ask(self, key: str) -> None:
        """Takes a question from the folder."""
        if key in self._tasks:
            # Perhaps its answer is there, and was a failure, and is asked for again before the task ends.
            self._again.add(key)
            return
        self._since[key] = time.monotonic()
        self._tasks[key] = asyncio.create_task(self._carry(key))

    async def close(self) -> None:
        """Stops carrying. What is under way goes on; who asks again gets the answer."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _carry(self, key: str) -> None:
        began, done, never = self._since[key], DoneWork(), asyncio.Event()
        try:
            asked = await to_thread(self._question, key)
            with spanning("device work", parse(asked.traceparent), attributes={"shoal.work": asked.kind}):
                work = await until_there(lambda: self._submit(key, asked), never, self._tell)
                self._desk.publish(self._agent)
                answered = await self._answered(key, work)
                done = await until_there(lambda: self._hand_over(key, answered), never, self._tell)
        except Exception as exc:  # noqa: BLE001 (the worker must not wait for an answer that cannot come)
            _LOG.error("cannot carry device work of job %s", self._job_id, exc_info=exc)
            failure = ("MeasureError", "the server could not carry work to the device; its log says more")
            done = DoneWork(failure=failure)
            await to_thread(self._write, key, done)
        finally:
            self._since.pop(key, None)
            self._worked.pop(key, None)
            self._tasks.pop(key, None)
            self._waited += max(0.0, time.monotonic() - began - done.took)
        if key in self._again:
            self._again.discard(key)
            if not (self._folder / FOLDER / key / ANSWER).exists():
                self.ask(key)

    def _submit(self, key: str, asked: AskedWork) -> DeviceWork:
        """Queues the question, unless it is known; one that failed is asked again.

        It has another id then: an agent may keep the failure still, and would hand it in again under the same.
        """
        first = f"{self._job_id.replace('/', '-')}-{key}"
        for work_id in chain([first], (f"{first}-{number}" for number in count(2))):
            known = self._desk.work.find(work_id)
            if known is None:
                break
            if known.answer is None or known.answer.failure is None:
                return known
            self._desk.files.drop(work_id)
        paths = [self._inside(path) for path in asked.files]
        stored = tuple(self._desk.files.put(work_id, "in", place, path) for place, path in enumerate(paths))
        new = DeviceWork(
            work_id, self._job_id, self._agent, WorkState.WAITING, asked.kind, asked.request, stored, 0, "", None
        )
        return self._desk.work.add(new, current())

    def _question(self, key: str) -> AskedWork:
        path = self._inside(f"{FOLDER}/{key}/{QUESTION}")
        size = path.stat().st_size
        if size > _MAX_QUESTION:
            raise _too_large()
        try:
            asked = AskedWork.model_validate_json(path.read_text())
        except ValidationError as exc:
            raise WorkerProtocolError("a worker's question for a device is none") from exc
        if size + _FILE_BYTES * len(asked.files) > _MAX_QUESTION:
            raise _too_large()
        return asked

    def _inside(self, path: str) -> Path:
        """Returns a file of the job's folder: a worker, which runs what others wrote, can send nothing else."""
        found = (self._folder / path).resolve()
        if not found.is_relative_to(self._folder.resolve()) or not found.is_file():
            raise WorkerProtocolError("a worker asked to send a file that is none of its job's")
        return found

    async def _answered(self, key: str, work: DeviceWork) -> DeviceWork:
        """Waits until a piece of work is done, and says meanwhile how it is."""
        told = 0.0
        with self._desk.subscribe(work.id) as changed:
            while True:
                changed.clear()
                present = await until_there(lambda: self._desk.work.find(work.id))
                if present is None:
                    raise WorkerProtocolError("work for a device was dropped while its job was running")
                if present.state is WorkState.DONE:
                    return present
                self._worked[key] = present.worked
                if time.monotonic() - told >= _TELL_SECONDS:
                    told = time.monotonic()
                    await until_there(self._desk.work.expire)
                    self._tell(await self._status(present))
                await set_within(changed, _LOOK_SECONDS)

    async def _status(self, work: DeviceWork) -> str:
        try:
            agent = await until_there(lambda: self._desk.agents.get(self._agent))
        except NotFoundError:
            return f"waiting for agent/{self._agent}, which was removed; add it again, or cancel the job"
        if not agent.online:
            since = "yet" if agent.last_seen is None else f"for {(now() - agent.last_seen).total_seconds():.0f} s"
            return f"waiting for {agent.target}, which was not heard of {since}"
        if work.state is WorkState.WAITING:
            return f"waiting for {agent.target} to take up work"
        return f"{agent.target}: {work.message or 'at work'}"

    def _hand_over(self, key: str, work: DeviceWork) -> DoneWork:
        """Puts an answer into the job's folder."""
        answer = work.answer
        assert answer is not None
        home = self._folder / FOLDER / key / "out"
        home.mkdir(parents=True, exist_ok=True)
        paths = []
        for place, file in enumerate(answer.files):
            # The name came from an agent; the place makes it unique, and a suffix is all that anybody reads of it.
            path = home / f"{place}{Path(file.filename).suffix[:10]}"
            self._desk.files.fetch(work.id, "out", place, path)
            paths.append(str(path.relative_to(self._folder)))
        done = DoneWork(files=tuple(paths), failure=answer.failure, took=answer.took)
        self._write(key, done)
        return done

    def _write(self, key: str, done: DoneWork) -> None:
        home = self._folder / FOLDER / key
        home.mkdir(parents=True, exist_ok=True)
        write_whole(home / ANSWER, done.model_dump_json())


def _too_large() -> WorkerProtocolError:
    return WorkerProtocolError(f"a worker's question for a device has more than {_MAX_QUESTION} bytes with its files")

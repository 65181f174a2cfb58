"""One worker process, from its start to the last member of its process group.

A worker is a program of its own, started with exec (never a fork of the gRPC process), in a session of its own. It gets
one WorkOrder on stdin, writes one event a line on stdout, and its stderr goes to a log of limited size. What it writes
is checked before anybody believes it.
"""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import logging
import os
import resource
import signal
import sys
import time
from asyncio import FIRST_COMPLETED
from asyncio.subprocess import PIPE
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from pydantic import ValidationError

from service.devices.carrier import Carrier
from service.settings import ServerSettings
from service.watching.relayed import SpanRelay
from service.worker.environment import worker_environment
from service.worker.limits import Excess, limits_of, sacrifice, watch_excess
from service.worker.log import BoundedLog
from service.worker.messages import (
    EVENT_ADAPTER,
    MAX_EVENT_BYTES,
    DeviceEvent,
    ErrorEvent,
    ProgressEvent,
    ResultEvent,
    SpanEvent,
    WorkOrder,
)

_PIPE_DRAIN_SECONDS = 2.0
_LOG = logging.getLogger(__name__)

_REAP_SECONDS = 5.0  # what a killed process gets to be gone
_EXIT_SECONDS = 20.0  # what a worker that has said its last word gets to shut down


@dataclass(frozen=True)
class Exit:
    """How a worker ended.

    Attributes:
        result: The result that it announced.
        error: The error that it announced.
        returncode: Its exit status; negative for a signal.
        stopped: It was stopped on request.
        expired: It was killed because its time was over.
        garbage: What was wrong with its output, if anything.
        excess: What it took too much of, if it was killed for that.
    """

    result: ResultEvent | None = None
    error: ErrorEvent | None = None
    returncode: int = 0
    stopped: bool = False
    expired: bool = False
    garbage: str | None = None
    excess: Excess | None = None


async def run_worker(
    order: WorkOrder,
    settings: ServerSettings,
    on_progress: Callable[[ProgressEvent], None],
    stop: asyncio.Event,
    desk: Carrier | None = None,
) -> Exit:
    """Runs a worker until it is gone, with all the processes that it started.

    Args:
        order: What it is to do. `order.folder` must exist.
        settings: How to run it.
        on_progress: Called with each progress event.
        stop: When set, the worker is stopped: SIGTERM, then SIGKILL.
        desk: Carries its questions to a device far away; while one is open, its time does not run.

    Returns:
        How it ended.

    Raises:
        OSError: It could not be started.
    """
    process = await _spawn(order, settings)
    worker = _Worker(process, settings, order.folder / "log", _Ears(on_progress, desk, SpanRelay(order.traceparent)))
    try:
        return await worker.supervise(order, stop)
    finally:
        # Also when this task is cancelled: nothing of a worker outlives its supervision.
        _signal_group(process.pid, signal.SIGKILL)
        try:
            await _reap(process)
        finally:
            process.transport.close()
            if desk is not None:
                await desk.close()


async def _reap(process: _Process) -> None:
    """Waits for a killed process, however often this task is cancelled meanwhile.

    What nobody waits for stays a zombie where the loop ends before it hears of the exit.
    """
    end = time.monotonic() + _REAP_SECONDS
    cancelled: asyncio.CancelledError | None = None
    while not process.protocol.exited.is_set():
        if (left := end - time.monotonic()) <= 0:
            _LOG.warning("worker %d was killed and is still there after %g s", process.pid, _REAP_SECONDS)
            break
        try:
            await asyncio.wait_for(process.protocol.exited.wait(), left)
        except TimeoutError:
            continue
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled


@final
class _Protocol(asyncio.subprocess.SubprocessStreamProtocol):
    """Streams, and the moment of the exit: `Process.wait` would wait for the pipes too, which others may hold open."""

    def __init__(self) -> None:
        super().__init__(limit=MAX_EVENT_BYTES, loop=asyncio.get_running_loop())
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


@dataclass(frozen=True)
class _Process:
    transport: asyncio.SubprocessTransport
    protocol: _Protocol

    @property
    def pid(self) -> int:
        return self.transport.get_pid()

    async def wait(self) -> int:
        await self.protocol.exited.wait()
        returncode = self.transport.get_returncode()
        assert returncode is not None
        return returncode


@dataclass(frozen=True)
class _Ears:
    """Who hears what a worker says while it works."""

    on_progress: Callable[[ProgressEvent], None]
    desk: Carrier | None
    spans: SpanRelay

    @property
    def waited(self) -> float:
        return 0.0 if self.desk is None else self.desk.waited

    def ask(self, key: str) -> None:
        if self.desk is None:
            raise ValueError("a question for a device, though its job names none")
        self.desk.ask(key)


@final
class _Worker:
    def __init__(self, process: _Process, settings: ServerSettings, log: Path, ears: _Ears) -> None:
        self._process = process
        self._settings = settings
        self._log = log
        self._ears = ears
        self._result: ResultEvent | None = None
        self._error: ErrorEvent | None = None
        self._garbage: str | None = None
        self._excess: Excess | None = None
        self._announced = asyncio.Event()

    async def supervise(self, order: WorkOrder, stop: asyncio.Event) -> Exit:
        exiting = asyncio.create_task(self._process.wait())
        stopping = asyncio.create_task(stop.wait())
        reading = [asyncio.create_task(self._read_events()), asyncio.create_task(self._keep_log())]
        handing = asyncio.create_task(self._hand_over(order))
        watching = asyncio.create_task(self._end_excess())
        try:
            expired = await self._wait(exiting, stopping, order.deadline_seconds + self._settings.deadline_grace)
            if not exiting.done():
                await self._end(exiting)
            returncode = await exiting
            _signal_group(self._process.pid, signal.SIGKILL)
            # A descendant that left the group may hold the pipes open; it will not be waited for.
            await asyncio.wait(reading, timeout=_PIPE_DRAIN_SECONDS)
            return Exit(self._result, self._error, returncode, stop.is_set(), expired, self._garbage, self._excess)
        finally:
            for task in (*reading, exiting, stopping, handing, watching):
                task.cancel()

    async def _wait(self, exiting: asyncio.Task[int], stopping: asyncio.Task[bool], limit: float) -> bool:
        """Waits until the worker is gone or should go; returns whether its time ran out."""
        announced = asyncio.create_task(self._announced.wait())
        try:
            done: set[asyncio.Task[Any]] = set()
            end = time.monotonic() + limit
            while not done and (left := end + self._ears.waited - time.monotonic()) > 0:
                done, _ = await asyncio.wait({exiting, stopping, announced}, timeout=left, return_when=FIRST_COMPLETED)
            if announced in done:
                await asyncio.wait({exiting, stopping}, timeout=_EXIT_SECONDS, return_when=FIRST_COMPLETED)
            return not done
        finally:
            announced.cancel()

    async def _end_excess(self) -> None:
        self._excess = await watch_excess(self._process.pid, limits_of(self._settings))
        _signal_group(self._process.pid, signal.SIGKILL)

    async def _hand_over(self, order: WorkOrder) -> None:
        stdin = self._process.protocol.stdin
        assert stdin is not None
        # A worker that is dead already is seen by its exit status.
        with suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(self._told(order).model_dump_json().encode() + b"\n")
            await stdin.drain()
        stdin.close()

    def _told(self, order: WorkOrder) -> WorkOrder:
        settings = self._settings
        return order.model_copy(update={"sandbox": settings.sandbox, "downloads": settings.hub_downloads})

    async def _end(self, exiting: asyncio.Task[int]) -> None:
        _signal_group(self._process.pid, signal.SIGTERM)
        _, running = await asyncio.wait({exiting}, timeout=self._settings.cancel_grace)
        if running:
            _signal_group(self._process.pid, signal.SIGKILL)

    async def _read_events(self) -> None:
        stdout = self._process.protocol.stdout
        assert stdout is not None
        try:
            while line := await stdout.readline():
                self._take(line)
        except (ValidationError, ValueError) as exc:
            # ValueError: longer than the reader's limit.
            what = (
                exc.errors()[0]["msg"] if isinstance(exc, ValidationError) else f"a line over {MAX_EVENT_BYTES} bytes"
            )
            self._garbage = f"the worker wrote something that is no event: {what}"
            _signal_group(self._process.pid, signal.SIGKILL)

    def _take(self, line: bytes) -> None:
        event = EVENT_ADAPTER.validate_json(line)
        match event:
            case ProgressEvent():
                self._ears.on_progress(event)
            case DeviceEvent():
                self._ears.ask(event.key)
            case SpanEvent():
                self._ears.spans.take(event)
            case ResultEvent():
                self._result = event
                self._announced.set()
            case ErrorEvent():
                self._error = event
                self._announced.set()

    async def _keep_log(self) -> None:
        stderr = self._process.protocol.stderr
        assert stderr is not None
        with BoundedLog(self._log, self._settings.worker_log_bytes) as log:
            while data := await stderr.read(1 << 16):
                log.write(data)


async def _spawn(order: WorkOrder, settings: ServerSettings) -> _Process:
    transport, protocol = await asyncio.get_running_loop().subprocess_exec(
        _Protocol,
        *settings.worker_command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=order.folder,
        env=worker_environment(order),
        start_new_session=True,
    )
    process = _Process(transport, protocol)
    # From outside and before the order is handed over: no code between fork and exec in a process with gRPC's threads.
    if sys.platform == "linux":
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
            _lower(process.pid, resource.RLIMIT_NOFILE, settings.worker_open_files)
            _lower(process.pid, resource.RLIMIT_FSIZE, settings.worker_file_bytes)
        sacrifice(process.pid)
    return process


def _lower(pid: int, kind: int, limit: int) -> None:
    _, hard = resource.prlimit(pid, kind)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.prlimit(pid, kind, (limit, limit))


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)

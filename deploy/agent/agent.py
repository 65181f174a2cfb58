"""The agent's life: register, fetch work, do it, hand it in, and again.

One piece at a time. A lost server is waited for, and work goes on meanwhile. What is finished is on disk before it is
handed in, so neither the agent's death nor the server's makes it be done twice.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, final

from deploy.agent.child import do_in_child
from deploy.agent.device import cool_down, describe, health, measured_device, read_state
from deploy.agent.errors import AgentError, RefusedError, StoppedError, UnwantedError
from deploy.agent.lease import Lease
from deploy.agent.link import Link
from deploy.agent.settings import AgentSettings
from deploy.agent.store import FileCache, Finished, Finishes
from deploy.bench.work import FAILURES, Question
from deploy.digest import file_digest
from deploy.errors import DeployError, MeasureCancelledError
from protos.shoal.v1 import device_agents_pb2 as pb
from protos.shoal.v1 import device_pb2

_LOG = logging.getLogger(__name__)
_MAX_FAILURE: Final = 4000
"""Characters of a failure's message: a library may say anything, and an answer has to fit into a message."""

_MEASURES: Final = frozenset({"time", "profile"})
"""Kinds of work that the device has to be cool for."""


Watch = Callable[[pb.Work], AbstractContextManager[object]]
"""Surrounds a piece of work from its arrival to the moment when its answer was taken."""


def unwatched(_work: pb.Work) -> AbstractContextManager[object]:
    """Surrounds work with nothing."""
    return nullcontext()


def run_agent(
    settings: AgentSettings,
    stop: threading.Event,
    tell: Callable[[str], None] = _LOG.info,
    watch: Watch = unwatched,
) -> None:
    """Works until `stop` is set.

    Args:
        settings: How.
        stop: Set it from another thread, or a signal's handler.
        tell: Told what the agent does, one line at a time.
        watch: Surrounds each piece of work, for logs and traces.

    Raises:
        RefusedError: The server does not take this agent.
        AgentError: It cannot go on for another reason; the message says why.
    """
    agent = Agent(settings, stop, tell, watch)
    try:
        agent.run()
    except StoppedError:
        tell("stopped")
    finally:
        agent.close()


@final
class Agent:
    """One process that speaks for a device."""

    def __init__(
        self, settings: AgentSettings, stop: threading.Event, tell: Callable[[str], None], watch: Watch
    ) -> None:
        """Connects at the first call."""
        self._settings, self._stop, self._tell, self._watch = settings, stop, tell, watch
        self._link = Link(settings, f"s-{secrets.token_hex(12)}", stop)
        self._cache = FileCache(settings.folder / "files", settings.cache_bytes)
        self._finishes = Finishes(settings.folder / "finished")
        self._scratch = settings.folder / "work"
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        self._refused: RefusedError | None = None
        self._resting = threading.Event()
        self._resting.set()

    def close(self) -> None:
        """Ends all calls."""
        self._link.close()

    def run(self) -> None:
        """Works until stopped."""
        device = describe()
        registered = self._link.register(device)
        runtimes = ", ".join(f"{one.name} {one.version}" for one in device.runtimes) or "no runtime"
        self._tell(f"{registered.name} at {self._settings.server}: {device.description}, {runtimes}")
        beat = threading.Thread(target=self._beat, args=(device, registered.heartbeat.ToTimedelta().total_seconds()))
        beat.daemon = True
        beat.start()
        while not self._stop.is_set():
            work = self._link.lease()
            if self._refused is not None:
                raise self._refused
            if work is not None:
                self._resting.clear()
                try:
                    with self._watch(work):
                        self._take(work)
                finally:
                    self._resting.set()

    def _beat(self, device: device_pb2.Device, seconds: float) -> None:
        """Says regularly that the agent lives; while it works, renewing the lease says so."""
        while not self._stop.wait(seconds):
            if not self._resting.is_set():
                continue
            try:
                device.health.CopyFrom(health())
                self._link.register(device, goes_on=True)
            except RefusedError as exc:
                self._refused = exc
                return
            except StoppedError:
                return
            except (DeployError, OSError) as exc:
                # An agent that leases work and is silent otherwise would be taken to be gone.
                _LOG.warning("cannot say how the device is (%s), trying again", exc)

    def _take(self, work: pb.Work) -> None:
        """Does a piece of work and hands it in. What goes wrong with it is its answer, and no end of the agent."""
        try:
            self._hand_in(work, self._finish(work))
        except (UnwantedError, MeasureCancelledError):
            self._tell(f"{work.kind}: no longer wanted")

    def _finish(self, work: pb.Work) -> Finished:
        """Returns the answer: what is on disk already, or what comes of the work now, or why nothing can."""
        try:
            self._finishes.forget_others(work.id)
            kept = self._finishes.find(work.id)
            if kept is None:
                self._tell(f"{work.kind}: {len(work.files)} files ({work.id})")
            return kept or self._do(work)
        except (RefusedError, StoppedError, UnwantedError):
            raise
        except (AgentError, OSError) as exc:
            # Whoever is given it again meets the same server and the same disk.
            return Finished(failure=_tell_failure(exc))

    def _hand_in(self, work: pb.Work, finished: Finished) -> None:
        """Hands an answer in, or why it cannot be."""
        try:
            taken = self._complete(work, finished)
        except (RefusedError, StoppedError, UnwantedError):
            raise
        except (AgentError, OSError) as exc:
            finished = Finished(failure=_tell_failure(exc), took=finished.took)
            taken = self._complete(work, finished)
        self._finishes.forget(work.id)
        outcome = "failed: " + finished.failure[1] if finished.failure else f"done in {finished.took:.1f} s"
        self._tell(f"{work.kind}: {outcome}" if taken else f"{work.kind}: {outcome}, but no longer wanted")

    def _complete(self, work: pb.Work, finished: Finished) -> bool:
        answer = pb.WorkAnswer()
        answer.took.FromNanoseconds(round(finished.took * 1e9))
        if finished.failure is not None:
            answer.failure.kind, answer.failure.message = finished.failure
        for file in finished.files:
            answer.files.add(filename=file.name, size_bytes=file.stat().st_size, sha256=file_digest(file))
        return self._link.complete(work, answer, finished.files)

    def _do(self, work: pb.Work) -> Finished:
        """Returns the answer, kept on disk."""
        folder = Path(mkdtemp(dir=self._scratch))
        try:
            with Lease(self._link, work, self._stop) as lease:
                lease.say("fetching files")
                files = self._fetch(work, folder / "in")
                if work.kind in _MEASURES:
                    lease.say("waiting for the device to cool down")
                    settings = self._settings
                    read = partial(read_state, measured_device(work.request))
                    cool_down(settings.cool_below, settings.cool_seconds, lease.cancel.wait, read)
                lease.say("at work")
                if work.kind not in _MEASURES:
                    # Measurements wait for others on this machine, and end by themselves.
                    lease.begin()
                began, waits = time.monotonic(), list[float]()
                made, failure = self._perform(work, files, folder / "out", lease.cancel, waits.append)
                took = max(0.0, time.monotonic() - began - sum(waits))
                if lease.cancel.is_set():
                    raise lease.refused or UnwantedError("no longer wanted")
            return self._finishes.keep(work.id, made, failure, took)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self._cache.trim()

    def _perform(
        self,
        work: pb.Work,
        files: tuple[Path, ...],
        folder: Path,
        cancel: threading.Event,
        waited: Callable[[float], None],
    ) -> tuple[list[Path], tuple[str, str] | None]:
        folder.mkdir()
        try:
            question = Question(work.kind, json.loads(work.request), files)
            return do_in_child(question, folder, cancel, self._settings.sandbox, waited), None
        except MeasureCancelledError:
            raise
        except DeployError as exc:
            kind = type(exc).__name__
            message = str(exc).replace(f"{self._scratch}/", "")[:_MAX_FAILURE]
            return [], (kind if kind in FAILURES else "MeasureError", message)

    def _fetch(self, work: pb.Work, folder: Path) -> tuple[Path, ...]:
        """Returns the files of a piece of work under their own names, each in a folder of its own."""
        paths = []
        for index, file in enumerate(work.files):
            cached = self._cache.get(file.sha256, partial(self._link.download, work, index))
            home = folder / str(index)
            home.mkdir(parents=True)
            path = home / (Path(file.filename).name or "file")
            path.symlink_to(cached.resolve())
            paths.append(path)
        return tuple(paths)


def _tell_failure(error: AgentError | OSError) -> tuple[str, str]:
    """Returns what to tell the server of work that the agent itself could not do or hand in."""
    if isinstance(error, AgentError):
        return "MeasureError", f"the agent could not do this work, or not hand it in: {error}"[:_MAX_FAILURE]
    said = error.strerror or type(error).__name__
    return "MeasureError", f"the device's agent cannot read or write files in its state folder: {said}; see its disk"

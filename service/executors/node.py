"""What runs on a node of a cluster: one attempt in a folder of its own, for a server that asks how it goes.

Nothing in here knows Ray. A server hands over a `Parcel`, asks for what was said (`events`, which also tells that the
server is there), and fetches what came of it. A node that hears nothing any more ends its worker.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from service.database.database import Database
from service.errors import ExecutorError
from service.executors.base import Ears, Ended, Errand
from service.executors.leftovers import kill_leftovers
from service.executors.perform import Site, perform
from service.executors.questions import Files, NodeDesk
from service.jobs.admission import artifact_references, server_paths
from service.programs import version_of
from service.resuming.checkpoints import Checkpoints
from service.settings import ServerSettings
from service.storage.artifacts import Artifact, ArtifactStore
from service.waiting import until_there
from service.watching import logs, spans
from service.worker.limits import side_by_side
from service.worker.main import to_event, to_span_event, without_paths
from service.worker.messages import DeviceEvent, Event, ProgressEvent, WorkOrder
from service.worker.process import Exit

_LOG = logging.getLogger(__name__)
_TICK: Final = 0.1
_LOCK: Final = "lock"


@dataclass(frozen=True)
class Parcel:
    """Everything that a node needs for one attempt.

    Attributes:
        errand: What to do. Its folders are the server's, and mean nothing here.
        artifacts: Facts of the artifacts that the spec names.
        storage: The fsspec URL of the artifact store. Credentials for it are the node's own.
        settings: What differs from the defaults of those settings that say how to run a worker.
        root: Where to work; None for the usual place.
        mirror: Whether checkpoints are mirrored.
        processors: How many it asked for: the node's memory is shared by as many as find room there.
        gpus: Whether it asked for GPUs; without, it sees none, as others may have them.
        silence_seconds: The worker ends when the server was not heard of for so long.
        version: The server's Shoal.
    """

    errand: Errand
    artifacts: tuple[Artifact, ...]
    storage: str
    settings: dict[str, Any]
    root: Path | None
    mirror: bool
    processors: float
    gpus: bool
    silence_seconds: float
    version: str


@dataclass(frozen=True)
class Landed:
    """What came of a parcel: how it ended, and what the worker wrote to its log."""

    ended: Ended
    log: bytes = b""


@final
class NodeWorker:
    """Runs one attempt on this machine. Every method may be called from any thread."""

    def __init__(self, *, own_process: bool = False) -> None:
        """Runs nothing yet.

        Args:
            own_process: This process is for the attempt alone, so that its log and its spans can be the attempt's.
        """
        self._own_process = own_process
        self._lines: list[str] = []
        self._dropped = 0
        self._said = threading.Condition()
        self._landed: Landed | None = None
        self._desk: NodeDesk | None = None
        self._asked_to_stop = threading.Event()
        self._heard = time.monotonic()

    def start(self, parcel: Parcel) -> str:
        """Begins, and returns the name of this machine."""
        threading.Thread(target=self._work, args=(parcel,), name="attempt", daemon=True).start()
        return socket.gethostname()

    def events(self, after: int, patience: float) -> tuple[list[str], bool]:
        """Returns what was said after the first so many events, and whether that is all; waits for news if need be."""
        self._heard = time.monotonic()
        with self._said:
            self._said.wait_for(lambda: self._count() > after or self._landed is not None, patience)
            del self._lines[: after - self._dropped]
            self._dropped = after
            return list(self._lines), self._landed is not None

    def landed(self) -> Landed:
        """Returns what came of it, once `events` says that all was said."""
        assert self._landed is not None
        return self._landed

    def question(self, key: str) -> Files:
        """Returns the files of a question to a device that the worker asks."""
        assert self._desk is not None
        return self._desk.question(key)

    def answer(self, key: str, files: Files) -> None:
        """Answers a question."""
        assert self._desk is not None
        self._desk.answer(key, files)

    def stop(self) -> None:
        """Has the worker stopped: SIGTERM, then SIGKILL."""
        self._asked_to_stop.set()

    def _count(self) -> int:
        return self._dropped + len(self._lines)

    def _say(self, event: Event) -> None:
        with self._said:
            self._lines.append(event.model_dump_json())
            self._said.notify_all()

    def _work(self, parcel: Parcel) -> None:
        # A loop of its own in a thread of its own: the system ends the worker when the thread that started it ends.
        try:
            landed = asyncio.run(self._attempt(parcel))
        except Exception as exc:  # noqa: BLE001 (the boundary: everything becomes an event)
            landed = Landed(Ended(Exit(error=to_event(exc))))
        with self._said:
            self._landed = landed
            self._said.notify_all()

    async def _attempt(self, parcel: Parcel) -> Landed:
        if self._own_process:
            logs.configure(parcel.errand.order.log_format)
            spans.set_sink(lambda span: self._say(to_span_event(span)))
            if not parcel.gpus:
                os.environ["CUDA_VISIBLE_DEVICES"] = ""
        with _workplace(_root(parcel)) as place:
            order = parcel.errand.order.model_copy(
                update={"folder": place / "job", "cache_folder": _root(parcel) / "cache"}
            )
            errand = replace(parcel.errand, order=order)
            if order.spec.target.agent is not None:
                self._desk = NodeDesk(order.folder, lambda key: self._say(DeviceEvent(key=key)))
            stop = asyncio.Event()

            def tell(message: str) -> None:
                self._say(ProgressEvent(phase="wait", fraction=0, message=message))

            watching = asyncio.create_task(self._watch(stop, parcel.silence_seconds))
            try:
                site = await until_there(lambda: _site(parcel, place), stop, tell)
                ended = await perform(errand, site, Ears(self._say, stop, self._desk, tell))
            except Exception as exc:  # noqa: BLE001 (the boundary: everything becomes an event)
                ended = Ended(Exit(error=without_paths(to_event(exc), order)))
            finally:
                watching.cancel()
            return Landed(ended, _read_log(order.folder))

    async def _watch(self, stop: asyncio.Event, silence: float) -> None:
        while not self._asked_to_stop.is_set() and time.monotonic() - self._heard < silence:  # noqa: ASYNC110
            await asyncio.sleep(_TICK)
        if not self._asked_to_stop.is_set():
            _LOG.warning("the server was not heard of for %.0f s; its worker is stopped", silence)
        stop.set()


def _site(parcel: Parcel, place: Path) -> Site:
    if parcel.version != version_of("shoal"):
        raise ExecutorError(
            f"the node {socket.gethostname()} has Shoal {version_of('shoal')} and the server has {parcel.version}; "
            "install the same version on both"
        )
    settings = ServerSettings(state_dir=place, workers=side_by_side(parcel.processors), **parcel.settings)
    if parcel.storage.startswith("file://") and not Path(parcel.storage.removeprefix("file://")).is_dir():
        raise ExecutorError(
            f"the node {socket.gethostname()} does not see the server's artifact folder; give the server object "
            "storage (storage_url), or a folder that all machines share"
        )
    # The facts of artifacts come with the parcel; the store's own database stays empty.
    store = ArtifactStore(Database("sqlite://"), parcel.storage)
    facts = {artifact.name: artifact for artifact in parcel.artifacts}

    def bring(order: WorkOrder, folder: Path) -> dict[str, Path]:
        names = {reference.name for reference in artifact_references(order.spec)}
        found = {name: store.local_path(facts[name], folder) for name in sorted(names)}
        return found | {path: _shared(path, order.data_roots) for _, path in server_paths(order.spec)}

    return Site(settings, store, bring, Checkpoints(store.storage) if parcel.mirror else None)


def _shared(path: str, roots: tuple[Path, ...]) -> Path:
    """Returns a path of the server's that this machine has too."""
    resolved = Path(path).resolve()
    if not resolved.exists() or not any(resolved.is_relative_to(root) for root in roots):
        raise ExecutorError(
            f"the node {socket.gethostname()} has no {path}; data_roots have to be the same folders on all machines"
        )
    return resolved


def _root(parcel: Parcel) -> Path:
    return parcel.root or Path(tempfile.gettempdir()) / f"shoal-node-{os.getuid()}"


@contextmanager
def _workplace(root: Path) -> Iterator[Path]:
    """Makes a folder for one attempt, which goes with it; clears away those whose owner died."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    if root.stat().st_uid != os.getuid():
        raise ExecutorError(f"the folder {root} belongs to another user; set ray_node_dir")
    places = root / "jobs"
    places.mkdir(exist_ok=True)
    for place in places.iterdir():
        _clear_if_dead(place)
    place = places / secrets.token_hex(8)
    place.mkdir()
    handle = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(handle)


def _clear_if_dead(place: Path) -> None:
    # One without a lock is about to get it.
    with suppress(OSError):
        handle = os.open(place / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kill_leftovers(lambda folder: folder.parent == place)
            shutil.rmtree(place, ignore_errors=True)
        finally:
            os.close(handle)


def _read_log(folder: Path) -> bytes:
    content = b""
    for name in ("log.1", "log"):
        with suppress(OSError):
            content += (folder / name).read_bytes()
    return content

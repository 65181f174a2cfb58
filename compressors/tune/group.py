"""Several GPUs for one training: a process for each, started here, and their progress and result brought back."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, final

import torch

from compressors.errors import EngineError
from compressors.tune import parcel
from compressors.tune.devices import choose_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressors.graph import Graph
    from compressors.problem import Progress, Samples
    from compressors.tune.config import TuneConfig
    from compressors.tune.run import Tuned

WORK: Final = "work.pt"
RESULT: Final = "tuned.pt"
_LOOK_SECONDS = 1.0
"""How often the processes are looked at while nothing is heard of them."""


class GroupError(Exception):
    """The group could not be started or lost a process; one process alone may still do the work."""


@dataclass(frozen=True)
class Work:
    """What a group is to do: the arguments of `tune`, less the progress."""

    original: Graph
    candidate: Graph
    train: Samples
    holdout: Samples | None
    config: TuneConfig


def group_size(config: TuneConfig) -> int:
    """Returns how many processes to train with: as asked for, or one per GPU; one inside a group."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return 1
    if config.processes is not None:
        return config.processes
    return torch.cuda.device_count() if choose_device(config.device) == "cuda" else 1


def tune_in_group(work: Work, processes: int, progress: Progress) -> Tuned:
    """Returns what `tune` returns, from so many processes.

    Raises:
        GroupError: A process could not be started or died; what it said last is in the message.
        EngineError: As `tune` does.
    """
    with TemporaryDirectory(prefix="tune-") as place, ExitStack() as stack:
        folder = Path(place)
        _pack(work, folder)
        heard, told = os.pipe()
        reader = stack.enter_context(os.fdopen(heard, "rb", buffering=0))
        try:
            members = [stack.enter_context(_Member(folder, rank, processes, told)) for rank in range(processes)]
        finally:
            os.close(told)
        for line in _lines(reader, members):
            progress(*json.loads(line))
        for member in members:
            member.check()
        return _unpack(folder)


def _pack(work: Work, folder: Path) -> None:
    graphs = (parcel.packed(work.original), parcel.packed(work.candidate))
    try:
        parcel.write(folder / WORK, (graphs, work.train, work.holdout, replace(work.config, processes=1)))
    except Exception as exc:  # whatever a caller's samples hold may refuse in its own way
        raise GroupError(f"the samples cannot be handed to another process: {exc}") from exc


def _unpack(folder: Path) -> Tuned:
    result = parcel.read(folder / RESULT)
    if isinstance(result, EngineError):
        raise result
    found, graph = result
    tuned: Tuned = replace(found, graph=parcel.unpacked(graph))
    return tuned


@final
class _Member:
    """A process of the group; killed at the end of its `with`."""

    def __init__(self, folder: Path, rank: int, processes: int, told: int) -> None:
        self._errors = folder / f"{rank}.log"
        here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        if rank == 0:
            (folder / "port").write_text(str(_free_port()))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
        paths = {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-m", "compressors.tune.member", str(folder), str(told)],
                env=os.environ | {key: str(value) for key, value in here.items()} | meeting | paths,
                pass_fds=(told,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def __enter__(self) -> _Member:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def check(self, *, running: bool = False) -> None:
        """Raises GroupError if the process has failed; waits for its end unless it may still be running."""
        code = self._process.poll() if running else self._process.wait()
        if code:
            last = self._errors.read_text(errors="replace").strip().splitlines()[-1:]
            raise GroupError(f"a process of the training ended with {code}: {' '.join(last) or 'no message'}")


def _lines(reader: Any, members: list[_Member]) -> Iterator[bytes]:
    """Yields what the group says, line by line, until it has nothing more to say."""
    waiting = b""
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while True:
            if not selector.select(_LOOK_SECONDS):
                for member in members:
                    member.check(running=True)
                continue
            heard = reader.read(65536)
            if not heard:
                return
            *lines, waiting = (waiting + heard).split(b"\n")
            yield from lines


def _free_port() -> int:
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return int(free.getsockname()[1])
    except OSError as exc:
        raise GroupError(f"the processes of a training cannot talk to each other here: {exc.strerror}") from exc

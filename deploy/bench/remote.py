"""A device far away, asked by pieces of work."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, final

from deploy.artifact import hash_model
from deploy.bench.base import ENGINE, Bench, BenchFacts, Feed
from deploy.bench.work import Ask, Question, pack_models, read_batches, write_batches
from deploy.engines.metadata import MOST_METADATA, metadata_path
from deploy.errors import EngineMisfitError, MeasureError
from deploy.machine import read_device
from deploy.measure.settings import TimingSettings

ENGINE_PATIENCE: Final = 900.0
"""Seconds that an engine is waited for: a network is worth something without it, and its device may never come back."""

SLOWEST: Final = 1e5
"""Bytes a second that a connection is expected to carry at least; an engine is about as large as its model."""

CHUNK_BYTES: Final = 32 << 20
"""Inputs that travel together, about."""


@final
class RemoteBench(Bench):
    """Does everything by asking. The same question gets the same answer, so asking again after a crash is cheap."""

    def __init__(self, runtime: str, device: str, ask: Ask, scratch: Path, batch: int | None = None) -> None:
        """Asks nothing yet.

        Args:
            runtime: Registry name.
            device: As its machine calls it.
            ask: Has work done on the device.
            scratch: Folder for files on their way.
            batch: Samples per run that files are to be fast at.
        """
        self.runtime, self.device, self.batch = runtime, device, batch
        self._ask = ask
        self._scratch = scratch

    def facts(self) -> BenchFacts:
        """Returns the device as it describes itself."""
        found = self._ask(Question("describe", self._place)).result
        return BenchFacts(read_device(found["device"]), str(found["runtime_version"]))

    def time(
        self,
        files: Sequence[Path],
        settings: TimingSettings,
        cancel: threading.Event | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Has files timed there. A job that is cancelled ends with its process, and its work with it."""
        return self._measured("time", files, settings)

    def profile(
        self,
        files: Sequence[Path],
        settings: TimingSettings,
        cancel: threading.Event | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Has files profiled there."""
        return self._measured("profile", files, settings)

    def _measured(self, kind: str, files: Sequence[Path], settings: TimingSettings) -> dict[str, Any]:
        places, packed = pack_models(files)
        asked = asdict(replace(settings, runtime=self.runtime, device=self.device))
        # Beside the settings, where an agent that is older than the server passes it over and times in one process.
        several = {"processes": asked.pop("processes")}
        return dict(self._ask(Question(kind, {"models": places, "settings": asked, **several}, packed)).result)

    def edges(self, files: Sequence[Path], batch: int, folder: Path) -> list[Path | None]:
        """Has edge models written there: how a runtime lays out tensors depends on the processor."""
        places, packed = pack_models(files)
        answer = self._ask(Question("edges", {"models": places, "batch": batch, **self._place}, packed))
        copies = [Path(shutil.copyfile(file, folder / file.name)) for file in answer.files]
        return [None if at is None else copies[at] for at in answer.result["edges"]]

    def engine(self, file: Path, folder: Path) -> Path | None:
        """Has it sent from there: an agent that is too old, or gone for `ENGINE_PATIENCE`, has none."""
        places, packed = pack_models([file])
        request = {"models": places, "batch": self.batch, **self._place}
        size = hash_model(file)[1]
        answer = self._ask(Question("engine", request, packed, ENGINE_PATIENCE + size / SLOWEST))
        if not answer.files:
            return None
        if len(answer.files) != 2:
            msg = f"the device answered with {len(answer.files)} files for an engine; wanted it and its metadata"
            raise MeasureError(msg)
        to = folder / ENGINE
        limits = (largest_engine(size), MOST_METADATA)
        for source, target, most in zip(answer.files, (to, metadata_path(to)), limits, strict=True):
            _check_size(source, most)
            shutil.copyfile(source, target)
        return to

    def run(self, file: Path, feeds: Iterable[Feed], threads: int = 0) -> Iterator[Feed]:
        """Has a file run there, on about `CHUNK_BYTES` of inputs at a time."""
        _, model = pack_models([file])
        self._scratch.mkdir(parents=True, exist_ok=True)
        for chunk in _chunks(feeds):
            with TemporaryDirectory(dir=self._scratch) as name:
                path = Path(name) / "feeds.npy"
                with path.open("wb") as stream:
                    write_batches(chunk, stream)
                request = {
                    **self._place,
                    "batch": self.batch,
                    "threads": threads,
                    "batches": len(chunk),
                    "inputs": len(chunk[0]),
                }
                answer = self._ask(Question("run", request, (*model, path)))
                yield from self._outputs(answer.files, len(chunk), int(answer.result["outputs"]))

    @property
    def _place(self) -> dict[str, str]:
        return {"runtime": self.runtime, "device": self.device}

    def _outputs(self, files: Sequence[Path], batches: int, arrays: int) -> Iterator[Feed]:
        if len(files) != 1:
            msg = f"the device answered with {len(files)} files of outputs; wanted one"
            raise MeasureError(msg)
        with files[0].open("rb") as stream:
            yield from read_batches(stream, batches, arrays)


def largest_engine(onnx_bytes: int) -> int:
    """Returns how large the engine of a file may be, in bytes: its weights in several layouts, and kernels."""
    return 4 * onnx_bytes + (512 << 20)


def _check_size(file: Path, most: int) -> None:
    size = file.stat().st_size
    if size > most:
        msg = f"the device answered with an engine or metadata of {size} bytes; at most {most} are taken"
        raise EngineMisfitError(msg)


def _chunks(feeds: Iterable[Feed]) -> Iterator[list[Feed]]:
    chunk: list[Feed] = []
    size = 0
    for feed in feeds:
        chunk.append(feed)
        size += sum(values.nbytes for values in feed)
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk

"""This machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from deploy.bench.base import ENGINE, Bench, BenchFacts, Feed
from deploy.machine import describe_device, usable_cores
from deploy.measure.process import profile_in_fresh_process
from deploy.measure.settings import TimingSettings
from deploy.measure.several import time_in_fresh_processes
from deploy.runtimes import Runtime, SessionSettings, find_runtime


@final
class LocalBench(Bench):
    """Times in fresh processes of this machine, one measurement at a time, and runs files in this process."""

    def __init__(self, runtime: str = "onnxruntime", device: str = "cpu", batch: int | None = None) -> None:
        """Loads nothing."""
        self.runtime, self.device, self.batch = runtime, device, batch

    def facts(self) -> BenchFacts:
        """Returns this machine and the installed version of the runtime."""
        return BenchFacts(describe_device(self.device), self._found.version())

    def time(
        self, files: Sequence[Path], settings: TimingSettings, cancel: threading.Event | None = None
    ) -> dict[str, Any]:
        """Times files here, once nobody else on this machine measures."""
        return time_in_fresh_processes(files, self._here(settings), cancel)

    def profile(
        self, files: Sequence[Path], settings: TimingSettings, cancel: threading.Event | None = None
    ) -> dict[str, Any]:
        """Profiles files here, once nobody else on this machine measures."""
        return profile_in_fresh_process(files, self._here(settings), cancel)

    def edges(self, files: Sequence[Path], batch: int, folder: Path) -> list[Path | None]:
        """Writes edge models; those that are equal once, under their hash."""
        runtime, partial = self._found, folder / "edges.onnx"
        written: list[Path | None] = []
        for file in files:
            if runtime.write_edges(file, partial, batch):
                digest = hashlib.sha256(partial.read_bytes()).hexdigest()
                written.append(partial.replace(folder / f"edges-{digest}.onnx"))
            else:
                written.append(None)
        return written

    def engine(self, file: Path, folder: Path) -> Path | None:
        """Writes what the runtime here made of a file."""
        to = folder / ENGINE
        how = SessionSettings(device=self.device, batch=self.batch)
        return to if self._found.write_engine(file, how, to) else None

    def run(self, file: Path, feeds: Iterable[Feed], threads: int = 0) -> Iterator[Feed]:
        """Runs a file in this process."""
        how = SessionSettings(threads or usable_cores(), device=self.device, batch=self.batch)
        session = self._found.load(file, how)
        for feed in feeds:
            yield tuple(session.run(feed))

    def _here(self, settings: TimingSettings) -> TimingSettings:
        return replace(settings, runtime=self.runtime, device=self.device)

    @property
    def _found(self) -> Runtime:
        return find_runtime(self.runtime, self.device)

"""What a place where model files are timed and run must offer."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.machine import Device
from deploy.measure.settings import TimingSettings
from deploy.tensors import Array

Feed = tuple[Array, ...]
"""One batch: the model's inputs in order, each (batch, *shape)."""


ENGINE: Final = "engine"
"""The name of what `Bench.engine` writes."""


@dataclass(frozen=True)
class BenchFacts:
    """What a measurement depends on besides the file.

    Attributes:
        device: The machine.
        runtime_version: The runtime library's version.
    """

    device: Device
    runtime_version: str


class Bench(ABC):
    """A device with one of its runtimes. All methods may raise a `DeployError` that says why something cannot be done.

    Attributes:
        runtime: Registry name of the runtime.
        device: As its own machine calls it, `cpu` or `cuda:N`.
        batch: Samples per run that files are to be fast at, wherever they run, so that what is run is what is timed;
            None where that does not matter.
    """

    runtime: str
    device: str
    batch: int | None

    @abstractmethod
    def facts(self) -> BenchFacts:
        """Returns what measurements here depend on.

        Raises:
            RuntimeMissingError: If the runtime is not installed.
        """

    @abstractmethod
    def time(
        self, files: Sequence[Path], settings: TimingSettings, cancel: threading.Event | None = None
    ) -> dict[str, Any]:
        """Returns the timing workers' answer for files timed interleaved in fresh processes.

        It is that of `deploy.measure.several`; where the device knows no several processes, that of one worker.

        Args:
            files: Model files.
            settings: How they are timed; runtime and device are always this bench's.
            cancel: Set it from another thread to stop.

        Raises:
            ModelFileError: If a file cannot be loaded.
            RuntimeMissingError: If the runtime is not installed.
            MeasureError: If the timing process dies, hangs, or says nothing that can be read.
            MeasureCancelledError: If `cancel` was set.
        """

    @abstractmethod
    def profile(
        self, files: Sequence[Path], settings: TimingSettings, cancel: threading.Event | None = None
    ) -> dict[str, Any]:
        """Returns the worker's answer on what each operator of each file takes; raises as `time` does."""

    @abstractmethod
    def edges(self, files: Sequence[Path], batch: int, folder: Path) -> list[Path | None]:
        """Returns for each file the model of its edges (`Runtime.write_edges`) in `folder`; None without any.

        Equal edge models are one file.
        """

    @abstractmethod
    def engine(self, file: Path, folder: Path) -> Path | None:
        """Returns what the runtime made of a file for this device, such as TensorRT's engine (`Runtime.write_engine`).

        It is a program: nobody but its own device may load it.

        Args:
            file: The model file, timed here before.
            folder: Where to write.

        Returns:
            A file in `folder`, with what the device says of it beside it (`deploy.engines.metadata.metadata_path`),
            neither of them believed; None where the runtime makes no such file.

        Raises:
            EngineMisfitError: It is not kept any more, or is larger than an engine of that file can be.
            MeasureError: The device knows no such question, or does not answer it in time.
        """

    @abstractmethod
    def run(self, file: Path, feeds: Iterable[Feed], threads: int = 0) -> Iterator[Feed]:
        """Yields the outputs for each batch, in order.

        Args:
            file: The model file.
            feeds: The batches.
            threads: Threads inside one operator; 0 takes every processor.

        Raises:
            ModelFileError: If the file cannot be loaded.
            DataError: If the inputs do not fit the model.
        """

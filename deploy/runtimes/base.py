"""What a runtime must offer. A new runtime is one file that implements this, and one line in the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import DataError
from deploy.tensors import Array, TensorInfo


@dataclass(frozen=True)
class SessionSettings:
    """How a model is loaded.

    Attributes:
        threads: Threads inside one operator, at least 1.
        spinning: Whether idle worker threads burn processor time while they wait. Off: it steals from others.
        device: What runs it, `cpu` or `cuda:N`.
        batch: The batch size to be fast at, for runtimes that compile for one; None lets them choose.
    """

    threads: int = 1
    spinning: bool = False
    device: str = "cpu"
    batch: int | None = None


@dataclass(frozen=True)
class RuntimeInfo:
    """What ran the model, precisely enough to repeat a measurement.

    Attributes:
        name: The registry name.
        version: The runtime library's version.
        providers: What executes the operators, in order of preference.
        threads: Threads inside one operator.
        device: `cpu` or `cuda:N`.
    """

    name: str
    version: str
    providers: tuple[str, ...]
    threads: int
    device: str = "cpu"


@dataclass(frozen=True)
class LayerTime:
    """What one operator of a network takes inside it, as the runtime's own profiler says.

    Attributes:
        name: As the model file names its node, or the node's output; where the runtime added the operator itself, as
            that calls it.
        op: What the runtime calls the operator's type.
        seconds: Mean time in a run, the slowest and fastest quarter of all runs left out.
        share: Of the sum over all operators, 0 to 1.
    """

    name: str
    op: str
    seconds: float
    share: float


class Session(ABC):
    """A loaded model, ready to run."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What the model takes, in order."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What the model returns, in order."""

    @property
    def fixed_batch(self) -> int | None:
        """The one batch size that the file allows, None where it is free or unknown."""
        return None

    @abstractmethod
    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Returns the outputs for one batch; inputs in the order of `inputs`, batch first.

        Raises:
            DataError: If the inputs do not fit the model.
        """

    @abstractmethod
    def bind(self, inputs: Sequence[Array]) -> Callable[[], object]:
        """Returns a function without arguments that runs the model once on these inputs, and nothing else.

        This is what gets timed: inputs are already in place, and the call returns when the outputs are complete.
        """

    @abstractmethod
    def describe(self) -> RuntimeInfo:
        """Returns what runs this model."""


class Runtime(ABC):
    """A library that can run model files."""

    name: str
    """The registry name, also the value of `--runtime`."""

    extra: str
    """The extra of the distribution that installs it."""

    devices: tuple[str, ...]
    """The kinds of devices that this runs on; `deploy.devices.RUNTIME_DEVICES` says the same of all together."""

    load_seconds: float = 5.0
    """How long loading a model may take before somebody who waits for it must think that it hangs."""

    @abstractmethod
    def version(self) -> str:
        """Returns the library's version.

        Raises:
            RuntimeMissingError: If the library is not installed; the message names the extra.
        """

    @abstractmethod
    def load(self, path: Path, settings: SessionSettings) -> Session:
        """Returns the model in `path`, loaded.

        Raises:
            RuntimeMissingError: If the library is not installed, or cannot use the device; the message names the extra.
            DeviceMissingError: If the machine has no such device.
            ModelFileError: If the file is missing, damaged or uses something that the runtime does not know.
        """

    @abstractmethod
    def write_edges(self, path: Path, to: Path, batch: int) -> bool:
        """Writes a model that does twice what this runtime does at the edges of the model in `path`, and nothing else.

        An operator timed alone pays for it (a change of layout, a copy to a device) where inside a network it does not.

        Args:
            path: A model file.
            to: Where to write the other one.
            batch: Samples per run.

        Returns:
            Whether there is anything; if not, nothing is written.

        Raises:
            RuntimeMissingError: If the library is not installed; the message names the extra.
            ModelFileError: If the file is missing, damaged or uses something that the runtime does not know.
        """

    def write_engine(self, path: Path, settings: SessionSettings, to: Path) -> bool:  # noqa: ARG002
        """Writes what this runtime made of the model in `path` for its device, so that it need not be made again there.

        What is known of it lies beside it (`deploy.engines.metadata.metadata_path`), as JSON.

        Args:
            path: A model file.
            settings: How it was loaded when it was timed.
            to: Where to write.

        Returns:
            Whether this runtime has such a file; if not, nothing is written.

        Raises:
            RuntimeMissingError: If the library is not installed; the message names the extra.
            ModelFileError: If the file is missing, damaged or uses something that the runtime does not know.
            EngineMisfitError: If what was timed is not kept any more.
        """
        return False

    def profile(
        self,
        path: Path,  # noqa: ARG002
        settings: SessionSettings,  # noqa: ARG002
        inputs: Sequence[Array],  # noqa: ARG002
        runs: int,  # noqa: ARG002
    ) -> tuple[LayerTime, ...] | None:
        """Returns what each operator takes, in the order they run; None where the runtime cannot tell.

        Profiling slows a run down and the sum is not the latency; it says where the time goes.

        Args:
            path: A model file.
            settings: How it is loaded.
            inputs: One batch, as `Session.run` takes it.
            runs: How many runs to average over, at least 1; two more come first and do not count.

        Raises:
            RuntimeMissingError: If the library is not installed; the message names the extra.
            ModelFileError: If the file is missing, damaged or uses something that the runtime does not know.
            DataError: If the inputs do not fit the model.
        """
        return None


WARM_UP_RUNS = 2
"""Runs before those that a profile counts."""


def layer_times(seconds: Mapping[tuple[str, str], Sequence[float]]) -> tuple[LayerTime, ...]:
    """Returns the times of operators, given those of each run by name and type."""
    means = {key: _middle_mean(times) for key, times in seconds.items()}
    total = sum(means.values()) or 1.0
    return tuple(LayerTime(name, op, mean, mean / total) for (name, op), mean in means.items())


def _middle_mean(times: Sequence[float]) -> float:
    """Returns the mean of the middle half: unlike a median it is finer than the microseconds that profilers count."""
    cut = len(times) // 4
    kept = sorted(times)[cut : len(times) - cut]
    return sum(kept) / len(kept)


def check_feed(specs: Sequence[TensorInfo], inputs: Sequence[Array]) -> None:
    """Checks that arrays are what a model takes: one for each input, of its shape and element type.

    Raises:
        DataError: They are not; the message says what was wanted.
    """
    if len(inputs) != len(specs):
        wanted = ", ".join(spec.name for spec in specs)
        msg = f"the model takes {len(specs)} inputs ({wanted}), got {len(inputs)}"
        raise DataError(msg)
    for spec, value in zip(specs, inputs, strict=True):
        sizes = value.shape[1:]
        fits = len(sizes) == len(spec.shape) and all(
            wanted in (None, got) for wanted, got in zip(spec.shape, sizes, strict=True)
        )
        if not fits or value.dtype != spec.dtype:
            wanted = ", ".join("any" if size is None else str(size) for size in ("batch", *spec.shape))
            msg = f"input '{spec.name}' wants shape ({wanted}) {spec.dtype}, got {value.shape} {value.dtype}"
            raise DataError(msg)


def first_line(exc: Exception) -> str:
    """Returns what a library says went wrong, without what follows."""
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__

"""How a measurement is taken."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.devices import parse_device
from deploy.errors import DeviceMissingError, TimingSettingsError

PERCENTILES: dict[str, float] = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
"""The percentiles that a budget can be set on."""

MIN_ROUNDS = 5
"""Fewer rounds than this give no interval, so no measurement stops before."""

PROCESSES = 10
"""What reports are made with."""

_RANGES: dict[str, tuple[float, float]] = {
    "batch": (1, 65536),
    "threads": (1, 1024),
    "min_seconds": (0.0, 3600.0),
    "max_seconds": (0.01, 3600.0),
    "min_samples": (1, 1_000_000),
    "min_rounds": (MIN_ROUNDS, 1_000_000),
    "warmup_seconds": (0.0, 600.0),
    "block_seconds": (0.0, 10.0),
    "timeout_seconds": (1.0, 86400.0),
    "precision": (0.0, 1.0),
    "processes": (1, 64),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class TimingSettings:
    """How model files are timed.

    The seconds, samples and rounds are those of all processes together. In each process all files are timed in rounds.
    In a round every file runs once for a block of about `block_seconds`, in a new random order. Rounds are added until
    the process's share of `min_seconds` has passed, every file has its share of `min_samples` and `min_rounds` and
    every file's ratio to the first is known as well as `precision` needs; or until its share of `max_seconds` has
    passed.

    Attributes:
        batch: Samples per run.
        percentile: The percentile that is claimed, one of `PERCENTILES`.
        threads: Threads inside one operator.
        runtime: Registry name of the runtime.
        device: What runs them, `cpu` or `cuda:N`.
        min_seconds: Timed seconds at least, all files together, warm-up not counted.
        max_seconds: Timed seconds at most, unless fewer than `MIN_ROUNDS` rounds fit.
        min_samples: Runs per file at least.
        min_rounds: Rounds at least.
        precision: Half the width of the 95 % confidence interval of a file's ratio to the first, as a fraction of the
            ratio; None does not look at it.
        warmup_seconds: Warm-up at most, per file; it ends earlier when the times are stable.
        block_seconds: Length of one file's turn in a round.
        timeout_seconds: The whole measurement is killed after this long; None derives it from the other settings.
        processes: Fresh processes that the time is split over, so that the interval covers what differs between them.
            Fewer where one takes very long to load and warm up (`deploy.measure.several`).
        seed: For the random inputs, the order of turns and the order of loading.

    Raises:
        TimingSettingsError: If a value is out of range; names the field.
    """

    batch: int = 1
    percentile: str = "p50"
    threads: int = 1
    runtime: str = "onnxruntime"
    device: str = "cpu"
    min_seconds: float = 8.0
    max_seconds: float = 40.0
    min_samples: int = 100
    min_rounds: int = MIN_ROUNDS
    precision: float | None = 0.02
    warmup_seconds: float = 2.0
    block_seconds: float = 0.01
    timeout_seconds: float | None = None
    processes: int = PROCESSES
    seed: int = 0

    def __post_init__(self) -> None:
        for field, (low, high) in _RANGES.items():
            value = getattr(self, field)
            if value is not None and not low <= value <= high:
                msg = f"timing setting '{field}' is {value}; it must be from {low} to {high}"
                raise TimingSettingsError(field, msg)
        check_percentile(self.percentile)
        _check_device(self.device)
        if self.max_seconds < self.min_seconds:
            msg = f"timing setting 'max_seconds' is {self.max_seconds}, below 'min_seconds' {self.min_seconds}"
            raise TimingSettingsError("max_seconds", msg)


def check_percentile(percentile: str) -> float:
    """Returns the percentile as a number from 0 to 100.

    Raises:
        TimingSettingsError: If it is not one of `PERCENTILES`.
    """
    if percentile not in PERCENTILES:
        msg = f"percentile '{percentile}' is not known; choose one of {', '.join(PERCENTILES)}"
        raise TimingSettingsError("percentile", msg)
    return PERCENTILES[percentile]


def _check_device(device: str) -> None:
    try:
        parse_device(device)
    except DeviceMissingError as exc:
        raise TimingSettingsError("device", str(exc)) from exc

"""What a measurement says, and what may be concluded from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from deploy.errors import MeasureError, TimingSettingsError
from deploy.machine import ClockState, Device
from deploy.measure.distribution import Distribution, Interval, Rounds
from deploy.measure.settings import TimingSettings, check_percentile
from deploy.measure.spread import Taken, sure_percentile, sure_ratio
from deploy.runtimes.base import RuntimeInfo

_BUSY = 0.1
_DRIFT = 0.05
_WAITING = 0.02
_TAIL_SAMPLES = 5


@dataclass(frozen=True)
class Conditions:
    """The machine around a measurement.

    Attributes:
        before: Its state just before the first timed round.
        after: Its state just after the last one.
        steal_fraction: Share of the machine's processor time that the hypervisor gave to others meanwhile.
        others_fraction: Share of the machine's processor time that other programs used meanwhile.
        waiting_fraction: Share of the time that the timing thread was ready but had no processor.
    """

    before: ClockState
    after: ClockState
    steal_fraction: float | None
    others_fraction: float | None
    waiting_fraction: float | None


@dataclass(frozen=True)
class Measurement:
    """The latency of one model file, and everything that is needed to take it again.

    Attributes:
        file: The file's name.
        sha256: Of its bytes.
        session: Equal for files that were timed interleaved in the same processes; only those can be compared.
        distribution: The times, in seconds.
        preempted: Runs that do not count, because the system gave the processor to another program in them.
        samples: At most 400 of the times, in the order they were taken, for a plot.
        settings: How it was timed.
        runtime: What ran it.
        device: Where.
        conditions: In which state that machine was.
        warnings: What makes the numbers less sure, in sentences.
        rounds: All times that count, in seconds, by round; a round may be empty.
        process_rounds: How many of the rounds each process ran, in order; empty for one process.
    """

    file: str
    sha256: str
    session: str
    distribution: Distribution
    preempted: int
    samples: tuple[float, ...]
    settings: TimingSettings
    runtime: RuntimeInfo
    device: Device
    conditions: Conditions
    warnings: tuple[str, ...]
    rounds: tuple[tuple[float, ...], ...] = field(repr=False)
    process_rounds: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        """Returns the latency at the percentile of the settings."""
        return self.distribution.at(self.settings.percentile)

    @property
    def processes(self) -> int:
        """Returns how many processes it was timed in."""
        return max(1, len(self.process_rounds))

    def interval(self, percentile: str | None = None, confidence: float = 0.95) -> Interval:
        """Returns the latency in seconds at a percentile, the settings' by default, with its confidence interval.

        Raises:
            MeasureError: If there are too few rounds.
        """
        return sure_percentile(
            Taken(self.rounds, self.process_rounds), percentile or self.settings.percentile, confidence
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON; the full list of times is left out."""
        values = asdict(self)
        del values["rounds"]
        return values


@dataclass(frozen=True)
class Ratio:
    """How many times faster a candidate is than its baseline.

    Attributes:
        speedup: Baseline's seconds over the candidate's, at `percentile`; for p50 paired by rounds and the mean over
            processes, so that it can differ slightly from the quotient of the two distributions' p50, and is the better
            known of the two.
        pooled_speedup: That quotient.
        ci_low: Lower end of the confidence interval.
        ci_high: Upper end.
        confidence: Of the interval, 0 to 1.
        percentile: Which percentile is compared.
        n: Runs of the candidate.
        rounds: Rounds in which both have runs that count.
        processes: Processes that both were timed in; their spread is in the interval, unless it is one.
    """

    speedup: float
    pooled_speedup: float
    ci_low: float
    ci_high: float
    confidence: float
    percentile: str
    n: int
    rounds: int
    processes: int = 1

    @property
    def is_faster(self) -> bool:
        """Returns whether the interval lies above 1, so that a gain may be claimed."""
        return self.ci_low > 1.0


@dataclass(frozen=True)
class Budget:
    """A latency limit: absolute, or as a fraction of the baseline's latency at the same percentile.

    Attributes:
        seconds: The limit in seconds, above 0; or None.
        fraction: The limit as a fraction of the baseline, above 0; or None.

    Raises:
        TimingSettingsError: If not exactly one of them is given, or it is not above 0.
    """

    seconds: float | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.seconds, self.fraction) if value is not None]
        if len(given) != 1 or not np.isfinite(given[0]) or given[0] <= 0:
            msg = f"a budget is seconds or a fraction, one of them and above 0; got {self.seconds} s, {self.fraction} x"
            raise TimingSettingsError("budget", msg)

    def of(self, baseline_seconds: float) -> float:
        """Returns the limit in seconds, given the baseline's latency in seconds."""
        if self.seconds is not None:
            return self.seconds
        assert self.fraction is not None
        return self.fraction * baseline_seconds


@dataclass(frozen=True)
class BudgetCheck:
    """Whether a candidate keeps a budget.

    Attributes:
        met: Whether `seconds` is at most the limit.
        seconds: The candidate's latency at the percentile. For a budget that is a fraction: the baseline's latency over
            the speed-up of `compare`, which is the same thing with the machine's drift taken out.
        limit_seconds: The limit in seconds.
        upper_seconds: Upper end of the 95 % confidence interval of `seconds`.
        certain: Whether that upper end keeps the limit too.
        percentile: Which percentile.
    """

    met: bool
    seconds: float
    limit_seconds: float
    upper_seconds: float
    certain: bool
    percentile: str


def compare(
    baseline: Measurement, candidate: Measurement, percentile: str | None = None, confidence: float = 0.95
) -> Ratio:
    """Returns how many times faster `candidate` is, with an interval (`deploy.measure.spread`).

    Args:
        baseline: The original.
        candidate: What was made of it, timed interleaved with it.
        percentile: One of `PERCENTILES`; the candidate's own by default.
        confidence: Of the interval, 0 to 1.

    Raises:
        MeasureError: If the two were not timed interleaved, or in too few rounds.
    """
    percentile = percentile or candidate.settings.percentile
    above, below = _pair(baseline, candidate)
    interval = sure_ratio(above, below, percentile, confidence)
    return Ratio(
        speedup=interval.value,
        pooled_speedup=baseline.distribution.at(percentile) / candidate.distribution.at(percentile),
        ci_low=interval.low,
        ci_high=interval.high,
        confidence=confidence,
        percentile=percentile,
        n=candidate.distribution.n,
        rounds=sum(bool(mine) and bool(theirs) for mine, theirs in zip(above.rounds, below.rounds, strict=True)),
        processes=candidate.processes,
    )


def meets(budget: Budget, baseline: Measurement, candidate: Measurement, percentile: str | None = None) -> BudgetCheck:
    """Returns whether `candidate` keeps the budget, by what was measured.

    Raises:
        MeasureError: If the budget is a fraction and the two were not timed interleaved.
    """
    percentile = percentile or candidate.settings.percentile
    if budget.seconds is not None:
        limit = budget.seconds
        absolute = candidate.interval(percentile)
        seconds, upper = absolute.value, absolute.high
    else:
        assert budget.fraction is not None
        reference = baseline.distribution.at(percentile)
        limit = budget.fraction * reference
        ratio = sure_ratio(*_pair(baseline, candidate), percentile)
        seconds, upper = reference / ratio.value, reference / ratio.low
    return BudgetCheck(seconds <= limit, seconds, limit, upper, upper <= limit, percentile)


def _pair(baseline: Measurement, candidate: Measurement) -> tuple[Taken, Taken]:
    if baseline.session != candidate.session:
        msg = f"'{baseline.file}' and '{candidate.file}' were not timed interleaved, so their ratio means nothing"
        raise MeasureError(msg)
    return Taken(baseline.rounds, baseline.process_rounds), Taken(candidate.rounds, candidate.process_rounds)


def judge(distribution: Distribution, rounds: Rounds, percentile: str) -> list[str]:
    """Returns what in the times themselves makes them less sure."""
    warnings = []
    rounds = [block for block in rounds if len(block)]
    third = max(1, len(rounds) // 3)
    early = float(np.median(np.concatenate([np.asarray(block) for block in rounds[:third]])))
    late = float(np.median(np.concatenate([np.asarray(block) for block in rounds[-third:]])))
    if abs(late / early - 1) > _DRIFT:
        warnings.append(f"the times drifted by {late / early - 1:+.0%} during the measurement")
    tail = distribution.n * (1 - check_percentile(percentile) / 100)
    if tail < _TAIL_SAMPLES:
        warnings.append(f"only {distribution.n} runs: too few to know the {percentile}")
    return warnings


def judge_conditions(conditions: Conditions, device: Device) -> list[str]:
    """Returns what in the state of the machine makes times less sure."""
    warnings = []
    others = conditions.others_fraction
    if others is not None and others > _BUSY:
        warnings.append(f"other programs used {others:.0%} of the machine's {device.cores} processors")
    if conditions.waiting_fraction is not None and conditions.waiting_fraction > _WAITING:
        warnings.append(f"other programs held the processor {conditions.waiting_fraction:.0%} of the time")
    if conditions.steal_fraction is not None and conditions.steal_fraction > _WAITING:
        warnings.append(f"the hypervisor took {conditions.steal_fraction:.0%} of the processor time")
    before, after = conditions.before.mhz, conditions.after.mhz
    if before and after and abs(float(np.mean(after)) / float(np.mean(before)) - 1) > _DRIFT:
        warnings.append(f"the clock changed from {np.mean(before):.0f} to {np.mean(after):.0f} MHz")
    return warnings + _judge_gpu(conditions.before, conditions.after)


def _judge_gpu(before: ClockState, after: ClockState) -> list[str]:
    """Returns what in the state of the GPU makes times less sure. Its clock before a run is that of an idle GPU."""
    warnings = []
    if after.gpu is not None and after.gpu.throttled:
        warnings.append(f"the GPU's clock was held down: {', '.join(after.gpu.throttled)}")
    if after.jetson is not None and after.jetson.clocks_fixed is False:
        warnings.append("the GPU's clock was not fixed; `sudo jetson_clocks` fixes it")
    if before.jetson is not None and after.jetson is not None and before.jetson.power_mode != after.jetson.power_mode:
        warnings.append(f"the power mode changed from {before.jetson.power_mode} to {after.jetson.power_mode}")
    return warnings

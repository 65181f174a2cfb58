from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from deploy.errors import MeasureError, TimingSettingsError
from deploy.gpu import GpuState
from deploy.jetson import JetsonState
from deploy.machine import ClockState, Device
from deploy.measure.distribution import describe_times, thin
from deploy.measure.report import Budget, Conditions, Measurement, compare, judge, judge_conditions, meets
from deploy.measure.settings import TimingSettings
from deploy.measure.spread import PLACEMENT
from deploy.runtimes import RuntimeInfo

QUIET = ClockState((2500.0, 2500.0), "performance", (0.1, 0.1, 0.1), 40.0, 0.0, 0.0, 0.0, 0.0)
CONDITIONS = Conditions(QUIET, QUIET, 0.0, 0.0, 0.0)
DEVICE = Device("cpu", "x86_64", 2, 2**30, "Linux", "host")


def measurement(seconds: float, noise: float = 0.02, session: str = "one", seed: int = 0) -> Measurement:
    generator = np.random.default_rng(seed)
    rounds = tuple(tuple(block) for block in (seconds * (1 + noise * generator.normal(size=(50, 10)))).tolist())
    return Measurement(
        "model.onnx",
        "0" * 64,
        session,
        describe_times(rounds),
        0,
        thin(rounds, 400),
        TimingSettings(),
        RuntimeInfo("onnxruntime", "1", ("CPUExecutionProvider",), 1),
        DEVICE,
        CONDITIONS,
        (),
        rounds,
    )


def test_a_ratio_says_how_many_times_faster() -> None:
    ratio = compare(measurement(2e-3), measurement(1e-3, seed=1))
    assert ratio.ci_low < 2.0 < ratio.ci_high
    assert ratio.speedup == pytest.approx(2.0, rel=0.01)
    assert ratio.pooled_speedup == pytest.approx(2.0, rel=0.01)
    assert (ratio.n, ratio.rounds, ratio.confidence, ratio.percentile) == (500, 50, 0.95, "p50")
    assert ratio.is_faster


def test_a_model_against_itself_is_not_faster() -> None:
    assert not compare(measurement(1e-3), measurement(1e-3, seed=1)).is_faster


@pytest.mark.parametrize("noise", [1e-5, 0.02, 0.3])
def test_equal_files_may_be_so_far_apart_as_memory_has_it(noise: float) -> None:
    """However many runs there are, half a percent is no gain; the interval of the runs alone would call it one."""
    ratio = compare(measurement(1.005, noise), measurement(1.0, noise, seed=1))
    assert not ratio.is_faster
    assert ratio.ci_low <= ratio.speedup * math.exp(-PLACEMENT)
    assert ratio.ci_high >= ratio.speedup * math.exp(PLACEMENT)


def test_what_is_well_apart_is_told_as_such() -> None:
    ratio = compare(measurement(1.02, 1e-5), measurement(1.0, 1e-5, seed=1))
    assert ratio.is_faster
    assert ratio.ci_high - ratio.ci_low == pytest.approx(2 * PLACEMENT * ratio.speedup, rel=0.01)


def in_processes(found: Measurement, factors: list[float]) -> Measurement:
    """Returns a measurement whose rounds several processes ran, each slower by a factor of its own."""
    each = len(found.rounds) // len(factors)
    assert each * len(factors) == len(found.rounds)
    rounds = tuple(
        tuple(value * factors[number // each] for value in block) for number, block in enumerate(found.rounds)
    )
    return replace(found, rounds=rounds, distribution=describe_times(rounds), process_rounds=(each,) * len(factors))


def test_what_processes_differ_by_is_in_the_interval() -> None:
    """The rounds of each are certain of a gain, and of another one; together they do not know that there is any."""
    baseline = in_processes(measurement(1e-3, 1e-5), [1.01, 0.995, 1.012, 0.993, 1.0])
    ratio = compare(baseline, in_processes(measurement(1e-3, 1e-5, seed=1), [1.0] * 5))
    assert not ratio.is_faster
    assert 0.005 < ratio.ci_high - ratio.speedup < 0.03
    assert (ratio.processes, ratio.rounds) == (5, 50)


def test_processes_that_agree_need_no_constant() -> None:
    baseline, candidate = (in_processes(measurement(seconds, 1e-5), [1.0] * 5) for seconds in (1.003, 1.0))
    assert compare(baseline, candidate).is_faster
    assert meets(Budget(fraction=0.9985), baseline, candidate).certain
    check = meets(Budget(seconds=1.0005), baseline, candidate)
    assert (check.met, check.certain) == (True, True)


def test_an_absolute_budget_is_uncertain_where_processes_differ() -> None:
    candidate = in_processes(measurement(1e-3, 1e-5), [1.0, 1.01, 0.99, 1.01, 0.99])
    check = meets(Budget(seconds=1.002e-3), candidate, candidate)
    assert (check.met, check.certain) == (True, False)


def test_a_tail_is_that_of_all_runs_with_the_spread_of_the_processes() -> None:
    candidate = in_processes(measurement(1e-3, 1e-3), [1.0, 1.02, 0.98, 1.01, 0.99])
    found = candidate.interval("p99")
    assert found.value == pytest.approx(candidate.distribution.p99, rel=1e-3)
    assert found.low < 0.99 * found.value < 1.01 * found.value < found.high


def test_counts_that_are_not_those_of_the_rounds_are_refused() -> None:
    found = replace(measurement(1e-3), process_rounds=(20, 20))
    with pytest.raises(MeasureError, match=r"processes with \[20, 20\] rounds cannot have run 50 together"):
        compare(found, found)


def test_another_percentile_can_be_compared() -> None:
    baseline, candidate = measurement(2e-3), measurement(1e-3, noise=0.2, seed=1)
    assert compare(baseline, candidate, "p99").speedup < 0.8 * compare(baseline, candidate).speedup


def test_measurements_of_different_sessions_cannot_be_compared() -> None:
    with pytest.raises(MeasureError, match="not timed interleaved"):
        compare(measurement(1e-3), measurement(1e-3, session="two"))
    with pytest.raises(MeasureError, match="not timed interleaved"):
        meets(Budget(fraction=0.5), measurement(1e-3), measurement(1e-3, session="two"))


@pytest.mark.parametrize(
    ("limit", "met", "certain"), [(1.1e-3, True, True), (1.0e-3 * 1.0002, True, False), (0.9e-3, False, False)]
)
def test_an_absolute_budget(limit: float, met: bool, certain: bool) -> None:
    candidate = measurement(1e-3)
    exact = limit if limit != 1.0e-3 * 1.0002 else candidate.seconds * 1.0002
    check = meets(Budget(seconds=exact), measurement(2e-3), candidate)
    assert (check.met, check.certain) == (met, certain)
    assert check.seconds == candidate.distribution.p50
    assert check.seconds < check.upper_seconds
    assert check.limit_seconds == exact


@pytest.mark.parametrize(("fraction", "met"), [(0.6, True), (0.4, False)])
def test_a_budget_as_a_fraction_of_the_baseline(fraction: float, met: bool) -> None:
    baseline, candidate = measurement(2e-3), measurement(1e-3, seed=1)
    check = meets(Budget(fraction=fraction), baseline, candidate)
    assert (check.met, check.certain) == (met, met)
    assert check.limit_seconds == fraction * baseline.distribution.p50
    assert check.seconds == pytest.approx(baseline.distribution.p50 / compare(baseline, candidate).speedup)


def test_a_budget_on_the_tail() -> None:
    baseline, candidate = measurement(2e-3), measurement(1e-3, noise=0.3, seed=1)
    assert meets(Budget(fraction=0.6), baseline, candidate, "p50").met
    check = meets(Budget(fraction=0.6), baseline, candidate, "p99")
    assert not check.met
    assert check.percentile == "p99"


@pytest.mark.parametrize(
    ("seconds", "fraction"), [(None, None), (1.0, 0.5), (0.0, None), (-1.0, None), (None, 0.0), (float("nan"), None)]
)
def test_a_budget_that_is_none_is_refused(seconds: float | None, fraction: float | None) -> None:
    with pytest.raises(TimingSettingsError, match="one of them and above 0"):
        Budget(seconds, fraction)


def test_json_holds_everything_but_the_full_list_of_times() -> None:
    values = json.loads(json.dumps(measurement(1e-3).as_dict()))
    assert "rounds" not in values
    assert len(values["samples"]) == 400
    assert values["settings"]["batch"] == 1
    assert values["distribution"]["n"] == 500
    assert values["conditions"]["before"]["governor"] == "performance"


def test_drift_is_told() -> None:
    rounds = [[1.0]] * 30 + [[1.2]] * 30
    assert judge(describe_times(rounds), rounds, "p50") == ["the times drifted by +20% during the measurement"]
    assert judge(describe_times(rounds[:30]), rounds[:30], "p50") == []


def test_too_few_runs_for_a_tail_are_told() -> None:
    rounds = [[1.0] * 10] * 30
    assert judge(describe_times(rounds), rounds, "p99") == ["only 300 runs: too few to know the p99"]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (replace(CONDITIONS, others_fraction=0.5), "other programs used 50% of the machine's 2 processors"),
        (replace(CONDITIONS, waiting_fraction=0.2), "other programs held the processor 20% of the time"),
        (replace(CONDITIONS, steal_fraction=0.3), "the hypervisor took 30% of the processor time"),
        (replace(CONDITIONS, after=replace(QUIET, mhz=(1250.0, 1250.0))), "changed from 2500 to 1250 MHz"),
    ],
)
def test_conditions_that_spoil_a_measurement_are_told(conditions: Conditions, message: str) -> None:
    (warning,) = judge_conditions(conditions, DEVICE)
    assert message in warning


BUSY_GPU = replace(QUIET, gpu=GpuState(sm_mhz=900.0, throttled=("software power cap",)))
JETSON = replace(QUIET, jetson=JetsonState("MAXN", 918.0, clocks_fixed=True))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (QUIET, BUSY_GPU, "the GPU's clock was held down: software power cap"),
        (JETSON, replace(JETSON, jetson=JetsonState("MAXN", 918.0, clocks_fixed=False)), "was not fixed"),
        (JETSON, replace(JETSON, jetson=JetsonState("15W", 918.0, clocks_fixed=True)), "changed from MAXN to 15W"),
    ],
)
def test_a_gpu_that_is_not_at_its_best_is_told(before: ClockState, after: ClockState, message: str) -> None:
    (warning,) = judge_conditions(replace(CONDITIONS, before=before, after=after), DEVICE)
    assert message in warning


def test_a_gpu_whose_clock_rose_from_idle_is_no_reason_to_doubt() -> None:
    idle, working = (replace(QUIET, gpu=GpuState(sm_mhz=mhz)) for mhz in (210.0, 1980.0))
    assert judge_conditions(replace(CONDITIONS, before=idle, after=working), DEVICE) == []


def test_a_quiet_or_silent_machine_gives_no_warning() -> None:
    silent = ClockState((), None, None, None, None, None, None, 0.0)
    assert judge_conditions(CONDITIONS, DEVICE) == []
    assert judge_conditions(Conditions(silent, silent, None, None, None), DEVICE) == []

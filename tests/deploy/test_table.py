from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deploy import table as table_module
from deploy.bench import LocalBench
from deploy.errors import MeasureCancelledError, RuntimeMissingError
from deploy.measure.settings import TimingSettings
from deploy.table import LatencyTable, TableCounts, TableSettings, _over, _relative
from tests.deploy.networks import IMAGE, Residual, Spec


@dataclass(frozen=True)
class Operator:
    key: str
    module: nn.Module
    inputs: tuple[Spec, ...]


class Block(nn.Module):
    """Two convolutions and the skip around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + x)


def conv(key: str, channels: int, size: int = 16) -> Operator:
    return Operator(key, nn.Conv2d(channels, channels, 3, padding=1).eval(), (Spec("x", (channels, size, size)),))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_OPERATORS", "_NETWORKS"):
        settings = replace(
            getattr(table_module, name), min_seconds=0.1, min_rounds=8, min_samples=8, warmup_seconds=0.05
        )
        monkeypatch.setattr(table_module, name, settings)
    monkeypatch.setattr(table_module, "_SECONDS_PER_NETWORK", 0.1)
    monkeypatch.setattr(table_module, "_SECONDS_PER_TAIL", 0.2)


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    return LatencyTable(TableSettings(), tmp_path / "cache.db", tmp_path)


def test_more_work_takes_longer(table: LatencyTable) -> None:
    block = Operator("block", Block(32).eval(), (Spec("x", (32, 16, 16)),))
    small, large, twice = table.operators([conv("small", 8), conv("large", 64, 32), block])
    assert 0 < 20 * small < large
    assert 20 * small > 0
    assert twice < large


def test_the_second_call_measures_nothing(table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operators = [conv("a", 8), conv("b", 16), conv("a", 8)]
    first = table.operators(operators)
    assert first[0] == first[2]
    assert table.counts == TableCounts(measured=2, cached=0)

    def refuse(*_: object) -> None:
        raise AssertionError("it measured")

    monkeypatch.setattr(LocalBench, "time", refuse)
    assert table.operators(operators) == first
    assert table.counts == TableCounts(measured=2, cached=2)
    # Another table, in another job perhaps, knows them too.
    again = LatencyTable(TableSettings(), tmp_path / "cache.db")
    assert again.operators(operators) == first
    assert again.counts == TableCounts(measured=0, cached=2)
    # One that goes on from a machine of half the speed keeps to that scale.
    assert table.anchor is not None
    slower = LatencyTable(TableSettings(), tmp_path / "cache.db", anchor=2 * table.anchor)
    assert slower.operators(operators) == [2 * seconds for seconds in first]


def test_only_what_is_new_is_measured(table: LatencyTable) -> None:
    (before,) = table.operators([conv("a", 8)])
    after = table.operators([conv("a", 8), conv("b", 16)])
    assert after[0] == before
    assert table.counts == TableCounts(measured=2, cached=1)


def test_another_batch_size_is_another_latency(table: LatencyTable, tmp_path: Path) -> None:
    operator = conv("a", 64, 32)
    (one,) = table.operators([operator])
    eight = LatencyTable(TableSettings(batch=8), tmp_path / "cache.db").operators([operator])[0]
    assert eight > 3 * one


def test_an_operator_that_costs_nothing_still_has_a_positive_latency(table: LatencyTable) -> None:
    (seconds,) = table.operators([Operator("tiny", nn.Sigmoid().eval(), (Spec("x", (1,)),))])
    assert 0 < seconds < 1e-4


def test_whole_networks_are_timed(table: LatencyTable, residual: Residual) -> None:
    large = nn.Conv2d(64, 64, 3, padding=1).eval()
    small_seconds, large_seconds = table.networks([(residual, (IMAGE,)), (large, (Spec("x", (64, 40, 40)),))])
    assert 0 < 5 * small_seconds < large_seconds
    assert table.networks([]) == []


def test_a_tail_percentile_is_above_the_median(tmp_path: Path) -> None:
    networks = [(nn.Conv2d(64, 64, 3, padding=1).eval(), (Spec("x", (64, 16, 16)),))]
    tail = LatencyTable(TableSettings(percentile="p99"), tmp_path / "cache.db")
    median = LatencyTable(TableSettings(), tmp_path / "cache.db")
    assert tail.networks(networks)[0] > 0.8 * median.networks(networks)[0]


class Noting(LocalBench):
    """Notes the settings that files are timed with."""

    def __init__(self) -> None:
        super().__init__("onnxruntime")
        self.noted: list[TimingSettings] = []

    def time(
        self, files: Sequence[Path], settings: TimingSettings, cancel: threading.Event | None = None
    ) -> dict[str, Any]:
        self.noted.append(settings)
        return super().time(files, settings, cancel)


@pytest.mark.parametrize(("percentile", "seconds"), [("p50", 0.2), ("p99", 0.4)])
def test_networks_are_timed_for_a_known_time_and_longer_where_a_tail_counts(
    percentile: str, seconds: float, tmp_path: Path
) -> None:
    bench = Noting()
    networks = [(nn.Conv2d(8, 8, 3).eval(), (Spec("x", (8, 16, 16)),)) for _ in range(2)]
    LatencyTable(TableSettings(percentile=percentile), tmp_path / "cache.db", bench=bench).networks(networks)
    (settings,) = bench.noted
    assert (settings.min_seconds, settings.precision) == (seconds, None)


def test_the_scratch_folder_is_left_empty(table: LatencyTable, tmp_path: Path) -> None:
    table.operators([conv("a", 8)])
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == set()


def test_a_cancelled_measurement_stores_nothing(tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    table = LatencyTable(TableSettings(), tmp_path / "cache.db", cancel=cancel)
    with pytest.raises(MeasureCancelledError):
        table.operators([conv("a", 8)])
    assert table.counts == TableCounts(0, 0)


def test_an_unknown_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissingError, match="runtime 'abacus' cannot be used"):
        LatencyTable(TableSettings(runtime="abacus"), tmp_path / "cache.db")


ANCHORED = {Path("op"): 5.0, Path("edge"): 1.0, Path("short"): 0.25, Path("long"): 0.75}
DISPATCH = [Path("short"), Path("long")]


def test_dispatch_and_half_of_the_edges_are_taken_off() -> None:
    # Ten more operators cost 0.5, so one costs 0.05 and starting a model 0.2. Both ways over the edges cost 0.8.
    assert _relative(ANCHORED, Path("op"), None, DISPATCH) == pytest.approx(5.0 - 0.2)
    assert _relative(ANCHORED, Path("op"), Path("edge"), DISPATCH) == pytest.approx(5.0 - 0.2 - 0.4)


def test_what_is_left_is_never_less_than_starting_an_operator() -> None:
    assert _relative({**ANCHORED, Path("op"): 0.1}, Path("op"), Path("edge"), DISPATCH) == pytest.approx(0.05)
    backwards = {**ANCHORED, Path("op"): 0.1, Path("long"): 0.2}
    assert _relative(backwards, Path("op"), None, DISPATCH) > 0


def test_times_are_compared_with_the_anchor_of_the_same_round() -> None:
    slow_and_fast = [1.0, 1.0, 3.0, 3.0, 3.0]
    rounds = [(2.0 * speed,) for speed in slow_and_fast]
    anchors = [(speed,) for speed in slow_and_fast]
    assert _over(rounds, anchors) == 2.0
    assert _over([*rounds, ()], [*anchors, (9.0,)]) == 2.0

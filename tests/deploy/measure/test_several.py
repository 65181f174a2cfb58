"""Measurements in several processes: real ones."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.artifact import Artifact
from deploy.bench.perform import perform
from deploy.bench.remote import RemoteBench
from deploy.bench.work import Answer, Question
from deploy.errors import MeasureCancelledError, MeasureError, ModelFileError
from deploy.measure import several
from deploy.measure.report import compare
from deploy.measure.settings import MIN_ROUNDS, TimingSettings
from deploy.measure.several import loading_order, time_in_fresh_processes
from deploy.measure.whole import measure
from tests.deploy.measure.timers import children, needs_proc, wait_for_worker, workers

THREE = TimingSettings(
    min_seconds=0.3, max_seconds=6.0, min_samples=30, warmup_seconds=0.1, block_seconds=0.002, processes=3
)
LONG = TimingSettings(min_seconds=60, max_seconds=60, processes=3)


def test_every_order_of_loading_is_followed_by_its_reverse() -> None:
    orders = [loading_order(4, number, seed=3) for number in range(10)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert orders[1::2] == [order[::-1] for order in orders[::2]]
    assert len({tuple(order) for order in orders[::2]}) > 1


def test_orders_of_loading_follow_from_the_seed() -> None:
    first, again, other = ([loading_order(6, number, seed) for number in range(6)] for seed in (1, 1, 2))
    assert first == again != other


def test_each_of_two_files_is_the_first_as_often_as_the_other() -> None:
    for seed in range(5):
        assert sum(loading_order(2, number, seed)[0] for number in range(10)) == 5


def test_files_are_measured_in_several_processes(artifact: Artifact, heavy: Path) -> None:
    slow, light = measure([heavy, artifact.path], THREE)
    assert (slow.file, light.file) == ("heavy.onnx", "residual.onnx")
    assert slow.processes == light.processes == 3
    assert slow.process_rounds == light.process_rounds
    assert min(light.process_rounds) >= MIN_ROUNDS
    assert len(light.rounds) == len(slow.rounds) == sum(light.process_rounds)
    assert light.distribution.n == sum(map(len, light.rounds)) >= 30
    assert light.conditions.after.monotonic_seconds > light.conditions.before.monotonic_seconds
    ratio = compare(slow, light)
    assert ratio.processes == 3
    assert ratio.speedup > 10
    assert light.as_dict()["process_rounds"] == light.process_rounds


def test_an_agent_measures_in_several_processes_and_an_old_one_in_one(artifact: Artifact, tmp_path: Path) -> None:
    def new(question: Question) -> Answer:
        request = json.loads(json.dumps(question.request))
        home = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        home.mkdir()
        found = perform(Question(question.kind, request, question.files), home)
        return Answer(json.loads(json.dumps(found.result)))

    def old(question: Question) -> Answer:
        """Reads what there was before: it knows no processes, neither as a setting nor in its answer."""
        assert "processes" not in question.request["settings"]
        request = {name: value for name, value in question.request.items() if name != "processes"}
        answer = dict(new(Question(question.kind, request, question.files)).result)
        del answer["process_rounds"]
        return Answer(answer)

    for ask, processes in ((new, 3), (old, 1)):
        (found,) = measure([artifact.path], THREE, bench=RemoteBench("onnxruntime", "cpu", ask, tmp_path))
        assert found.processes == processes
        assert found.interval().low < found.seconds < found.interval().high


def test_one_process_has_it_all_where_three_would_take_too_long(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "_AT_LEAST_SECONDS", 0.1)
    settings = replace(THREE, min_seconds=0.05, max_seconds=0.05, precision=None)
    answer = time_in_fresh_processes([artifact.path], settings)
    assert len(answer["process_rounds"]) == 1


def test_a_runtime_that_builds_whenever_it_loads_is_given_one_process() -> None:
    assert several._most(replace(THREE, runtime="onnxruntime")) == 3
    assert several._most(replace(THREE, runtime="onnxruntime-tensorrt", device="cuda:0")) == 1


@pytest.mark.parametrize(("seconds", "processes"), [(0.1, 3), (1.0, 5), (2.0, 10), (8.0, 10)])
def test_so_many_processes_that_each_measures_more_than_it_starts(seconds: float, processes: int) -> None:
    assert several._most(TimingSettings(min_seconds=seconds)) == processes


def test_a_file_that_cannot_be_loaded_is_told_once(artifact: Artifact, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"garbage" * 100)
    with pytest.raises(ModelFileError, match=r"cannot load 'bad\.onnx'"):
        measure([artifact.path, bad], THREE)


@needs_proc
def test_a_later_process_that_is_killed_is_told_by_its_number(artifact: Artifact) -> None:
    before = children()
    caught: list[BaseException] = []

    def run() -> None:
        try:
            measure([artifact.path], replace(THREE, min_seconds=6.0))
        except MeasureError as exc:
            caught.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    first = wait_for_worker(before)
    while workers(before) in ([first], []) and thread.is_alive():
        time.sleep(0.02)
    os.kill(wait_for_worker(before), signal.SIGKILL)
    thread.join(30)
    assert str(caught[0]).startswith("timing process 2 of 3 died from signal SIGKILL")
    assert workers(before) == []


@needs_proc
def test_cancelling_kills_a_later_process_at_once(artifact: Artifact) -> None:
    before, cancel = children(), threading.Event()

    def stop() -> None:
        first = wait_for_worker(before)
        while workers(before) in ([first], []):
            time.sleep(0.02)
        cancel.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(MeasureCancelledError):
        measure([artifact.path], replace(THREE, min_seconds=6.0), cancel)
    stopper.join()
    assert workers(before) == []


@needs_proc
def test_the_time_of_all_processes_together_is_limited(artifact: Artifact) -> None:
    before = children()
    with pytest.raises(MeasureError, match=r"timing process 1 of 3 gave no answer within 1 s and was killed"):
        measure([artifact.path], replace(LONG, timeout_seconds=1.0))
    assert workers(before) == []

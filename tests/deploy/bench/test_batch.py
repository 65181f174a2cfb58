"""What is run is loaded as what is timed, for runtimes that compile for one batch size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from deploy.artifact import Artifact
from deploy.bench import LocalBench
from deploy.bench.perform import perform
from deploy.bench.remote import RemoteBench
from deploy.bench.work import Answer, Question
from deploy.measure.profiling import profile_file
from deploy.measure.settings import TimingSettings
from deploy.runtimes import RUNTIMES, LayerTime, Runtime, Session, SessionSettings
from deploy.tensors import Array

FEED = (np.zeros((2, 3, 8, 8), np.float32),)


class Noting(Runtime):
    """ONNX Runtime; notes the batch sizes that it is asked to be fast at."""

    name, extra, devices = "onnxruntime", "server", ("cpu",)

    def __init__(self) -> None:
        self.own = RUNTIMES["onnxruntime", "cpu"]
        self.batches: list[int | None] = []

    def version(self) -> str:
        return self.own.version()

    def load(self, path: Path, settings: SessionSettings) -> Session:
        self.batches.append(settings.batch)
        return self.own.load(path, settings)

    def write_edges(self, path: Path, to: Path, batch: int) -> bool:
        return self.own.write_edges(path, to, batch)

    def profile(
        self, path: Path, settings: SessionSettings, inputs: Sequence[Array], runs: int
    ) -> tuple[LayerTime, ...] | None:
        self.batches.append(settings.batch)
        return self.own.profile(path, settings, inputs, runs)


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> Noting:
    runtime = Noting()
    monkeypatch.setitem(RUNTIMES, ("onnxruntime", "cpu"), runtime)
    return runtime


@pytest.mark.parametrize("batch", [None, 4])
def test_a_file_is_run_as_it_is_timed_here(batch: int | None, noting: Noting, artifact: Artifact) -> None:
    list(LocalBench(batch=batch).run(artifact.path, [FEED]))
    assert noting.batches == [batch]


@pytest.mark.parametrize("batch", [None, 4])
def test_a_file_is_run_as_it_is_timed_far_away(
    batch: int | None, noting: Noting, artifact: Artifact, tmp_path: Path
) -> None:
    def ask(question: Question) -> Answer:
        return perform(question, tmp_path)

    list(RemoteBench("onnxruntime", "cpu", ask, tmp_path / "scratch", batch).run(artifact.path, [FEED]))
    assert noting.batches == [batch]


def test_a_server_that_names_no_batch_is_answered(noting: Noting, artifact: Artifact, tmp_path: Path) -> None:
    def ask(question: Question) -> Answer:
        older = {name: value for name, value in question.request.items() if name != "batch"}
        return perform(Question(question.kind, older, question.files), tmp_path)

    list(RemoteBench("onnxruntime", "cpu", ask, tmp_path / "scratch", 4).run(artifact.path, [FEED]))
    assert noting.batches == [None]


def test_a_file_is_profiled_as_it_is_timed(noting: Noting, artifact: Artifact) -> None:
    assert profile_file(artifact.path, TimingSettings(batch=4)) is not None
    assert noting.batches == [4, 4]

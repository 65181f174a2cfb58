from __future__ import annotations

from pathlib import Path

import pytest

from deploy.artifact import Artifact
from deploy.errors import ModelFileError
from deploy.measure import profiling
from deploy.measure.profiling import MAX_RUNS, profile, profile_file
from deploy.measure.settings import TimingSettings


def test_a_fresh_process_tells_where_the_time_goes(artifact: Artifact) -> None:
    first, second = profile([artifact.path, artifact.path], TimingSettings(batch=2))
    assert first is not None
    assert second is not None
    assert 2 <= first.runs <= MAX_RUNS
    assert sum(layer.share for layer in first.layers) == pytest.approx(1)
    assert {layer.name for layer in first.layers} == {layer.name for layer in second.layers}


def test_a_file_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        profile([tmp_path / "none.onnx"], TimingSettings())


def test_a_network_that_takes_long_is_not_profiled(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "MAX_SECONDS", 0.0)
    assert profile_file(artifact.path, TimingSettings()) is None

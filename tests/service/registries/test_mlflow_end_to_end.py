"""A registry with a real network, the real engine, and MLflow itself loading what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.service.cli.command import shoal_here
from tests.service.cli.test_end_to_end import write_inputs
from tests.service.registries.mlflow_models import register_pt2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_what_was_optimised_is_loaded_by_mlflow_and_verified(
    mlflow_client: Any, tracking_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    write_inputs(tmp_path)
    register_pt2(mlflow_client, "real", (tmp_path / "net.pt2").read_bytes(), shoal__budget="0.8x")
    out, state = tmp_path / "out", tmp_path / "state"
    flags = ("--data", tmp_path / "data", "--no-finetune", "--tracking-uri", tracking_uri, "--out", out)
    done = shoal_here(capsys, "batch", "mlflow:real", *flags, "--state-dir", state)
    assert done.returncode == 0, done.stdout + done.stderr
    version = mlflow_client.get_model_version("real-shoal", "1")
    place = mlflow_client.download_artifacts(version.run_id, "model", str(tmp_path))
    loaded = mlflow.pyfunc.load_model(place)
    (entry,) = loaded.metadata.get_input_schema().inputs
    answered = loaded.predict({entry.name: np.zeros((3, 1, 16, 16), np.float32)})
    assert [value.shape for value in answered.values()] == [(3, 4)]
    checked = shoal_here(capsys, "verify", Path(place) / "shoal")
    assert checked.returncode == 0, checked.stdout
    again = shoal_here(capsys, "batch", "mlflow:real", *flags, "--state-dir", state)
    assert "1 of 1 met their budget; 0 worked on now" in again.stdout

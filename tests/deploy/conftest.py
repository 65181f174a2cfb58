"""The tiny network and its files, exported once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from deploy.artifact import Artifact
from deploy.export import ExportSettings, export_onnx
from tests.deploy.networks import IMAGE, Residual, make_residual

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def residual() -> Residual:
    return make_residual()


@pytest.fixture(scope="session")
def large(residual: Residual, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The residual network with its weights beside the file."""
    path = tmp_path_factory.mktemp("large") / "large.onnx"
    return export_onnx(residual, [IMAGE], ["logits"], path, ExportSettings(external_data_above_bytes=100))


@pytest.fixture
def large_copy(large: Artifact, tmp_path: Path) -> Path:
    """A copy of it that may be spoiled."""
    for file in (large.path, large.path.with_name("large.onnx.data")):
        shutil.copy(file, tmp_path)
    return tmp_path / "large.onnx"


@pytest.fixture(scope="session")
def artifact(residual: Residual, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export_onnx(residual, [IMAGE], ["logits"], tmp_path_factory.mktemp("export") / "residual.onnx")

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from tests.deploy.networks import Spec, write_direct


@pytest.fixture(scope="session")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About a thousand times the work of the residual network."""
    module = nn.Conv2d(64, 64, 3, padding=1)
    return write_direct(module, Spec("x", (64, 40, 40)), tmp_path_factory.mktemp("heavy") / "heavy.onnx")

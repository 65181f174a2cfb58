from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.delivery.made import copy, deliver


@pytest.fixture(scope="session")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a job delivers it; not to be written to."""
    return deliver(tmp_path_factory.mktemp("delivered") / "out")


@pytest.fixture
def folder(delivered: Path, tmp_path: Path) -> Path:
    """A copy of it that may be spoiled."""
    return copy(delivered, tmp_path / "folder")

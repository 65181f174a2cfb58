from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.executors.cluster import RayCluster


@pytest.fixture(scope="package")
def cluster() -> Iterator[RayCluster]:
    pytest.importorskip("ray", reason="Ray is not installed; it comes with shoal[ray]")
    with RayCluster() as cluster:
        yield cluster

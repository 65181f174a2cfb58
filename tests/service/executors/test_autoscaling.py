"""A job asks for a node that is not there, on a cluster whose autoscaler can bring one."""

from __future__ import annotations

from pathlib import Path

import pytest

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from tests.service.server_harness import eventually, finished, running, settings_for, start_job, worker_command

pytest.importorskip("ray", reason="Ray is not installed; it comes with shoal[ray]")

from tests.service.executors.autoscaled import AutoscaledCluster


def processors() -> tuple[float, float]:
    """How many the cluster has, and how many of them nobody uses, as this process's connection tells it."""
    import ray

    return ray.cluster_resources().get("CPU", 0.0), ray.available_resources().get("CPU", 0.0)


@pytest.mark.slow
async def test_a_job_brings_its_node_and_leaves_it_free_to_go(tmp_path: Path) -> None:
    with AutoscaledCluster() as cluster:
        changes = {"ray_address": cluster.address, "ray_node_dir": tmp_path / "node"}
        worker = worker_command("roams", "0.1")
        async with running(settings_for(tmp_path, executor="ray", worker_command=worker, **changes)) as stub:
            before = processors()
            job = await finished(stub, (await start_job(stub)).name)
            await eventually(lambda: processors() == (1.0, 1.0), 30)

    assert before == (0.0, 0.0)
    assert job.state == job_pb.OptimizationJob.State.STATE_SUCCEEDED, job.error

"""A real job, with nothing replaced, on the nodes of a real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.settings import ServerSettings
from tests.service.executors.cluster import RayCluster, node_of, raylet_of, worker_of
from tests.service.resuming.test_resume import start, write_inputs
from tests.service.server_harness import eventually, follow, reached, running


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_real_job_goes_on_when_its_node_dies(tmp_path: Path, cluster: RayCluster) -> None:
    cluster.fill(2)
    model = write_inputs(tmp_path / "data", 4)
    settings = ServerSettings(
        address="127.0.0.1:0",
        state_dir=tmp_path / "state",
        executor="ray",
        ray_address=cluster.address,
        ray_node_dir=tmp_path / "node",
        data_roots=(tmp_path / "data",),
        min_free_bytes=0,
    )
    async with running(settings) as stub:
        name = await start(stub, model, tmp_path / "data/train.npz")
        await reached(stub, name, lambda job: job.progress.phase in {"tune", "export", "measure"})
        index = tmp_path / "state/artifacts/checkpoints" / name.rpartition("/")[2] / "index.json"
        await eventually(index.exists, 30)
        node = node_of(worker_of(tmp_path / "node"))
        cluster.kill(next(one for one in cluster.nodes if raylet_of(one) == node))
        story = await follow(stub, name)
    job = story[-1].snapshot
    said = [event.progress.message for event in story if event.HasField("progress")]

    assert (job.state, job.attempts) == (job_pb.OptimizationJob.State.STATE_SUCCEEDED, 2), job.error
    assert any(message.startswith("Going on from the phase") for message in said)

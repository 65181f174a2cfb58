from __future__ import annotations

from pathlib import Path

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.settings import ServerSettings
from tests.service.server_harness import finished, reached, running, settings_for, start_job, worker_command


def server_at(tmp_path: Path, name: str) -> ServerSettings:
    """One of several servers over one database and one storage."""
    return settings_for(
        tmp_path,
        state_dir=tmp_path / name,
        database_url=f"sqlite:///{tmp_path / 'shared.db'}",
        storage_url=f"file://{tmp_path / 'storage'}",
        checkpoint_storage=True,
        worker_command=worker_command("roams"),
    )


async def test_a_job_goes_on_in_another_server_s_folder(tmp_path: Path) -> None:
    async with running(server_at(tmp_path, "one")) as stub:
        name = (await start_job(stub)).name
        await reached(stub, name, lambda job: job.progress.phase == "tune")
    async with running(server_at(tmp_path, "two")) as stub:
        job = await finished(stub, name)

    assert (job.state, job.attempts) == (job_pb.OptimizationJob.State.STATE_SUCCEEDED, 2)
    assert (job.progress.metrics["found"], job.progress.metrics["weights"]) == (1, len("fitted"))
    assert job.progress.metrics["limit"] == job.spec.time_limit.ToSeconds() - 5
    assert list((tmp_path / "storage/checkpoints").iterdir()) == []

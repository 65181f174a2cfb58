"""Jobs that are killed anywhere go on and come to the same end; nothing is replaced: server, worker, engine, device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.pipeline.phases import SHARES
from service.settings import ServerSettings
from tests.service.cli.test_end_to_end import Block
from tests.service.server.test_restart import served
from tests.service.server_harness import finished, follow, running, settings_for, upload, worker_command

State = job_pb.OptimizationJob.State


def write_inputs(folder: Path, depth: int) -> bytes:
    """Samples for training in a folder; returns a network of so many blocks."""
    torch.manual_seed(0)
    blocks = [Block() for _ in range(depth)]
    network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(16, 4))
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(network.eval(), (torch.zeros(2, 1, 16, 16),), dynamic_shapes=(batch,))
    folder.mkdir()
    torch.export.save(exported, folder / "net.pt2")
    images = np.random.default_rng(0).integers(0, 256, (400, 16, 16), dtype=np.uint8)
    np.savez(folder / "train.npz", images=images)
    return (folder / "net.pt2").read_bytes()


async def start(
    stub: ModelOptimizerStub,
    model: bytes,
    data: Path,
    device: str = "local/cpu",
    strategy: str = "layerfit",
    **tuning: float,
) -> str:
    """Queues a job; `layerfit` only takes blocks out, so that what the machine does meanwhile decides nothing."""
    artifact = await upload(stub, model)
    job = job_pb.OptimizationJob(
        spec={
            "model": {"pt2_artifact": artifact.name},
            "budget": {"fraction": 0.6},
            "strategy": {"name": strategy},
            "data": {"train": {"server_path": str(data)}},
            "fine_tuning": {"epochs": 2, "batch": 32, **tuning},
            "target": {"device": device},
        }
    )
    options = {"plans": 1, "comparisons": 2, "calibration_samples": 64}
    if strategy == "layerfit":
        options |= {"regress": False, "merge": False, "refinements": 2}
    job.spec.strategy.options.update(options)
    created = await stub.CreateOptimizationJob(service_pb.CreateOptimizationJobRequest(optimization_job=job))
    return created.name


def settings(folder: Path, *worker: str, **changes: Any) -> ServerSettings:
    command = worker_command("mortal", *worker)
    return settings_for(
        folder, worker_command=command, data_roots=(folder,), max_attempts=10, deadline_grace=60, **changes
    )


async def outcome(stub: ModelOptimizerStub, name: str) -> tuple[job_pb.OptimizationJob, dict[str, Any]]:
    """The finished job, and its plan."""
    job = await finished(stub, name)
    assert job.state == State.STATE_SUCCEEDED, job.error
    (plan,) = (artifact for artifact in job.result.artifacts if artifact.filename == "plan.json")
    request = service_pb.DownloadArtifactRequest(name=plan.name)
    content = b"".join([part.chunk.data async for part in stub.DownloadArtifact(request) if part.HasField("chunk")])
    return job, json.loads(content)


def died_with(folder: Path, phase: str) -> str:
    """SHA-256 of the network for shipping when a worker died of a phase."""
    return (folder / "state/cache" / f"died-of-{phase}").read_text()


def shipped(job: job_pb.OptimizationJob) -> str:
    return job.result.result.sha256


async def test_a_job_whose_worker_dies_goes_on_in_another_and_ships_the_same_bytes(tmp_path: Path) -> None:
    model = write_inputs(tmp_path / "data", depth=3)
    async with running(settings(tmp_path, "alone", "report")) as stub:
        name = await start(stub, model, tmp_path / "data/train.npz", learning_rate=0.01)
        job, plan = await outcome(stub, name)
        story = await follow(stub, name)

    assert job.attempts == 2
    assert shipped(job) == died_with(tmp_path, "report")
    assert len(plan["steps"]) >= 1
    began = [event.progress.message for event in story if event.progress.phase == "load"]
    assert [message.startswith("Going on from") for message in began] == [False, True]
    # Nothing is trained or judged again.
    steps = [event.progress.metrics["step"] for event in story if "epoch" in event.progress.message]
    assert steps == sorted(set(steps))


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_killed_at_every_boundary_it_ends_with_the_same_plan_and_the_same_bytes(tmp_path: Path) -> None:
    model = write_inputs(tmp_path / "data", depth=6)
    data = tmp_path / "data/train.npz"
    async with running(settings(tmp_path, "server")) as stub:
        whole, planned = await outcome(stub, await start(stub, model, data))
        undisturbed = whole.result
    killers = settings(tmp_path, "server", *SHARES)
    name = ""
    for _ in SHARES:
        async with served(killers) as (stub, server):
            name = name or await start(stub, model, data)
            assert server.wait(200) == -9
    async with served(killers) as (stub, _):
        job, plan = await outcome(stub, name)

    assert job.attempts == 1 + len(SHARES)
    assert plan["steps"] == planned["steps"]
    assert {died_with(tmp_path, phase) for phase in ("measure", "report")} == {shipped(job)}
    assert shipped(job) == shipped(whole)
    assert job.result.outcome == undisturbed.outcome


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("strategy", ["layer_merge", "easier", "tlc", "layer_folding", "auto"])
async def test_whatever_the_strategy_workers_that_die_ship_the_same_bytes(tmp_path: Path, strategy: str) -> None:
    """Boundaries inside a search are the strategies' own (`test_strategies_resume`); these are the pipeline's.

    Those before which nothing new is kept are left out: a job that dies again without having got further ends.
    """
    model = write_inputs(tmp_path / "data", depth=3)
    fatal = ("plan", "tune", "measure")
    async with running(settings(tmp_path, "alone", *fatal, worker_retries=len(fatal))) as stub:
        name = await start(stub, model, tmp_path / "data/train.npz", strategy=strategy, learning_rate=0.01)
        job, plan = await outcome(stub, name)
        story = await follow(stub, name)

    assert job.attempts == 1 + len(fatal)
    assert plan["steps"]
    assert died_with(tmp_path, "measure") == shipped(job)
    trained = [event.progress.message for event in story if event.progress.phase == "tune"]
    steps = [message for message in trained if "epoch" in message]
    assert len(steps) == len(set(steps))

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from service.errors import ExecutorError
from service.executors.visit import in_words, resources_of
from service.server import create
from service.settings import ServerSettings
from service.spec import JobSpec
from tests.service.server_harness import settings_for


def spec_for(device: str) -> JobSpec:
    fields = {"model": {"pt2_artifact": "artifacts/some"}, "budget": {"fraction": 0.5}, "target": {"device": device}}
    return JobSpec.model_validate(fields)


@pytest.mark.parametrize(
    ("device", "changes", "words"),
    [
        ("local/cpu", {}, "1 CPU"),
        ("local/cpu", {"ray_num_gpus": 0.5, "ray_num_cpus": 4}, "4 CPU, 0.5 GPU"),
        ("local/cuda:1", {}, "1 CPU, 2 GPU"),
        ("agent/edge/cuda:1", {}, "1 CPU"),
        ("local/cpu", {"ray_memory_bytes": 8_000_000_000, "ray_resources": {"big": 1}}, "1 CPU, 8 GB, 1 big"),
    ],
)
def test_a_job_asks_for_what_its_target_and_the_settings_say(
    tmp_path: Path, device: str, changes: dict[str, Any], words: str
) -> None:
    assert in_words(resources_of(settings_for(tmp_path, **changes), spec_for(device))) == words


@pytest.mark.parametrize(
    ("changes", "mirrors"),
    [
        ({}, False),
        ({"executor": "ray"}, True),
        ({"database_url": "postgresql+psycopg://somewhere/shoal"}, True),
        ({"storage_url": "s3://bucket/shoal"}, True),
        ({"storage_url": "file:///shared/shoal"}, False),
        ({"checkpoint_storage": True}, True),
        ({"executor": "ray", "checkpoint_storage": False}, False),
    ],
)
def test_checkpoints_are_mirrored_where_another_machine_may_go_on(
    tmp_path: Path, changes: dict[str, Any], mirrors: bool
) -> None:
    assert ServerSettings(state_dir=tmp_path, **changes).mirrors_checkpoints is mirrors


async def test_a_server_without_ray_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExecutorError, match=r"install shoal\[ray\]"):
        await create(settings_for(tmp_path, executor="ray")).start()


async def test_a_server_without_its_cluster_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; it comes with shoal[ray]")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ExecutorError, match=r"no Ray cluster at ray_address 'auto'.*`ray start --head`"):
        await create(settings_for(tmp_path, executor="ray")).start()

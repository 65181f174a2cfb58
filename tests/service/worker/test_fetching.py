"""Who downloads published models, and who does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from compressors.errors import ModelError
from service.spec import JobSpec
from service.worker.fetching import fetch_published
from service.worker.messages import WorkOrder


def order_for(tmp_path: Path, model: dict[str, Any], **changes: Any) -> WorkOrder:
    spec = JobSpec.model_validate({"model": model, "budget": {"fraction": 0.5}})
    places = {"folder": tmp_path / "job", "cache_folder": tmp_path / "cache"}
    return WorkOrder(job="optimizationJobs/some", task="optimize", spec=spec, deadline_seconds=10, **places, **changes)


@pytest.fixture(autouse=True)
def no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


@pytest.mark.parametrize(
    "named",
    [
        {"architecture": "timm:resnet18", "pretrained": True},
        {"architecture": "torchvision:resnet18", "pretrained": True},
        {"architecture": "transformers:owner/net", "pretrained": True},
        {"architecture": "transformers:owner/net", "weights_artifact": "artifacts/some"},
        {"architecture": "diffusers:owner/net", "weights_artifact": "artifacts/some"},
    ],
)
def test_what_would_be_downloaded_is_refused_where_that_is_not_allowed(tmp_path: Path, named: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"does not allow that \(hub_downloads\)"):
        fetch_published(order_for(tmp_path, {"named": named}, downloads=False))


@pytest.mark.parametrize(
    "model",
    [
        {"pt2_artifact": "artifacts/some"},
        {"named": {"architecture": "timm:resnet18", "weights_artifact": "artifacts/some"}},
        {"named": {"architecture": "transformers:bert", "weights_artifact": "artifacts/some"}},
        {"named": {"architecture": "diffusers:ddpm-cifar10", "weights_artifact": "artifacts/some"}},
    ],
)
def test_what_is_at_hand_needs_no_leave_and_asks_no_network(tmp_path: Path, model: dict[str, Any]) -> None:
    fetch_published(order_for(tmp_path, model, downloads=False))

    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.slow
def test_the_process_for_it_downloads_nothing_for_types_that_the_library_knows(tmp_path: Path) -> None:
    named = {"architecture": "transformers:xlm-roberta", "weights_artifact": "artifacts/some"}
    fetch_published(order_for(tmp_path, {"named": named}))

    assert os.environ["HF_HUB_OFFLINE"] == "1"

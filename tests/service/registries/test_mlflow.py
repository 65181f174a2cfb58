"""`shoal batch` over a real MLflow registry, with a real server whose workers finish at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from service.batch.outcome import ModelOutcome
from service.client import Client
from service.registries import Entry, Selection
from service.registries.mlflow import MlflowOptions, MlflowRegistry
from tests.service.cli.command import Done, shoal_here
from tests.service.cli.made import write_classifier
from tests.service.registries.mlflow_models import register_onnx, register_pickle, register_pt2
from tests.service.server_process import ServerProcess, Told
from tests.service.workers.reports import FILES

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its libraries' own

Batch = Callable[..., Done]


@pytest.fixture(autouse=True)
def _plain_environment() -> Iterator[None]:
    """Takes back what the connector says to MLflow by the environment."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.fixture
def batch(tracking_uri: str, server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Batch:
    """Runs `shoal batch` against both servers; `where` names the batch's folder."""

    def run(source: str, *flags: str, where: str = "out") -> Done:
        known = ("--tracking-uri", tracking_uri, "--server", server.address, "--out", str(tmp_path / where))
        return shoal_here(capsys, "batch", source, *known, *flags)

    return run


def _jobs(server: ServerProcess) -> int:
    with Client(server.address) as client:
        return len(list(client.list()))


def test_a_result_becomes_a_version_with_files_figures_and_lineage(
    batch: Batch, mlflow_client: Any, tmp_path: Path
) -> None:
    number = register_onnx(mlflow_client, "vision", b"the network", shoal__budget="0.5x")
    done = batch("mlflow:vision", "--result-alias", "fast", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["budget_met"] == 1
    assert all(line.startswith("{") for line in done.stdout.splitlines())
    version = mlflow_client.get_model_version_by_alias("vision-shoal", "fast")
    assert version.tags["shoal.source"] == f"models:/vision/{number}"
    assert version.tags["shoal.source_version"] == f"vision/{number}"
    assert version.tags["shoal.source_run"] == mlflow_client.get_model_version("vision", number).run_id
    assert version.tags["shoal.verdict"] == "BUDGET_MET"
    assert version.tags["shoal.job"].startswith("optimizationJobs/")
    metrics = mlflow_client.get_run(version.run_id).data.metrics
    assert metrics["latency_before_ms"] == pytest.approx(4.0)
    assert (metrics["speedup_low"], metrics["speedup_high"]) == pytest.approx((2.0, 2.2))
    assert (metrics["accuracy_before"], metrics["accuracy_after_low"]) == pytest.approx((0.92, 0.89))
    files = {each.path for each in mlflow_client.list_artifacts(version.run_id, "model/shoal")}
    assert {f"model/shoal/{name}" for name in (*FILES, "report.html", "report.json", "manifest.json")} == files
    place = mlflow_client.download_artifacts(version.run_id, "model", str(tmp_path))
    described = yaml.safe_load((Path(place) / "MLmodel").read_text())
    assert (Path(place) / described["flavors"]["onnx"]["data"]).read_bytes() == FILES["model.onnx"]
    assert json.loads(described["signature"]["inputs"])[0]["tensor-spec"]["shape"] == [-1, 3, 8, 8]


def test_a_second_run_does_nothing_even_from_another_machine(
    batch: Batch, mlflow_client: Any, server: ServerProcess
) -> None:
    register_pt2(mlflow_client, "again", b"a program", shoal__budget="0.5x")
    assert batch("mlflow:again").returncode == 0
    jobs = _jobs(server)
    versions = len(mlflow_client.search_model_versions("name='again-shoal'"))
    for where in ("out", "another machine's folder"):
        done = batch("mlflow:again", where=where)
        assert (done.returncode, versions) == (0, 1), done.stderr
        assert "1 of 1 met their budget; 0 worked on now" in done.stdout
        assert "models:/again-shoal/1" in done.stdout
    assert _jobs(server) == jobs
    assert len(mlflow_client.search_model_versions("name='again-shoal'")) == 1


def test_versions_are_chosen_by_alias_tag_and_number(batch: Batch, mlflow_client: Any) -> None:
    for content in (b"one", b"two", b"three"):
        register_onnx(mlflow_client, "chosen", content, team="blue" if content == b"one" else "red")
    mlflow_client.set_registered_model_alias("chosen", "champion", "2")
    for flags, label in (
        ((), "chosen v3"),
        (("--alias", "champion"), "chosen v2"),
        (("--tag", "team=blue"), "chosen v1"),
        (("--stage", "none", "--tag", "team=blue"), "chosen v1"),
    ):
        done = batch("mlflow:chosen", "--dry-run", "--budget", "0.5x", "--format", "json", *flags)
        assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == [label], done.stderr


def test_what_shoal_wrote_is_never_taken_again(batch: Batch, mlflow_client: Any) -> None:
    register_onnx(mlflow_client, "own", b"original", shoal__budget="0.5x")
    assert batch("mlflow:own", "--register-as", "{name}").returncode == 0
    assert "shoal.identity" in mlflow_client.get_model_version("own", "2").tags
    done = batch("mlflow:own", "--register-as", "{name}", "--dry-run", "--format", "json")
    (planned,) = map(json.loads, done.stdout.splitlines())
    assert (planned["label"], planned["what"]) == ("own v1", "done")


def test_a_pickled_network_is_refused_with_what_to_log_instead(batch: Batch, mlflow_client: Any) -> None:
    register_pickle(mlflow_client, "mixed-pickle")
    register_onnx(mlflow_client, "mixed-onnx", b"fine")
    done = batch("mlflow:mixed-*", "--budget", "0.5x")
    assert done.returncode == 2
    assert "its network is pickled (data/model.pth; flavour pytorch), which is never opened here" in done.stdout
    assert 'mlflow.pytorch.log_model(..., serialization_format="pt2")' in done.stdout
    assert "1 of 2 met their budget" in done.stdout


def test_a_tag_that_is_no_setting_is_named(batch: Batch, mlflow_client: Any) -> None:
    register_onnx(mlflow_client, "typo", b"x", shoal__buget="0.5x")
    register_onnx(mlflow_client, "wrong", b"x", shoal__budget="fast")
    done = batch("mlflow:typo", "--budget", "0.5x")
    assert (done.returncode, "there is no setting for the tag shoal.buget" in done.stdout) == (2, True)
    assert "tag shoal.budget: 'fast' is no budget" in batch("mlflow:wrong").stdout


def test_a_failed_job_leaves_the_registry_as_it_was(batch: Batch, mlflow_client: Any) -> None:
    number = register_onnx(
        mlflow_client, "failing", b"bad", shoal__budget="0.5x", shoal__seed=str(int(Told.CALLER_ERROR))
    )
    assert batch("mlflow:failing").returncode == 2
    assert "shoal.verdict" not in mlflow_client.get_model_version("failing", number).tags
    with pytest.raises(Exception, match="not found"):
        mlflow_client.get_registered_model("failing-shoal")


def test_a_registry_that_is_not_there_is_one_line(batch: Batch) -> None:
    done = batch("mlflow:nobody")
    assert done.returncode == 2
    assert "shoal: error: the MLflow registry could not be read: " in done.stderr


def _open(tracking_uri: str, name: str, **options: Any) -> tuple[MlflowRegistry, Entry]:
    registry = MlflowRegistry(name, Selection(), MlflowOptions(tracking_uri=tracking_uri, **options))
    (entry,) = registry.models()
    return registry, entry


def _outcome(entry: Entry, verdict: str) -> ModelOutcome:
    return ModelOutcome.model_validate(
        {"name": entry.name, "version": entry.version, "place": entry.place, "identity": "ab" * 32, "verdict": verdict}
    )


def test_no_improvement_is_noted_on_its_source_only_where_asked(
    tracking_uri: str, mlflow_client: Any, tmp_path: Path
) -> None:
    register_onnx(mlflow_client, "same", b"network")
    for annotate in (False, True):
        registry, entry = _open(tracking_uri, "same", annotate=annotate)
        outcome = _outcome(entry, "NO_IMPROVEMENT")
        assert registry.publish(entry, outcome, tmp_path) is None
        noted = mlflow_client.get_model_version("same", "1").tags.get("shoal.verdict")
        assert noted == ("NO_IMPROVEMENT" if annotate else None)
        assert registry.find(entry, outcome.identity) == (outcome if annotate else None)
        assert registry.find(entry, "cd" * 32) is None
    assert mlflow_client.search_registered_models("name='same-shoal'") == []


def test_mlflow_loads_what_was_written(tracking_uri: str, mlflow_client: Any, tmp_path: Path) -> None:
    from mlflow import pyfunc

    register_onnx(mlflow_client, "loaded", b"network")
    registry, entry = _open(tracking_uri, "loaded")
    (tmp_path / "delivered").mkdir()
    write_classifier(tmp_path / "delivered/model.onnx")
    registry.publish(entry, _outcome(entry, "BUDGET_MET"), tmp_path / "delivered")
    version = mlflow_client.get_model_version("loaded-shoal", "1")
    place = mlflow_client.download_artifacts(version.run_id, "model", str(tmp_path))
    answered = pyfunc.load_model(place).predict({"x": np.eye(3, dtype=np.float32)})
    assert np.array_equal(answered["y"], np.eye(3))


def test_a_writer_that_died_half_way_uses_its_run_again(tracking_uri: str, mlflow_client: Any, tmp_path: Path) -> None:
    register_onnx(mlflow_client, "half", b"network")
    registry, entry = _open(tracking_uri, "half")
    outcome = _outcome(entry, "BUDGET_MET")
    source_run = mlflow_client.get_run(mlflow_client.get_model_version("half", "1").run_id)
    tags = {"shoal.identity": outcome.identity, "shoal.source": entry.place}
    begun = mlflow_client.create_run(source_run.info.experiment_id, tags=tags)
    (tmp_path / "model.onnx").write_bytes(b"faster")
    place = registry.publish(entry, outcome, tmp_path)
    assert place == "models:/half-shoal/1"
    assert mlflow_client.get_model_version("half-shoal", "1").run_id == begun.info.run_id
    assert registry.publish(entry, outcome, tmp_path) == place

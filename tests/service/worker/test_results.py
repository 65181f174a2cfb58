"""What a worker delivers is believed only as far as it was checked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from service.database.database import Database
from service.errors import WorkerProtocolError
from service.storage.artifacts import ArtifactStore
from service.worker.messages import ResultEvent
from service.worker.results import check_report, store_report
from tests.service.workers.reports import FILES, write_result

EVENT = ResultEvent(file="out/report.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    write_result(tmp_path / "out", "optimizationJobs/test")
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(Database(f"sqlite:///{tmp_path / 'jobs.db'}"), str(tmp_path / "store"))


def test_every_file_is_taken_over(folder: Path, store: ArtifactStore) -> None:
    delivery = check_report(folder, EVENT, "local")
    for _ in range(2):  # the second time, as after a storage that went away half-way, there is nothing left to move
        store_report(delivery, store)
    names = {artifact.filename for artifact in delivery.artifacts if store.holds(artifact.sha256, artifact.size_bytes)}

    assert names == {*FILES, "report.json", "report.html", "manifest.json"}
    assert not list((folder / "out").iterdir())


def test_storing_goes_on_where_it_was_interrupted(folder: Path, store: ArtifactStore) -> None:
    delivery = check_report(folder, EVENT, "local")
    first = delivery.artifacts[0]
    store.keep(delivery.files[first.filename], first.sha256)
    store_report(delivery, store)
    assert all(store.holds(artifact.sha256, artifact.size_bytes) for artifact in delivery.artifacts)


@pytest.mark.parametrize("spoil", ["hash", "missing", "extra"])
def test_a_manifest_of_other_files_is_not_taken(folder: Path, spoil: str) -> None:
    place = folder / "out/manifest.json"
    document = json.loads(place.read_bytes())
    if spoil == "hash":
        document["files"][0]["sha256"] = "0" * 64
    elif spoil == "missing":
        document["files"] = [entry for entry in document["files"] if entry["filename"] != "plan.json"]
    else:
        document["files"].append({"filename": "more", "sha256": "0" * 64, "size_bytes": 1})
    place.write_text(json.dumps(document))
    with pytest.raises(WorkerProtocolError, match="the manifest does not speak of the files that are there"):
        check_report(folder, EVENT, "local")


def test_a_manifest_that_is_none_is_not_taken(folder: Path) -> None:
    (folder / "out/manifest.json").write_text("{}")
    with pytest.raises(WorkerProtocolError, match=r"the worker's manifest\.json is no Manifest"):
        check_report(folder, EVENT, "local")


def test_weights_that_are_a_link_are_not_followed(folder: Path) -> None:
    (folder / "out/model.onnx.data").symlink_to("/dev/zero")
    with pytest.raises(WorkerProtocolError, match=r"model\.onnx\.data as something other than a plain file"):
        check_report(folder, EVENT, "local")


def test_weights_beside_a_model_are_part_of_it(folder: Path) -> None:
    out = folder / "out"
    (out / "manifest.json").unlink()
    for name in ("model.onnx.data", "baseline.onnx.data"):
        (out / name).write_bytes(b"weights")
    report = json.loads((out / "report.json").read_bytes())
    claims = {"model.onnx": report["result"], "baseline.onnx": report["baseline"]}
    for entry in (*claims.values(), *(each for each in report["artifacts"] if each["filename"] in claims)):
        content = FILES[entry["filename"]] + b"weights"
        entry.update(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    (out / "report.json").write_text(json.dumps(report))
    artifacts = check_report(folder, EVENT, "local").artifacts
    assert {"model.onnx.data", "baseline.onnx.data"} <= {artifact.filename for artifact in artifacts}

"""Delivered engines, without TensorRT: their files and what is stated of them. No engine was delivered by a GPU yet."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.artifact import hash_model
from deploy.bench import LocalBench
from deploy.bench.remote import RemoteBench
from deploy.bench.work import Answer, Question
from deploy.engines.metadata import EngineMetadata, metadata_path, read_engine, write_metadata
from deploy.engines.place import private_folder
from deploy.engines.store import copy_engine
from deploy.errors import EngineMisfitError, MeasureError
from deploy.runtimes import SessionSettings, find_runtime
from service.delivery.enginechecks import check_fit
from service.delivery.engines import NONE, deliver_engine
from service.delivery.manifest import FILENAME, read_manifest
from service.delivery.verify import verify
from tests.deploy.engines.test_metadata import CONTENT, METADATA
from tests.deploy.gpus import JETSON, SERVER, needs_gpu, needs_tensorrt
from tests.service.delivery.made import NOWHERE, claim, write_manifest


def metadata(model: Path) -> EngineMetadata:
    return replace(METADATA, onnx_sha256=hash_model(model)[0])


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return private_folder(tmp_path / "cache")


@pytest.fixture
def kept(folder: Path, cache: Path) -> Path:
    """An engine of the delivered model, as it is kept where it was built."""
    path = cache / "0123.engine"
    path.write_bytes(CONTENT)
    write_metadata(path, metadata(folder / "model.onnx"), cache)
    return path


@pytest.fixture
def device(kept: Path, tmp_path: Path) -> RemoteBench:
    """A GPU far away that hands over the engine that it keeps."""
    return far(kept, tmp_path)


def far(kept: Path, tmp_path: Path) -> RemoteBench:
    def ask(question: Question) -> Answer:
        assert question.kind == "engine"
        return Answer({"engine": True}, (kept, metadata_path(kept)))

    return RemoteBench("tensorrt", "cuda:0", ask, tmp_path / "scratch", 1)


@pytest.fixture
def shipped(folder: Path, device: RemoteBench) -> Path:
    """A folder with an engine in it, of a GPU that no machine has."""
    (entry,) = deliver_engine(folder / "model.onnx", device).entries
    write_manifest(folder)
    state(folder, entry.model_dump())
    return claim(folder, "tensorrt", NOWHERE)


def state(folder: Path, entry: dict[str, Any]) -> None:
    """Makes the manifest say this of the folder's one engine."""
    document = json.loads((folder / FILENAME).read_bytes())
    (folder / FILENAME).write_text(json.dumps({**document, "engines": [entry]}))


def test_an_engine_is_delivered_with_metadata_that_let_it_be_loaded_where_it_was_built(
    folder: Path, device: RemoteBench, cache: Path
) -> None:
    (entry,) = deliver_engine(folder / "model.onnx", device).entries
    assert read_engine(folder / "model.engine", cache) == (CONTENT, metadata(folder / "model.onnx"))
    assert (entry.filename, entry.runtime) == ("model.engine", "tensorrt 10.3.0")
    assert entry.metadata["gpu"] == SERVER.name


def test_what_is_kept_is_copied_with_its_seal(kept: Path, cache: Path, tmp_path: Path) -> None:
    copy_engine(kept, cache, tmp_path / "copy")
    assert read_engine(tmp_path / "copy", cache) == read_engine(kept, cache)


def test_what_is_kept_and_was_changed_is_not_copied(kept: Path, cache: Path, tmp_path: Path) -> None:
    kept.write_bytes(CONTENT + b"!")
    with pytest.raises(EngineMisfitError, match="changed or damaged"):
        copy_engine(kept, cache, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_engine_of_another_hash_is_not_delivered(folder: Path, kept: Path, device: RemoteBench) -> None:
    kept.write_bytes(CONTENT + b"!")
    found = deliver_engine(folder / "model.onnx", device)
    assert str(found.missing).startswith("the metadata are those of another engine: ")
    assert not (folder / "model.engine").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b"{}",
        b'{"engine": {}, "seal": "' + b"0" * 64 + b'"}',
        b'{"engine": {"format": 1}, "seal": "../../etc/passwd"}',
    ],
)
def test_what_is_no_metadata_is_not_delivered(folder: Path, kept: Path, device: RemoteBench, content: bytes) -> None:
    metadata_path(kept).write_bytes(content)
    found = deliver_engine(folder / "model.onnx", device)
    assert "is no metadata of an engine" in str(found.missing)
    assert not metadata_path(folder / "model.engine").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"driver": "x" * 1000},
        {"driver": {"a": 1}},
        {"gpu": "a\x1b[2Jb"},
        {"shares_memory": "yes"},
        {"workspace_bytes": 1.5},
        {"optimization_level": 1 << 70},
        {"engine_sha256": "A"},
        {"batches": {"smallest": 1.5, "best": 2.5, "largest": 3.5}},
    ],
)
def test_metadata_of_other_types_are_not_delivered(
    folder: Path, kept: Path, device: RemoteBench, change: dict[str, Any]
) -> None:
    stated = json.loads(metadata_path(kept).read_bytes())
    metadata_path(kept).write_text(json.dumps({**stated, "engine": {**stated["engine"], **change}}))
    assert "is no metadata of an engine" in str(deliver_engine(folder / "model.onnx", device).missing)


def test_what_metadata_say_besides_goes_no_further(folder: Path, kept: Path, device: RemoteBench) -> None:
    stated = json.loads(metadata_path(kept).read_bytes())
    metadata_path(kept).write_text(json.dumps({**stated, "note": "x" * 1000}))
    deliver_engine(folder / "model.onnx", device)
    assert "note" not in json.loads(metadata_path(folder / "model.engine").read_bytes())


def test_a_device_that_has_no_engine_ends_no_job(folder: Path, tmp_path: Path) -> None:
    def ask(_question: Question) -> Answer:
        raise MeasureError("the device did not answer")

    found = deliver_engine(folder / "model.onnx", RemoteBench("tensorrt", "cuda:0", ask, tmp_path, 1))
    assert (found.entries, found.missing) == ((), "the device did not answer")


def test_this_machine_without_tensorrt_says_why_there_is_no_engine(folder: Path) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    found = deliver_engine(folder / "model.onnx", LocalBench("tensorrt", "cuda:99"))
    assert (found.entries, "tensorrt" in str(found.missing)) == ((), True)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_jobs_that_were_timed_without_an_engine_deliver_none(folder: Path, runtime: str) -> None:
    assert deliver_engine(folder / "model.onnx", LocalBench(runtime)) == NONE
    assert not metadata_path(folder / "model.engine").exists()


@needs_gpu
@needs_tensorrt
def test_the_engine_that_was_loaded_is_delivered(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    find_runtime("tensorrt", "cuda:0").load(folder / "model.onnx", SessionSettings(device="cuda:0", batch=1))
    (entry,) = deliver_engine(folder / "model.onnx", LocalBench("tensorrt", "cuda:0", 1)).entries
    write_manifest(folder)
    state(folder, entry.model_dump())
    found = [check for check in verify(claim(folder, "tensorrt", "local/cuda:0")).checks if check.name == "engine"]
    assert [check.status for check in found] == ["ok"]


def test_a_folder_with_its_engine_passes(shipped: Path) -> None:
    found = verify(shipped)
    assert found.passed, found.checks
    (check,) = [check for check in found.checks if check.name == "engine"]
    assert (check.status, check.subject) == ("skipped", "model.engine")
    assert check.message.startswith("belongs to the model; whether it runs was not looked at: ")


@pytest.mark.parametrize("name", ["model.engine", "model.engine.json"])
def test_an_engine_whose_bytes_were_changed_is_told(shipped: Path, name: str) -> None:
    (shipped / name).write_bytes((shipped / name).read_bytes()[:-1] + b"?")
    assert [check.subject for check in verify(shipped).checks if check.status == "failed"] == [name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"onnx_sha256": "a" * 64}, "was built of another model"),
        ({"metadata": {"onnx_sha256": "a" * 64}}, "has metadata of an engine of another model"),
        ({"metadata": {"engine_sha256": "a" * 64}}, "has metadata of another engine"),
        ({"metadata": {"format": 2}}, "what is stated of the engine is no metadata of an engine"),
        (
            {"metadata": {"batches": {"smallest": 0, "best": 1, "largest": 1}}},
            "what is stated of the engine is no metadata of an engine",
        ),
        ({"metadata": {"batches": 1}}, "what is stated of the engine is no metadata of an engine"),
        ({"metadata": {"cuda": 12}}, "what is stated of the engine is no metadata of an engine"),
    ],
)
def test_an_engine_that_is_not_the_models_is_told(shipped: Path, change: dict[str, Any], message: str) -> None:
    entry = read_manifest(shipped).engines[0].model_dump()
    inner = {**entry["metadata"], **change.get("metadata", {})}
    state(shipped, {**entry, **change, "metadata": inner})
    (check,) = [check for check in verify(shipped).checks if check.status == "failed"]
    assert check.name == "engine"
    assert message in check.message


def test_an_engine_that_does_not_fit_is_refused_by_name_with_what_differs(folder: Path) -> None:
    found = check_fit("model.engine", metadata(folder / "model.onnx"), JETSON, "10.7.0")
    assert (found.status, found.subject) == ("skipped", "model.engine")
    for difference in ("TensorRT 10.3.0, here is 10.7.0", "compute capability 8.9, here is 8.7", "'NVIDIA L4'"):
        assert difference in found.message


def test_an_engine_that_fits_is_said_to(folder: Path) -> None:
    found = check_fit("model.engine", metadata(folder / "model.onnx"), replace(SERVER, driver="600.1"), "10.3.0")
    assert (found.status, found.message) == ("ok", "belongs to the model, and fits NVIDIA L4 with TensorRT 10.3.0")

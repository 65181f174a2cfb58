from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.engines.metadata import (
    EngineMetadata,
    check_engine,
    metadata_path,
    read_engine,
    read_metadata,
    write_metadata,
)
from deploy.engines.place import private_folder
from deploy.engines.settings import Batches
from deploy.errors import EngineMisfitError
from tests.deploy.gpus import JETSON, SERVER

CONTENT = b"an engine"
METADATA = EngineMetadata(
    tensorrt="10.3.0",
    cuda="12.6",
    driver="560.35",
    gpu=SERVER.name,
    compute_capability=SERVER.compute_capability,
    shares_memory=False,
    batches=Batches(1, 4, 8),
    workspace_bytes=1 << 30,
    optimization_level=3,
    onnx_sha256="a" * 64,
    engine_sha256=hashlib.sha256(CONTENT).hexdigest(),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return private_folder(tmp_path / "engines")


@pytest.fixture
def engine(folder: Path) -> Path:
    path = folder / "net.engine"
    path.write_bytes(CONTENT)
    write_metadata(path, METADATA, folder)
    return path


def test_what_was_written_is_read_back(engine: Path, folder: Path) -> None:
    assert read_engine(engine, folder) == (CONTENT, METADATA)


def test_an_engine_without_metadata_is_not_loaded(engine: Path, folder: Path) -> None:
    metadata_path(engine).unlink()
    with pytest.raises(EngineMisfitError, match=r"no 'net\.engine\.json' beside it"):
        read_engine(engine, folder)


def test_an_engine_whose_bytes_were_changed_is_not_loaded(engine: Path, folder: Path) -> None:
    engine.write_bytes(CONTENT + b"!")
    with pytest.raises(EngineMisfitError, match="changed or damaged"):
        read_engine(engine, folder)


def test_an_engine_of_another_machine_is_not_loaded(engine: Path, tmp_path: Path) -> None:
    elsewhere = private_folder(tmp_path / "elsewhere")
    with pytest.raises(EngineMisfitError, match="not built by Shoal on this machine"):
        read_engine(engine, elsewhere)


@pytest.mark.parametrize(
    "change", [{"engine_sha256": "b" * 64}, {"gpu": "NVIDIA A10"}, {"tensorrt": "11.4.0"}, {"extra": 1}]
)
def test_metadata_that_was_changed_is_not_believed(change: dict[str, object], engine: Path, folder: Path) -> None:
    path = metadata_path(engine)
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "engine": {**written["engine"], **change}}))
    with pytest.raises(EngineMisfitError, match="not built by Shoal"):
        read_metadata(engine, folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"engine": {"format": 2}, "seal": ""}', '{"engine": 1, "seal": 2}'])
def test_what_is_no_metadata_is_refused(text: str, engine: Path, folder: Path) -> None:
    metadata_path(engine).write_text(text)
    with pytest.raises(EngineMisfitError, match="is no metadata of an engine"):
        read_metadata(engine, folder)


def test_an_engine_fits_where_it_was_built_and_under_newer_drivers() -> None:
    check_engine(METADATA, SERVER, "10.3.0")
    check_engine(METADATA, replace(SERVER, driver="600.1", cuda="13.9"), "10.3.0")


@pytest.mark.parametrize(
    ("gpu", "tensorrt", "reason"),
    [
        (SERVER, "11.4.0", "built by TensorRT 10.3.0, here is 11.4.0"),
        (replace(SERVER, name="NVIDIA L40"), "10.3.0", "built for 'NVIDIA L4', here is 'NVIDIA L40'"),
        (replace(SERVER, compute_capability="9.0"), "10.3.0", "built for compute capability 8.9, here is 9.0"),
        (replace(SERVER, cuda="12.4"), "10.3.0", "built under CUDA 12.6, the driver here supports 12.4"),
    ],
)
def test_every_misfit_is_named(gpu: object, tensorrt: str, reason: str) -> None:
    with pytest.raises(EngineMisfitError, match=f"does not fit 'cuda:0': {reason}"):
        check_engine(METADATA, gpu, tensorrt)  # type: ignore[arg-type]


def test_all_misfits_are_named_together() -> None:
    with pytest.raises(EngineMisfitError, match=r"TensorRT.*capability.*Orin"):
        check_engine(METADATA, JETSON, "10.7.0")

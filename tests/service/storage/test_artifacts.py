from __future__ import annotations

import hashlib
from pathlib import Path

import fsspec
import pytest

from service.database.database import Database
from service.errors import ArtifactDamagedError, DiskFullError, OffsetRangeError
from service.storage.artifacts import (
    Artifact,
    ArtifactKind,
    ArtifactStore,
    add_artifact,
    find_upload,
    new_artifact,
    safe_filename,
)

DATA = b"some bytes of a model"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path / 'shoal.db'}")


@pytest.fixture(params=["folder", "s3", "other"])
def store(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> ArtifactStore:
    """In a folder, in a store of objects, or elsewhere: fsspec's memory file system stands for all that is neither."""
    if request.param == "s3":
        return ArtifactStore(database, request.getfixturevalue("s3").url)
    url = f"file://{tmp_path / 'files'}" if request.param == "folder" else f"memory://{tmp_path.name}"
    return ArtifactStore(database, url)


def kept(store: ArtifactStore, database: Database, tmp_path: Path, filename: str = "net.pt2") -> Artifact:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    store.keep(source, SHA256)
    assert not source.exists()
    artifact = new_artifact(ArtifactKind.MODEL, filename, len(DATA), SHA256)
    with database.write() as session:
        add_artifact(session, artifact)
    return artifact


def test_what_is_kept_can_be_read(store: ArtifactStore, database: Database, tmp_path: Path) -> None:
    artifact = kept(store, database, tmp_path)

    assert store.get(artifact.id) == artifact
    with database.read() as session:
        assert find_upload(session, SHA256, ArtifactKind.MODEL, "local") == artifact
        assert find_upload(session, SHA256, ArtifactKind.DATA, "local") is None
        assert find_upload(session, SHA256, ArtifactKind.MODEL, "alice") is None
    assert store.holds(SHA256, len(DATA))
    with store.open(artifact) as stream:
        assert stream.read() == DATA
    with store.open(artifact, 5) as stream:
        assert stream.read() == DATA[5:]


def test_the_same_bytes_are_kept_once(store: ArtifactStore, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(DATA)
        store.keep(tmp_path / name, SHA256)

    assert store.holds(SHA256, len(DATA))
    assert not (tmp_path / "two").exists()


def test_a_worker_gets_a_local_path_under_the_file_s_name(
    store: ArtifactStore, database: Database, tmp_path: Path
) -> None:
    artifact = kept(store, database, tmp_path, "net.pt2")
    for _ in range(2):
        path = store.local_path(artifact, tmp_path / "in")

    assert path == tmp_path / "in" / artifact.id / "net.pt2"
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("offset", [-1, len(DATA) + 1])
def test_an_offset_outside_is_refused(store: ArtifactStore, database: Database, tmp_path: Path, offset: int) -> None:
    artifact = kept(store, database, tmp_path)
    with pytest.raises(OffsetRangeError, match=f"offset {offset}"), store.open(artifact, offset):
        pass


def test_bytes_that_are_gone_are_noticed(store: ArtifactStore, database: Database, tmp_path: Path) -> None:
    artifact = new_artifact(ArtifactKind.MODEL, "net.pt2", 5, "ab" * 32)
    with pytest.raises(ArtifactDamagedError, match="are gone"), store.open(artifact):
        pass


def test_bytes_of_another_length_are_noticed(database: Database, tmp_path: Path) -> None:
    store = ArtifactStore(database, f"file://{tmp_path / 'files'}")
    artifact = kept(store, database, tmp_path)
    blob = next((tmp_path / "files").rglob(SHA256))
    blob.chmod(0o600)
    blob.write_bytes(b"short")
    with pytest.raises(ArtifactDamagedError, match="has 5 bytes"), store.open(artifact):
        pass
    assert not store.holds(SHA256, len(DATA))


def test_stored_files_are_read_only(database: Database, tmp_path: Path) -> None:
    store = ArtifactStore(database, f"file://{tmp_path / 'files'}")
    kept(store, database, tmp_path)

    assert next((tmp_path / "files").rglob(SHA256)).stat().st_mode & 0o777 == 0o444


def test_a_full_store_keeps_the_source(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(database, f"memory://{tmp_path.name}-full")
    source = tmp_path / "source"
    source.write_bytes(DATA)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "mv", full)
    with pytest.raises(DiskFullError, match="the artifact folder is full"):
        store.keep(source, SHA256)
    assert source.exists()
    assert not store.holds(SHA256, len(DATA))


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("net.pt2", "net.pt2"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\windows\\net.onnx", "net.onnx"),
        ("..", ""),
        (".bashrc", "bashrc"),
        ("a\x00b\nc\u202e.pt2", "abc.pt2"),
        ("Große Netze.pt2", "Große Netze.pt2"),
        ("x" * 300 + ".pt2", "x" * 251 + ".pt2"),
        ("ü" * 200, "ü" * 127),
    ],
)
def test_file_names_are_made_safe(given: str, safe: str) -> None:
    assert safe_filename(given) == safe

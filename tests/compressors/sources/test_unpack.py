"""Archives from strangers. The compressed ones of the fuzz test's findings are here too."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from compressors.errors import ModelError, UnsafeModelError
from compressors.sources.archive import ArchiveLimits
from compressors.sources.unpack import is_archive, open_folder, unpack


def zipped(path: Path, *names: str, data: bytes = b"", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, data)
    return path


def tarred(path: Path, *names: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_every_file_of_a_tar_is_written_below_the_folder(mode: str, tmp_path: Path) -> None:
    files = unpack(tarred(tmp_path / "a.tar", "./net.onnx", "in/weights", data=b"123", mode=mode), tmp_path / "out")
    assert [file.relative_to(tmp_path / "out").as_posix() for file in files] == ["net.onnx", "in/weights"]
    assert all(file.read_bytes() == b"123" for file in files)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_file_of_a_zip_is_written_below_the_folder(method: int, tmp_path: Path) -> None:
    (file,) = unpack(zipped(tmp_path / "a.zip", "in/net.onnx", data=b"123", method=method), tmp_path / "out")
    assert file.read_bytes() == b"123"


def test_only_data_of_a_models_folder_is_written(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "m/config.json", "m/modeling.py", "m/model.safetensors")
    with open_folder(path) as folder:
        assert sorted(item.name for item in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../net.onnx", "/net.onnx", "a/../../b", "a\\b", "a\nb", "C:/net", "x" * 300])
def test_names_that_climb_out_or_hide_are_unsafe(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError, match="unsafe name"):
        unpack(tarred(tmp_path / "a.tar", name), tmp_path / "out")
    if "\\" not in name:  # zipfile itself turns it round
        with pytest.raises(UnsafeModelError, match="unsafe name"):
            unpack(zipped(tmp_path / "a.zip", name), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_unsafe(kind: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError, match="a link, a device"):
        unpack(tarred(tmp_path / "a.tar", "model.safetensors", kind=kind), tmp_path / "out")


def test_a_link_in_a_zip_is_unsafe(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("net.onnx")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UnsafeModelError, match="no plain file"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_an_entry_twice_is_unsafe(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError, match="twice"):
        unpack(tarred(tmp_path / "a.tar", "a.onnx", "./a.onnx"), tmp_path / "out")


def test_an_entry_that_is_a_file_and_a_folder_is_unsafe(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError, match="a file and a folder at once"):
        unpack(tarred(tmp_path / "a.tar", "a", "a/b"), tmp_path / "out")


def test_sizes_are_capped(tmp_path: Path) -> None:
    bombs = [
        zipped(tmp_path / "a.zip", "net.onnx", data=bytes(2**22), method=zipfile.ZIP_DEFLATED),
        tarred(tmp_path / "a.tar.gz", "net.onnx", data=bytes(2**22), mode="w:gz"),
    ]
    for path in bombs:
        with pytest.raises(ModelError, match="compressed more than 20 times"):
            unpack(path, tmp_path / "out")
        with pytest.raises(ModelError, match="more than the 1000 bytes"):
            unpack(path, tmp_path / "out", ArchiveLimits(total_bytes=1000))
        with pytest.raises(ModelError, match="more than the 0 files"):
            unpack(path, tmp_path / "out", ArchiveLimits(entries=0))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_contents_are_damage(method: int, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", "net.onnx", data=bytes(range(256)) * 40, method=method)
    content = bytearray(path.read_bytes())
    for place in range(45, 120):
        content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ModelError, match="truncated or damaged"):
        unpack(path, tmp_path / "out")


def test_an_archive_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no files"):
        unpack(tarred(tmp_path / "a.tar"), tmp_path / "out")


@pytest.mark.parametrize(("content", "is_one"), [(b"PK\x03\x04 nothing", True), (b"\x08\x07\x12\x07pytorch", False)])
def test_an_archive_is_known_by_its_content(content: bytes, is_one: bool, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    assert is_archive(tmp_path / "net.onnx") == is_one
    with pytest.raises(ModelError, match="no zip or tar archive"):
        unpack(tmp_path / "net.onnx", tmp_path / "out")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_tars_header_may_not_be_as_large_as_it_pleases(mode: str, tmp_path: Path) -> None:
    """tarfile reads an extended header into memory whole, and a compressed one costs the sender nothing."""
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.XHDTYPE, 64 * 2**20
    with tarfile.open(tmp_path / "a.tar", mode) as archive:
        archive.addfile(tarfile.TarInfo("net.onnx"))
        archive.addfile(header, io.BytesIO(bytes(header.size)))
        archive.addfile(tarfile.TarInfo("weights"))
    with pytest.raises(ModelError, match=f"a header of {header.size} bytes"):
        unpack(tmp_path / "a.tar", tmp_path / "out")

"""What a model's file or folder is, and how it is packed for the upload when it is more than one file."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from service.cli.errors import InputError
from service.cli.external import external_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Kind = Literal["pt2", "onnx", "folder"]

CONFIGS: Final = ("config.json", "model_index.json")
WANTED: Final = (
    "a .pt2 file written by torch.export.save, an .onnx file, a zip or tar of one with its external data, a folder (or "
    "zip or tar of it) that transformers or diffusers saved, or a name like timm:NAME, torchvision:NAME, "
    "transformers:NAME or diffusers:NAME"
)
_ARCHIVES: Final = (".zip", ".tar")
SUFFIXES: Final = (".pt2", ".onnx", *_ARCHIVES)
_DATA: Final = (".json", ".safetensors")
_TOKENIZERS: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
"""Files that make token ids of texts; they are sent along with a folder."""
_CARD: Final = "README.md"
"""The model card, which states the licence; it is sent along with a folder too."""
_PICKLES: Final = (".bin", ".pth", ".pt")


def kind_of(path: Path) -> Kind:
    """Tells what a model file or folder is, by its name and by the names in it.

    Raises:
        InputError: It is nothing that can be a model, or cannot be read.
    """
    if path.is_dir():
        return _kind_of_names(path, [file.name for file in path.iterdir() if file.is_file()])
    if path.suffix in {".pt2", ".onnx"}:
        return "pt2" if path.suffix == ".pt2" else "onnx"
    if path.suffix in _ARCHIVES:
        return _kind_of_names(path, _names(path))
    raise InputError(f"MODEL must be {WANTED}; got {path}")


def _kind_of_names(path: Path, names: Iterable[str]) -> Kind:
    plain = [Path(name) for name in names]
    if any(name.suffix == ".onnx" for name in plain):
        return "onnx"
    if any(name.name in CONFIGS and len(name.parts) <= 2 for name in plain):
        return "folder"
    raise InputError(f"MODEL {path} holds neither an .onnx file nor {' or '.join(CONFIGS)}; wanted {WANTED}")


def _names(path: Path) -> list[str]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.namelist()
        with tarfile.open(path, "r:") as tar:
            return tar.getnames()
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as exc:
        raise InputError(f"MODEL {path} cannot be read as an archive: {exc}") from exc


def parts(path: Path) -> list[Path]:
    """Returns the files that make up a model that must be packed; none where it can be sent as it is.

    Raises:
        InputError: A part is missing, or lies outside the model's folder.
    """
    if path.is_dir() and kind_of(path) == "folder":
        return sorted(_of_folder(path))
    if path.is_dir():
        tokenizer = [path / name for name in (*_TOKENIZERS, "config.json", _CARD) if (path / name).is_file()]
        return [*(parts(_only_onnx(path)) or [_only_onnx(path)]), *tokenizer]
    if path.suffix != ".onnx":
        return []
    others = external_files(path)
    for name in others:
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if not inside or not (path.parent / name).is_file():
            raise InputError(f"MODEL {path} keeps weights in {name!r}, which must be a file beside it")
    return [path, *(path.parent / name for name in others)] if others else []


def _only_onnx(folder: Path) -> Path:
    found = sorted(folder.glob("*.onnx"))
    if len(found) > 1:
        raise InputError(f"MODEL {folder} holds {len(found)} .onnx files; name the one")
    return found[0]


def _of_folder(folder: Path) -> Iterator[Path]:
    """Yields a folder's files that a model is read from; pickles only where there are no safetensors."""
    for file in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if hidden or not file.is_file():
            continue
        if (
            file.suffix in _DATA
            or file.name in _TOKENIZERS
            or file == folder / _CARD
            or (file.suffix in _PICKLES and not any(file.parent.glob("*.safetensors")))
        ):
            yield file


def pack(path: Path, archive: Path) -> None:
    """Writes the parts of a model to a tar archive whose bytes depend on names and contents alone.

    Raises:
        InputError: A part is missing.
        OSError: Something cannot be read or written.
    """
    top = path if path.is_dir() else path.parent
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for part in parts(path):
            member = tarfile.TarInfo(part.relative_to(top).as_posix())
            member.size, member.mode = part.stat().st_size, 0o644
            with part.open("rb") as file:
                tar.addfile(member, file)

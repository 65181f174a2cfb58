"""A folder of models, or a single one: files, archives and model folders, found by their names."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, final

from service.cli import modelfile
from service.cli.errors import InputError
from service.registries.base import Entry, Fetched, Registry, RegistryError
from service.registries.settings import ModelSettings

_DELIVERED: Final = "manifest.json"
_LEDGER: Final = "batch.jsonl"
_WEIGHTS: Final = (".pth", ".pt", ".bin", ".ckpt", ".h5", ".pb", ".tflite", ".engine", ".plan")


@final
class DirectoryRegistry(Registry):
    """Every model under a folder. A folder that Shoal wrote is passed over, with all that is in it."""

    def __init__(self, root: Path, pattern: str = "*") -> None:
        """Looks at nothing yet.

        Args:
            root: The folder, or one model.
            pattern: Which names to take, as a shell writes it.
        """
        self._root = root
        self._pattern = pattern

    @property
    def source(self) -> str:
        """What it is."""
        return f"folder {self._root}"

    def models(self) -> tuple[Entry, ...]:
        """Returns the models under the folder, by name."""
        if not self._root.exists():
            raise RegistryError(f"{self._root} does not exist; give a folder with models")
        found = (self._entry(path) for path in sorted(_models(self._root)))
        return tuple(entry for entry in found if fnmatchcase(entry.name, self._pattern))

    def _entry(self, path: Path) -> Entry:
        name = path.name if path == self._root else path.relative_to(self._root).as_posix()
        refusal = refusal_of(path) if path.is_file() else None
        return Entry(name, "", str(path.resolve()), ModelSettings(), {"source_path": str(path)}, "", refusal)

    def fetch(self, entry: Entry, folder: Path) -> Fetched:
        """Returns where the model is; nothing is copied."""
        del folder
        return Fetched(entry.place)


def refusal_of(path: Path) -> str | None:
    """Returns why a file that holds a network cannot be taken; None where it may be."""
    if path.suffix not in _WEIGHTS:
        return None
    return (
        f"{path.suffix} files are programs or bare weights and are never opened here; export the network with "
        "torch.export.save to a .pt2 file or to ONNX, or name its architecture and its weights in a manifest"
    )


def is_model_folder(path: Path) -> bool:
    """Tells whether a folder is one model: one that transformers or diffusers saved, or one around an .onnx file."""
    if any((path / name).is_file() for name in modelfile.CONFIGS):
        return True
    own = [child for child in path.iterdir() if child.is_file() and not child.name.startswith(".")]
    networks = [child for child in own if child.suffix in {*modelfile.SUFFIXES, *_WEIGHTS}]
    # One .onnx file with the weights beside it, and no other model, is one model under the folder's name.
    return len(networks) == 1 and networks[0].suffix == ".onnx" and len(own) > 1


def _models(path: Path) -> Iterator[Path]:
    if path.is_file():
        if (path.suffix in modelfile.SUFFIXES and _holds_model(path)) or path.suffix in _WEIGHTS:
            yield path
    elif not _is_ours(path):
        if is_model_folder(path):
            yield path
            return
        for child in path.iterdir():
            if not child.name.startswith("."):
                yield from _models(child)


def _holds_model(path: Path) -> bool:
    """Tells whether an archive holds a model; data come in archives too."""
    if path.suffix in {".pt2", ".onnx"}:
        return True
    try:
        modelfile.kind_of(path)
    except InputError:
        return False
    return True


def _is_ours(folder: Path) -> bool:
    """Tells whether Shoal wrote a folder: a batch's results, or what a job delivered."""
    return (folder / _LEDGER).is_file() or all((folder / name).is_file() for name in (_DELIVERED, "plan.json"))

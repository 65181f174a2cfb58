"""Folders as Hugging Face libraries write them: saved models, the cache of the hub; and names on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, final

from service.cli import modelfile
from service.registries.base import Entry, Fetched, Registry, RegistryError
from service.registries.settings import ModelSettings

_CACHED: Final = "models--"
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@final
class HuggingFaceRegistry(Registry):
    """Saved models under a folder, the newest snapshot of each model in a hub cache, or one name on the hub."""

    def __init__(self, place: str, pattern: str = "*") -> None:
        """Looks at nothing yet.

        Args:
            place: A folder, or `ORGANISATION/NAME` on the hub.
            pattern: Which names to take, as a shell writes it.
        """
        self._place = place
        self._pattern = pattern

    @property
    def source(self) -> str:
        """What it is."""
        return f"Hugging Face {self._place}"

    def models(self) -> tuple[Entry, ...]:
        """Returns the models, by name."""
        root = Path(self._place)
        if not root.exists():
            return (self._on_hub(),)
        if not root.is_dir():
            raise RegistryError(f"hf:{self._place} is a file; give the folder that the model was saved to")
        found = sorted(_saved(root, root), key=lambda entry: (entry.name, entry.version))
        return tuple(entry for entry in found if fnmatchcase(entry.name, self._pattern))

    def _on_hub(self) -> Entry:
        if not _HUB_NAME.fullmatch(self._place):
            raise RegistryError(
                f"hf:{self._place} is neither a folder nor a name like hf:google/vit-base-patch16-224; check the path"
            )
        # The server downloads it; a name is all that there is here.
        return Entry(
            self._place,
            "",
            f"transformers:{self._place}",
            ModelSettings(pretrained=True),
            {"source_repository": self._place},
        )

    def fetch(self, entry: Entry, folder: Path) -> Fetched:
        """Returns where the model is; nothing is copied."""
        del folder
        return Fetched(entry.place)


def _saved(folder: Path, root: Path) -> Iterator[Entry]:
    if any((folder / name).is_file() for name in modelfile.CONFIGS):
        name = folder.name if folder == root else folder.relative_to(root).as_posix()
        yield _entry(folder, name, "")
        return
    for child in sorted(folder.iterdir()):
        if child.name.startswith(".") or not child.is_dir():
            continue
        if child.name.startswith(_CACHED):
            yield from _snapshots(child)
        else:
            yield from _saved(child, root)


def _snapshots(cached: Path) -> Iterator[Entry]:
    """Yields the snapshot of a cached model that its `main` points to, or the only one."""
    name = cached.name.removeprefix(_CACHED).replace("--", "/")
    main = cached / "refs" / "main"
    snapshots = cached / "snapshots"
    commits = [main.read_text().strip()] if main.is_file() else sorted(path.name for path in snapshots.glob("*"))
    for commit in commits[:1]:
        if (snapshots / commit).is_dir():
            yield _entry(snapshots / commit, name, commit[:12])


def _entry(folder: Path, name: str, version: str) -> Entry:
    lineage = {"source_path": str(folder), **({"source_revision": version} if version else {})}
    return Entry(name, version, str(folder.resolve()), ModelSettings(), lineage, "", _refusal(folder))


def _refusal(folder: Path) -> str | None:
    """Returns why a saved model cannot be taken, as far as its configuration tells."""
    for name in modelfile.CONFIGS:
        try:
            config = json.loads((folder / name).read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as exc:
            return f"its {name} cannot be read: {exc}"
        if isinstance(config, dict) and config.get("auto_map"):
            return "it brings its own code (auto_map), which is never run; export it with torch.export.save instead"
        return None
    return None

"""From what people type, like `mlflow:NAME` or a path, to the registry that it means."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.registries.base import Registry, RegistryError

if TYPE_CHECKING:
    from service.registries.mlflow import MlflowOptions

KINDS: Final = ("mlflow", "hf", "dir", "manifest")
_MANIFESTS: Final = (".yaml", ".yml", ".json", ".toml")


@dataclass(frozen=True)
class Selection:
    """Which models of a registry are meant.

    Attributes:
        pattern: Names to take, as a shell writes it.
        alias: The version of each model that has this alias.
        stage: The versions of each model in this stage.
        tags: Names and values of tags that a version must have.
    """

    pattern: str = "*"
    alias: str | None = None
    stage: str | None = None
    tags: tuple[tuple[str, str], ...] = field(default=())

    @property
    def by_version(self) -> bool:
        """Whether it tells versions apart."""
        return self.alias is not None or self.stage is not None or bool(self.tags)


def open_registry(source: str, selection: Selection, options: MlflowOptions) -> Registry:
    """Returns the registry that a source names.

    Args:
        source: `mlflow`, `mlflow:NAME`, `hf:FOLDER`, `dir:PATH`, `manifest:FILE`, or a path.
        selection: Which of its models.
        options: For MLflow only.

    Raises:
        RegistryError: There is no such registry, or it cannot be opened.
    """
    kind, place = _split(source)
    if kind == "mlflow":
        from service.registries.mlflow import MlflowRegistry

        return MlflowRegistry(place, selection, options)
    if selection.by_version:
        raise RegistryError(f"--alias, --stage and --tag tell MLflow's versions apart; {source} has none")
    if kind == "manifest":
        from service.registries.manifest import ManifestRegistry

        return ManifestRegistry(Path(place), selection.pattern)
    if kind == "hf":
        from service.registries.huggingface import HuggingFaceRegistry

        return HuggingFaceRegistry(place, selection.pattern)
    from service.registries.directory import DirectoryRegistry

    return DirectoryRegistry(Path(place), selection.pattern)


def _split(source: str) -> tuple[str, str]:
    kind, colon, place = source.partition(":")
    if source == "mlflow":
        return "mlflow", ""
    if colon and kind in KINDS:
        if not place:
            raise RegistryError(f"{source} names nothing; write {kind}:{'NAME' if kind == 'mlflow' else 'PATH'}")
        return kind, place
    if colon and len(kind) > 1 and not Path(source).exists():
        raise RegistryError(f"there is no registry {kind!r}; write a path, or one of {', '.join(KINDS)} before a colon")
    return ("manifest" if Path(source).is_file() and Path(source).suffix in _MANIFESTS else "dir"), source

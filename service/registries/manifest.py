"""A manifest: a file that lists models and what is wanted of each. YAML, JSON or TOML, checked in full at the start."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from service.cli import parse
from service.registries.base import Entry, Fetched, Registry, RegistryError
from service.registries.directory import refusal_of
from service.registries.settings import ModelSettings, mistakes

if TYPE_CHECKING:
    import yaml

_MAX_BYTES: Final = 16 << 20
_YAML: Final = (".yaml", ".yml")
_OWN: Final = ("name", "model")


def _model(value: Any, info: ValidationInfo) -> Any:
    """Keeps the name of an architecture, and resolves a path against the manifest's folder."""
    if not isinstance(value, str) or not value or parse.architecture(value):
        return value
    return str(Path((info.context or {}).get("folder", ".")) / Path(value).expanduser())


class ManifestModel(BaseModel):
    """One model of a manifest: which, and what it wants of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Default: the name of the file"
    )
    model: Annotated[str, Field(min_length=1), BeforeValidator(_model)] = Field(
        description="Path, relative to the manifest, or a name like `timm:resnet18`"
    )
    settings: ModelSettings = Field(default=ModelSettings(), description="Written beside the other two")

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        """Puts the settings, which are written beside name and model, into a field of their own."""
        if not isinstance(value, dict):
            return value
        own = {name: value[name] for name in _OWN if name in value}
        return {**own, "settings": {name: each for name, each in value.items() if name not in _OWN}}

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or (self.model if parse.architecture(self.model) else Path(self.model).name)


class ManifestFile(BaseModel):
    """A manifest as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = Field(default=1, description="Of this format")
    defaults: ModelSettings = ModelSettings()
    models: Annotated[tuple[ManifestModel, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        seen: set[str] = set()
        for index, model in enumerate(self.models):
            if model.label in seen:
                raise ValueError(f"models[{index}] is called {model.label!r} like one before it; give it a `name`")
            seen.add(model.label)
        return self


@final
class ManifestRegistry(Registry):
    """The models that a file lists, in its order."""

    def __init__(self, path: Path, pattern: str = "*") -> None:
        """Reads and checks the file.

        Args:
            path: The manifest.
            pattern: Which names to take, as a shell writes it.

        Raises:
            RegistryError: It cannot be read, or something in it is wrong; every mistake is named, with its line.
        """
        self._path = path
        self._pattern = pattern
        self._file = read_manifest(path)

    @property
    def source(self) -> str:
        """What it is."""
        return f"manifest {self._path}"

    @property
    def defaults(self) -> ModelSettings:
        """What holds for every model that does not say otherwise."""
        return self._file.defaults

    def models(self) -> tuple[Entry, ...]:
        """Returns the models in the order of the file."""
        return tuple(_entry(one) for one in self._file.models if fnmatchcase(one.label, self._pattern))

    def fetch(self, entry: Entry, folder: Path) -> Fetched:
        """Returns where the model is; nothing is copied."""
        del folder
        return Fetched(entry.place, entry.settings.weights)


def _entry(model: ManifestModel) -> Entry:
    path = Path(model.model)
    named = parse.architecture(model.model) is not None
    refusal = None if named or not path.is_file() else refusal_of(path)
    return Entry(model.label, "", model.model, model.settings, {"source_path": model.model}, "", refusal)


def read_manifest(path: Path) -> ManifestFile:
    """Returns a manifest.

    Raises:
        RegistryError: It cannot be read, or something in it is wrong.
    """
    content, node = _parse(path)
    try:
        return ManifestFile.model_validate(content, context={"folder": path.parent})
    except ValidationError as exc:
        found = [(tuple(step for step in one.where if step != "settings"), one.message) for one in mistakes(exc)]
        lines = [f"{path}{_at(node, where)}: {_field(where)}{message}" for where, message in found]
        raise RegistryError(*lines) from exc


def _parse(path: Path) -> tuple[Any, yaml.Node | None]:
    """Returns what a file says, and its nodes where they are known."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RegistryError(f"{path} is larger than {_MAX_BYTES >> 20} MiB; a manifest is a short list")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RegistryError(f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text), None
        if path.suffix == ".json":
            return json.loads(text), _nodes(text)
        if path.suffix in _YAML:
            return _yaml().load(text, Loader=_yaml().SafeLoader), _nodes(text)
    except (ValueError, RecursionError) as exc:
        raise RegistryError(f"{path} is no {path.suffix[1:].upper()}: {' '.join(str(exc).split())}") from exc
    except Exception as exc:
        if not isinstance(exc, _yaml().YAMLError):
            raise
        raise RegistryError(f"{path} is no YAML: {' '.join(str(exc).split())}") from exc
    raise RegistryError(f"{path} must be a .yaml, .json or .toml file; got {path.suffix or 'no suffix'}")


def _yaml() -> Any:
    try:
        import yaml
    except ModuleNotFoundError as exc:
        raise RegistryError("YAML needs the package pyyaml; pip install 'shoal[batch]', or write JSON or TOML") from exc
    return yaml


def _nodes(text: str) -> yaml.Node | None:
    """Returns the nodes of YAML, which JSON is too, with their places; None where that cannot be told."""
    try:
        import yaml

        return yaml.compose(text, Loader=yaml.SafeLoader)
    except Exception:  # noqa: BLE001 - lines are a courtesy; what is wrong is said by who reads the values
        return None


def _at(node: yaml.Node | None, where: Sequence[str | int]) -> str:
    """Returns `, line 12` of the deepest node on the way to a field."""
    if node is None:
        return ""
    for step in where:
        inner = _child(node, step)
        if inner is None:
            break
        node = inner
    return f", line {node.start_mark.line + 1}"


def _child(node: yaml.Node, step: str | int) -> yaml.Node | None:
    if isinstance(step, int) and isinstance(node.value, list) and step < len(node.value):
        return node.value[step] if node.id == "sequence" else None
    if node.id != "mapping":
        return None
    for key, value in node.value:
        if key.value == step:
            # The key's line is where one looks; a value may begin on the next.
            return value if value.value and value.id != "scalar" else key
    return None


def _field(where: Sequence[str | int]) -> str:
    """Returns e.g. `models[2].budget: `."""
    text = ""
    for step in where:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return f"{text}: " if text else ""

"""What every registry of models can do: say which models it holds, hand one over, take a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from service.registries.settings import ModelSettings

if TYPE_CHECKING:
    from service.batch.outcome import ModelOutcome


class RegistryError(Exception):
    """A registry cannot be read or written; the message says what, where, and what to do.

    Attributes:
        lines: What is wrong, one line each; usually one.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class RefusedModelError(RegistryError):
    """One model cannot be handed over; the others can."""


@dataclass(frozen=True)
class Entry:
    """One model of a registry.

    Attributes:
        name: What it is called there.
        version: Which one of that name; empty where there are no versions.
        place: Where it is: a path, or a URI that the registry understands.
        settings: What it says about itself.
        lineage: Where it comes from, by name, e.g. `source_run`; goes into what is written back.
        stamp: Changes whenever the files change, known without reading them; empty where there is no such thing.
        refusal: Why it cannot be taken, where that is known already.
    """

    name: str
    version: str
    place: str
    settings: ModelSettings = field(default_factory=ModelSettings)
    lineage: Mapping[str, str] = field(default_factory=dict)
    stamp: str = ""
    refusal: str | None = None

    @property
    def label(self) -> str:
        """The name with its version, as people read it."""
        return f"{self.name} v{self.version}" if self.version else self.name


@dataclass(frozen=True)
class Fetched:
    """A model at hand.

    Attributes:
        model: Path of its file, archive or folder, or a name like `timm:resnet18`.
        weights: File with the weights of a named architecture.
    """

    model: str
    weights: str | None = None


class Registry(ABC):
    """Where models come from and results go. All methods may be called from several threads."""

    @property
    @abstractmethod
    def source(self) -> str:
        """What it is, in one line for people."""

    @property
    def defaults(self) -> ModelSettings:
        """What holds for every model that does not say otherwise."""
        return ModelSettings()

    @abstractmethod
    def models(self) -> tuple[Entry, ...]:
        """Returns the models that were asked for, in a stable order; never one that Shoal wrote.

        Raises:
            RegistryError: It cannot be read.
        """

    @abstractmethod
    def fetch(self, entry: Entry, folder: Path) -> Fetched:
        """Makes a model's files available.

        Args:
            entry: The model.
            folder: An empty folder for files that must be copied here first.

        Raises:
            RefusedModelError: It is nothing that can be optimised.
            RegistryError: It cannot be read.
        """

    def find(self, entry: Entry, identity: str) -> ModelOutcome | None:
        """Returns the result of the same work that the registry itself holds already; None where it holds none."""
        del entry, identity
        return None

    def publish(self, entry: Entry, outcome: ModelOutcome, folder: Path) -> str | None:
        """Writes a result back, once: asked again, it returns what it wrote before.

        Args:
            entry: The model.
            outcome: What came of it.
            folder: The delivered files.

        Returns:
            Where it is now; None where nothing was to be written.

        Raises:
            RegistryError: It cannot be written.
        """
        del entry, outcome, folder
        return None

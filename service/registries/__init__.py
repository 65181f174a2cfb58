"""Where models come from and results go: one file each for folders, manifests, Hugging Face and MLflow."""

from service.registries.base import Entry, Fetched, RefusedModelError, Registry, RegistryError
from service.registries.find import KINDS, Selection, open_registry
from service.registries.settings import ModelSettings

__all__ = [
    "KINDS",
    "Entry",
    "Fetched",
    "ModelSettings",
    "RefusedModelError",
    "Registry",
    "RegistryError",
    "Selection",
    "open_registry",
]

"""An MLflow model registry: versions in, by stage, alias or tag; results out, as versions with all that proves them.

What is read: the newest version of each registered model, or those that a selection names. Tags `shoal.<setting>` of a
version, or of its registered model, are settings, e.g. `shoal.budget`. A version that Shoal wrote is never read.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from pydantic import ValidationError

from service.registries.base import Entry, Fetched, RefusedModelError, Registry, RegistryError
from service.registries.settings import NAMES, ModelSettings, mistakes

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from service.batch.outcome import ModelOutcome
    from service.registries.find import Selection

PREFIX: Final = "shoal."
RESULT: Final = "shoal.result"
IDENTITY: Final = "shoal.identity"
SOURCE: Final = "shoal.source"
SKIP: Final = "shoal.skip"
WRITTEN: Final = frozenset(
    {RESULT, IDENTITY, SOURCE, SKIP, *(f"shoal.{name}" for name in (
        "source_version", "source_run", "job", "verdict", "input_sha256", "output_sha256", "version", "speedup",
    ))}
)  # fmt: skip
"""Tags that are no settings."""
_PAGE: Final = 200


@dataclass(frozen=True)
class MlflowOptions:
    """How to speak with MLflow, and what to write.

    Attributes:
        tracking_uri: Of the server or database; None for what MLflow's own variables say.
        register_as: Name of the registered model that results go to; `{name}` stands for the source's.
        alias: Alias that a result that met its budget gets; None for none.
        experiment: Experiment of the runs that hold the files; None for that of the source's run, else `shoal`.
        annotate: Whether source versions get tags that say what came of them.
        read_only: Whether nothing is written at all.
    """

    tracking_uri: str | None = None
    register_as: str = "{name}-shoal"
    alias: str | None = None
    experiment: str | None = None
    annotate: bool = False
    read_only: bool = False


@final
class MlflowRegistry(Registry):
    """Versions of registered models."""

    def __init__(self, name: str, selection: Selection, options: MlflowOptions) -> None:
        """Connects.

        Args:
            name: One registered model, or names as a shell writes them; empty for all.
            selection: Which of them, and which versions.
            options: How to speak with it.

        Raises:
            RegistryError: MLflow is not installed, or knows no such registry.
        """
        self._name = name
        self._selection = selection
        self._options = options
        self._lock = threading.Lock()
        self._client = _connect(options.tracking_uri)

    @property
    def source(self) -> str:
        """What it is."""
        return f"MLflow {self._name or 'registry'} at {self._client.tracking_uri}"

    def models(self) -> tuple[Entry, ...]:
        """Returns the versions that were asked for, by name and number."""
        with _ours("read"):
            found = [one for one in self._registered() if fnmatchcase(one.name, self._selection.pattern)]
            entries = [self._entry(model, version) for model in found for version in self._chosen(model)]
        return tuple(sorted(entries, key=lambda entry: (entry.name, int(entry.version))))

    def _registered(self) -> list[RegisteredModel]:
        exact = self._name and not any(letter in self._name for letter in "*?[")
        if exact:
            return [self._client.get_registered_model(self._name)]
        pages = _pages(lambda token: self._client.search_registered_models(max_results=_PAGE, page_token=token))
        return [one for one in pages if not self._name or fnmatchcase(one.name, self._name)]

    def _chosen(self, model: RegisteredModel) -> list[ModelVersion]:
        """Returns the versions of a model that the selection means; without one, its newest."""
        if self._selection.alias is not None:
            number = dict(model.aliases).get(self._selection.alias)
            versions = [] if number is None else [self._client.get_model_version(model.name, str(number))]
        else:
            versions = self._versions(model.name)
        wanted = [one for one in versions if not _is_ours(one) and one.tags.get(SKIP) != "true" and self._fits(one)]
        if self._selection.by_version:
            return wanted
        return sorted(wanted, key=lambda one: int(one.version))[-1:]

    def _fits(self, version: ModelVersion) -> bool:
        stage = self._selection.stage
        if stage is not None and (version.current_stage or "None").lower() != stage.lower():
            return False
        return all(version.tags.get(name) == value for name, value in self._selection.tags)

    def _versions(self, name: str) -> list[ModelVersion]:
        quoted = name.replace("'", "''")
        return list(
            _pages(lambda token: self._client.search_model_versions(f"name='{quoted}'", _PAGE, page_token=token))
        )

    def _entry(self, model: RegisteredModel, version: ModelVersion) -> Entry:
        settings, refusal = _settings({**model.tags, **version.tags})
        lineage = {"source_version": f"{model.name}/{version.version}", "source_run": version.run_id or ""}
        place = f"models:/{version.name}/{version.version}"
        stamp = f"{self._client.tracking_uri} {place} {version.source} {version.creation_timestamp}"
        return Entry(version.name, str(version.version), place, settings, lineage, stamp, refusal)

    def fetch(self, entry: Entry, folder: Path) -> Fetched:
        """Downloads a version's files and returns the model in them."""
        from mlflow.artifacts import download_artifacts

        from service.registries.mlflow_model import find_model

        with _ours("read"):
            uri = self._client.get_model_version_download_uri(entry.name, entry.version)
            place = download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=self._client.tracking_uri)
        if entry.settings.weights:
            raise RefusedModelError("its tags name other weights (shoal.weights); a version has its own")
        return Fetched(str(find_model(Path(place))))

    def find(self, entry: Entry, identity: str) -> ModelOutcome | None:
        """Returns the result of the same work that a version's tags tell of."""
        with _ours("read"):
            own = self._client.get_model_version(entry.name, entry.version)
            if (told := _outcome(own, identity)) is not None:
                return told
            for version in self._results(entry):
                if (told := _outcome(version, identity)) is not None:
                    return told.model_copy(update={"published": _uri(version)})
        return None

    def _results(self, entry: Entry) -> list[ModelVersion]:
        """Returns the versions that Shoal wrote where the results of a model go."""
        from mlflow.exceptions import MlflowException

        try:
            return [one for one in self._versions(self.target_of(entry)) if _is_ours(one)]
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return []

    def target_of(self, entry: Entry) -> str:
        """Returns the registered model that an entry's results go to."""
        return self._options.register_as.replace("{name}", entry.name)

    def publish(self, entry: Entry, outcome: ModelOutcome, folder: Path) -> str | None:
        """Writes a result that met its budget as a new version; any other is at most noted on its source."""
        if self._options.read_only:
            return None
        from service.registries.mlflow_write import Writer

        # Two results may go to one registered model, and must not both find that it does not exist.
        with self._lock, _ours("write"):
            known = [one for one in self._results(entry) if one.tags.get(IDENTITY) == outcome.identity]
            place = _uri(known[0]) if known else None
            if place is None and outcome.improved:
                place = Writer(self._client, self._options, self.target_of(entry)).write(entry, outcome, folder)
            if self._options.annotate:
                self._annotate(entry, outcome.model_copy(update={"published": place or ""}))
            return place

    def _annotate(self, entry: Entry, outcome: ModelOutcome) -> None:
        known = self._client.get_model_version(entry.name, entry.version).tags
        for name, value in result_tags(outcome).items():
            if known.get(name) != value:
                self._client.set_model_version_tag(entry.name, entry.version, name, value)


def result_tags(outcome: ModelOutcome) -> dict[str, str]:
    """Returns what tags say of a result; `shoal.result` holds all of it."""
    tags = {
        RESULT: outcome.model_dump_json(exclude_defaults=True),
        "shoal.verdict": outcome.verdict,
        "shoal.job": outcome.job,
        "shoal.input_sha256": outcome.input_sha256,
        "shoal.output_sha256": outcome.output_sha256,
        "shoal.speedup": "" if outcome.speedup is None else f"{outcome.speedup.value:.4g}",
    }
    return {name: value for name, value in tags.items() if value}


def _is_ours(version: ModelVersion) -> bool:
    return IDENTITY in version.tags


def _uri(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"


def _outcome(version: ModelVersion, identity: str) -> ModelOutcome | None:
    """Returns what a version's tags say, if it is of the same work."""
    from service.batch.outcome import ModelOutcome

    try:
        outcome = ModelOutcome.model_validate_json(version.tags.get(RESULT, ""))
    except ValidationError:
        return None
    # Its files are in the folder of whoever wrote the tag.
    return outcome.model_copy(update={"folder": ""}) if outcome.identity == identity else None


def _settings(tags: dict[str, str]) -> tuple[ModelSettings, str | None]:
    """Returns the settings that tags give, or why they are none."""
    said = {name.removeprefix(PREFIX): value for name, value in tags.items() if name.startswith(PREFIX)}
    settings = {name: value for name, value in said.items() if name in NAMES}
    strange = sorted(f"shoal.{name}" for name in said if name not in NAMES and PREFIX + name not in WRITTEN)
    if strange:
        return ModelSettings(), f"there is no setting for the tag {strange[0]}; known are {', '.join(sorted(NAMES))}"
    try:
        return ModelSettings.model_validate(settings), None
    except ValidationError as exc:
        said_wrong = [f"tag shoal.{one.where[0] if one.where else '*'}: {one.message}" for one in mistakes(exc)]
        return ModelSettings(), "; ".join(said_wrong)


def _pages(ask: Any) -> Iterator[Any]:
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def _connect(tracking_uri: str | None) -> MlflowClient:
    # A client of ours reports to nobody, and gives up on a dead server within seconds rather than minutes.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Standard output is ours: programs read it.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as exc:
        raise RegistryError(f"MLflow needs {exc.name}, which is not installed: pip install 'shoal[mlflow]'") from exc
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with _ours("open"):
        return MlflowClient(tracking_uri=tracking_uri)


@contextmanager
def _ours(what: str) -> Iterator[None]:
    """Turns what MLflow raises into one line of ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as exc:
        message = " ".join(str(exc.message).split())
        raise RegistryError(f"the MLflow registry could not be {_DONE[what]}: {message:.500}") from exc
    except OSError as exc:
        raise RegistryError(f"the MLflow registry could not be {_DONE[what]}: {exc}") from exc


_DONE: Final = {"read": "read", "write": "written", "open": "opened"}

"""From an entry of a registry to a request: settings put together, files at hand, content hashed, identity known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, final

from deploy.digest import file_digest
from service.batch import identity
from service.batch.once import Once
from service.cli import parse, splits
from service.cli.errors import InputError
from service.cli.request import (
    JobFlags,
    ModelFlags,
    PreprocessingFlags,
    TargetFlags,
    Uploaded,
    check_file,
    check_model,
    job_spec,
)
from service.registries import Entry, Fetched, ModelSettings, Registry, RegistryError

if TYPE_CHECKING:
    from protos.shoal.v1 import optimization_job_pb2 as job_pb
    from service.batch.ledger import Ledger

_ANY: Final = ModelFlags("timm:any")
"""Stands for the model where the rest of a request is written down."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted of one model, as the command line of `shoal optimize` would say it."""

    target: TargetFlags
    job: JobFlags
    samples: PreprocessingFlags
    found: splits.Splits
    data: str | None
    settings: ModelSettings

    def model_flags(self, fetched: Fetched) -> ModelFlags:
        """Returns the model part for files at hand."""
        told = self.settings
        return ModelFlags(
            fetched.model,
            weights=fetched.weights,
            num_classes=told.num_classes,
            sample_shape=told.sample_shape,
            input_shape=told.input_shapes or (),
            pretrained=bool(told.pretrained),
            task=told.task,
        )

    def spec(self, model: ModelFlags, uploaded: Uploaded) -> job_pb.OptimizationJobSpec:
        """Returns the whole request."""
        return job_spec(model, self.target, self.samples, self.job, uploaded)


@dataclass(frozen=True)
class Prepared:
    """One model, ready to be asked for.

    Attributes:
        entry: Which.
        wanted: What is wanted of it.
        sha256: Of its files; empty where it is only a name.
        size: Of its files, in bytes.
        identity: Of the work.
    """

    entry: Entry
    wanted: Wanted
    sha256: str
    size: int
    identity: str


@final
class Source:
    """Models of a registry, each fetched at most when it must be, and samples hashed once for all."""

    def __init__(self, registry: Registry, flags: ModelSettings, defaults: ModelSettings, ledger: Ledger) -> None:
        """Fetches nothing yet.

        Args:
            registry: Where the models are.
            flags: What the command line says.
            defaults: What holds where neither a model nor the command line says anything.
            ledger: Where contents that were hashed before are found again.
        """
        self.registry = registry
        self._flags = flags
        self._defaults = defaults
        self.ledger = ledger
        self._hashes: Once[str] = Once()

    @contextmanager
    def opened(self, entry: Entry) -> Iterator[Files]:
        """Yields a model's files; what had to be downloaded is gone afterwards."""
        with TemporaryDirectory(prefix="shoal-", ignore_cleanup_errors=True) as folder:
            yield Files(lambda: self.registry.fetch(entry, Path(folder)))

    def prepare(self, entry: Entry, files: Files) -> Prepared:
        """Returns an entry with all that is known of it without a server.

        Raises:
            InputError: Its files or settings cannot be used.
            RegistryError: It cannot be read.
            OSError: A file cannot be read.
        """
        if entry.refusal is not None:
            raise InputError(entry.refusal)
        wanted = self._wanted(entry)
        sha256, size = self.ledger.content(entry.stamp) or self._measured(entry, wanted, files)
        # A name's content is the name: the server knows its code, and its weights are hashed apart.
        named = entry.place if _named(entry.place) else ""
        model = wanted.model_flags(Fetched(named))
        weights = wanted.settings.weights
        known = identity.identify(
            sha256 or named, file_digest(Path(weights)) if weights else None, model, self._rest(wanted)
        )
        return Prepared(entry, wanted, sha256, size, known)

    def _wanted(self, entry: Entry) -> Wanted:
        told = entry.settings.over(self._flags).over(self._defaults)
        if told.budget is None:
            raise InputError("it has no budget: give --budget, or one of its own (`budget`, or the tag shoal.budget)")
        if told.weights is not None:
            check_file(Path(told.weights), "weights")
        found = splits.find(Path(told.data)) if told.data is not None else splits.Splits(None, None)
        return Wanted(_target(told), _job(told, told.budget), _samples(told), found, told.data, told)

    def _measured(self, entry: Entry, wanted: Wanted, files: Files) -> tuple[str, int]:
        fetched = files.fetched
        check_model(wanted.model_flags(fetched))
        if _named(fetched.model):
            return "", 0
        path = Path(fetched.model)
        content = identity.hash_model(path), identity.size_of_model(path)
        self.ledger.note_content(entry.stamp, *content)
        return content

    def _rest(self, wanted: Wanted) -> dict[str, Any]:
        """Returns the request without its model, with hashes in the place of uploads."""
        from google.protobuf import json_format

        hashes = {
            name: self._hash(split)
            for name, split in (("train", wanted.found.train), ("validation", wanted.found.validation))
            if split is not None
        }
        spec = wanted.spec(replace(_ANY, task=wanted.settings.task), Uploaded(**hashes))
        spec.ClearField("model")
        return json_format.MessageToDict(spec, preserving_proto_field_name=True)

    def _hash(self, split: splits.Split) -> str:
        key = str(split.resolve()) if isinstance(split, Path) else str(split.files)
        return self._hashes.get(key, lambda: identity.hash_split(split))


@final
class Files:
    """A model's files, fetched when they are first asked for."""

    def __init__(self, fetch: Callable[[], Fetched]) -> None:
        self._fetch = fetch
        self._fetched: Fetched | None = None

    @property
    def fetched(self) -> Fetched:
        """The files."""
        if self._fetched is None:
            self._fetched = self._fetch()
        return self._fetched


def _named(text: str) -> bool:
    try:
        return parse.architecture(text) is not None
    except ValueError as exc:
        raise RegistryError(str(exc)) from exc


def _target(told: ModelSettings) -> TargetFlags:
    return TargetFlags(told.target, told.runtime, told.precision, told.threads, told.batch, told.percentile)


def _job(told: ModelSettings, budget: parse.BudgetLimit) -> JobFlags:
    return JobFlags(
        budget=budget,
        strategy=told.strategy,
        option=told.options or (),
        epochs=told.epochs,
        patience=told.patience,
        no_finetune=bool(told.no_finetune),
        time_limit=told.time_limit,
        accuracy_floor=told.accuracy_floor,
        quality_floor=told.quality_floor,
        seed=told.seed,
    )


def _samples(told: ModelSettings) -> PreprocessingFlags:
    return PreprocessingFlags(
        told.mean, told.std, told.preprocess, told.text_columns or (), told.label_column, told.image_column
    )

"""One model of a batch, from its registry to its result: done once, found again by whoever comes later."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, final

from deploy.digest import file_digest
from service.batch.identity import request_id
from service.batch.once import Once
from service.batch.outcome import DELIVERED, ModelOutcome, from_job
from service.cli.errors import InputError
from service.cli.fetch import fetch_artifacts
from service.cli.request import Uploaded
from service.cli.send import send_model, send_split
from service.client import (
    AlreadyExistsError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    JobAdvanced,
    NotFoundError,
    ResourceExhaustedError,
    ShoalError,
    UnavailableError,
    is_finished,
)
from service.registries import Entry, RefusedModelError, RegistryError

if TYPE_CHECKING:
    from protos.shoal.v1 import optimization_job_pb2 as job_pb
    from service.batch.board import Board
    from service.batch.ledger import Ledger
    from service.batch.prepare import Files, Prepared, Source
    from service.cli.splits import Split
    from service.client import Client

T = TypeVar("T")

PATIENCE: Final = 300.0
"""Seconds without a server after which a model is left for the next run."""
_QUEUE_PAUSE: Final = 10.0
_MOST_ATTEMPTS: Final = 100
_CALLERS: Final = (InvalidArgumentError, FailedPreconditionError, AlreadyExistsError)


@dataclass(frozen=True)
class Place:
    """Where a batch works.

    Attributes:
        source: Its models.
        client: The server.
        ledger: What was done.
        out: Folder of the results.
        board: Where it is shown.
        retry: Whether jobs that failed by the model's own fault are tried again too.
        uploads: How many models may be uploaded at once.
        stopped: Set when the batch is to end without waiting for its jobs.
    """

    source: Source
    client: Client
    ledger: Ledger
    out: Path
    board: Board
    retry: bool = False
    uploads: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(2))
    stopped: threading.Event = field(default_factory=threading.Event)


class StoppedError(Exception):
    """The batch is to end; what the server does goes on."""


@final
class Worker:
    """Does the models of one batch. `do` may be called from several threads."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._sent: Once[str] = Once()
        self._turns: Once[None] = Once()

    def do(self, entry: Entry) -> tuple[ModelOutcome, bool]:
        """Brings one model to its result. Never raises for what is one model's trouble.

        Args:
            entry: Which.

        Returns:
            What came of it, and whether anything was done for it now.

        Raises:
            StoppedError: The batch is to end.
        """
        prepared: Prepared | None = None
        try:
            with self._place.source.opened(entry) as files:
                self._place.board.note(entry.label, "reading")
                prepared = self._place.source.prepare(entry, files)
                return self._settle(prepared, files)
        except (InputError, RefusedModelError) as exc:
            return _ended(entry, prepared, "REFUSED", str(exc), "caller"), False
        except _CALLERS as exc:
            return _ended(entry, prepared, "REFUSED", _said(exc), "caller"), False
        except ShoalError as exc:
            self._raise_if_stopped()
            return _ended(entry, prepared, "UNREACHED", exc.message, "machine"), False
        except (RegistryError, OSError) as exc:
            return _ended(entry, prepared, "UNREACHED", str(exc), "machine"), False
        except ValueError:  # what gRPC raises for a channel that was closed
            self._raise_if_stopped()
            raise

    def _settle(self, prepared: Prepared, files: Files) -> tuple[ModelOutcome, bool]:
        # Two versions of a registry may be the same bytes: the second waits, and finds what the first did.
        with self._turns.lock(prepared.identity):
            outcome, fresh = self._known(prepared), False
            if outcome is None:
                outcome, fresh = self._run(prepared, files), True
        outcome = _as_own(outcome, prepared.entry)
        if outcome.verdict not in DELIVERED or not outcome.folder:
            return outcome, fresh
        try:
            where, written = self._publish(prepared, outcome)
        except RegistryError as exc:
            reason = f"it is optimised ({outcome.verdict}), and the next run writes it back: {exc}"
            unwritten = {"verdict": "UNREACHED", "reason": reason, "blame": "machine"}
            return outcome.model_copy(update=unwritten), fresh
        return outcome.model_copy(update={"published": where}), fresh or written

    def _known(self, prepared: Prepared) -> ModelOutcome | None:
        """Returns what was found out before, with its files in their place; None where there is work to do."""
        known = self._place.ledger.work(prepared.identity).outcome
        if known is None:
            return self._place.source.registry.find(prepared.entry, prepared.identity)
        if known.verdict not in DELIVERED:
            return known if known.settled and not self._place.retry else None
        return known if _is_whole(self._place.out / known.folder, known) else None

    def _run(self, prepared: Prepared, files: Files) -> ModelOutcome:
        attempt = self._place.ledger.work(prepared.identity).attempt
        job = self._going_on(prepared)
        for _ in range(_MOST_ATTEMPTS):
            if job is None:
                job, attempt = self._create(prepared, files, attempt)
            outcome = self._await(prepared, job, attempt)
            if outcome is not None:
                return outcome
            attempt, job = attempt + 1, None
        raise RegistryError(f"{_MOST_ATTEMPTS} jobs for {prepared.entry.label} failed; look at them with `shoal jobs`")

    def _going_on(self, prepared: Prepared) -> job_pb.OptimizationJob | None:
        """Returns the job that a batch before this one created, if it can still come to something."""
        known = self._place.ledger.work(prepared.identity)
        if not known.job or (known.outcome is not None and known.outcome.verdict not in DELIVERED):
            return None
        try:
            job = self._patiently(lambda: self._place.client.get(known.job))
        except NotFoundError:
            return None
        return job if not is_finished(job) or job.HasField("result") else None

    def _create(self, prepared: Prepared, files: Files, attempt: int) -> tuple[job_pb.OptimizationJob, int]:
        place, label = self._place, prepared.entry.label
        model = prepared.wanted.model_flags(files.fetched)
        with place.uploads:
            spec = prepared.wanted.spec(model, self._upload(prepared, files))
        place.board.note(label, "creating the job")
        while True:
            asked = request_id(prepared.identity, attempt, spec, label[:256])
            job = self._patiently(
                partial(place.client.create, spec, display_name=label[:256], request_id=asked), queue=True
            )
            if not is_finished(job) or job.HasField("result") or not self._again(from_job(job)):
                place.ledger.note_job(prepared.identity, attempt, job.name, place.client.address)
                return job, attempt
            attempt += 1  # that request's job has failed already, in a run that nobody remembers here

    def _again(self, outcome: ModelOutcome) -> bool:
        return self._place.retry or not outcome.settled

    def _upload(self, prepared: Prepared, files: Files) -> Uploaded:
        client, label, board = self._place.client, prepared.entry.label, self._place.board
        model = prepared.wanted.model_flags(files.fetched)

        def note(text: str) -> None:
            self._raise_if_stopped()
            board.note(label, f"uploading {text}")

        def sent(split: Split | None) -> str | None:
            if split is None:
                return None
            key = str(split.resolve()) if isinstance(split, Path) else str(split.files)
            return self._sent.get(key, lambda: self._patiently(lambda: send_split(client, split, note)))

        uploaded = self._patiently(lambda: send_model(client, model, note))
        return replace(
            uploaded, train=sent(prepared.wanted.found.train), validation=sent(prepared.wanted.found.validation)
        )

    def _await(self, prepared: Prepared, job: job_pb.OptimizationJob, attempt: int) -> ModelOutcome | None:
        """Waits for a job and fetches what it made; None where its files are gone and it must be done again."""
        place, label = self._place, prepared.entry.label
        place.board.note(label, f"job {job.name.rpartition('/')[2]}")
        if not is_finished(job):
            job = self._follow(job.name, label)
        folder = folder_of(prepared)
        outcome = from_job(job).model_copy(
            update={
                "name": prepared.entry.name,
                "version": prepared.entry.version,
                "place": prepared.entry.place,
                "identity": prepared.identity,
                "input_sha256": prepared.sha256,
                "server": place.client.address,
                "folder": folder if job.HasField("result") else "",
            }
        )
        if job.HasField("result"):
            place.board.note(label, "downloading")
            try:
                self._patiently(lambda: fetch_artifacts(place.client, job, place.out / folder))
            except NotFoundError:
                return None
        place.ledger.note_outcome(prepared.identity, attempt + (not outcome.settled), outcome)
        return outcome

    def _follow(self, name: str, label: str) -> job_pb.OptimizationJob:
        for event in self._place.client.watch(name, patience=PATIENCE):
            self._raise_if_stopped()
            if isinstance(event, JobAdvanced):
                self._place.board.advance(label, event.progress.phase, event.progress.fraction)
        return self._patiently(lambda: self._place.client.get(name))

    def _publish(self, prepared: Prepared, outcome: ModelOutcome) -> tuple[str, bool]:
        """Writes a result back, and returns where it is and whether it was written now."""
        place, entry = self._place, prepared.entry
        known = place.ledger.published(prepared.identity, entry.place)
        if known is not None or outcome.published:
            return known or outcome.published, False
        place.board.note(entry.label, "writing the result back")
        where = place.source.registry.publish(entry, outcome, place.out / outcome.folder)
        if where is None:
            return "", False
        place.ledger.note_published(prepared.identity, entry.place, where)
        return where, True

    def _patiently(self, ask: Callable[[], T], *, queue: bool = False) -> T:
        """Asks again while the server is away for a moment or has no room; while its queue is full, however long."""
        deadline = time.monotonic() + PATIENCE
        pause = 0.5
        while True:
            try:
                return ask()
            except ResourceExhaustedError:
                if not queue and time.monotonic() > deadline:
                    raise
                self._sleep(_QUEUE_PAUSE)
            except (UnavailableError, DeadlineExceededError):
                if time.monotonic() > deadline:
                    raise
                self._sleep(pause)
                pause = min(2 * pause, _QUEUE_PAUSE)

    def _sleep(self, seconds: float) -> None:
        self._place.stopped.wait(seconds)
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._place.stopped.is_set():
            raise StoppedError


def folder_of(prepared: Prepared) -> str:
    """Returns the name of the folder that a result goes to: the model's own, and never that of other settings."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", prepared.entry.label.replace(" v", "-v")).strip("-.") or "model"
    return f"{plain[:100]}-{prepared.identity[:8]}"


def _as_own(outcome: ModelOutcome, entry: Entry) -> ModelOutcome:
    """Returns an outcome as that of an entry, which may be another with the same bytes."""
    mine = outcome.place == entry.place
    own = {"name": entry.name, "version": entry.version, "place": entry.place}
    return outcome.model_copy(update=own if mine else {**own, "published": ""})


def _ended(entry: Entry, prepared: Prepared | None, verdict: str, reason: str, blame: str) -> ModelOutcome:
    return ModelOutcome.model_validate(
        {
            "name": entry.name,
            "version": entry.version,
            "place": entry.place,
            "identity": prepared.identity if prepared else "",
            "input_sha256": prepared.sha256 if prepared else "",
            "verdict": verdict,
            "reason": reason,
            "blame": blame,
        }
    )


def _is_whole(folder: Path, outcome: ModelOutcome) -> bool:
    """Tells whether delivered files are still there, the network by its bytes."""
    model = folder / "model.onnx"
    there = model.is_file() and (folder / "manifest.json").is_file()
    return there and file_digest(model) == outcome.output_sha256


def _said(error: ShoalError) -> str:
    return "; ".join(f"{one.field}: {one.description}" for one in error.violations) or error.message

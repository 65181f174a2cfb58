"""What the service raises. Knows nothing of gRPC; `service.faults` says what each one means to a caller."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from service.wording import fit


class ServiceError(Exception):
    """Base of all service errors; the message is fit for the user."""


@dataclass(frozen=True)
class Violation:
    """One broken field rule: the field's path in the request, and what is wrong in one sentence."""

    field: str
    description: str


class InvalidRequestError(ServiceError):
    """The caller's fault: fields break their rules."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{item.field}: {item.description}" for item in self.violations))


class WrongImportError(ServiceError):
    """Our fault: an imported model does not compute what its file does."""


class NotFoundError(ServiceError):
    """There is no such resource."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} {name!r}")
        self.kind = kind
        self.name = name


class AlreadyExistsError(ServiceError):
    """An id was used before for something else."""

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name


class UnauthenticatedError(ServiceError):
    """Nobody knows who calls, and this server has to."""


class ForbiddenError(ServiceError):
    """It is known who calls, and they may not do this."""


class TlsError(ServiceError):
    """The operator's fault: certificates or keys cannot be used."""


class AgentRefusedError(ServiceError):
    """Who calls as a device's agent is none, or no longer the one that speaks for the device."""


class QuotaError(ServiceError):
    """More than this server takes; `retry_seconds` says when to try again, None that waiting does not help."""

    def __init__(self, subject: str, message: str, retry_seconds: float | None = None) -> None:
        super().__init__(message)
        self.subject = subject
        self.retry_seconds = retry_seconds


class DiskFullError(ServiceError):
    """The machine's fault: there is no room to store something."""


class StorageUnavailableError(ServiceError):
    """The machine's fault: the place where files are kept does not answer. What is in it is not lost."""


class StorageSettingError(ServiceError):
    """The operator's fault: the place where files are to be kept does not exist or cannot be used."""


class DatabaseBusyError(ServiceError):
    """The database stayed locked for too long."""


class DatabaseUnavailableError(DatabaseBusyError):
    """The machine's fault: the database is gone, cannot be written, or cannot be reached.

    Whoever waits for a busy one waits for this one too.
    """


class DatabaseUrlError(ServiceError):
    """The operator's fault: no database can be opened under this URL."""


class LeaseLostError(ServiceError):
    """A job was taken from this server, whose lease ran out; nothing that it has to say of the job counts any more."""


class JobActiveError(ServiceError):
    """A job is not finished, so it cannot be removed."""


class ArtifactInUseError(ServiceError):
    """A file belongs to a job, so it cannot be removed by itself."""


class DrainingError(ServiceError):
    """The server is stopping and takes nothing new."""


class StateInUseError(ServiceError):
    """The operator's fault: another server uses the state folder."""


class StateVersionError(ServiceError):
    """The operator's fault: the database was written by another version of Shoal."""


class ListenError(ServiceError):
    """The machine's fault: the address cannot be listened on."""


class ExecutorError(ServiceError):
    """The machine's fault: the executor cannot be used, or its node cannot run what it was given."""


class IllegalTransitionError(ServiceError):
    """A job cannot go from the state it is in to the one asked for."""


class UploadError(ServiceError):
    """Base of what goes wrong in an upload; `committed_size` is the offset to go on from."""

    def __init__(self, message: str, committed_size: int) -> None:
        super().__init__(message)
        self.committed_size = committed_size


class ChunkChecksumError(UploadError):
    """A chunk's bytes do not have the CRC-32C that it states."""


class ChunkOffsetError(UploadError):
    """A chunk does not start where the stored bytes end."""


class UploadIncompleteError(UploadError):
    """The stream ended before the last byte. What arrived is kept."""


class UploadSupersededError(UploadError):
    """Another call took over the same upload."""


class UploadInProgressError(UploadError):
    """Another call is sending the same upload."""


class ChecksumMismatchError(ServiceError):
    """The whole file does not have the size or SHA-256 that was announced. What arrived is discarded."""


class ArtifactDamagedError(ServiceError):
    """The machine's fault: a stored file is not what was stored."""


class OffsetRangeError(ServiceError):
    """An offset lies outside of the file or event list."""


class DataError(ServiceError):
    """The caller's samples, or how they are to be preprocessed, cannot be used as they are.

    The message says what, where, what was found, what was wanted and what to do; it is fit for the user, short and
    printable whatever it quotes.

    Attributes:
        field: Path of the job spec's field that it is about, e.g. `data.train` or `preprocessing.mean`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(fit(message))
        self.field = field


class WorkerError(ServiceError):
    """A worker could not do its work: it said so, or it died; see `reason`."""

    def __init__(self, reason: str, message: str, blame: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.blame = blame


class WorkerProtocolError(ServiceError):
    """Our fault: a worker wrote what is no event, or a result that is not what it says."""


class TimeLimitError(ServiceError):
    """The time limit ended before there was anything fit to be returned."""

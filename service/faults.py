"""What every exception of ours means: a stable reason, whose fault it is, and the gRPC status that a caller gets.

This is the only such table. Jobs and dry runs take reason and blame from it, the server takes the status from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import compressors.errors as engine
import deploy.errors as deploy
from service import errors
from service.storage.disk import is_full

Blame = Literal["caller", "machine", "shoal"]


@dataclass(frozen=True)
class Fault:
    """What an exception means.

    Attributes:
        reason: Stable identifier, for ErrorInfo and JobError.
        blame: Whose fault it is.
        code: Name of a gRPC status code.
    """

    reason: str
    blame: Blame
    code: str


UNEXPECTED = Fault("INTERNAL", "shoal", "INTERNAL")
OUT_OF_MEMORY = Fault("OUT_OF_MEMORY", "machine", "RESOURCE_EXHAUSTED")
DISK_FULL = Fault("DISK_FULL", "machine", "RESOURCE_EXHAUSTED")
TIME_LIMIT = Fault("TIME_LIMIT", "caller", "DEADLINE_EXCEEDED")
WORKER_DIED = Fault("WORKER_DIED", "machine", "INTERNAL")
WORKER_LOST = Fault("WORKER_LOST", "machine", "INTERNAL")
WORKER_PROTOCOL = Fault("WORKER_PROTOCOL", "shoal", "INTERNAL")
WORKER_MEMORY = Fault("WORKER_MEMORY", "machine", "RESOURCE_EXHAUSTED")
WORKER_PROCESSES = Fault("WORKER_PROCESSES", "caller", "RESOURCE_EXHAUSTED")

FAULTS: Mapping[type[BaseException], Fault] = MappingProxyType(
    {
        MemoryError: OUT_OF_MEMORY,
        # The engine's.
        engine.EngineError: Fault("ENGINE_ERROR", "shoal", "INTERNAL"),
        engine.ModelError: Fault("BAD_MODEL", "caller", "FAILED_PRECONDITION"),
        engine.UnsafeModelError: Fault("UNSAFE_MODEL", "caller", "FAILED_PRECONDITION"),
        engine.UnsupportedModelError: Fault("UNSUPPORTED_MODEL", "caller", "FAILED_PRECONDITION"),
        engine.OptionError: Fault("BAD_OPTION", "caller", "INVALID_ARGUMENT"),
        engine.SurgeryError: Fault("SURGERY_FAILED", "shoal", "INTERNAL"),
        # Deploy's.
        deploy.DeployError: Fault("DEPLOY_ERROR", "shoal", "INTERNAL"),
        deploy.ExportError: Fault("EXPORT_FAILED", "shoal", "FAILED_PRECONDITION"),
        deploy.ModelFileError: Fault("BAD_MODEL_FILE", "caller", "FAILED_PRECONDITION"),
        deploy.PrecisionError: Fault("PRECISION_FAILED", "shoal", "FAILED_PRECONDITION"),
        deploy.DataError: Fault("BAD_DATA", "caller", "FAILED_PRECONDITION"),
        deploy.TimingSettingsError: Fault("BAD_TIMING_SETTING", "caller", "INVALID_ARGUMENT"),
        deploy.RuntimeMissingError: Fault("RUNTIME_MISSING", "machine", "FAILED_PRECONDITION"),
        deploy.MeasureError: Fault("MEASURE_FAILED", "machine", "INTERNAL"),
        deploy.MeasureCancelledError: Fault("MEASURE_CANCELLED", "caller", "CANCELLED"),
        deploy.DeviceMissingError: Fault("DEVICE_MISSING", "machine", "FAILED_PRECONDITION"),
        deploy.DeviceFailedError: Fault("DEVICE_FAILED", "machine", "INTERNAL"),
        deploy.DeviceMemoryError: Fault("DEVICE_OUT_OF_MEMORY", "machine", "RESOURCE_EXHAUSTED"),
        deploy.EngineBuildError: Fault("ENGINE_BUILD_FAILED", "machine", "INTERNAL"),
        deploy.EngineOperatorError: Fault("UNSUPPORTED_OPERATOR", "caller", "FAILED_PRECONDITION"),
        deploy.EngineMisfitError: Fault("ENGINE_MISFIT", "caller", "FAILED_PRECONDITION"),
        deploy.EngineCancelledError: Fault("ENGINE_CANCELLED", "caller", "CANCELLED"),
        deploy.SandboxError: Fault("SANDBOX_MISSING", "machine", "FAILED_PRECONDITION"),
        deploy.CacheError: Fault("CACHE_FAILED", "machine", "INTERNAL"),
        # The service's own.
        errors.DataError: Fault("BAD_DATA", "caller", "FAILED_PRECONDITION"),
        errors.ServiceError: Fault("SERVICE_ERROR", "shoal", "INTERNAL"),
        errors.InvalidRequestError: Fault("INVALID_REQUEST", "caller", "INVALID_ARGUMENT"),
        errors.WrongImportError: Fault("WRONG_IMPORT", "shoal", "FAILED_PRECONDITION"),
        errors.NotFoundError: Fault("NOT_FOUND", "caller", "NOT_FOUND"),
        errors.AlreadyExistsError: Fault("ALREADY_EXISTS", "caller", "ALREADY_EXISTS"),
        errors.UnauthenticatedError: Fault("UNAUTHENTICATED", "caller", "UNAUTHENTICATED"),
        errors.ForbiddenError: Fault("FORBIDDEN", "caller", "PERMISSION_DENIED"),
        errors.TlsError: Fault("BAD_TLS", "caller", "FAILED_PRECONDITION"),
        errors.AgentRefusedError: Fault("AGENT_REFUSED", "caller", "UNAUTHENTICATED"),
        errors.QuotaError: Fault("QUOTA_EXCEEDED", "caller", "RESOURCE_EXHAUSTED"),
        errors.DiskFullError: DISK_FULL,
        errors.StorageUnavailableError: Fault("STORAGE_UNAVAILABLE", "machine", "UNAVAILABLE"),
        errors.StorageSettingError: Fault("BAD_STORAGE", "caller", "FAILED_PRECONDITION"),
        errors.DatabaseBusyError: Fault("DATABASE_BUSY", "machine", "UNAVAILABLE"),
        errors.DatabaseUnavailableError: Fault("DATABASE_UNAVAILABLE", "machine", "UNAVAILABLE"),
        errors.DatabaseUrlError: Fault("BAD_DATABASE_URL", "caller", "FAILED_PRECONDITION"),
        errors.LeaseLostError: Fault("LEASE_LOST", "machine", "ABORTED"),
        errors.JobActiveError: Fault("JOB_ACTIVE", "caller", "FAILED_PRECONDITION"),
        errors.ArtifactInUseError: Fault("ARTIFACT_IN_USE", "caller", "FAILED_PRECONDITION"),
        errors.DrainingError: Fault("DRAINING", "machine", "UNAVAILABLE"),
        errors.StateInUseError: Fault("STATE_IN_USE", "caller", "FAILED_PRECONDITION"),
        errors.StateVersionError: Fault("STATE_VERSION", "caller", "FAILED_PRECONDITION"),
        errors.ListenError: Fault("CANNOT_LISTEN", "machine", "UNAVAILABLE"),
        errors.ExecutorError: Fault("EXECUTOR_FAILED", "machine", "FAILED_PRECONDITION"),
        errors.IllegalTransitionError: Fault("ILLEGAL_TRANSITION", "shoal", "ABORTED"),
        errors.UploadError: Fault("UPLOAD_FAILED", "caller", "ABORTED"),
        errors.ChunkChecksumError: Fault("CHUNK_CHECKSUM", "machine", "ABORTED"),
        errors.ChunkOffsetError: Fault("CHUNK_OFFSET", "caller", "OUT_OF_RANGE"),
        errors.UploadIncompleteError: Fault("UPLOAD_INCOMPLETE", "caller", "ABORTED"),
        errors.UploadSupersededError: Fault("UPLOAD_SUPERSEDED", "caller", "ABORTED"),
        errors.UploadInProgressError: Fault("UPLOAD_IN_PROGRESS", "caller", "ABORTED"),
        errors.ChecksumMismatchError: Fault("CHECKSUM_MISMATCH", "caller", "DATA_LOSS"),
        errors.ArtifactDamagedError: Fault("ARTIFACT_DAMAGED", "machine", "DATA_LOSS"),
        errors.OffsetRangeError: Fault("OFFSET_RANGE", "caller", "OUT_OF_RANGE"),
        # A worker brings its own reason and blame; this row is for one that nobody knows.
        errors.WorkerError: Fault("WORKER_FAILED", "shoal", "INTERNAL"),
        errors.WorkerProtocolError: WORKER_PROTOCOL,
        errors.TimeLimitError: TIME_LIMIT,
    }
)

BY_REASON: Mapping[str, Fault] = MappingProxyType(
    {fault.reason: fault for fault in (*FAULTS.values(), UNEXPECTED, WORKER_DIED, WORKER_MEMORY, WORKER_PROCESSES)}
)


def classify(error: BaseException) -> Fault:
    """Returns what an exception means; the nearest class in its ancestry counts."""
    if isinstance(error, errors.WorkerError):
        return _of_worker(error)
    if is_full(error):
        return DISK_FULL
    if isinstance(error, RuntimeError) and _is_allocation_failure(error):
        return OUT_OF_MEMORY
    for kind in type(error).__mro__:
        if kind in FAULTS:
            return FAULTS[kind]
    return UNEXPECTED


def _of_worker(error: errors.WorkerError) -> Fault:
    known = BY_REASON.get(error.reason)
    if known is not None:
        return known
    code = "FAILED_PRECONDITION" if error.blame == "caller" else "INTERNAL"
    blame: Blame = "caller" if error.blame == "caller" else "machine" if error.blame == "machine" else "shoal"
    return Fault(error.reason, blame, code)


def _is_allocation_failure(error: RuntimeError) -> bool:
    # torch has a class for this on accelerators only; on the CPU it is a RuntimeError with one of these texts.
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)

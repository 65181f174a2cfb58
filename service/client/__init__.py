"""The typed Python client of a Shoal server. Needs neither torch nor anything else that a server needs."""

from service.client.client import Client, SpecFields
from service.client.errors import (
    AlreadyExistsError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    ServerError,
    ShoalError,
    UnavailableError,
    Violation,
)
from service.client.security import tls_credentials
from service.client.watch import JobAdvanced, JobEvent, JobSnapshot, is_finished

__all__ = [
    "AlreadyExistsError",
    "Client",
    "DataLossError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InvalidArgumentError",
    "JobAdvanced",
    "JobEvent",
    "JobSnapshot",
    "NotFoundError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "ServerError",
    "ShoalError",
    "SpecFields",
    "UnavailableError",
    "Violation",
    "is_finished",
    "tls_credentials",
]

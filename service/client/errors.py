"""What the client raises: one class per kind of failure, built once from the google.rpc details of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.any_pb2 import Any


@dataclass(frozen=True)
class Violation:
    """One field that the server refused.

    Attributes:
        field: Path of the field in the request, e.g. `spec.budget.fraction`.
        description: What is wrong with it.
    """

    field: str
    description: str


class ShoalError(Exception):
    """Base of all client errors.

    Attributes:
        message: One line for people.
        reason: Stable identifier of the cause, e.g. `UNSAFE_MODEL`; empty when the server gave none.
        violations: The fields that were refused; empty unless the request itself was at fault.
    """

    def __init__(self, message: str, reason: str = "", violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.violations = violations


class InvalidArgumentError(ShoalError):
    """The request is wrong, whatever the server's state; `violations` names the fields."""


class FailedPreconditionError(ShoalError):
    """The request is well formed, but what it refers to cannot be used, e.g. an unsafe model file."""


class NotFoundError(ShoalError):
    """No such job or artifact."""


class AlreadyExistsError(ShoalError):
    """The id is taken by something else."""


class PermissionDeniedError(ShoalError):
    """The server does not know the caller, or does not let it do this."""


class ResourceExhaustedError(ShoalError):
    """The server has no room: its queue, its disk or a quota is full."""


class UnavailableError(ShoalError):
    """No server answers at the address, or it went away and did not come back."""


class DeadlineExceededError(ShoalError):
    """The server did not answer in time."""


class DataLossError(ShoalError):
    """A file arrived with other bytes than were sent, in spite of repeated checks."""


class ServerError(ShoalError):
    """Everything else; the fault is the server's."""


_CLASSES: dict[grpc.StatusCode, type[ShoalError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,  # by a server that stops, or by us after too long a silence
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
}


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Returns the status code of a failed call.

    Args:
        error: What the call raised; also a `grpc.Call`, as grpc promises for every failed call.
    """
    assert isinstance(error, grpc.Call)
    return error.code()


def from_rpc(error: grpc.RpcError, address: str) -> ShoalError:
    """Turns a failed call into the error to raise.

    Args:
        error: What the call raised.
        address: Where the server was looked for; named when nobody answered there.
    """
    assert isinstance(error, grpc.Call)
    kind = _CLASSES.get(error.code(), ServerError)
    details = _rich_details(error)
    reason, violations = _reason(details), _violations(details)
    if kind is UnavailableError and not reason:
        return kind(_unreachable(error.details() or "", address))
    if kind is DeadlineExceededError and not reason:
        return kind(f"the server at {address} did not answer in time; it may be overloaded, try again")
    return kind(_one_line(error.details()) or f"the server answered {error.code().name}", reason, violations)


# What gRPC says of a connection that did not come about, and what it means.
_UNREACHABLE: dict[str, str] = {
    "is not in peer certificate": "the certificate of the server at {} is for another host name; use a name that it is "
    "for, or give the server a certificate for this one",
    "CERTIFICATE_VERIFY_FAILED": "the certificate of the server at {} was not signed by an authority that you trust, "
    "or has expired; name the right one with --tls-ca FILE or tls_credentials(ca=...)",
    "WRONG_VERSION_NUMBER": "the server at {} does not speak TLS; call it without, if the network is trusted",
    "Socket closed": "the server at {} breaks off the connection; if it speaks TLS, so must you (--tls, --tls-ca), "
    "and it may ask for a certificate (--tls-cert, --tls-key)",
}


def _unreachable(details: str, address: str) -> str:
    if "failed to connect" in details:
        for sign, meaning in _UNREACHABLE.items():
            if sign in details:
                return meaning.format(address)
    return f"no Shoal server answers at {address}; start one with `shoal serve` or check the address"


def _rich_details(error: grpc.Call) -> list[Any]:
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the status in the trailers contradicts the call's own: trust the latter
        return []
    return list(status.details) if status is not None else []


def _reason(details: Iterable[Any]) -> str:
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in details if detail.Unpack(info)), "")


def _violations(details: Iterable[Any]) -> tuple[Violation, ...]:
    request = error_details_pb2.BadRequest()
    for detail in details:
        if detail.Unpack(request):
            return tuple(Violation(each.field, _one_line(each.description)) for each in request.field_violations)
    return ()


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())

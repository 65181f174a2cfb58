"""From an exception to the google.rpc.Status that a caller gets."""

from __future__ import annotations

import logging
import secrets

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details_pb
from google.rpc import status_pb2

import compressors.errors as engine
from service import errors
from service.faults import UNEXPECTED, classify

DOMAIN = "shoal"
_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 2.0


def to_status(error: BaseException) -> status_pb2.Status:
    """Returns the status for an exception. One that nobody foresaw is logged, and only an id for it goes out."""
    fault = classify(error)
    info = details_pb.ErrorInfo(reason=fault.reason, domain=DOMAIN, metadata=_metadata(error))
    message = str(error)
    if fault is UNEXPECTED:
        error_id = secrets.token_hex(8)
        _LOG.error("unexpected error %s", error_id, exc_info=error)
        info.metadata["error_id"] = error_id
        message = f"internal error {error_id}; the server's log says more under this id"
    info.metadata["blame"] = fault.blame
    code: int = grpc.StatusCode[fault.code].value[0]
    return status_pb2.Status(code=code, message=message, details=[_packed(info), *map(_packed, _extra_details(error))])


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _metadata(error: BaseException) -> dict[str, str]:
    if isinstance(error, errors.UploadError):
        return {"committed_size": str(error.committed_size)}
    return {}


def _extra_details(error: BaseException) -> list[Message]:
    match error:
        case errors.InvalidRequestError():
            return [_bad_request(error.violations)]
        case engine.OptionError():
            return [_bad_request([errors.Violation(error.field, str(error))])]
        case errors.NotFoundError() | errors.AlreadyExistsError():
            info = details_pb.ResourceInfo(resource_type=error.kind, resource_name=error.name, description=str(error))
            return [info]
        case errors.QuotaError():
            violation = details_pb.QuotaFailure.Violation(subject=error.subject, description=str(error))
            found: list[Message] = [details_pb.QuotaFailure(violations=[violation])]
            return found if error.retry_seconds is None else [*found, _retry(error.retry_seconds)]
        case errors.DrainingError() | errors.DatabaseBusyError() | errors.DatabaseUnavailableError():
            return [_retry(_RETRY_SECONDS)]
    return _precondition(error)


def _precondition(error: BaseException) -> list[Message]:
    fault = classify(error)
    if fault.code != "FAILED_PRECONDITION":
        return []
    violation = details_pb.PreconditionFailure.Violation(type=fault.reason, description=str(error))
    return [details_pb.PreconditionFailure(violations=[violation])]


def _bad_request(violations: list[errors.Violation] | tuple[errors.Violation, ...]) -> details_pb.BadRequest:
    return details_pb.BadRequest(
        field_violations=[
            details_pb.BadRequest.FieldViolation(field=item.field, description=item.description) for item in violations
        ]
    )


def _retry(seconds: float) -> details_pb.RetryInfo:
    info = details_pb.RetryInfo()
    info.retry_delay.FromNanoseconds(round(seconds * 1e9))
    return info

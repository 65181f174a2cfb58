from __future__ import annotations

import ast
import errno
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

import compressors.errors as engine
import service
from service import errors
from service.faults import BY_REASON, FAULTS, UNEXPECTED, classify
from service.server.status import to_status
from service.worker.main import to_event

ROOT = Path(service.__file__).parents[1]
# What never meets the table: the client's and the command line's errors live on the other side of the wire.
OTHER_SIDE = (
    "service/batch", "service/client", "service/cli", "service/delivery/runner.py", "service/registries", "service/web",
    "deploy/agent",
)  # fmt: skip

# Caught where they are raised; if one ever came through it would be our own mistake, which is what UNEXPECTED says.
NEVER_LEAVE = {
    "LostPieceError",
    "AliasedWriteError",
    "BrokenSampleError",
    "GroupError",
    "ManifestError",
    "TooLargeError",
    "TracesError",
    "Trouble",
    "UnknownError",
}


def exception_classes() -> Iterator[type[BaseException]]:
    """Every exception class that the packages define, found in their sources so that none is missed."""
    for package in ("service", "compressors", "deploy"):
        for path in sorted((ROOT / package).rglob("*.py")):
            relative = path.relative_to(ROOT).as_posix()
            if relative.startswith(OTHER_SIDE) or not _defines_exceptions(path):
                continue
            module = importlib.import_module(relative.removesuffix(".py").replace("/", "."))
            for _, found in inspect.getmembers(module, inspect.isclass):
                if issubclass(found, BaseException) and found.__module__ == module.__name__:
                    yield found


def _defines_exceptions(path: Path) -> bool:
    classes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))
    return any(ast.unparse(base).endswith(("Error", "Exception", "Warning")) for item in classes for base in item.bases)


def test_the_table_knows_every_exception_of_ours() -> None:
    found = set(exception_classes())

    assert {errors.QuotaError, engine.OptionError} <= found
    unknown = {item.__name__ for item in found if item not in FAULTS and not item.__name__.startswith("_")}
    assert unknown == NEVER_LEAVE


def test_every_code_exists_and_no_reason_is_ambiguous() -> None:
    for fault in FAULTS.values():
        assert grpc.StatusCode[fault.code] is not grpc.StatusCode.OK
        assert BY_REASON[fault.reason] == fault


def test_the_nearest_ancestor_counts() -> None:
    class TornModelError(engine.UnsafeModelError):
        pass

    assert classify(TornModelError()) is FAULTS[engine.UnsafeModelError]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "x"), "DISK_FULL"),
        (OSError(errno.EDQUOT, "x"), "DISK_FULL"),
        (MemoryError(), "OUT_OF_MEMORY"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "OUT_OF_MEMORY"),
        (RuntimeError("shapes do not fit"), "INTERNAL"),
        (PermissionError(errno.EACCES, "x"), "INTERNAL"),
        (errors.WorkerError("UNSAFE_MODEL", "m", "caller"), "UNSAFE_MODEL"),
        (errors.WorkerError("SOMETHING_NEW", "m", "machine"), "SOMETHING_NEW"),
    ],
)
def test_foreign_errors_are_told_apart(error: Exception, reason: str) -> None:
    assert classify(error).reason == reason


def test_an_unexpected_error_goes_to_the_log_under_an_id(caplog: pytest.LogCaptureFixture) -> None:
    status = to_status(ValueError("secret /home/someone"))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)

    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in str(status)
    assert info.metadata["error_id"] in status.message
    assert info.metadata["error_id"] in caplog.text
    assert "secret /home/someone" in caplog.text


def test_a_worker_s_unexpected_error_goes_to_its_log_under_an_id(caplog: pytest.LogCaptureFixture) -> None:
    event = to_event(ZeroDivisionError("secret"))

    assert (event.reason, event.blame) == (UNEXPECTED.reason, "shoal")
    assert "ZeroDivisionError" in event.message
    assert "secret" not in event.message
    assert "secret" in caplog.text


def test_a_worker_s_known_error_keeps_its_words() -> None:
    event = to_event(engine.UnsafeModelError("the file holds a pickle"))

    assert event.model_dump() == {
        "type": "error", "reason": "UNSAFE_MODEL", "message": "the file holds a pickle", "blame": "caller",
    }  # fmt: skip


def test_unsafe_models_break_a_precondition() -> None:
    status = to_status(engine.UnsafeModelError("the file holds a pickle"))
    failure = error_details_pb2.PreconditionFailure()

    assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert status.details[1].Unpack(failure)
    assert failure.violations[0].type == "UNSAFE_MODEL"

"""The agent's calls to its server. All may be repeated, so all are, until the server answers or the agent stops."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final, TypeVar, final

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from deploy.agent.errors import AgentError, RefusedError, StoppedError, UnwantedError
from deploy.agent.settings import AgentSettings
from protos.shoal.v1 import device_agents_pb2 as pb
from protos.shoal.v1 import device_pb2
from protos.shoal.v1.device_agents_pb2_grpc import DeviceAgentsStub

_LOG = logging.getLogger(__name__)
_CHUNK: Final = 512 << 10
_CALL_SECONDS: Final = 30.0
_PATIENCE: Final = timedelta(seconds=20)
_TOO_LARGE: Final = "message larger than max"
"""What gRPC itself says of a message over the limit of one side; it has the status of a disk that is full."""

_AGAIN: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)

_T = TypeVar("_T")


@final
class Link:
    """One session with a server. May be used from several threads."""

    def __init__(self, settings: AgentSettings, session: str, stop: threading.Event) -> None:
        """Connects at the first call.

        Args:
            settings: Where the server is.
            session: Names this process to the server.
            stop: When set, calls end with a `StoppedError`.
        """
        self._channel = _open(settings)
        self._stub = DeviceAgentsStub(self._channel)
        self._metadata = (("authorization", f"Bearer {settings.token}"),)
        self._session, self._stop, self._server = session, stop, settings.server
        self._closed = False
        threading.Thread(target=self._close_when_stopped, daemon=True).start()

    def close(self) -> None:
        """Ends all calls; those under way end with a `StoppedError`."""
        self._closed = True
        self._channel.close()

    def _close_when_stopped(self) -> None:
        """Ends calls that wait for work: nobody who stops an agent wants to wait for them."""
        self._stop.wait()
        self.close()

    def register(self, device: device_pb2.Device, goes_on: bool = False) -> pb.RegisterDeviceResponse:
        """Says what the device is and how it is.

        Args:
            device: The device.
            goes_on: Whether this session did so before: then it does not take over from a later one.
        """
        request = pb.RegisterDeviceRequest(session=self._session, device=device, goes_on=goes_on)
        return self._again(lambda: self._stub.RegisterDevice(request, **self._with()))

    def lease(self) -> pb.Work | None:
        """Returns the next piece of work; None where there was none for a while."""
        request = pb.LeaseWorkRequest(session=self._session)
        request.patience.FromTimedelta(_PATIENCE)
        patience = _PATIENCE.total_seconds() + _CALL_SECONDS
        answer = self._again(lambda: self._stub.LeaseWork(request, **self._with(patience)))
        return answer.work if answer.HasField("work") else None

    def renew(self, work: pb.Work, message: str, worked: float = 0.0) -> bool:
        """Keeps a lease, `worked` seconds into the work; returns whether the work is still wanted."""
        request = pb.RenewLeaseRequest(session=self._session, work=work.id, lease=work.lease, message=message)
        request.worked.FromNanoseconds(round(worked * 1e9))
        return bool(self._again(lambda: self._stub.RenewLease(request, **self._with())).wanted)

    def download(self, work: pb.Work, index: int, to: Path) -> None:
        """Fetches a file; goes on where a lost connection left it."""
        with to.open("wb") as stream:
            self._again(lambda: self._fetch(work, index, stream))

    def complete(self, work: pb.Work, answer: pb.WorkAnswer, files: Sequence[Path]) -> bool:
        """Hands in an answer; returns whether it counts."""
        answer.session, answer.work, answer.lease = self._session, work.id, work.lease

        def messages() -> Iterator[pb.CompleteWorkRequest]:
            yield pb.CompleteWorkRequest(answer=answer)
            for path in files:
                with path.open("rb") as stream:
                    while data := stream.read(_CHUNK):
                        yield pb.CompleteWorkRequest(data=data)

        patience = 10 * _CALL_SECONDS + sum(path.stat().st_size for path in files) / 1e5
        return bool(self._again(lambda: self._stub.CompleteWork(messages(), **self._with(patience))).taken)

    def _fetch(self, work: pb.Work, index: int, stream: IO[bytes]) -> None:
        size = work.files[index].size_bytes
        request = pb.DownloadWorkFileRequest(work=work.id, index=index, offset=stream.tell())
        for response in self._stub.DownloadWorkFile(request, **self._with(10 * _CALL_SECONDS + size / 1e5)):
            stream.write(response.data)

    def _with(self, seconds: float = _CALL_SECONDS) -> dict[str, Any]:
        return {"metadata": self._metadata, "timeout": seconds}

    def _again(self, call: Callable[[], _T]) -> _T:
        """Calls until the server answers.

        Raises:
            RefusedError: It does not take this agent.
            UnwantedError: It does not know the work that the call is about.
            StoppedError: The agent was stopped.
            AgentError: It refuses for another reason that will not go away.
        """
        failures = 0
        while not self._stop.is_set():
            try:
                return call()
            except ValueError as exc:
                # What gRPC says of a channel that was closed.
                if not self._closed:
                    raise
                raise StoppedError("the agent was stopped") from exc
            except grpc.RpcError as exc:
                if self._stop.is_set() or self._closed:
                    break
                code, details = exc.code(), exc.details()  # the stub's errors are calls
                if code is grpc.StatusCode.UNAUTHENTICATED:
                    raise RefusedError(f"{self._server} does not take this agent: {details}") from exc
                if code is grpc.StatusCode.NOT_FOUND:
                    raise UnwantedError(f"{self._server} does not know the work any more: {details}") from exc
                if code not in _AGAIN or _is_over_limit(exc):
                    raise AgentError(f"{self._server} refuses: {details} ({code.name})") from exc
                failures += 1
                if failures in (1, 10) or failures % 100 == 0:
                    _LOG.warning("%s does not answer (%s: %s), trying again", self._server, code.name, details)
            self._stop.wait(min(5.0, 0.2 * 2 ** min(failures, 6)) * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
        raise StoppedError("the agent was stopped")


def _is_over_limit(error: grpc.RpcError) -> bool:
    """Returns whether a call asked for more than the server ever takes: repeating it would never end."""
    assert isinstance(error, grpc.Call)
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return False
    if _TOO_LARGE in (error.details() or ""):
        return True
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the status in the trailers contradicts the call's own
        return False
    details = () if status is None else status.details
    info, later = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    over = any(detail.Unpack(info) and info.reason == "QUOTA_EXCEEDED" for detail in details)
    return over and not any(detail.Unpack(later) for detail in details)


def _open(settings: AgentSettings) -> grpc.Channel:
    if settings.credentials is None:
        return grpc.insecure_channel(settings.server, options=_OPTIONS)
    return grpc.secure_channel(settings.server, settings.credentials, options=_OPTIONS)

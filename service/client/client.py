"""The client: the verbs of the service as methods, with deadlines, repetition and errors taken care of."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypedDict, TypeVar, Unpack

import grpc

from protos.shoal.v1 import device_pb2 as device_pb
from protos.shoal.v1 import model_optimizer_pb2 as pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.client.channel import Access, open_channel
from service.client.download import Incoming, fetch
from service.client.errors import ShoalError, from_rpc
from service.client.upload import Outgoing, describe, send
from service.client.watch import JobEvent, Watch, follow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta
    from types import TracebackType

UNARY_TIMEOUT: Final = 30.0
ANALYZE_TIMEOUT: Final = 900.0
RECONNECT_PATIENCE: Final = 300.0


class _Paged(Protocol):
    next_page_token: str


_Page = TypeVar("_Page", bound=_Paged)


class SpecFields(TypedDict, total=False):
    """The fields of `OptimizationJobSpec`, for `Client.create`."""

    model: job_pb.ModelSource
    budget: job_pb.Budget
    target: job_pb.Target
    strategy: job_pb.StrategyChoice
    data: job_pb.DataReference
    preprocessing: job_pb.Preprocessing
    fine_tuning: job_pb.FineTuning
    accuracy_floor: float
    time_limit: timedelta
    seed: int
    task: str
    quality_floor: float


class Client:
    """A connection to a Shoal server. Use it as a context manager, or call `close`.

    Every method raises a subclass of `ShoalError` when the server refuses or cannot be reached.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        insecure: bool = False,
        timeout: float = UNARY_TIMEOUT,
    ) -> None:
        """Prepares a connection; the first call opens it.

        Args:
            address: `HOST:PORT`.
            token: Who calls, for servers that want to know; from `shoal tokens add`.
            credentials: For TLS, see `tls_credentials`; None for plain text.
            insecure: Send the token in plain text to another machine too: the network is trusted.
            timeout: Seconds allowed for a short call.

        Raises:
            ValueError: The token cannot be sent, or could be read on its way.
        """
        self.address = address
        self._timeout = timeout
        self._channel = open_channel(address, Access(token, credentials, insecure))
        self._stub = ModelOptimizerStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; calls in flight are cancelled, jobs are not."""
        self._channel.close()

    def upload(
        self,
        path: str | Path,
        kind: pb.ArtifactKind.ValueType,
        on_progress: Callable[[int, int], None] | None = None,
        filename: str | None = None,
    ) -> pb.Artifact:
        """Stores a file on the server; an interrupted upload of the same bytes goes on where it stopped.

        Args:
            path: The file.
            kind: `ARTIFACT_KIND_MODEL`, `_WEIGHTS` or `_DATA`.
            on_progress: Called with (bytes sent, bytes in all), from another thread.
            filename: What to call it there. Default: its own name.

        Returns:
            The stored artifact; at once if the server has these bytes already.

        Raises:
            ShoalError: Refused or unreachable.
            OSError: The file cannot be read.
        """
        path = Path(path)
        metadata = describe(path, kind, filename or path.name)
        return send(self._stub, Outgoing(path, metadata, on_progress or _ignore_progress), self.address, self._timeout)

    def download(self, artifact: str, path: str | Path, on_progress: Callable[[int, int], None] | None = None) -> Path:
        """Fetches a file, checks its SHA-256, and only then gives it its name.

        Args:
            artifact: `artifacts/{id}`.
            path: Where to put it; folders are made, an existing file is replaced.
            on_progress: Called with (bytes stored, bytes in all).

        Returns:
            `path`.

        Raises:
            ShoalError: Refused, unreachable, or damaged on the way.
            OSError: The destination cannot be written.
        """
        return fetch(self._stub, Incoming(artifact, Path(path), on_progress or _ignore_progress), self.address)

    def create(
        self,
        spec: job_pb.OptimizationJobSpec | None = None,
        *,
        job_id: str = "",
        display_name: str = "",
        request_id: str = "",
        **fields: Unpack[SpecFields],
    ) -> job_pb.OptimizationJob:
        """Starts a job and returns it as stored.

        Args:
            spec: What is wanted; or give its fields by keyword.
            job_id: The id to give it. Default: chosen by the server.
            display_name: Free text.
            request_id: A UUID4; the same one twice makes one job. Default: a new one.
            **fields: The fields of the spec, instead of `spec`.

        Raises:
            ShoalError: Refused (`violations` names the fields) or unreachable.
            TypeError: Both a spec and fields.
        """
        if spec is not None and fields:
            raise TypeError(f"give either a spec or its fields, not both; got a spec and {', '.join(fields)}")
        request = pb.CreateOptimizationJobRequest(
            optimization_job=job_pb.OptimizationJob(spec=spec or _spec(fields), display_name=display_name),
            optimization_job_id=job_id,
            request_id=request_id or str(uuid.uuid4()),
        )
        with _Boundary(self.address):
            return self._stub.CreateOptimizationJob(request, timeout=self._timeout)

    def get(self, name: str) -> job_pb.OptimizationJob:
        """Returns a job.

        Args:
            name: `optimizationJobs/{id}`.

        Raises:
            NotFoundError: There is none of that name.
        """
        with _Boundary(self.address):
            return self._stub.GetOptimizationJob(pb.GetOptimizationJobRequest(name=name), timeout=self._timeout)

    def list(self, page_size: int = 0) -> Iterator[job_pb.OptimizationJob]:
        """Yields all jobs, newest first; asks for the next page when it is needed.

        Args:
            page_size: Jobs per request; 0 leaves it to the server.
        """

        def ask(token: str) -> pb.ListOptimizationJobsResponse:
            request = pb.ListOptimizationJobsRequest(page_size=page_size, page_token=token)
            return self._stub.ListOptimizationJobs(request, timeout=self._timeout)

        for page in self._pages(ask):
            yield from page.optimization_jobs

    def watch(
        self,
        name: str,
        resume_after: int = 0,
        *,
        patience: float = RECONNECT_PATIENCE,
        on_disconnect: Callable[[ShoalError], None] | None = None,
    ) -> Iterator[JobEvent]:
        """Yields a job's events until it is finished; the last one is the snapshot of the finished job.

        A lost connection is opened again and the events go on after the last one seen. Leaving never cancels the job.

        Args:
            name: `optimizationJobs/{id}`.
            resume_after: Sequence of the last event already seen; 0 for all.
            patience: Seconds without a connection after which to give up.
            on_disconnect: Called when the connection was lost and before it is opened again.

        Raises:
            NotFoundError: There is no such job.
            UnavailableError: No connection for `patience` seconds.
        """
        watch = Watch(name, resume_after, patience, on_disconnect or _ignore_error)
        return follow(self._stub, watch, self.address)

    def cancel(self, name: str) -> job_pb.OptimizationJob:
        """Asks for a job to be stopped and returns it; a finished job is returned as it is.

        Args:
            name: `optimizationJobs/{id}`.
        """
        with _Boundary(self.address):
            return self._stub.CancelOptimizationJob(pb.CancelOptimizationJobRequest(name=name), timeout=self._timeout)

    def delete(self, name: str, *, force: bool = False, allow_missing: bool = False) -> None:
        """Removes a finished job for good, with its events, log and files.

        Args:
            name: `optimizationJobs/{id}`.
            force: Cancel it first if it is not finished, and wait for its end.
            allow_missing: Do nothing if there is no such job.

        Raises:
            NotFoundError: There is no such job.
            FailedPreconditionError: It is not finished (reason `JOB_ACTIVE`).
        """
        request = pb.DeleteOptimizationJobRequest(name=name, force=force, allow_missing=allow_missing)
        with _Boundary(self.address):
            self._stub.DeleteOptimizationJob(request, timeout=self._timeout)

    def artifacts(self, page_size: int = 0) -> Iterator[pb.Artifact]:
        """Yields the stored files, newest first; asks for the next page when it is needed.

        Args:
            page_size: Files per request; 0 leaves it to the server.
        """

        def ask(token: str) -> pb.ListArtifactsResponse:
            request = pb.ListArtifactsRequest(page_size=page_size, page_token=token)
            return self._stub.ListArtifacts(request, timeout=self._timeout)

        for page in self._pages(ask):
            yield from page.artifacts

    def delete_artifact(self, name: str, *, allow_missing: bool = False) -> None:
        """Removes an uploaded file for good.

        Args:
            name: `artifacts/{id}`.
            allow_missing: Do nothing if there is no such file.

        Raises:
            NotFoundError: There is no such file.
            FailedPreconditionError: A job made it, or one that is not finished needs it (reason `ARTIFACT_IN_USE`).
        """
        request = pb.DeleteArtifactRequest(name=name, allow_missing=allow_missing)
        with _Boundary(self.address):
            self._stub.DeleteArtifact(request, timeout=self._timeout)

    def devices(self) -> Iterator[device_pb.Device]:
        """Yields what may be named as a job's target, the server's own first; asks for the next page when needed."""

        def ask(token: str) -> pb.ListDevicesResponse:
            return self._stub.ListDevices(pb.ListDevicesRequest(page_token=token), timeout=self._timeout)

        for page in self._pages(ask):
            yield from page.devices

    def strategies(self) -> tuple[pb.StrategyDescription, ...]:
        """Returns what may be named as a job's strategy, by name."""
        with _Boundary(self.address):
            response = self._stub.ListStrategies(pb.ListStrategiesRequest(), timeout=self._timeout)
        return tuple(response.strategies)

    def analyze(
        self,
        model: job_pb.ModelSource,
        *,
        target: job_pb.Target | None = None,
        budget: job_pb.Budget | None = None,
        skip_floor: bool = False,
    ) -> pb.AnalyzeModelResponse:
        """Returns what could be cut from a model, what not and why, and how fast it could get at best.

        Args:
            model: The model.
            target: Where it would run. Default: as in a job.
            budget: Batch and percentile of the floor estimate.
            skip_floor: Time nothing.
        """
        request = pb.AnalyzeModelRequest(model=model, target=target, budget=budget, skip_floor=skip_floor)
        with _Boundary(self.address):
            return self._stub.AnalyzeModel(request, timeout=max(self._timeout, ANALYZE_TIMEOUT))

    def _pages(self, ask: Callable[[str], _Page]) -> Iterator[_Page]:
        """Yields pages, each asked for when it is needed, by the token of the one before."""
        token = ""
        while True:
            with _Boundary(self.address):
                page = ask(token)
            yield page
            token = page.next_page_token
            if not token:
                return


class _Boundary:
    """Turns what gRPC raises into what the client raises."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, grpc.RpcError):
            raise from_rpc(error, self._address) from error


def _spec(fields: SpecFields) -> job_pb.OptimizationJobSpec:
    rest: dict[str, Any] = {name: value for name, value in fields.items() if name != "time_limit"}
    spec = job_pb.OptimizationJobSpec(**rest)
    if "time_limit" in fields:
        spec.time_limit.FromTimedelta(fields["time_limit"])
    return spec


def _ignore_progress(done: int, total: int) -> None:
    """Stands in for a callback that was not given."""


def _ignore_error(error: ShoalError) -> None:
    """Stands in for a callback that was not given."""

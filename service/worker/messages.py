"""What a worker process is told and what it says: one JSON work order in, one JSON event a line out.

Everything here crosses a process boundary, so everything here is validated on arrival.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from deploy.sandbox import Mode
from service.spec import JobSpec
from service.watching.logs import Format

MAX_EVENT_BYTES = 1 << 20
"""Longest line that a worker may write."""

Task = Literal["optimize", "analyze"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkOrder(_Frozen):
    """Everything that one worker process needs to know.

    Attributes:
        job: Resource name of the job, `optimizationJobs/{id}`, or `analyses/{id}` for a dry run.
        task: What to do.
        spec: What is wanted. For `analyze` only `model`, `target` and `budget` count, and the limit may be made up.
        display_name: What the caller calls the job, for people; empty for nothing.
        skip_floor: `analyze` only: time nothing.
        files: Local path of everything that the spec names: artifact names and server paths are the keys.
        folder: The job's own folder; results go to `folder / "out"`. It is the working directory too.
        cache_folder: Shared by all jobs, for what is worth keeping (measured latencies, downloaded datasets).
        data_roots: Folders that server paths must lie under, resolved.
        deadline_seconds: How long the work may take, counted from the arrival of this order.
        server_pid: Who sent it; a worker whose parent is somebody else is an orphan and ends itself.
        traceparent: What its spans are a part of (W3C Trace Context), empty for nothing.
        log_format: Of what it writes to stderr.
        sandbox: How serious it is that the worker confines itself.
        downloads: Whether a published model that the spec names may be downloaded.
    """

    job: str
    task: Task
    spec: JobSpec
    display_name: str = ""
    skip_floor: bool = False
    files: dict[str, Path] = Field(default_factory=dict)
    folder: Path
    cache_folder: Path
    data_roots: tuple[Path, ...] = ()
    deadline_seconds: Annotated[float, Field(gt=0)]
    server_pid: int | None = None
    traceparent: str = ""
    log_format: Format = "text"
    sandbox: Mode = "auto"
    downloads: bool = True

    @property
    def out(self) -> Path:
        """Where result files go."""
        return self.folder / "out"


ShortText = Annotated[str, StringConstraints(max_length=2000)]
MetricName = Annotated[str, StringConstraints(max_length=100)]
ReasonCode = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{2,63}$")]


class ProgressEvent(_Frozen):
    """Work went on. A metric called `seconds_left` is the worker's own estimate of the time left."""

    type: Literal["progress"] = "progress"
    phase: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    message: ShortText = ""
    metrics: Annotated[dict[MetricName, float], Field(max_length=100)] = Field(default_factory=dict)


class DeviceEvent(_Frozen):
    """The worker asks a device far away; `service.devices.exchange` left the question in its folder, under this key."""

    type: Literal["device"] = "device"
    key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class ResultEvent(_Frozen):
    """The work is done; `file` is a path inside the order's folder (`out/report.json` or `out/analysis.json`)."""

    type: Literal["result"] = "result"
    file: Annotated[str, StringConstraints(min_length=1, max_length=500)]


class ErrorEvent(_Frozen):
    """The work cannot be done."""

    type: Literal["error"] = "error"
    reason: ReasonCode
    message: ShortText
    blame: Literal["caller", "machine", "shoal"]


class SpanEvent(_Frozen):
    """Something was done, from when to when: a span of the trace that the order names.

    Workers have no network and no credentials, so their server exports what they did. Only for traces that are sampled.
    """

    type: Literal["span"] = "span"
    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    trace_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    span_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    parent_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    start_ns: Annotated[int, Field(gt=0, lt=1 << 63)]
    end_ns: Annotated[int, Field(gt=0, lt=1 << 63)]
    attributes: Annotated[dict[MetricName, str | int | float | bool], Field(max_length=50)] = Field(
        default_factory=dict
    )
    error: ShortText = ""


Event = ProgressEvent | DeviceEvent | SpanEvent | ResultEvent | ErrorEvent
WorkEvent = Annotated[Event, Field(discriminator="type")]

EVENT_ADAPTER: TypeAdapter[Event] = TypeAdapter(WorkEvent)


class SiteFacts(_Frozen):
    """One activation call; see `ActivationSite` in the proto."""

    node: str
    kind: str
    module: str
    shape: tuple[int, ...]


class SegmentFacts(_Frozen):
    """A stretch that may be replaced; see `SegmentDescription` in the proto."""

    name: str
    entry: str
    exit: str
    candidates: tuple[str, ...]
    sites: tuple[str, ...]
    operators: int


class RefusalFacts(_Frozen):
    """Something that may not be cut, and why."""

    where: str
    code: str
    reason: str


WrittenIn = Literal["float32", "float16", "bfloat16", "int8"]
"""One of `deploy.precision.PRECISIONS`."""


class PrecisionFloorFacts(_Frozen):
    """See `PrecisionFloor` in the proto."""

    precision: WrittenIn
    computes: WrittenIn
    original_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    floor_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    refusal: ShortText = ""


class FloorFacts(_Frozen):
    """The fastest that the model could get if everything that can go went; milliseconds at the budget's percentile."""

    baseline_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    floor_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    elapsed_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    precision: WrittenIn = "float32"
    precisions: Annotated[tuple[PrecisionFloorFacts, ...], Field(max_length=4)] = ()


class AnalysisResult(_Frozen):
    """What a dry run found; mirrors `AnalyzeModelResponse`. `floor` is None when it was skipped."""

    parameters: Annotated[int, Field(ge=0)]
    sites: tuple[SiteFacts, ...]
    segments: tuple[SegmentFacts, ...]
    refusals: tuple[RefusalFacts, ...]
    floor: FloorFacts | None = None

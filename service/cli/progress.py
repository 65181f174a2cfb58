"""How far a job is, folded from its events. Pure: the same events give the same picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

PHASES: Final = ("upload", "load", "analyze", "baseline", "plan", "tune", "export", "measure", "report")

Mark = Literal["waiting", "active", "done", "skipped", "failed"]


@dataclass(frozen=True)
class PhaseRow:
    """One phase.

    Attributes:
        name: One of `PHASES`.
        mark: How it stands.
        start: When it began.
        end: When the next one began.
        note: The last thing that it said.
    """

    name: str
    mark: Mark = "waiting"
    start: datetime | None = None
    end: datetime | None = None
    note: str = ""


@dataclass(frozen=True)
class Report:
    """News of a phase.

    Attributes:
        phase: Its name.
        time: When.
        message: One line, may be empty.
        fraction: Of the whole job, in [0, 1].
        metrics: Numbers known so far.
        seconds_left: Estimate, None while unknown.
    """

    phase: str
    time: datetime
    message: str = ""
    fraction: float = 0.0
    metrics: Mapping[str, float] | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Progress:
    """The picture so far.

    Attributes:
        rows: All phases, in order.
        fraction: Of the whole job, in [0, 1].
        metrics: Numbers known so far.
        seconds_left: Estimate, None while unknown.
        estimated_at: When that estimate was made.
    """

    rows: tuple[PhaseRow, ...]
    fraction: float = 0.0
    metrics: Mapping[str, float] | None = None
    seconds_left: float | None = None
    estimated_at: datetime | None = None

    @property
    def active(self) -> PhaseRow | None:
        """The phase that is at work."""
        return next((row for row in self.rows if row.mark == "active"), None)

    @property
    def start(self) -> datetime | None:
        """When the first phase began."""
        return next((row.start for row in self.rows if row.start is not None), None)


def begin(*, upload: bool) -> Progress:
    """Returns the picture before anything happened.

    Args:
        upload: Whether there is an upload to show.
    """
    return Progress(tuple(PhaseRow(name) for name in PHASES if upload or name != "upload"))


def advance(progress: Progress, report: Report) -> Progress:
    """Returns the picture after a report.

    A phase that is passed over counts as skipped. Work that starts again (after a worker died) empties what follows.
    """
    names = [row.name for row in progress.rows]
    rows = list(progress.rows)
    if report.phase not in names:  # a newer server may know more phases than this client
        rows.append(PhaseRow(report.phase))
        names.append(report.phase)
    index = names.index(report.phase)
    rows = [_settled(row, at - index, report) for at, row in enumerate(rows)]
    rows[index] = _active(rows[index], report)
    return Progress(
        tuple(rows),
        fraction=report.fraction,
        metrics=report.metrics if report.metrics is not None else progress.metrics,
        seconds_left=report.seconds_left,
        estimated_at=report.time if report.seconds_left is not None else None,
    )


def finish(progress: Progress, time: datetime, *, succeeded: bool) -> Progress:
    """Returns the last picture of a job."""
    rows = []
    for row in progress.rows:
        if row.mark == "active":
            rows.append(replace(row, mark="done" if succeeded else "failed", end=time))
        elif row.mark == "waiting" and succeeded:
            rows.append(replace(row, mark="skipped"))
        else:
            rows.append(row)
    return replace(progress, rows=tuple(rows), fraction=1.0 if succeeded else progress.fraction, seconds_left=None)


def _settled(row: PhaseRow, distance: int, report: Report) -> PhaseRow:
    if distance > 0:
        return PhaseRow(row.name)
    if distance < 0 and row.mark == "active":
        return replace(row, mark="done", end=report.time)
    if distance < 0 and row.mark == "waiting":
        return replace(row, mark="skipped")
    return row


def _active(row: PhaseRow, report: Report) -> PhaseRow:
    if row.mark == "active":
        return replace(row, note=report.message or row.note)
    return PhaseRow(row.name, "active", report.time, None, report.message)

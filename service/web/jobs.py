"""Pages about jobs."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, final

from starlette.requests import Request
from starlette.responses import Response

from service.errors import InvalidRequestError, NotFoundError, Violation
from service.jobs.job import Job
from service.jobs.states import State
from service.jobs.store import JobStore
from service.report.formats import duration
from service.server.paging import read_token, write_token
from service.server.servicer import Parts
from service.storage.artifacts import ARTIFACT_PREFIX, ArtifactStore
from service.web.drawing import page
from service.web.figures import compare, precisions
from service.web.files import REPORT
from service.web.stories import Stories
from service.web.stream import show_lines, show_live, title_of
from service.web.summaries import Summary, result_of, summarise
from service.web.visitors import Visitor, Visitors
from service.web.words import WHAT_TO_DO

_PAGE: Final = 50
FILTERS: Final[Mapping[str, frozenset[State]]] = MappingProxyType(
    {
        "queued": frozenset({State.QUEUED}),
        "running": frozenset({State.RUNNING, State.CANCELLING}),
        "succeeded": frozenset({State.SUCCEEDED}),
        "failed": frozenset({State.FAILED, State.EXPIRED}),
        "cancelled": frozenset({State.CANCELLED}),
    }
)
"""What the list may be narrowed to."""


@final
class Jobs:
    """The list of jobs, and one of them."""

    def __init__(self, parts: Parts, visitors: Visitors, stories: Stories) -> None:
        """Serves from the parts of a server."""
        self._parts, self._visitors, self._stories = parts, visitors, stories

    async def all(self, request: Request) -> Response:
        """Lists jobs, newest first."""
        visitor = await self._visitors.admit(request)
        wanted = request.query_params.get("state", "")
        if wanted and wanted not in FILTERS:
            raise InvalidRequestError([Violation("state", f"must be one of {', '.join(FILTERS)}")])
        before = read_token(request.query_params.get("before", ""))
        found, following, counts = await to_thread(self._list, visitor, wanted, before)
        return page(
            "jobs.html.j2",
            visitor=visitor,
            current="jobs",
            title="Jobs",
            summaries=found,
            following=following,
            counts=counts,
            wanted=wanted,
            first=before is None,
            lively=any(not summary.job.finished for summary in found),
        )

    def _list(
        self, visitor: Visitor, wanted: str, before: int | None
    ) -> tuple[list[Summary], str | None, dict[str, int]]:
        jobs: JobStore = self._parts.jobs
        # One more than is shown, to know whether there is a next page.
        found = jobs.newest(_PAGE + 1, before, visitor.sees, FILTERS.get(wanted))
        name_file = file_namer(self._parts.artifacts)
        summaries = [summarise(job, name_file) for _, job in found[:_PAGE]]
        following = write_token(found[_PAGE - 1][0]) if len(found) > _PAGE else None
        census = jobs.census(visitor.sees)
        counts = {name: sum(census.get(state, 0) for state in states) for name, states in FILTERS.items()}
        return summaries, following, {"": sum(census.values()), **counts}

    async def one(self, request: Request) -> Response:
        """Shows a job: how far it is, or what came of it."""
        visitor = await self._visitors.admit(request)
        job = await to_thread(self._parts.jobs.get, request.path_params["job"], visitor.sees)
        story = await self._stories.of(job)
        summary = await to_thread(summarise, story.job, file_namer(self._parts.artifacts))
        result = result_of(story.job)
        return page(
            "job.html.j2",
            visitor=visitor,
            current="jobs",
            title=title_of(story),
            summary=summary,
            sequence=story.sequence,
            live=show_live(story),
            lines=show_lines(story, 0),
            result=result,
            rows=[] if result is None else compare(result),
            precisions=[] if result is None else precisions(result),
            has_report=result is not None and any(link.filename == REPORT for link in result.artifacts),
            advice=advise(story.job),
            asked=describe_request(story.job, summary),
            beat=self._parts.settings.heartbeat_seconds,
        )


def file_namer(artifacts: ArtifactStore) -> Callable[[str], str]:
    """Returns what finds the names of files; one that is gone is called by its id."""
    return partial(_name_of, artifacts)


def _name_of(artifacts: ArtifactStore, name: str) -> str:
    try:
        return artifacts.get(name.removeprefix(ARTIFACT_PREFIX)).filename
    except NotFoundError:
        return name


def advise(job: Job) -> str:
    """Returns what to do about a job without a result; empty where there is nothing to be done."""
    return "" if job.failure is None else WHAT_TO_DO.get(job.failure.blame, "")


def describe_request(job: Job, summary: Summary) -> list[tuple[str, str]]:
    """Returns what was asked for, as names and values."""
    spec = job.spec
    floor = spec.accuracy_floor if spec.accuracy_floor is not None else spec.quality_floor
    asked = spec.fine_tuning
    batch = "" if asked.batch is None else f", batch {asked.batch}"
    tuning = "none" if asked.disabled else f"{asked.epochs} epochs{batch}"
    options = ", ".join(f"{name}={value}" for name, value in sorted(spec.strategy.options.items()))
    return [
        ("Model", summary.model),
        ("Budget", f"{summary.budget} {summary.terms}".strip()),
        ("Device", spec.target.device),
        ("Runs on", summary.target),
        ("Strategy", f"{spec.strategy.name} ({options})" if options else spec.strategy.name),
        ("Fine-tuning", tuning),
        ("Task", spec.task or "told by the model"),
        ("Floor", "none" if floor is None else f"{floor:g}"),
        ("Time limit", duration(spec.time_limit.total_seconds())),
        ("Seed", str(spec.seed)),
        ("Owner", job.principal),
        ("Attempts", str(job.attempts)),
    ]

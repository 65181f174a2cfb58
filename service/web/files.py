"""The files of jobs: to be kept, and the report to be looked at.

A report is made by a worker, which has had hostile models and data in its hands. It is shown in a frame that may run
nothing, knows nothing of this site, and connects to nothing.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.errors import NotFoundError
from service.jobs.job import Job
from service.server.servicer import Parts
from service.storage.artifacts import ARTIFACT_PREFIX, Artifact
from service.storage.storage import Reading
from service.web.drawing import page
from service.web.summaries import result_of, summarise
from service.web.visitors import Visitor, Visitors

REPORT: Final = "report.html"
_BLOCK: Final = 1 << 18
_SANDBOX: Final = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)


@final
class Files:
    """Pages about the files of jobs."""

    def __init__(self, parts: Parts, visitors: Visitors) -> None:
        """Serves from the parts of a server."""
        self._parts, self._visitors = parts, visitors

    async def report(self, request: Request) -> Response:
        """Shows a report in its frame."""
        visitor = await self._visitors.admit(request)
        job = await self._job(request, visitor)
        await self._file(job, REPORT, visitor)
        summary = summarise(job, lambda name: name)
        return page(
            "report.html.j2", visitor=visitor, current="jobs", summary=summary, title=f"Report of {summary.title}"
        )

    async def framed(self, request: Request) -> Response:
        """Returns what is in the frame."""
        visitor = await self._visitors.admit(request)
        artifact = await self._file(await self._job(request, visitor), REPORT, visitor)
        headers = {"content-security-policy": _SANDBOX, "x-frame-options": "SAMEORIGIN"}
        return await self._send(artifact, "text/html; charset=utf-8", headers)

    async def download(self, request: Request) -> Response:
        """Returns a file to be kept; browsers are told not to show it."""
        visitor = await self._visitors.admit(request)
        artifact = await self._file(await self._job(request, visitor), request.path_params["filename"], visitor)
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(artifact.filename, safe='')}",
            "content-security-policy": "sandbox; default-src 'none'",
        }
        return await self._send(artifact, "application/octet-stream", headers)

    async def _job(self, request: Request, visitor: Visitor) -> Job:
        return await to_thread(self._parts.jobs.get, request.path_params["job"], visitor.sees)

    async def _file(self, job: Job, filename: str, visitor: Visitor) -> Artifact:
        result = result_of(job)
        links = [] if result is None else [link for link in result.artifacts if link.filename == filename]
        if not links:
            raise NotFoundError("file", f"{job.name}/{filename}")
        artifact_id = links[0].name.removeprefix(ARTIFACT_PREFIX)
        return await to_thread(self._parts.artifacts.get, artifact_id, visitor.sees)

    async def _send(self, artifact: Artifact, media_type: str, headers: dict[str, str]) -> Response:
        length = {"content-length": str(artifact.size_bytes)}
        # Opened before anything is sent, so that a file that is gone is answered with a page that says so.
        opened = ExitStack()
        stream = await to_thread(opened.enter_context, self._parts.artifacts.open(artifact))
        return StreamingResponse(_blocks(stream, opened), headers=headers | length, media_type=media_type)


def _blocks(stream: Reading, opened: ExitStack) -> Iterator[bytes]:
    """Yields what is in a file. A plain generator, so that each block is read in a thread."""
    with opened:
        while block := stream.read(_BLOCK):
            yield block

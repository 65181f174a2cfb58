"""A real server with its pages, and a visitor who speaks plain HTTP to it."""

from __future__ import annotations

import asyncio
import http.client
import shutil
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc

from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.access.principal import LOCAL_NAME
from service.convert import result_fields
from service.database.database import Database
from service.jobs.job import NewJob
from service.jobs.states import State
from service.jobs.store import Ending, JobStore
from service.server import create
from service.server.server import Server
from service.settings import ServerSettings
from service.spec import JobSpec
from service.storage.artifacts import ArtifactKind, ArtifactStore, add_artifact, new_artifact
from service.worker.messages import ResultEvent
from service.worker.results import check_report, store_report
from tests.service.server_harness import settings_for
from tests.service.workers.reports import write_result

PAGE = {"accept": "text/html,*/*"}
FORM = {"content-type": "application/x-www-form-urlencoded", **PAGE}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class Visitor:
    """Asks one server for pages."""

    port: int
    context: ssl.SSLContext | None = None

    def connect(self) -> http.client.HTTPConnection:
        if self.context is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.context)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, PAGE | headers)

    async def post(self, path: str, fields: Mapping[str, str], **headers: str) -> Answer:
        return await self.ask("POST", path, FORM | headers, urlencode(fields))

    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: str | None = None) -> Answer:
        def ask() -> Answer:
            connection = self.connect()
            try:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                connection.request(method, path, body, named)
                response = connection.getresponse()
                text = response.read().decode(errors="replace")
                return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, text)
            finally:
                connection.close()

        return await asyncio.to_thread(ask)

    async def sign_in(self, token: str, **headers: str) -> str:
        """The cookie of a new session."""
        answer = await self.post("/login", {"token": token, "next": "/jobs"}, **headers)
        assert answer.status == 303, answer.text
        return answer.headers["set-cookie"].partition(";")[0]


@dataclass(frozen=True)
class Shown:
    """A server with pages, a stub that talks to it, and a visitor."""

    server: Server
    stub: ModelOptimizerStub
    visitor: Visitor


def shown_settings(tmp_path: Path, **changes: Any) -> ServerSettings:
    return settings_for(tmp_path, **({"web_address": "127.0.0.1:0"} | changes))


@asynccontextmanager
async def showing(settings: ServerSettings, context: ssl.SSLContext | None = None) -> AsyncIterator[Shown]:
    server = create(settings)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert server.web_port is not None
            yield Shown(server, ModelOptimizerStub(channel), Visitor(server.web_port, context))
    finally:
        await server.stop()


def stored_result(
    settings: ServerSettings, *names: str, html: str = "<p>done</p>", filename: str = "net.pt2"
) -> list[str]:
    """The ids of jobs that are over and have results, in the state folder of a server that does not run yet."""
    settings.state_dir.mkdir(exist_ok=True)
    database = Database(settings.database)
    jobs, artifacts = JobStore(database), ArtifactStore(database, settings.storage)
    model = new_artifact(ArtifactKind.MODEL, filename, 7, "0" * 64)
    with database.write() as session:
        add_artifact(session, model)
    spec = JobSpec.model_validate({"model": {"pt2_artifact": model.name}, "budget": {"fraction": 0.5}})
    made = []
    for name in names:
        job = jobs.create(NewJob(spec, name), 1000)
        jobs.claim()
        out = settings.state_dir / "out"
        out.mkdir()
        write_result(out, job.name, html=html)
        event = ResultEvent(file="out/report.json")
        made_there = check_report(settings.state_dir, event, job.principal)
        store_report(made_there, artifacts)
        result = result_fields(made_there.report, made_there.artifacts)
        jobs.finish(job.id, Ending(State.SUCCEEDED, result=result, artifacts=made_there.artifacts))
        shutil.rmtree(out)
        made.append(job.id)
    database.close()
    return made


def stored_waiting(settings: ServerSettings, name: str, principal: str = LOCAL_NAME) -> str:
    """The id of a job that waits, in the state folder of a server that takes it up when it starts."""
    settings.state_dir.mkdir(exist_ok=True)
    database = Database(settings.database)
    spec = {"model": {"named": {"architecture": "timm:resnet18"}}, "budget": {"latency_ms": 4}}
    job = JobStore(database).create(NewJob(JobSpec.model_validate(spec), name, principal=principal), 1000)
    database.close()
    return job.id

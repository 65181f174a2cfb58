"""Pages of a real server, as they are sent."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from service.database.database import Database
from service.devices.agents import AgentStore
from service.errors import ListenError
from service.jobs.job import Failure, NewJob, Progress
from service.jobs.states import State
from service.jobs.store import Ending, JobStore
from service.server import create
from service.settings import ServerSettings
from service.spec import JobSpec
from tests.service.server_harness import settings_for, worker_command
from tests.service.web.visiting import Shown, showing, shown_settings, stored_result, stored_waiting

SPEC = {
    "model": {"named": {"architecture": "timm:resnet18"}},
    "budget": {"latency_ms": 4, "percentile": 99, "batch": 8},
}
HOSTILE = "<script>alert(1)</script>\" onload='alert(2)'"


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Shown]:
    """A server that has one job, which is over."""
    settings = shown_settings(tmp_path)
    stored_result(settings, "one")
    async with showing(settings) as found:
        yield found


async def only_job(shown: Shown) -> str:
    """The id of the one job that there is."""
    (job,) = set(re.findall(r"/jobs/(job-[0-9a-f]+)", (await shown.visitor.get("/jobs")).text))
    return job


class Outline(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def stored(settings: ServerSettings, *names: str, **changes: Any) -> list[str]:
    """Jobs that are in the database before the server starts; they are over, so that it leaves them alone."""
    settings.state_dir.mkdir(exist_ok=True)
    database = Database(settings.database)
    store = JobStore(database)
    made = []
    for name in names:
        job = store.create(NewJob(JobSpec.model_validate(SPEC), name, **changes), 1000)
        store.claim()
        store.record_progress(job.id, Progress(phase="baseline", fraction=0.1, message=HOSTILE, metrics={HOSTILE: 1.5}))
        failure = Failure(reason="UNSUPPORTED_MODEL", message=f"layer {HOSTILE} is new", blame="caller")
        store.finish(job.id, Ending(State.FAILED, failure=failure))
        made.append(job.id)
    database.close()
    return made


async def test_jobs_are_listed_newest_first_with_what_came_of_them(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    first, second = stored_result(settings, "first", "", filename="deep.pt2")
    async with showing(settings) as shown:
        answer = await shown.visitor.get("/jobs")

    assert answer.status == 200
    assert answer.text.index(f"/jobs/{second}") < answer.text.index(f"/jobs/{first}")
    for text in (
        "first",
        "deep.pt2",
        "local/cpu",
        "0.5\N{MULTIPLICATION SIGN}",
        "2.10\N{MULTIPLICATION SIGN}",
        "Budget met",
        "layerfit",
        "Succeeded",
    ):
        assert text in answer.text, text


async def test_an_empty_list_says_what_to_do(tmp_path: Path) -> None:
    async with showing(shown_settings(tmp_path)) as shown:
        answer = await shown.visitor.get("/jobs")
    assert "There are no jobs yet." in answer.text
    assert "shoal optimize" in answer.text


async def test_jobs_can_be_narrowed_to_a_state(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    (failed,) = stored(settings, "broken")
    (done,) = stored_result(settings, "fine")
    async with showing(settings) as shown:
        of_failed = await shown.visitor.get("/jobs?state=failed")
        of_done = await shown.visitor.get("/jobs?state=succeeded")
        of_none = await shown.visitor.get("/jobs?state=cancelled")
        of_nonsense = await shown.visitor.get("/jobs?state=nonsense")

    assert failed in of_failed.text
    assert done not in of_failed.text
    assert done in of_done.text
    assert failed not in of_done.text
    assert "No job is cancelled." in of_none.text
    assert of_nonsense.status == 400


async def test_a_long_list_has_pages(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    made = stored(settings, *(f"number {at}" for at in range(51)))
    async with showing(settings) as shown:
        first = await shown.visitor.get("/jobs?state=failed")
        (older,) = [one["href"] for one in Outline(first.text).of("a") if one.get("rel") == "next"]
        assert older is not None
        second = await shown.visitor.get(older)
        wrong = await shown.visitor.get("/jobs?before=nonsense")

    seen = [[job for job in made if f"/jobs/{job}" in page.text] for page in (first, second)]
    assert seen == [made[1:], made[:1]]
    assert "Older" not in second.text
    assert wrong.status == 400


async def test_a_finished_job_shows_result_files_and_candidates(shown: Shown) -> None:
    job = await only_job(shown)
    answer = await shown.visitor.get(f"/jobs/{job}")

    told = ["Budget met", "It is within the budget.", "2.10\N{MULTIPLICATION SIGN}", "1.90", "4.00", "Open the report"]
    told += ["model.onnx", "The head stays.", "returned", "\N{MINUS SIGN}2.00"]
    told += ["Precisions that were tried", "fp32", "it is not &lt;good&gt; enough"]
    assert [text for text in told if text not in answer.text] == []
    assert "data-events" not in answer.text


async def test_a_running_job_shows_how_far_it_is(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path, worker_command=worker_command("sleep"))
    job = stored_waiting(settings, "slow")
    async with showing(settings) as shown:
        async with asyncio.timeout(10):
            while "epoch 1" not in (answer := await shown.visitor.get(f"/jobs/{job}")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        listed = await shown.visitor.get("/jobs")

    (bar,) = Outline(answer.text).of("progress")
    assert bar["value"] == "25"
    assert "Running" in answer.text
    assert '<noscript><meta http-equiv="refresh"' in answer.text
    assert "tune" in listed.text


async def test_a_failed_job_says_why_and_what_to_do(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    (job,) = stored(settings, "broken")
    async with showing(settings) as shown:
        answer = await shown.visitor.get(f"/jobs/{job}")
    assert "UNSUPPORTED_MODEL" in answer.text
    assert "has to change" in answer.text
    assert "4\N{NARROW NO-BREAK SPACE}ms at p99, batch 8" in answer.text


async def test_names_and_messages_of_strangers_are_text(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    (failed,) = stored(settings, HOSTILE)
    (done,) = stored_result(settings, HOSTILE, filename=HOSTILE + ".pt2")
    async with showing(settings) as shown:
        paths = ("/jobs", f"/jobs/{failed}", f"/jobs/{done}", f"/jobs/{done}/report", "/devices", f"/{HOSTILE[:8]}")
        answers = [await shown.visitor.get(path.replace(" ", "%20")) for path in paths]

    for answer in answers:
        outline = Outline(answer.text)
        assert [script for script in outline.of("script") if "src" not in script] == []
        assert not [name for _, attributes in outline.tags for name in attributes if name.startswith("on")]
        assert not [attributes for _, attributes in outline.tags if "style" in attributes]
    assert "&lt;script&gt;alert(1)" in answers[0].text


async def test_every_page_forbids_what_it_does_not_need(shown: Shown) -> None:
    job = await only_job(shown)
    for path in ("/jobs", f"/jobs/{job}", "/devices", "/login", "/nowhere", f"/jobs/{job}/report"):
        headers = (await shown.visitor.get(path)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'"), path
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


async def test_a_report_may_run_nothing_and_is_framed_by_this_site_only(shown: Shown) -> None:
    job = await only_job(shown)
    around, inside = [await shown.visitor.get(f"/jobs/{job}/report{part}") for part in ("", "/frame")]

    (frame,) = Outline(around.text).of("iframe")
    assert frame["sandbox"] is None
    assert "sandbox" in frame
    assert inside.text == "<p>done</p>"
    policy = inside.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script" not in policy
    assert "frame-ancestors 'self'" in policy


async def test_files_are_to_be_kept_and_not_shown(shown: Shown) -> None:
    job = await only_job(shown)
    answer = await shown.visitor.get(f"/jobs/{job}/files/report.html")
    assert answer.text == "<p>done</p>"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''report.html"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len("<p>done</p>"))


async def test_what_there_is_not_is_said_in_a_page(shown: Shown) -> None:
    job = await only_job(shown)
    paths = ["/jobs/nowhere", f"/jobs/{job}/files/nothing", f"/jobs/{job}/files/..%2F..%2Fshoal.db", "/nowhere"]
    for path in (*paths, "/jobs/nowhere/report", "/jobs/nowhere/events", "/static/x/nothing.js", "/jobs/"):
        answer = await shown.visitor.get(path)
        assert answer.status == 404, path
        assert "To the jobs" in answer.text, path
        assert "Traceback" not in answer.text, path


async def test_a_file_that_is_gone_from_the_store_is_said(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    (job,) = stored_result(settings, "one")
    async with showing(settings) as shown:
        for path in (settings.state_dir / "artifacts").glob("??/*"):
            if path.is_file():
                path.chmod(0o600)
                path.unlink()
        answer = await shown.visitor.get(f"/jobs/{job}/report/frame")
    assert answer.status == 500
    assert str(settings.state_dir) not in answer.text


async def test_only_signing_in_and_out_can_be_sent(shown: Shown) -> None:
    job = await only_job(shown)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/jobs", f"/jobs/{job}", "/devices"):
            assert (await shown.visitor.ask(method, path, {}, "")).status == 405, (method, path)


async def test_devices_are_shown_with_their_health(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    settings.state_dir.mkdir()
    database = Database(settings.database)
    agents = AgentStore(database)
    agents.add("quiet")
    agents.add("jetson")
    runtimes = [{"name": "tensorrt", "version": "10.3", "device": "cuda:0"}]
    health = {"temperature_celsius": 54.5, "power_mode": "MAXN"}
    device = {"description": HOSTILE, "cores": 8, "runtimes": runtimes, "health": health}
    agents.register("jetson", "session", device)
    database.close()
    async with showing(settings) as shown:
        answer = await shown.visitor.get("/devices")

    for text in (
        "local/cpu",
        "agent/quiet",
        "never",
        "Offline",
        "agent/jetson/cuda:0",
        "tensorrt 10.3",
        "54",
        "MAXN",
        "Idle",
    ):
        assert text in answer.text, text
    assert "<script>alert" not in answer.text


async def test_pages_have_one_main_heading_labels_and_a_way_past_the_navigation(shown: Shown) -> None:
    job = await only_job(shown)
    for path in ("/jobs", f"/jobs/{job}", "/devices", f"/jobs/{job}/report", "/nowhere"):
        outline = Outline((await shown.visitor.get(path)).text)
        assert len(outline.of("h1")) == 1, path
        assert len(outline.of("main")) == 1, path
        assert outline.of("html") == [{"lang": "en"}], path
        assert outline.of("a")[0]["href"] == "#main", path
        ids = {attributes["id"] for _, attributes in outline.tags if "id" in attributes}
        assert {one["aria-labelledby"] for _, one in outline.tags if "aria-labelledby" in one} <= ids, path


async def test_assets_are_kept_for_good_and_named_by_their_content(shown: Shown) -> None:
    outline = Outline((await shown.visitor.get("/jobs")).text)
    addresses = [outline.of("script")[0]["src"], *(one["href"] for one in outline.of("link"))]
    for address in addresses:
        assert address is not None
        assert address.startswith("/static/")
        answer = await shown.visitor.get(address)
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in answer.text


async def test_pages_are_counted_by_their_pattern(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path, metrics_address="127.0.0.1:0")
    (job,) = stored_result(settings, "one")
    async with showing(settings) as shown:
        for path in (f"/jobs/{job}", f"/jobs/{job}", "/jobs/other", "/nowhere"):
            await shown.visitor.get(path)
        assert shown.server.metrics_port is not None
        metrics = (await type(shown.visitor)(shown.server.metrics_port).get("/metrics")).text

    assert 'shoal_web_seconds_count{route="/jobs/{job}",status="200"} 2.0' in metrics
    assert 'shoal_web_seconds_count{route="/jobs/{job}",status="404"} 1.0' in metrics
    assert 'shoal_web_seconds_count{route="other",status="404"} 1.0' in metrics
    assert job not in metrics


async def test_without_the_extra_the_server_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "service.web.serving", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ListenError, match=r"need uvicorn, which is not installed; install shoal\[web\]"):
        await create(shown_settings(tmp_path)).start()

    server = create(settings_for(tmp_path / "other"))
    await server.start()
    await server.stop()
    assert server.web_port is None


async def test_an_address_in_use_is_said(tmp_path: Path) -> None:
    async with showing(shown_settings(tmp_path / "one")) as shown:
        taken = shown_settings(tmp_path / "two", web_address=f"127.0.0.1:{shown.visitor.port}")
        with pytest.raises(ListenError, match="for browsers"):
            await create(taken).start()


async def test_programs_get_text_where_browsers_get_pages(shown: Shown) -> None:
    answer = await shown.visitor.ask("GET", "/jobs/nowhere", {"accept": "application/json"})
    assert answer.status == 404
    assert answer.text == "there is no job 'optimizationJobs/nowhere'\n"

"""Who may look at pages, and what a browser is told to hold."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.access.principal import OPERATOR_FILE, Scope
from service.access.tokens import TokenStore
from service.database.database import Database
from service.settings import ServerSettings
from service.web.site import known_hosts
from tests.service.callers import make_admin, make_tokens
from tests.service.certificates import Authority
from tests.service.server_harness import worker_command
from tests.service.web.visiting import PAGE, showing, shown_settings, stored_waiting

BUSY = {"worker_command": worker_command("sleep")}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def forget(settings: ServerSettings, name: str) -> None:
    database = Database(settings.database)
    TokenStore(database).remove(name)
    database.close()


async def test_on_this_machine_nobody_has_to_sign_in_before_there_is_a_token(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    async with showing(settings) as shown:
        assert (await shown.visitor.get("/jobs")).status == 200
        assert (await shown.visitor.get("/login")).headers["location"] == "/jobs"
        make_tokens(settings, "alice")
        assert (await shown.visitor.get("/jobs")).status == 303


async def test_with_tokens_browsers_are_sent_to_sign_in_and_programs_refused(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    make_tokens(settings, "alice")
    async with showing(settings) as shown:
        for path in ("/jobs", "/jobs/x", "/devices", "/jobs/x/report", "/jobs/x/report/frame", "/jobs/x/files/y"):
            answer = await shown.visitor.get(path)
            assert (answer.status, answer.headers["location"]) == (303, f"/login?next={path.replace('/', '%2F')}")
            assert (await shown.visitor.ask("GET", path, {})).status == 401
        events = await shown.visitor.ask("GET", "/jobs/x/events", {"accept": "text/event-stream"})
    assert events.status == 401
    assert events.headers["www-authenticate"] == "Bearer"


async def test_everybody_sees_their_own_jobs_only(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path, **BUSY)
    alice, bob = make_tokens(settings, "alice", "bob")
    admin = make_admin(settings)
    hers, his = stored_waiting(settings, "hers", "alice"), stored_waiting(settings, "his", "bob")
    async with showing(settings) as shown:
        for token, seen, hidden in ((alice, {hers}, {his}), (bob, {his}, {hers}), (admin, {hers, his}, set())):
            listed = await shown.visitor.get("/jobs", **bearer(token))
            assert f'All <span class="n">{len(seen)}</span>' in listed.text
            for job in seen:
                assert f"/jobs/{job}" in listed.text
                assert (await shown.visitor.get(f"/jobs/{job}", **bearer(token))).status == 200
            for job in hidden:
                assert job not in listed.text
                for part in ("", "/events", "/report", "/report/frame", "/files/model.onnx"):
                    assert (await shown.visitor.get(f"/jobs/{job}{part}", **bearer(token))).status == 404, part


async def test_a_token_without_the_scope_may_not_look(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    (token,) = make_tokens(settings, "writer", scopes=frozenset({Scope.ARTIFACTS_WRITE}))
    async with showing(settings) as shown:
        answer = await shown.visitor.get("/jobs", **bearer(token))
        form = await shown.visitor.post("/login", {"token": token})
    assert answer.status == 403
    assert "jobs:read" in answer.text
    assert form.status == 403
    assert "set-cookie" not in form.headers


async def test_signing_in_gives_a_cookie_that_is_not_the_token(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    (token,) = make_tokens(settings, "alice")
    async with showing(settings) as shown:
        answer = await shown.visitor.post("/login", {"token": f" {token}\n", "next": "/devices"})
        cookie, *attributes = answer.headers["set-cookie"].split("; ")
        page = await shown.visitor.get("/jobs", cookie=cookie)

    assert (answer.status, answer.headers["location"]) == (303, "/devices")
    assert token not in answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert "Secure" not in attributes
    assert page.status == 200
    assert "alice" in page.text
    assert "Sign out" in page.text


async def test_signing_out_ends_the_session_and_not_only_the_cookie(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    (token,) = make_tokens(settings, "alice")
    async with showing(settings) as shown:
        cookie = await shown.visitor.sign_in(token)
        answer = await shown.visitor.post("/logout", {}, cookie=cookie)
        again = await shown.visitor.get("/jobs", cookie=cookie)
    assert answer.headers["location"] == "/login"
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert again.status == 303


async def test_a_session_ends_with_its_token(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    alice, _ = make_tokens(settings, "alice", "bob")
    async with showing(settings) as shown:
        cookie = await shown.visitor.sign_in(alice)
        assert (await shown.visitor.get("/jobs", cookie=cookie)).status == 200
        forget(settings, "alice")
        assert (await shown.visitor.get("/jobs", cookie=cookie)).status == 303


async def test_the_operator_may_sign_in_with_the_token_in_the_state_folder(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    make_tokens(settings, "alice")
    async with showing(settings) as shown:
        cookie = await shown.visitor.sign_in((settings.state_dir / OPERATOR_FILE).read_text())
        assert "local" in (await shown.visitor.get("/jobs", cookie=cookie)).text


async def test_a_wrong_token_is_refused_and_soon_no_more_may_be_tried(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    make_tokens(settings, "alice")
    async with showing(settings) as shown:
        answers = [await shown.visitor.post("/login", {"token": f"wrong{at}"}) for at in range(12)]
    assert answers[0].status == 401
    assert "Nobody has this token" in answers[0].text
    assert "set-cookie" not in answers[0].headers
    assert answers[-1].status == 429
    assert int(answers[-1].headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
)
async def test_another_site_cannot_send_our_forms(tmp_path: Path, headers: dict[str, str]) -> None:
    settings = shown_settings(tmp_path)
    (token,) = make_tokens(settings, "alice")
    async with showing(settings) as shown:
        cookie = await shown.visitor.sign_in(token)
        for path, fields in (("/login", {"token": token}), ("/logout", {})):
            assert (await shown.visitor.post(path, fields, cookie=cookie, **headers)).status == 403
        assert (await shown.visitor.get("/jobs", cookie=cookie)).status == 200


@pytest.mark.parametrize("onward", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/\nx", ""])
async def test_after_signing_in_one_stays_on_this_site(tmp_path: Path, onward: str) -> None:
    settings = shown_settings(tmp_path)
    (token,) = make_tokens(settings, "alice")
    async with showing(settings) as shown:
        answer = await shown.visitor.post("/login", {"token": token, "next": onward})
    assert answer.headers["location"] == "/jobs"


async def test_forms_of_another_kind_or_size_are_refused(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    make_tokens(settings, "alice")
    async with showing(settings) as shown:
        json = await shown.visitor.ask("POST", "/login", PAGE | {"content-type": "application/json"}, "{}")
        large = await shown.visitor.post("/login", {"token": "x" * 20_000})
    assert (json.status, large.status) == (400, 400)


async def test_a_name_that_is_not_ours_is_refused_on_this_machine(tmp_path: Path) -> None:
    async with showing(shown_settings(tmp_path, web_names=("shoal.example",))) as shown:
        for host in ("evil.example", f"evil.example:{shown.visitor.port}", "127.0.0.1.evil.example", ""):
            assert (await shown.visitor.get("/jobs", host=host)).status == 421, host
        for host in ("localhost", f"127.0.0.1:{shown.visitor.port}", "[::1]:80", "LOCALHOST:1", "shoal.example"):
            assert (await shown.visitor.get("/jobs", host=host)).status == 200, host


def test_beyond_this_machine_any_name_will_do_unless_some_are_given(tmp_path: Path) -> None:
    beyond = {"web_address": "0.0.0.0:1", "insecure_remote": True}
    assert known_hosts(shown_settings(tmp_path, **beyond)) == frozenset()
    assert known_hosts(shown_settings(tmp_path, **beyond, web_names=("Shoal.example",))) == {"shoal.example"}


async def test_pages_that_others_can_reach_ask_for_a_token_even_where_calls_do_not(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path, web_address="0.0.0.0:0", insecure_remote=True)
    async with showing(settings) as shown:
        assert (await shown.visitor.get("/jobs")).status == 303
        assert (await shown.visitor.get("/jobs", **bearer("anything"))).status == 303


@pytest.mark.parametrize("address", ["0.0.0.0:1", "example.org:1", "[::]:1"])
def test_pages_leave_this_machine_only_by_tls_or_when_said_so(tmp_path: Path, address: str) -> None:
    with pytest.raises(ValidationError, match="web_address"):
        shown_settings(tmp_path, web_address=address)
    assert shown_settings(tmp_path, web_address=address, insecure_remote=True).web_remote
    assert shown_settings(tmp_path, web_address=address, tls_cert="a", tls_key="b").web_remote


async def test_over_tls_cookies_never_go_without_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("server")
    settings = shown_settings(tmp_path, tls_cert=files.cert, tls_key=files.key)
    (token,) = make_tokens(settings, "alice")
    async with showing(settings, ssl.create_default_context(cafile=authority.pem)) as shown:
        answer = await shown.visitor.post("/login", {"token": token})
        page = await shown.visitor.get("/jobs", cookie=answer.headers["set-cookie"].partition(";")[0])
    assert answer.headers["set-cookie"].startswith("__Host-shoal-session=")
    assert answer.headers["set-cookie"].endswith("; Secure")
    assert page.status == 200


async def test_new_certificates_are_shown_without_a_restart(tmp_path: Path) -> None:
    first, second = Authority(tmp_path), Authority(tmp_path, "second")
    files = first.issue("server")
    settings = shown_settings(tmp_path, tls_cert=files.cert, tls_key=files.key)
    async with showing(settings, ssl.create_default_context(cafile=second.pem)) as shown:
        with pytest.raises(ssl.SSLCertVerificationError):
            await shown.visitor.get("/jobs")
        second.issue("server")
        assert (await shown.visitor.get("/jobs")).status == 200
        files.key.write_text("nonsense")
        assert (await shown.visitor.get("/jobs")).status == 200


async def test_the_common_name_of_a_certificate_says_who_looks(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    files = authority.issue("server")
    tls = {"tls_cert": files.cert, "tls_key": files.key, "tls_client_ca": authority.pem, "tls_client_names": True}
    settings = shown_settings(tmp_path, **tls)
    context = ssl.create_default_context(cafile=authority.pem)
    own = authority.issue("carol", None)
    async with showing(settings, context) as shown:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shown.visitor.get("/jobs")
        context.load_cert_chain(own.cert, own.key)
        assert "carol" in (await shown.visitor.get("/jobs")).text
        foreign = stranger.issue("carol", None, "foreign")
        context.load_cert_chain(foreign.cert, foreign.key)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shown.visitor.get("/jobs")

"""The site: which address leads to which page."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.rates import RateLimit
from service.loopback import is_loopback
from service.server.servicer import Parts
from service.settings import ServerSettings
from service.watching.meter import Meter
from service.web.devices import Devices
from service.web.doorway import Doorway, not_found
from service.web.drawing import assets
from service.web.files import Files
from service.web.jobs import Jobs
from service.web.signing import HOME, Signing
from service.web.stories import Stories
from service.web.stream import Streams
from service.web.visitors import Visitors

_FOR_GOOD: Final = "public, max-age=31536000, immutable"


def make_site(parts: Parts, meter: Meter) -> ASGIApp:
    """Returns the site of a server, as an ASGI application."""
    settings = parts.settings
    tls = settings.tls_cert is not None
    rates = RateLimit(settings.principal_calls_per_second, settings.principal_burst)
    gate = parts.gate.closed() if settings.web_remote else parts.gate
    visitors = Visitors(gate, rates, tls=tls)
    stories = Stories(parts.jobs)
    jobs, files = Jobs(parts, visitors, stories), Files(parts, visitors)
    streams, signing = Streams(parts, visitors, stories), Signing(visitors)
    routes = [
        Route("/", _home),
        Route("/jobs", jobs.all),
        Route("/jobs/{job}", jobs.one),
        Route("/jobs/{job}/events", streams.events),
        Route("/jobs/{job}/report", files.report),
        Route("/jobs/{job}/report/frame", files.framed),
        Route("/jobs/{job}/files/{filename}", files.download),
        Route("/devices", Devices(parts, visitors).all),
        Route("/login", signing.form),
        Route("/login", signing.sign_in, methods=["POST"]),
        Route("/logout", signing.sign_out, methods=["POST"]),
        Route("/static/{digest}/{name}", _asset),
    ]
    router = Router(routes, redirect_slashes=False, default=_nowhere)
    return Doorway(router, meter, known_hosts(settings))


def known_hosts(settings: ServerSettings) -> frozenset[str]:
    """Returns the names that browsers may call the server by; empty for any, where everybody has to sign in anyway."""
    names = {name.lower() for name in settings.web_names}
    assert settings.web_address is not None
    if not is_loopback(settings.web_address):
        return frozenset(names)
    host = settings.web_address.rpartition(":")[0].lower()
    return frozenset({*names, host, "localhost", "127.0.0.1", "[::1]"})


async def _home(request: Request) -> Response:  # noqa: ARG001 (as all pages)
    return RedirectResponse(HOME, 303)


async def _asset(request: Request) -> Response:
    found = assets().get(request.path_params["name"])
    if found is None:
        raise not_found(request)
    return Response(found.content, media_type=found.media_type, headers={"cache-control": _FOR_GOOD})


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 (an application)
    raise not_found(Request(scope))

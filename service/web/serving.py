"""Serves the site over HTTP, in the event loop of the gRPC server."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import ListenError
from service.settings import ServerSettings
from service.web.tls import server_context
from service.web.visitors import COMMON_NAME

_MOST_CONNECTIONS = 2000


@final
class WebServer:
    """An HTTP server that was created but does not listen yet, or does, or was stopped."""

    def __init__(self, site: ASGIApp, settings: ServerSettings) -> None:
        """Prepares to serve an application.

        Raises:
            TlsError: The certificates cannot be used.
        """
        assert settings.web_address is not None
        self._address = settings.web_address
        self._config = uvicorn.Config(
            site,
            http=_protocol,  # type: ignore[arg-type]  # anything that makes a protocol will do
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            # Who believes these headers believes whoever sends them.
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=max(1, round(settings.stop_grace)),
        )
        self._config.load()
        self._config.ssl = server_context(settings)
        self._server = uvicorn.Server(self._config)
        self._ticking: asyncio.Task[None] | None = None

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "http" if self._config.ssl is None else "https"

    async def start(self) -> int:
        """Listens; returns the port.

        Raises:
            ListenError: The address cannot be listened on.
        """
        listening = _listen(self._address)
        # In parts, since `serve` as a whole would take SIGTERM and SIGINT away from the gRPC server.
        self._server.lifespan = self._config.lifespan_class(self._config)
        await self._server.startup([listening])
        self._ticking = asyncio.create_task(self._server.main_loop())
        return int(listening.getsockname()[1])

    async def stop(self) -> None:
        """Ends: pages that are being sent get the server's grace, streams have to end by themselves."""
        if self._ticking is None:
            return
        self._server.should_exit = True
        await self._ticking
        await self._server.shutdown()


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, where = found[0]
        return socket.create_server(where[:2], family=family, backlog=512)
    except (OSError, OverflowError) as exc:
        raise ListenError(f"cannot listen on {address} for browsers: is it in use, or not ours?") from exc


def _protocol(**arguments: Any) -> H11Protocol:
    """Returns what speaks to one browser, and tells the application of its certificate."""
    protocol = H11Protocol(**arguments)
    inside = protocol.app

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        connection = protocol.transport.get_extra_info("ssl_object")
        scope[COMMON_NAME] = None if connection is None else common_name(connection)
        await inside(scope, receive, send)

    protocol.app = application
    return protocol


def common_name(connection: ssl.SSLObject) -> str | None:
    """Returns the first common name of the subject of the other side's certificate; None without one."""
    subject: Any = (connection.getpeercert() or {}).get("subject", ())
    names = [str(value) for part in subject for key, value in part if key == "commonName"]
    return names[0] if names else None

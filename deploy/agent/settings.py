"""How an agent works."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import grpc

from deploy.sandbox import Mode


@dataclass(frozen=True)
class AgentSettings:
    """What the user of a device says.

    Attributes:
        server: Where the server is, `HOST:PORT`.
        token: Who the agent is; made by `shoal agents add` on the server.
        folder: For files on their way, and for answers that the server has not taken yet.
        credentials: For TLS; None for plain text, in which the token can be read on its way.
        cool_below: Degrees Celsius that the device has to be below before it is measured; None to measure at once.
        cool_seconds: Longest wait for that.
        sandbox: Whether work is confined by what the system offers (`auto`), only if it offers all (`required`), or not
            at all (`off`).
        cache_bytes: Files from the server are kept up to this, so that they need not be sent again.
    """

    server: str
    token: str = field(repr=False)
    folder: Path
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    cool_below: float | None = 75.0
    cool_seconds: float = 300.0
    sandbox: Mode = "auto"
    cache_bytes: int = 4 << 30

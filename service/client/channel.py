"""How the client connects: keepalive, message sizes, and which calls gRPC itself may repeat."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Final

import grpc

from service.client.security import TokenInterceptor, check_exposure, check_token

SERVICE: Final = "shoal.v1.ModelOptimizer"

# Safe to repeat: these only read, or carry an identifier (request_id) that makes a repetition harmless. Streams are
# resumed by the client's own loops, which know how far they got.
_RETRIED: Final = (
    "CreateOptimizationJob",
    "GetOptimizationJob",
    "ListOptimizationJobs",
    "CancelOptimizationJob",
    "GetUploadStatus",
    "ListStrategies",
)
_RETRY_POLICY: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.2s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_OPTIONS: Final[tuple[tuple[str, str | int], ...]] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A quiet watch sends nothing for hours; without this gRPC stops pinging after two pings and misses a dead peer.
    ("grpc.http2.max_pings_without_data", 0),
    # The defaults wait a second, then up to two minutes, before they look for a restarted server again.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 1),
    (
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [{"service": SERVICE, "method": method} for method in _RETRIED],
                        "retryPolicy": _RETRY_POLICY,
                    }
                ]
            }
        ),
    ),
)


@dataclass(frozen=True)
class Access:
    """What is shown to a server.

    Attributes:
        token: Who calls; None for nobody.
        credentials: For TLS; None for plain text.
        insecure: A token may be sent in plain text to another machine.
    """

    token: str | None = field(default=None, repr=False)
    credentials: grpc.ChannelCredentials | None = None
    insecure: bool = False


def open_channel(address: str, access: Access) -> grpc.Channel:
    """Opens a channel; it connects at the first call.

    Args:
        address: `HOST:PORT`, or any other gRPC target such as `unix:/path`.
        access: What to show.

    Raises:
        ValueError: The token cannot be sent, or would be sent to where anybody on the way can read it.
    """
    token, credentials = access.token, access.credentials
    if token is not None:
        check_token(token)
    if credentials is not None:
        if token is not None:
            credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
        return grpc.secure_channel(address, credentials, options=_OPTIONS)
    if token is not None and not access.insecure:
        check_exposure(address)
    channel = grpc.insecure_channel(address, options=_OPTIONS)
    return channel if token is None else grpc.intercept_channel(channel, TokenInterceptor(token))


def pause_after(failures: int) -> float:
    """Returns how long to wait before the next attempt, in seconds: doubling from 0.1 to 2, with jitter.

    Args:
        failures: Attempts in a row that failed, at least 1.
    """
    return float(min(2.0, 0.1 * 2 ** (failures - 1)) * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not secrecy

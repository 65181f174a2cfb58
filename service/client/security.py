"""What the client shows to the server, and to whom it may be shown."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import grpc

from service.loopback import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_HEADER: Final = "authorization"


def tls_credentials(
    ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials:
    """Returns credentials for TLS, to be given to `Client`.

    Args:
        ca: Authorities to trust, PEM. Default: those that gRPC knows.
        cert: The client's own certificate, PEM, for a server that asks for one; with `key`.
        key: Its private key, PEM, without a passphrase.

    Raises:
        ValueError: A file is not what it should be, or the key is not the certificate's.
        OSError: A file cannot be read.
    """
    if (cert is None) != (key is None):
        raise ValueError("a client's certificate and its key belong together; give both or neither")
    read = [None if path is None else path.read_bytes() for path in (ca, key, cert)]
    # gRPC takes anything and fails at each call without saying why, so OpenSSL is asked first.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError as exc:
            raise ValueError(f"'{ca}' holds no certificates in PEM form") from exc
    if cert is not None and key is not None:
        try:
            context.load_cert_chain(cert, key, password="")
        except ssl.SSLError as exc:
            raise ValueError(
                f"'{cert}' and '{key}' cannot be used as certificate and key ({exc.reason or exc}); wanted are PEM "
                "files that belong together, the key without a passphrase"
            ) from exc
    return grpc.ssl_channel_credentials(*read)


def check_token(token: str) -> None:
    """Makes sure that a token can be sent.

    Raises:
        ValueError: It cannot: it is empty or has characters that no header may have. It is not repeated in the message.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token is empty or has spaces or special characters in it; it looks like shoal-token-...")


def check_exposure(address: str) -> None:
    """Makes sure that a token may go to `address` in plain text.

    Raises:
        ValueError: It could be read on the way.
    """
    if not is_loopback(address):
        raise ValueError(
            f"the token could be read on its way to {address}; use TLS (--tls, --tls-ca FILE or credentials=...), or "
            "say that the network is trusted (--insecure or insecure=True)"
        )


@final
@dataclass(frozen=True)
class _Details(grpc.ClientCallDetails):
    """A call's details, as grpc reads them."""

    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


@final
class TokenInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    """Sends a token with each call over plain text, where gRPC's own call credentials refuse to."""

    def __init__(self, token: str) -> None:
        """Sends `token`."""
        self._entry = (_HEADER, f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Adds the token."""
        return continuation(self._with(details), request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Adds the token."""
        return continuation(self._with(details), request)

    def intercept_stream_unary(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        """Adds the token."""
        return continuation(self._with(details), requests)

    def _with(self, details: Any) -> _Details:
        return _Details(
            details.method,
            details.timeout,
            (*(details.metadata or ()), self._entry),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )

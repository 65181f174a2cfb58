"""The certificates that browsers see: those of the gRPC port, read again when their files change."""

from __future__ import annotations

import logging
import ssl
from typing import final

from service.errors import TlsError
from service.server.tls import TlsFiles, read_certificates, stamp
from service.settings import ServerSettings

_LOG = logging.getLogger(__name__)


def server_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """Returns what the server proves itself with; None for plain text.

    Raises:
        TlsError: A file cannot be read, is not what it should be, or the key is not the certificate's.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return _Certificates(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)).first


@final
class _Certificates:
    """What the files hold. Asked at each handshake, in the event loop: it takes a look at three files."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = stamp(files)
        self.first = self._latest = _make_context(files)
        # The library has no other place to choose a context in; it asks for every connection, with a name or without.
        self.first.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        seen = stamp(self._files)
        if seen != self._seen:
            try:
                self._latest = _make_context(self._files)
            except TlsError as exc:
                _LOG.error("keeping the certificates that were read before: %s", exc)
            self._seen = seen
        if self._latest is not self.first:
            connection.context = self._latest


def _make_context(files: TlsFiles) -> ssl.SSLContext:
    read_certificates(files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A session that is taken up again would outlive its authority.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.load_cert_chain(files.cert, files.key)
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(files.client_ca)
    return context

"""The server's certificates, read again when their files change."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import final

import grpc

from service.errors import TlsError
from service.settings import ServerSettings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TlsFiles:
    """Where certificates are; see the settings of the same names."""

    cert: Path
    key: Path
    client_ca: Path | None


def server_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """Returns what the server proves itself with; None for plain text.

    Raises:
        TlsError: A file cannot be read, is not what it should be, or the key is not the certificate's.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    certificates = _Certificates(files)
    return grpc.dynamic_ssl_server_credentials(
        certificates.first,
        certificates.changed,  # type: ignore[arg-type]  # the stubs do not know that None means: as before
        require_client_authentication=files.client_ca is not None,
    )


@final
class _Certificates:
    """What the files hold, and whether that has changed. Asked at each handshake, from threads of gRPC's."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = stamp(files)
        self.first = read_certificates(files)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns what to use from now on; None for what was used before."""
        try:
            signature = stamp(self._files)
            if signature == self._seen:
                return None
            self._seen = signature
            found = read_certificates(self._files)
            if stamp(self._files) != signature:
                self._seen = ()  # in the middle of being replaced: look again next time
                return None
        except TlsError as exc:
            _LOG.error("keeping the certificates that were read before: %s", exc)
            return None
        _LOG.info("read new certificates from %s", self._files.cert)
        return found


def read_certificates(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """Returns what is in the files, once it is sure that it can be used.

    Raises:
        TlsError: It cannot; says which file and why.
    """
    # gRPC takes anything and fails at each handshake, so OpenSSL is asked first.
    cert, key = _read(files.cert, "tls_cert"), _read(files.key, "tls_key")
    roots = None if files.client_ca is None else _read(files.client_ca, "tls_client_ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except ssl.SSLError as exc:
        raise TlsError(_reason(files, exc)) from exc
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError as exc:
            raise TlsError(f"tls_client_ca '{files.client_ca}' holds no certificates in PEM form") from exc
    return grpc.ssl_server_certificate_configuration([(key, cert)], roots)


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise TlsError(f"cannot read {setting} '{path}': {exc.strerror}") from exc


def _no_password() -> str:
    # Otherwise OpenSSL would ask at the terminal.
    raise TlsError("the key in tls_key has a passphrase, which nobody can enter in a server; store it without one")


def _reason(files: TlsFiles, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in '{files.key}' does not belong to the certificate in '{files.cert}'"
    return (
        f"'{files.cert}' and '{files.key}' cannot be used as certificate and key ({error.reason or error}); wanted are "
        "PEM files, the server's own certificate first in its chain"
    )


def stamp(files: TlsFiles) -> tuple[object, ...]:
    """Returns what is different once a file has changed."""
    return tuple(_stamp_of(path) for path in (files.cert, files.key, files.client_ca) if path is not None)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

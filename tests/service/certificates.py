"""Certificates that tests make for themselves."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Files:
    """Where a certificate and its key are."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; its own is `folder/NAME.pem`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(f"{name} of tests")
        self.pem = folder / f"{name}.pem"
        self.pem.write_bytes(_pem(self._signed(self._name, self._key, x509.BasicConstraints(True, None))))

    def issue(self, name: str, host: str | None = "127.0.0.1", file: str | None = None) -> Files:
        """A certificate for a common name, and for a host unless that is None."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = None if host is None else x509.SubjectAlternativeName([_host(host)])
        cert = self._signed(_named(name), key, x509.BasicConstraints(False, None), alternative)
        stem = file or name.replace("/", "_")
        files = Files(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        files.cert.write_bytes(_pem(cert))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType | None
    ) -> x509.Certificate:
        moment = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - _DAY)
            .not_valid_after(moment + _DAY)
        )
        for extension in extensions:
            if extension is not None:
                builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)

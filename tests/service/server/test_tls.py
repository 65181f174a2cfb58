"""Servers that speak TLS, and those who call them rightly and wrongly."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.agent.link import Link
from deploy.agent.settings import AgentSettings
from protos.shoal.v1 import device_pb2
from service.client import Client, PermissionDeniedError, UnavailableError, tls_credentials
from service.errors import TlsError
from service.server import create
from service.server.tls import TlsFiles, read_certificates
from service.settings import ServerSettings
from tests.service.callers import make_tokens
from tests.service.certificates import Authority, Files
from tests.service.server.test_agents import known
from tests.service.server_harness import settings_for


@dataclass(frozen=True)
class Keys:
    """Certificates, all of one authority."""

    authority: Authority
    server: Files


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    authority = Authority(tmp_path)
    return Keys(authority, authority.issue("server"))


def tls_settings(tmp_path: Path, keys: Keys, **changes: Any) -> ServerSettings:
    return settings_for(tmp_path, tls_cert=keys.server.cert, tls_key=keys.server.key, **changes)


@asynccontextmanager
async def serving(settings: ServerSettings) -> AsyncIterator[str]:
    server = create(settings)
    try:
        yield f"127.0.0.1:{await server.start()}"
    finally:
        await server.stop()


async def asked(address: str, **access: Any) -> list[str]:
    """The names of the caller's jobs: a call that takes a connection and a caller."""

    def ask() -> list[str]:
        with Client(address, timeout=10, **access) as client:
            return [job.name for job in client.list()]

    return await asyncio.to_thread(ask)


async def refused(kind: type[Exception], address: str, **access: Any) -> str:
    """What a call is refused with. It is one that gRPC does not repeat for seconds where no connection comes about."""

    def ask() -> None:
        with Client(address, timeout=10, **access) as client:
            next(client.devices(), None)

    with pytest.raises(kind) as caught:
        await asyncio.to_thread(ask)
    return str(caught.value)


async def test_over_tls_a_token_says_who_calls(tmp_path: Path, keys: Keys) -> None:
    settings = tls_settings(tmp_path, keys)
    trusting = tls_credentials(keys.authority.pem)
    async with serving(settings) as address:
        assert await asked(address, credentials=trusting) == []  # nobody has made a token yet
        (token,) = make_tokens(settings, "alice")
        assert await asked(address, credentials=trusting, token=token) == []
        assert "shoal tokens add" in await refused(PermissionDeniedError, address, credentials=trusting)
        told = await refused(PermissionDeniedError, address, credentials=trusting, token="shoal-token-wrong")
        assert "nobody has this token" in told


async def test_callers_who_do_not_fit_are_told_why(tmp_path: Path, keys: Keys) -> None:
    stranger = Authority(tmp_path, "stranger")
    async with serving(tls_settings(tmp_path, keys)) as address:
        assert "so must you (--tls, --tls-ca)" in await refused(UnavailableError, address)
        told = await refused(UnavailableError, address, credentials=tls_credentials(stranger.pem))
        assert "not signed by an authority that you trust" in told
    async with serving(settings_for(tmp_path)) as address:
        told = await refused(UnavailableError, address, credentials=tls_credentials(keys.authority.pem))
        assert "does not speak TLS" in told


async def test_a_certificate_for_another_host_is_told(tmp_path: Path, keys: Keys) -> None:
    elsewhere = Keys(keys.authority, keys.authority.issue("elsewhere", "example.org"))
    async with serving(tls_settings(tmp_path, elsewhere)) as address:
        told = await refused(UnavailableError, address, credentials=tls_credentials(keys.authority.pem))
    assert "is for another host name" in told


async def test_a_server_may_ask_for_certificates_and_take_names_from_them(tmp_path: Path, keys: Keys) -> None:
    settings = tls_settings(tmp_path, keys, tls_client_ca=keys.authority.pem, tls_client_names=True)
    own = keys.authority.issue("alice", None)
    false = Authority(tmp_path, "stranger").issue("mallory", None)
    nobody = keys.authority.issue("no principal", None)

    def credentials(files: Files) -> Any:
        return tls_credentials(keys.authority.pem, files.cert, files.key)

    async with serving(settings) as address:
        assert await asked(address, credentials=credentials(own)) == []
        told = await refused(UnavailableError, address, credentials=tls_credentials(keys.authority.pem))
        assert "may ask for a certificate" in told
        await refused(UnavailableError, address, credentials=credentials(false))
        told = await refused(PermissionDeniedError, address, credentials=credentials(nobody))
        assert "'no principal', cannot be a principal" in told


async def test_new_certificates_are_taken_without_a_restart(
    tmp_path: Path, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trusting = tls_credentials(keys.authority.pem)
    other = keys.authority.issue("elsewhere", "example.org", file="other")
    async with serving(tls_settings(tmp_path, keys)) as address:
        assert await asked(address, credentials=trusting) == []

        keys.server.cert.write_text("half of a certifi")
        assert await asked(address, credentials=trusting) == []
        assert "keeping the certificates that were read before" in caplog.text

        shutil.copy(other.cert, keys.server.cert)
        shutil.copy(other.key, keys.server.key)
        assert "is for another host name" in await refused(UnavailableError, address, credentials=trusting)


async def test_beyond_this_machine_tls_is_enough(tmp_path: Path, keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    settings = tls_settings(tmp_path, keys, address="0.0.0.0:0")
    (token,) = make_tokens(settings, "alice")
    async with serving(settings) as address:
        assert await asked(address, credentials=tls_credentials(keys.authority.pem), token=token) == []
    assert "without TLS" not in caplog.text


async def test_a_devices_agent_calls_over_tls_with_its_own_token(tmp_path: Path, keys: Keys) -> None:
    settings = tls_settings(tmp_path, keys)
    make_tokens(settings, "alice")
    token, stop = known(settings), threading.Event()
    async with serving(settings) as address:
        agent = AgentSettings(address, token, tmp_path / "agent", tls_credentials(keys.authority.pem))
        link = Link(agent, "session-of-a-test", stop)
        answer = await asyncio.to_thread(link.register, device_pb2.Device())
        stop.set()
    assert answer.name == "agent/edge"


async def test_a_devices_agent_shows_a_certificate_where_one_is_asked_for(tmp_path: Path, keys: Keys) -> None:
    settings = tls_settings(tmp_path, keys, tls_client_ca=keys.authority.pem)
    make_tokens(settings, "alice")
    token, stop, own = known(settings), threading.Event(), keys.authority.issue("edge", host=None)
    async with serving(settings) as address:
        credentials = tls_credentials(keys.authority.pem, own.cert, own.key)
        link = Link(AgentSettings(address, token, tmp_path / "agent", credentials), "session-of-a-test", stop)
        answer = await asyncio.to_thread(link.register, device_pb2.Device())
        stop.set()
    assert answer.name == "agent/edge"


async def test_a_server_does_not_start_with_certificates_that_do_not_fit(tmp_path: Path, keys: Keys) -> None:
    other = keys.authority.issue("other")
    settings = settings_for(tmp_path, tls_cert=keys.server.cert, tls_key=other.key)
    with pytest.raises(TlsError, match="does not belong to the certificate"):
        await create(settings).start()


def _missing(keys: Keys) -> TlsFiles:
    return TlsFiles(keys.server.cert.with_name("absent.pem"), keys.server.key, None)


def _garbage(keys: Keys) -> TlsFiles:
    keys.server.cert.write_text("no certificate")
    return TlsFiles(keys.server.cert, keys.server.key, None)


def _no_authority(keys: Keys) -> TlsFiles:
    return TlsFiles(keys.server.cert, keys.server.key, keys.server.key)


def _with_passphrase(keys: Keys) -> TlsFiles:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(keys.server.key.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"passphrase")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    keys.server.key.write_bytes(pem)
    return TlsFiles(keys.server.cert, keys.server.key, None)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (_missing, r"cannot read tls_cert '.*absent\.pem': No such file"),
        (_garbage, "cannot be used as certificate and key"),
        (_no_authority, "tls_client_ca '.*' holds no certificates"),
        (_with_passphrase, "has a passphrase"),
    ],
)
def test_files_that_cannot_be_used_are_named(keys: Keys, broken: Callable[[Keys], TlsFiles], told: str) -> None:
    with pytest.raises(TlsError, match=told):
        read_certificates(broken(keys))

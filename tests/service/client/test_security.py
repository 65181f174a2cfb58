"""What the client shows, and to whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.client import Client, tls_credentials
from service.client.channel import Access
from service.loopback import is_loopback
from tests.service.certificates import Authority

TOKEN = "shoal-token-" + "t" * 43


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/tmp/shoal.sock"])
def test_a_token_goes_to_this_machine_in_plain_text(address: str) -> None:
    assert is_loopback(address)
    Client(address, token=TOKEN).close()


@pytest.mark.parametrize("address", ["10.0.0.1:1", "example.org:1", "0.0.0.0:1", "dns:///localhost:1", "example"])
def test_a_token_goes_nowhere_else_in_plain_text_unless_that_was_said(address: str) -> None:
    with pytest.raises(ValueError, match="could be read on its way") as caught:
        Client(address, token=TOKEN)
    assert TOKEN not in str(caught.value)
    Client(address, token=TOKEN, insecure=True).close()
    Client(address, token=TOKEN, credentials=tls_credentials()).close()
    Client(address).close()


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "é", "a\x00"])
def test_a_token_that_no_header_can_have_is_refused_unrepeated(token: str) -> None:
    with pytest.raises(ValueError, match="the token is empty or has spaces") as caught:
        Client("127.0.0.1:1", token=token + TOKEN if token else token)
    assert TOKEN not in str(caught.value)


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(Access(TOKEN))


def test_credentials_of_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("one"), authority.issue("other")
    with pytest.raises(ValueError, match="belong together; give both or neither"):
        tls_credentials(cert=one.cert)
    with pytest.raises(ValueError, match="KEY_VALUES_MISMATCH"):
        tls_credentials(cert=one.cert, key=other.key)
    with pytest.raises(ValueError, match="holds no certificates"):
        tls_credentials(ca=one.key)
    with pytest.raises(FileNotFoundError):
        tls_credentials(ca=tmp_path / "absent.pem")

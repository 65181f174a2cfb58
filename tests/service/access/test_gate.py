"""Who is let in, by what they show and where the server listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.access.gate import Gate, Shown, write_operator_token
from service.access.principal import DEFAULT_SCOPES, LOCAL, OPERATOR_FILE, Principal
from service.access.tokens import NewToken, TokenStore
from service.database.database import Database
from service.errors import UnauthenticatedError

Make = Callable[..., Gate]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TokenStore]:
    database = Database(f"sqlite:///{tmp_path / 'shoal.db'}")
    yield TokenStore(database)
    database.close()


@pytest.fixture
def gate(store: TokenStore, tmp_path: Path) -> Make:
    operator = write_operator_token(tmp_path)
    return lambda local_only=True, names=False: Gate(
        store, local_only=local_only, certificate_names=names, operator=operator
    )


def test_without_tokens_a_server_of_this_machine_is_open(gate: Make) -> None:
    assert gate().admit(Shown()) == LOCAL
    assert gate().admit(Shown("Bearer of-another-server")) == LOCAL


def test_without_tokens_a_server_that_others_can_reach_is_closed(gate: Make) -> None:
    with pytest.raises(UnauthenticatedError, match="`shoal tokens add NAME` on the server's machine"):
        gate(local_only=False).admit(Shown())
    with pytest.raises(UnauthenticatedError, match="nobody has this token"):
        gate(local_only=False).admit(Shown("Bearer anything"))


def test_the_first_token_closes_it_at_once(gate: Make, store: TokenStore) -> None:
    open_gate = gate()
    assert open_gate.admit(Shown()) == LOCAL
    token = store.add(NewToken("alice"))

    with pytest.raises(UnauthenticatedError, match="has to know who calls"):
        open_gate.admit(Shown())
    with pytest.raises(UnauthenticatedError, match="nobody has this token"):
        open_gate.admit(Shown("Bearer wrong"))
    assert open_gate.admit(Shown(f"Bearer {token}")).name == "alice"
    assert open_gate.admit(Shown(f"bearer  {token} ")).name == "alice"


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "token"])
def test_other_kinds_of_authorization_are_refused(gate: Make, store: TokenStore, header: str) -> None:
    store.add(NewToken("alice"))
    with pytest.raises(UnauthenticatedError, match="of another kind") as caught:
        gate().admit(Shown(header))
    assert "YTpi" not in str(caught.value)


def test_a_certificate_is_a_name_only_where_that_was_said(gate: Make, store: TokenStore) -> None:
    assert gate(names=True).admit(Shown(common_name="alice")) == Principal("alice", DEFAULT_SCOPES)
    with pytest.raises(UnauthenticatedError):
        gate(local_only=False).admit(Shown(common_name="alice"))


def test_where_certificates_are_names_nobody_is_local(gate: Make) -> None:
    with pytest.raises(UnauthenticatedError):
        gate(names=True).admit(Shown())


@pytest.mark.parametrize("name", ["local", "", "a b", "a/b", "x" * 64])
def test_some_common_names_are_nobodys(gate: Make, name: str) -> None:
    with pytest.raises(UnauthenticatedError, match="cannot be a principal"):
        gate(names=True).admit(Shown(common_name=name))


def test_a_token_counts_before_a_certificate(gate: Make, store: TokenStore) -> None:
    token = store.add(NewToken("bob"))
    assert gate(names=True).admit(Shown(f"Bearer {token}", "alice")).name == "bob"
    with pytest.raises(UnauthenticatedError, match="nobody has this token"):
        gate(names=True).admit(Shown("Bearer wrong", "alice"))


def test_who_reads_the_state_folder_is_the_operator(gate: Make, store: TokenStore, tmp_path: Path) -> None:
    store.add(NewToken("alice"))
    token = (tmp_path / OPERATOR_FILE).read_text()

    assert gate(local_only=False).admit(Shown(f"Bearer {token}")) == LOCAL
    assert (tmp_path / OPERATOR_FILE).stat().st_mode & 0o777 == 0o600


def test_the_operators_token_is_another_at_each_start(tmp_path: Path) -> None:
    first = write_operator_token(tmp_path)
    text = (tmp_path / OPERATOR_FILE).read_text()
    assert write_operator_token(tmp_path) != first
    assert (tmp_path / OPERATOR_FILE).read_text() != text

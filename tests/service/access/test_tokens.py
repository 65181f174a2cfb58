"""Tokens: who shows one, what it allows, how it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text, update

from service.access.principal import DEFAULT_SCOPES, Principal, Scope, read_scopes
from service.access.tokens import NewToken, TokenStore
from service.database.clock import now
from service.database.database import Database
from service.database.tables import TokenRow
from service.errors import AlreadyExistsError, InvalidRequestError, NotFoundError, UnauthenticatedError


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    found = Database(database_url)
    yield found
    found.close()


@pytest.fixture
def store(database: Database) -> TokenStore:
    return TokenStore(database)


def test_a_token_says_who_calls_and_what_they_may_do(store: TokenStore) -> None:
    alice = store.add(NewToken("alice"))
    reader = store.add(NewToken("dashboard", "alice", frozenset({Scope.JOBS_READ})))

    assert store.authenticate(alice) == Principal("alice", DEFAULT_SCOPES)
    assert store.authenticate(reader) == Principal("alice", frozenset({Scope.JOBS_READ}))


def test_a_token_has_256_random_bits_and_is_kept_as_a_hash_only(store: TokenStore, database: Database) -> None:
    token = store.add(NewToken("alice"))
    with database.read() as session:
        rows = session.execute(text("select * from tokens")).all()

    assert len(token.removeprefix("shoal-token-")) == 43  # base64 of 32 bytes
    assert len(rows) == 1
    assert token not in str(rows)
    assert token.removeprefix("shoal-token-") not in str(rows)


@pytest.mark.parametrize("wrong", ["", "shoal-token-", "x" * 1000, "shoal-token-é", "\x00"])
def test_what_is_no_token_is_refused(store: TokenStore, wrong: str) -> None:
    store.add(NewToken("alice"))
    with pytest.raises(UnauthenticatedError, match="nobody has this token"):
        store.authenticate(wrong)


def test_a_removed_token_is_worth_nothing(store: TokenStore) -> None:
    token = store.add(NewToken("alice"))
    store.remove("alice")

    with pytest.raises(UnauthenticatedError, match="nobody has this token"):
        store.authenticate(token)
    with pytest.raises(NotFoundError):
        store.remove("alice")
    assert not store.any()


def test_an_expired_token_is_refused_and_says_so(store: TokenStore, database: Database) -> None:
    token = store.add(NewToken("alice", lifetime=timedelta(days=1)))
    assert store.authenticate(token).name == "alice"
    with database.write() as session:
        session.execute(update(TokenRow).values(expire_time=now()))

    with pytest.raises(UnauthenticatedError, match="'alice' has expired"):
        store.authenticate(token)
    assert [one.expired for one in store.all()] == [True]
    assert store.any()  # an expired token opens nothing


def test_an_agents_token_is_told_apart(store: TokenStore) -> None:
    with pytest.raises(UnauthenticatedError, match="token of a device's agent"):
        store.authenticate("shoal-agent-abc")


def test_a_name_is_given_once(store: TokenStore) -> None:
    store.add(NewToken("alice"))
    with pytest.raises(AlreadyExistsError, match="remove it first"):
        store.add(NewToken("alice", "bob"))


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "../x", "a" * 64, "é", "a\n"])
def test_names_keep_to_the_rule(store: TokenStore, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="name: must be"):
        store.add(NewToken(name))
    if name:
        with pytest.raises(InvalidRequestError, match="principal: must be"):
            store.add(NewToken("fine", name))


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(days=-1), timedelta.max])
def test_a_token_lives_for_a_time_that_there_is(store: TokenStore, lifetime: timedelta) -> None:
    with pytest.raises(InvalidRequestError, match="expires"):
        store.add(NewToken("alice", lifetime=lifetime))


def test_scopes_are_read_by_name() -> None:
    assert read_scopes(()) == DEFAULT_SCOPES
    assert Scope.ADMIN not in DEFAULT_SCOPES
    assert read_scopes(("jobs:read", "admin")) == {Scope.JOBS_READ, Scope.ADMIN}
    with pytest.raises(InvalidRequestError, match="'jobs' is none; there are: jobs:read, "):
        read_scopes(("jobs",))


def test_admins_may_do_everything_and_see_everything() -> None:
    admin, alice = Principal("root", frozenset({Scope.ADMIN})), Principal("alice")

    assert all(admin.may(scope) for scope in Scope)
    assert (admin.sees, alice.sees) == (None, "alice")
    assert not Principal("alice", frozenset({Scope.JOBS_READ})).may(Scope.JOBS_WRITE)

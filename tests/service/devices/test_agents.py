"""Who may speak for a device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from service.database.database import Database
from service.devices.agents import AgentStore
from service.errors import AgentRefusedError, AlreadyExistsError, InvalidRequestError, NotFoundError


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    found = Database(database_url)
    yield found
    found.close()


@pytest.fixture
def store(database: Database) -> AgentStore:
    return AgentStore(database)


def test_a_token_says_who_calls(store: AgentStore) -> None:
    tokens = {name: store.add(name) for name in ("edge", "other")}
    assert {name: store.authenticate(token).name for name, token in tokens.items()} == {
        "edge": "edge",
        "other": "other",
    }


def test_a_token_is_kept_as_a_hash_only(store: AgentStore, database: Database) -> None:
    token = store.add("edge")
    with database.read() as session:
        rows = session.execute(text("select * from agents")).all()
    assert len(rows) == 1
    assert token not in str(rows)


def test_a_removed_agents_token_is_worth_nothing(store: AgentStore) -> None:
    token = store.add("edge")
    store.remove("edge")
    with pytest.raises(AgentRefusedError, match="no agent has this token"):
        store.authenticate(token)
    with pytest.raises(NotFoundError):
        store.remove("edge")


def test_a_name_is_given_once(store: AgentStore) -> None:
    store.add("edge")
    with pytest.raises(AlreadyExistsError, match="remove it first"):
        store.add("edge")


@pytest.mark.parametrize("name", ["", "Edge", "1edge", "a/b", "../x", "a" * 64])
def test_a_name_keeps_to_the_rule(name: str, store: AgentStore) -> None:
    with pytest.raises(InvalidRequestError, match="name"):
        store.add(name)


def test_the_later_session_speaks_and_the_earlier_one_cannot_take_it_back(store: AgentStore) -> None:
    store.add("edge")
    for session in ("session-one", "session-two"):
        store.register("edge", session, {})
    with pytest.raises(AgentRefusedError, match="another process speaks for agent/edge now: it was started later"):
        store.register("edge", "session-one", {}, goes_on=True)
    assert store.register("edge", "session-two", {}, goes_on=True).session == "session-two"


def test_a_session_that_never_began_cannot_go_on(store: AgentStore) -> None:
    store.add("edge")
    with pytest.raises(AgentRefusedError, match="no process has registered agent/edge yet"):
        store.register("edge", "session-one", {}, goes_on=True)


def test_an_agent_that_was_heard_of_is_online(store: AgentStore) -> None:
    store.add("edge")
    assert not store.get("edge").online
    runtimes = [{"name": "onnxruntime", "version": "1.31"}]
    assert store.register("edge", "session-one", {"runtimes": runtimes}).online
    assert store.get("edge").runtimes == {("onnxruntime", "cpu"): "1.31"}
    assert store.get("edge").session == "session-one"

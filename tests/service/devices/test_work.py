"""The queue of device work: one answer for each piece, whoever dies when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from service.database.database import Database
from service.devices import work as module
from service.devices.agents import AgentStore
from service.devices.work import MOST_LEASES, DeviceWork, Held, StoredFile, WorkAnswer, WorkState, WorkStore
from service.errors import AgentRefusedError

ANSWER = WorkAnswer((StoredFile("result.json", 2, "0" * 64),), None, 1.5)
OTHER = WorkAnswer((), ("DataError", "wrong"), 0.5)


@pytest.fixture
def store(database_url: str) -> Iterator[WorkStore]:
    database = Database(database_url)
    AgentStore(database).add("edge")
    yield WorkStore(database)
    database.close()


def piece(number: int = 1, job: str = "optimizationJobs/a", agent: str = "edge") -> DeviceWork:
    files = (StoredFile("model.onnx", 10, "1" * 64),)
    return DeviceWork(f"work-{number}", job, agent, WorkState.WAITING, "run", {"n": number}, files, 0, "", None)


def held(work: DeviceWork, session: str) -> Held:
    return Held(work.agent, session, work.id, work.lease)


def leased(store: WorkStore, session: str = "one") -> DeviceWork:
    """The next piece of work of a session that took over, or had before."""
    AgentStore(store._database).register("edge", session, {})
    found = store.lease("edge", session)
    assert found is not None
    return found


def test_work_is_given_out_in_the_order_it_came(store: WorkStore) -> None:
    for number in (1, 2):
        store.add(piece(number))
    first = leased(store)
    assert (first.id, first.lease, first.state) == ("work-1", 1, WorkState.LEASED)
    assert store.complete(held(first, "one"), ANSWER)
    assert leased(store).id == "work-2"


def test_what_is_there_is_not_added_again(store: WorkStore) -> None:
    store.add(piece())
    store.complete(held(leased(store), "one"), ANSWER)
    again = store.add(replace(piece(), request={"other": True}))
    assert (again.state, again.answer, again.request) == (WorkState.DONE, ANSWER, {"n": 1})


def test_another_agents_work_is_not_given_out(store: WorkStore) -> None:
    store.add(piece(agent="other"))
    AgentStore(store._database).register("edge", "one", {})
    assert store.lease("edge", "one") is None


def test_asking_again_gives_the_same_lease(store: WorkStore) -> None:
    store.add(piece())
    store.add(piece(2))
    assert leased(store) == leased(store)


def test_a_new_session_takes_over_and_the_old_one_counts_no_more(store: WorkStore) -> None:
    store.add(piece())
    old, new = leased(store, "one"), leased(store, "two")
    assert (new.id, new.lease) == (old.id, 2)
    assert not store.renew(held(old, "one"), "still here")
    assert not store.complete(held(old, "one"), OTHER)
    assert store.complete(held(new, "two"), ANSWER)
    found = store.find("work-1")
    assert found is not None
    assert found.answer == ANSWER


def test_an_old_session_that_waits_gets_nothing_of_the_new_one(store: WorkStore) -> None:
    store.add(piece())
    new = leased(store, "two")
    with pytest.raises(AgentRefusedError, match="another process speaks for agent/edge now"):
        store.lease("edge", "one")
    assert leased(store, "two") == new


def test_a_session_of_a_removed_agent_gets_nothing(store: WorkStore) -> None:
    store.add(piece())
    leased(store)
    AgentStore(store._database).remove("edge")
    with pytest.raises(AgentRefusedError, match="agent/edge was removed"):
        store.lease("edge", "one")


def test_a_lease_that_ran_out_is_given_out_again(store: WorkStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(piece())
    monkeypatch.setattr(module, "LEASE", timedelta(seconds=-1))
    first = leased(store)
    assert store.expire() == ["edge"]
    assert leased(store).lease == first.lease + 1


def test_an_answer_after_the_lease_ran_out_counts_while_nobody_else_has_it(
    store: WorkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(piece())
    monkeypatch.setattr(module, "LEASE", timedelta(seconds=-1))
    first = leased(store)
    store.expire()
    assert store.renew(held(first, "one"), "was away")
    assert store.complete(held(first, "one"), ANSWER)


def test_work_that_is_lost_every_time_fails(store: WorkStore) -> None:
    store.add(piece())
    store.add(piece(2))
    lost = [leased(store, f"session-{number}") for number in range(MOST_LEASES)]
    assert {work.id for work in lost} == {"work-1"}

    assert leased(store, "the next").id == "work-2"
    found = store.find("work-1")
    assert found is not None
    assert found.answer is not None
    assert found.answer.failure is not None
    assert f"agent/edge was given this work (`run`) {MOST_LEASES} times" in found.answer.failure[1]
    assert not store.complete(held(lost[-1], f"session-{MOST_LEASES - 1}"), ANSWER)


def test_a_lease_that_is_kept_is_not_counted_as_lost(store: WorkStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(piece())
    first = leased(store)
    monkeypatch.setattr(module, "LEASE", timedelta(seconds=-1))
    for _ in range(2 * MOST_LEASES):
        assert store.renew(held(first, "one"), "slow")
        store.expire()
        assert store.renew(held(first, "one"), "was away")
        assert leased(store) == store.find("work-1")
    assert leased(store).lease == 1


def test_an_answer_that_is_sent_twice_counts_once_and_is_told_so_twice(store: WorkStore) -> None:
    store.add(piece())
    first = held(leased(store), "one")
    assert store.complete(first, ANSWER)
    assert store.complete(first, OTHER)
    found = store.find("work-1")
    assert found is not None
    assert found.answer == ANSWER


def test_dropped_work_is_no_longer_wanted(store: WorkStore) -> None:
    store.add(piece())
    store.add(piece(2, job="optimizationJobs/b"))
    first = leased(store)
    assert store.drop("optimizationJobs/a") == ["work-1"]
    assert not store.renew(held(first, "one"), "")
    assert not store.complete(held(first, "one"), ANSWER)
    assert store.find("work-1") is None
    assert leased(store).id == "work-2"


def test_what_waits_and_what_is_under_way_is_counted(store: WorkStore) -> None:
    for number in (1, 2, 3):
        store.add(piece(number))
    store.complete(held(leased(store), "one"), ANSWER)
    leased(store)
    assert store.waiting() == {"edge": (1, 1)}


def test_what_an_agent_says_is_kept(store: WorkStore) -> None:
    store.add(piece())
    store.renew(held(leased(store), "one"), "x" * 5000)
    found = store.find("work-1")
    assert found is not None
    assert found.message == "x" * 2000

from __future__ import annotations

from service.web.sessions import LIFETIME, Sessions


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_is_found_by_its_id_and_nothing_else() -> None:
    sessions = Sessions()
    session_id = sessions.open("hash")
    found = sessions.find(session_id)
    assert found is not None
    assert found.token_hash == "hash"
    assert sessions.find("hash") is None
    assert sessions.find("") is None
    assert session_id not in repr(vars(sessions))


def test_sessions_have_ids_of_their_own() -> None:
    sessions = Sessions()
    assert sessions.open("hash") != sessions.open("hash")


def test_a_session_ends_by_itself() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    session_id = sessions.open("hash")
    clock.now = LIFETIME - 1
    assert sessions.find(session_id) is not None
    clock.now = LIFETIME
    assert sessions.find(session_id) is None


def test_a_closed_session_is_gone() -> None:
    sessions = Sessions()
    session_id = sessions.open("hash")
    sessions.close(session_id)
    sessions.close("never there")
    assert sessions.find(session_id) is None

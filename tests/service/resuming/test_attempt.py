"""Whose numbers may be used, and what a job says when it goes on."""

from pathlib import Path

from service.resuming.attempt import opening, writer_of
from service.resuming.journal import Kept
from tests.service.worker.test_main import order_in


def test_a_first_attempt_says_nothing_of_others() -> None:
    assert opening(Kept()) == "Loading and checking the model"


def test_a_later_attempt_names_the_furthest_phase_and_the_time_that_is_gone() -> None:
    told = opening(Kept(seconds={"plan": 30.0, "load": 5.4, "baseline": 2.0}))
    assert told == "Going on from the phase plan, after 37 s: loading and checking the model"


def test_what_nobody_knows_is_called_so() -> None:
    assert "phase unknown" in opening(Kept(seconds={"rest": 1.0}))


def test_numbers_count_for_the_same_job_on_the_same_machine(tmp_path: Path) -> None:
    one = order_in(tmp_path)
    other = one.model_copy(update={"spec": one.spec.model_copy(update={"seed": one.spec.seed + 1})})
    assert writer_of(one) == writer_of(order_in(tmp_path))
    assert writer_of(one) != writer_of(other)

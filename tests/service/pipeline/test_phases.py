"""Progress of a whole job out of what its phases say."""

import time

import pytest

from service.pipeline.phases import SHARES, Phases


class Listener:
    def __init__(self) -> None:
        self.calls: list[tuple[str, float, str, dict[str, float]]] = []

    def __call__(self, phase, fraction, message, metrics) -> None:
        self.calls.append((phase, fraction, message, dict(metrics)))


def test_shares_add_up_to_the_whole() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)


def test_progress_never_goes_backwards_and_ends_at_one() -> None:
    listener = Listener()
    phases = Phases(listener, 60)
    for name in SHARES:
        with phases.phase(name, "began"):
            phases(0.7, "most of it")
            phases(0.2, "said less")
            phases(1.0, "done")
    fractions = [fraction for _, fraction, _, _ in listener.calls]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)


def test_time_inside_an_inner_phase_is_not_the_outer_ones() -> None:
    phases = Phases(Listener(), 60)
    with phases.phase("plan", "planning"):
        with phases.phase("tune", "training"):
            time.sleep(0.05)
        outer = phases.seconds.get("plan", 0.0)
    assert phases.seconds["tune"] >= 0.05
    assert outer < 0.05
    assert sum(phases.seconds.values()) <= phases.elapsed


def test_what_follows_an_inner_phase_is_reported_as_the_outer_one() -> None:
    listener = Listener()
    phases = Phases(listener, 60)
    with phases.phase("plan", "planning"):
        with phases.phase("tune", "training"):
            pass
        phases(0.5, "planning again")
    assert listener.calls[-1][0] == "plan"


def test_metrics_stay_but_an_estimate_counts_once_and_includes_what_follows() -> None:
    listener = Listener()
    phases = Phases(listener, 60)
    phases.seconds["baseline"] = 8.0
    with phases.phase("tune", "training"):
        phases(0.5, "half", {"loss": 1.0, "seconds_left": 5.0})
        phases(0.6, "more")
    _, _, _, half = listener.calls[-2]
    assert half["seconds_left"] > 5.0
    assert listener.calls[-1][3] == {"loss": 1.0}


def test_the_time_of_earlier_attempts_counts() -> None:
    phases = Phases(Listener(), 60, {"load": 5.0, "plan": 30.0})
    with phases.phase("load", "loading again"):
        pass
    assert 35 <= phases.elapsed < 40
    assert 55 < phases.seconds_left() <= 60
    assert phases.seconds["load"] >= 5.0
    assert sum(phases.seconds.values()) <= phases.elapsed


def test_note_is_taken_of_every_report() -> None:
    notes = []
    phases = Phases(Listener(), 60, {"load": 5.0}, lambda seconds: notes.append(dict(seconds)))
    with phases.phase("plan", "planning"):
        phases(0.5, "half")
    assert [set(seconds) for seconds in notes] == [{"load"}, *[{"load", "plan"}] * 3]
    spent = [sum(seconds.values()) for seconds in notes]
    assert spent == sorted(spent)
    assert spent[0] >= 5.0


def test_time_that_is_excluded_counts_neither_for_the_job_nor_for_its_phase() -> None:
    started = time.monotonic()
    phases = Phases(lambda *_: None, 100.0)
    with phases.phase("baseline", "timing"):
        time.sleep(0.2)
        phases.exclude(0.2)
    elapsed, left = phases.elapsed, phases.seconds_left()
    whole = time.monotonic() - started
    assert elapsed <= whole - 0.2
    assert phases.seconds["baseline"] <= whole - 0.2
    assert left >= 100.0 - (whole - 0.2)

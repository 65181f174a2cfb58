from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.cli import progress as picture
from service.cli.display import plain_line
from service.cli.progress import PHASES, Report

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float, phase: str, message: str = "", fraction: float = 0.0, left: float | None = None) -> Report:
    return Report(phase, START + timedelta(seconds=seconds), message, fraction, None, left)


def after(*reports: Report) -> picture.Progress:
    progress = picture.begin(upload=True)
    for report in reports:
        progress = picture.advance(progress, report)
    return progress


def marks(progress: picture.Progress) -> dict[str, str]:
    return {row.name: row.mark for row in progress.rows}


def test_a_new_phase_ends_the_last_one() -> None:
    progress = after(at(0, "upload"), at(2, "load", "reading"))
    upload, load = progress.rows[:2]
    assert (upload.mark, upload.start, upload.end) == ("done", START, START + timedelta(seconds=2))
    assert (load.mark, load.note, load.end) == ("active", "reading", None)
    assert progress.active is load


def test_the_note_of_a_phase_stays_until_it_says_something_else() -> None:
    progress = after(at(0, "plan", "layer1"), at(1, "plan"))
    assert progress.active is not None
    assert progress.active.note == "layer1"
    assert progress.active.start == START


def test_a_phase_that_is_passed_over_is_skipped() -> None:
    assert marks(after(at(0, "plan"), at(1, "export")))["tune"] == "skipped"


def test_work_that_starts_again_empties_what_follows() -> None:
    progress = after(at(0, "load"), at(1, "analyze"), at(5, "load"))
    assert marks(progress)["load"] == "active"
    assert marks(progress)["analyze"] == "waiting"
    assert progress.active is not None
    assert progress.active.start == START + timedelta(seconds=5)


def test_a_phase_of_a_newer_server_is_shown_too() -> None:
    assert after(at(0, "load"), at(1, "polish")).rows[-1].name == "polish"


def test_metrics_stay_and_estimates_do_not() -> None:
    first = Report("plan", START, metrics={"baseline_ms": 2.0}, seconds_left=60)
    progress = picture.advance(after(first), at(1, "plan"))
    assert progress.metrics == {"baseline_ms": 2.0}
    assert progress.seconds_left is None


def test_a_finished_job_has_no_phase_at_work() -> None:
    done = picture.finish(after(at(0, "load"), at(1, "report", fraction=0.98)), START, succeeded=True)
    assert set(marks(done).values()) == {"done", "skipped"}
    assert done.fraction == 1.0


def test_a_failed_job_shows_where() -> None:
    failed = picture.finish(after(at(0, "load"), at(1, "plan", fraction=0.4)), START, succeeded=False)
    assert marks(failed)["plan"] == "failed"
    assert failed.fraction == 0.4


@given(st.lists(st.sampled_from(PHASES), min_size=1, max_size=20))
def test_at_most_one_phase_is_at_work_and_it_is_the_last_one_heard_of(phases: list[str]) -> None:
    progress = after(*(at(second, phase) for second, phase in enumerate(phases)))
    assert [row.name for row in progress.rows if row.mark == "active"] == [phases[-1]]


def test_plain_lines_say_how_far_what_and_how_long() -> None:
    report = Report("plan", START, "fitting layer1", 0.42, {"baseline_ms": 1.9249, "loss": 0.5}, 95)
    progress = after(report)
    assert progress.active is not None
    assert plain_line(progress, progress.active) == (
        "[ 42 %, about 2 min left] plan: fitting layer1 (baseline 1.92 ms, loss 0.500)"
    )

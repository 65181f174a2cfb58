from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from service.batch.outcome import Measured, ModelOutcome, PrecisionFound, PrecisionTried, QualityPair
from service.batch.plot import draw
from service.batch.run import Done
from service.batch.summary import Summary, ordered, render, summarise, write_summary

SPAN = ("2026-01-01T20:00:00+00:00", "2026-01-02T06:00:00+00:00")
QUALITY = QualityPair(
    name="top-1 accuracy", unit="fraction", higher_is_better=True,
    before=Measured(value=0.92, low=0.91, high=0.93), after=Measured(value=0.91, low=0.9, high=0.92), count=1000,
)  # fmt: skip
MET = ModelOutcome(
    name="fast", version="3", verdict="BUDGET_MET", speedup=Measured(value=1.8, low=1.7, high=1.9), before_ms=4.0,
    after_ms=2.2, budget_ms=2.4, quality=QUALITY, job="optimizationJobs/one", seconds=60.0, folder="fast-v3-aa",
)  # fmt: skip
BLIND = MET.model_copy(update={"name": "blind", "quality": None, "job": "optimizationJobs/two", "folder": ""})
SLOW = MET.model_copy(
    update={"name": "slow", "verdict": "BUDGET_NOT_MET", "speedup": Measured(value=1.1, low=1.0, high=1.2)}
)
BAD = ModelOutcome(name="<b>bad</b>", verdict="REFUSED", reason="its network is pickled & never opened", blame="caller")
DONE = [Done(BAD, fresh=False), Done(SLOW, fresh=True), Done(BLIND, fresh=True), Done(MET, fresh=False)]


def test_totals_count_each_job_once() -> None:
    totals = summarise("folder models", SPAN, DONE).totals
    assert (totals.models, totals.budget_met, totals.budget_not_met, totals.refused, totals.fresh) == (4, 2, 1, 1, 2)
    assert totals.seconds == 120.0


def test_the_best_news_comes_first() -> None:
    assert [one.outcome.name for one in ordered(summarise("x", SPAN, DONE))] == ["blind", "fast", "slow", "<b>bad</b>"]


def test_the_json_is_the_whole_record(tmp_path: Path) -> None:
    summary = summarise("folder models", SPAN, DONE)
    data, page = write_summary(summary, tmp_path)
    assert Summary.model_validate_json(data.read_text()) == summary
    assert page.read_text().startswith("<!DOCTYPE html>") or page.read_text().lstrip().startswith("<!DOCTYPE html>")


def test_the_page_is_escaped_needs_nothing_else_and_links_only_reports_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "fast-v3-aa").mkdir()
    (tmp_path / "fast-v3-aa/report.html").write_text("report")
    page = render(summarise("folder models", SPAN, DONE), tmp_path)
    assert "<b>bad" not in page
    assert "pickled &amp; never opened" in page
    seen: list[tuple[str, dict[str, str | None]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: seen.append((tag, dict(attributes)))  # type: ignore[method-assign]
    parser.feed(page)
    assert {tag for tag, _ in seen}.isdisjoint({"script", "iframe", "img"})
    links = [attributes["href"] for tag, attributes in seen if tag == "a"]
    assert links == ["fast-v3-aa/report.html", "fast-v3-aa/report.html"]


def test_the_page_says_the_precision_and_what_stood_against_others(tmp_path: Path) -> None:
    tried = (
        PrecisionTried(precision="fp32", computes="fp32", latency_ms=2.2, returned=True),
        PrecisionTried(precision="int8", computes="int8", returned=False, passed_over="it is <not> good enough"),
    )
    found = PrecisionFound(asked="auto", returned="fp32", computes="fp32", tried=tried)
    summary = summarise("x", SPAN, [Done(MET.model_copy(update={"precision": found}), fresh=True)])
    page = render(summary, tmp_path)
    assert "<td>fp32<details>" in page
    assert "it is &lt;not&gt; good enough" in page
    assert Summary.model_validate_json(summary.model_dump_json()) == summary


def test_a_mark_sits_where_its_numbers_are() -> None:
    plot = draw([MET, SLOW, BLIND])
    assert plot is not None
    met, slow, blind = plot.marks
    assert plot.same_speed < slow.x < met.x
    assert met.y > plot.same_accuracy
    assert met.across == (plot.frame.x(1.7), plot.frame.x(1.9))
    assert (met.style, slow.style, blind.known) == ("result", "base", False)
    assert plot.strip == blind.y > plot.frame.y.start


def test_nothing_is_drawn_of_models_without_a_speed_up() -> None:
    assert draw([BAD]) is None

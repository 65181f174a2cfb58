"""Figures other than accuracy in the report, on the wire and on the page."""

from __future__ import annotations

import math

import pytest
from google.protobuf.json_format import ParseDict

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.convert import result_fields
from service.report.charts import curves
from service.report.front import best_measured, front
from service.report.render import render
from service.report.schema import FigureReport, InputReport, QualityReport, Report
from tests.service.report import made

NOISE = FigureReport(name="noise-prediction error", unit="mean squared error", higher_is_better=False)
PRECISION = FigureReport(name="mean average precision")


def judged_by(figure: FigureReport, task: str, values: tuple[float, float], floor: float) -> Report:
    """Returns a report whose networks are judged by another figure."""
    given = made.report()

    def quality(value: float) -> QualityReport:
        return QualityReport(figure=figure, value=value, count=500)

    worse = values[1] - values[0]
    tried = tuple(
        c.model_copy(update={"selection_accuracy": None, "selection_quality": values[0] + worse * at / 4})
        for at, c in enumerate(given.candidates)
    )
    assert given.tuning is not None
    history = tuple(
        e.model_copy(update={"selection_accuracy": None, "selection_quality": values[1]}) for e in given.tuning.history
    )
    return made.report(
        task=task,
        figure=figure,
        divergence_unit="nats" if task == "multi_label" else "of the original's variance",
        baseline=given.baseline.model_copy(update={"accuracy": None, "quality": quality(values[0])}),
        result=given.result.model_copy(update={"accuracy": None, "quality": quality(values[1])}),
        candidates=tried,
        tuning=given.tuning.model_copy(update={"history": history}),
        accuracy_floor=None,
        quality_floor=floor,
    )


@pytest.fixture
def noise() -> Report:
    return judged_by(NOISE, "denoising", (0.031, 0.0342), 0.04)


def test_the_wire_carries_figure_value_unit_and_direction(noise: Report) -> None:
    result = ParseDict(result_fields(noise, []), job_pb.OptimizationResult())
    figure = job_pb.Figure(name="noise-prediction error", unit="mean squared error", higher_is_better=False)
    assert (result.task, result.figure, result.divergence_unit) == ("denoising", figure, "of the original's variance")
    assert result.result.quality == job_pb.Quality(figure=figure, value=0.0342, count=500)
    assert not result.result.HasField("accuracy")
    assert result.candidates[0].selection_quality == pytest.approx(0.031)


def test_the_page_names_figure_and_direction_and_never_accuracy_or_nats(noise: Report) -> None:
    page = render(noise)
    for words in ("Noise-prediction error", "Lower is better; mean squared error", "Limit 0.0400 held", "0.0342"):
        assert words in page
    assert "top-1" not in page
    assert "nats" not in page


def test_of_a_figure_where_less_is_better_less_is_above(noise: Report) -> None:
    drawn = front(noise.model_copy(update={"quality_floor": 0.036}))
    assert drawn is not None
    assert drawn.axis == "quality"
    assert drawn.frame.y(0.031) < drawn.frame.y(0.035)
    assert drawn.floor == drawn.frame.y(0.036)
    assert [point.style for point in drawn.points if point.shape == "diamond"] == ["base", "result"]
    best = best_measured(noise.candidates, noise.figure)
    values = [c.selection_quality or 0.0 for c in best]
    assert values == sorted(values, reverse=True)


def test_average_precision_is_shown_in_percent() -> None:
    report = judged_by(PRECISION, "multi_label", (0.81, 0.79), 0.75)
    page = render(report)
    assert "Mean average precision" in page
    assert "Higher is better" in page
    drawn = front(report)
    assert drawn is not None
    assert drawn.frame.y_title == "mean average precision in %"
    assert report.tuning is not None
    assert curves(report.tuning, report.figure)[0].frame.y_title == "held-back mean average precision in %"


def test_every_input_is_shown() -> None:
    inputs = tuple(InputReport(name=name, shape=(128,), dtype="int64") for name in ("input_ids", "attention_mask"))
    page = render(made.report(inputs=inputs))
    assert "input_ids 128, attention_mask 128" in page


def test_what_is_infinite_survives_being_read_again(noise: Report) -> None:
    ruined = noise.candidates[0].model_copy(update={"selection_quality": math.inf, "divergence": math.inf})
    report = noise.model_copy(update={"candidates": (*noise.candidates, ruined)})
    again = Report.model_validate_json(report.model_dump_json())
    assert again.candidates[-1].selection_quality == math.inf
    assert render(again)

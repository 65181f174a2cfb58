"""What the page says of precisions."""

from __future__ import annotations

import re

from service.report.precisions import PLAIN
from service.report.render import render
from service.report.schema import DifferenceReport, KeptReport, PrecisionReport, PrecisionTrialReport, Report
from tests.service.report import made


def trial(precision: str, **changes: object) -> PrecisionTrialReport:
    fields = {
        "precision": precision,
        "computes": precision,
        "latency_ms": 0.6,
        "speedup": 1.5,
        "selection_quality": 0.917,
        "agreement": 0.99,
        "divergence": 1e-3,
        "calibrator": None,
        "kept": 0,
        "operators": 54,
        "refusal": None,
        "chosen": False,
    }
    return PrecisionTrialReport.model_validate(fields | changes)


def in_int8() -> Report:
    """Returns a report of a job that shipped int8."""
    report = made.report(
        precisions=(
            trial("float32", latency_ms=0.9, speedup=1.0),
            trial("bfloat16", latency_ms=None, speedup=None, refusal="no <kernels> for it"),
            trial("int8", calibrator="mse", kept=2, chosen=True),
        )
    )
    kept = [KeptReport(node=f"Conv_{at}", op="Conv", reason="adds 2.0e-03 as error") for at in range(2)]
    precision = PrecisionReport(
        precision="int8",
        computes="int8",
        kept=tuple(kept),
        operators=54,
        calibrator="mse",
        calibration_samples=256,
        difference=DifferenceReport(agreement=0.9909, divergence=3e-4, samples=2048),
    )
    return report.model_copy(update={"result": report.result.model_copy(update={"precision": precision})})


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_every_precision_that_was_tried_is_there_with_what_stood_against_it() -> None:
    page = words(render(in_int8()))
    assert "numbers are written in int8" in page
    assert "chosen by mse on 256 calibration samples" in page
    assert "no bound is claimed" in page
    assert "no &lt;kernels&gt; for it" in page
    assert "int8 (returned)" in page
    assert "2 Conv: adds 2.0e-03 as error" in page
    assert "(original) and int8 (result)" in page


def test_nothing_is_marked_as_returned_where_the_original_is() -> None:
    report = made.report(precisions=(trial("float32", chosen=True),))
    original = report.baseline.model_copy(update={"precision": PLAIN})
    page = words(render(report.model_copy(update={"result": original})))
    assert "float32 (returned)" not in page
    assert "float32" in page.partition("Passed over because")[2]


def test_what_was_good_but_slower_says_so() -> None:
    assert "it takes 1.50x the time of int8" in words(render(in_int8()))


def test_a_report_without_precisions_has_no_such_section() -> None:
    page = render(made.report())
    assert 'id="precision"' not in page
    assert "#precision" not in page

"""Which precision is chosen: rules over attempts that were judged and timed."""

from __future__ import annotations

import pytest

from compressors.errors import OptionError
from deploy.bench import LocalBench
from deploy.precision.probe import probe
from service.judging.verdict import Verdict
from service.pipeline.conversion import Attempt, Conversion
from service.pipeline.precisions import FORMATS, Settled, check_precision, choose, explained
from service.spec import Budget, JobSpec, ModelSource, Target


def attempt(precision: str, speedup: float | None, refusal: str | None = None) -> Attempt:
    return Attempt(Conversion(precision, precision), None, refusal, speedup)


def spec(precision: str, runtime: str = "onnxruntime") -> JobSpec:
    target = Target(precision=precision, runtime=runtime)  # type: ignore[arg-type]
    return JobSpec(model=ModelSource(onnx_artifact="artifacts/model"), budget=Budget(fraction=0.5), target=target)


def test_the_fastest_that_is_good_enough_is_taken() -> None:
    tried = [attempt("float32", 1.2), attempt("float16", 1.5), attempt("int8", 2.0, "bad"), attempt("bfloat16", None)]
    chosen, reason = choose(tried, asked=None)
    assert chosen.precision == "float16"
    assert reason == "Of the precisions tried, float16 is the fastest: 1.25x float32's speed."


@pytest.mark.parametrize("speedup", [0.9, 1.0, 1.02])
def test_float32_is_kept_where_nothing_is_measurably_faster(speedup: float) -> None:
    chosen, reason = choose([attempt("float32", 1.0), attempt("int8", speedup)], asked=None)
    assert chosen.precision == "float32"
    assert reason == "No other precision is both good enough and faster than float32."


def test_what_was_asked_for_ships_though_it_gains_nothing() -> None:
    assert choose([attempt("float32", 1.5), attempt("float16", 1.49)], asked="float16")[0].precision == "float16"


def test_what_was_asked_for_does_not_ship_where_it_is_slower_than_float32() -> None:
    chosen, reason = choose([attempt("float32", 1.5), attempt("int8", 1.0)], asked="int8")
    assert chosen.precision == "float32"
    assert reason == "int8 was asked for and is not returned: it is 1.50x slower than float32 here."


def test_what_was_asked_for_does_not_ship_where_it_is_not_good_enough() -> None:
    chosen, reason = choose([attempt("float32", 1.0), attempt("int8", 2.0, "it is bad")], asked="int8")
    assert chosen.precision == "float32"
    assert reason == "int8 was asked for and is not returned: it is bad."


def test_float32_may_always_ship() -> None:
    assert all(formats[0] == "float32" for formats in FORMATS.values())


@pytest.mark.parametrize("precision", ["PRECISION_FP32", "PRECISION_AUTO", "PRECISION_FP16", "PRECISION_INT8"])
def test_what_a_runtime_can_run_is_accepted(precision: str) -> None:
    check_precision(spec(precision), LocalBench())


def test_what_a_runtime_cannot_run_is_refused_by_name() -> None:
    if probe(LocalBench("onnxruntime"), "bfloat16").refusal is None:
        pytest.skip("this ONNX Runtime runs bfloat16")
    with pytest.raises(OptionError, match=r"onnxruntime cannot run networks in bfloat16 on local/cpu") as caught:
        check_precision(spec("PRECISION_BF16"), LocalBench())
    assert caught.value.field == "target.precision"


def test_a_verdict_says_what_the_numbers_are_written_in() -> None:
    verdict = Verdict("BUDGET_MET", "The budget is met.")
    settled = Settled(attempt("int8", 2.0), (), "Its numbers are written in int8.")
    assert explained(verdict, settled).explanation == "The budget is met. Its numbers are written in int8."
    assert explained(verdict, None) == verdict

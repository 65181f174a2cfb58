from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli import parse


@pytest.mark.parametrize(
    ("text", "fraction", "latency_ms"),
    [
        ("0.6x", 0.6, None),
        (".5x", 0.5, None),
        (" 0.25 x ", 0.25, None),
        ("12ms", None, 12.0),
        ("1.5s", None, 1500.0),
        ("800us", None, 0.8),
        ("1e-1ms", None, 0.1),
    ],
)
def test_a_budget_is_a_fraction_or_a_time(text: str, fraction: float | None, latency_ms: float | None) -> None:
    found = parse.budget(text)
    assert found.fraction == fraction
    assert found.latency_ms == (pytest.approx(latency_ms) if latency_ms is not None else None)


@pytest.mark.parametrize("text", ["", "fast", "12", "12m", "0.6", "x", "ms", "-3ms", "1,5ms", "nan ms", "infx"])
def test_what_is_no_budget_is_quoted_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"no budget.*0\.6x.*12ms") as caught:
        parse.budget(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["0x", "1x", "1.2x", "0ms", "0.0s", "1e999ms"])
def test_a_budget_that_makes_no_sense_is_refused_with_its_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"between 0x and 1x|above zero"):
        parse.budget(text)


@given(st.floats(min_value=1e-6, max_value=1 - 1e-6))
def test_every_fraction_reads_back(value: float) -> None:
    assert parse.budget(f"{value!r}x").fraction == value


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_every_time_reads_back(value: float) -> None:
    assert parse.budget(f"{value!r}ms").latency_ms == value


@given(st.text(max_size=12))
def test_no_text_makes_the_parsers_raise_anything_but_value_errors(text: str) -> None:
    for read in (parse.budget, parse.duration, parse.sample_shape, parse.numbers, parse.fraction, parse.percentile):
        try:
            read(text)
        except ValueError as exc:
            assert "\n" not in str(exc).replace(repr(text), "")  # noqa: PT017 - most texts raise, some are fine


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("30min", 1800), ("2h", 7200), ("1h30m", 5400), ("1d", 86400), ("0.5 h", 1800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "30", "m", "30 minutes", "-5m", "1h 30", "5ms"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no duration.*30m"):
        parse.duration(text)


@pytest.mark.parametrize("text", ["0s", "99999999999999d"])
def test_a_duration_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="out of range"):
        parse.duration(text)


@given(st.integers(1, 99), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse.duration(f"{hours}h{minutes}m{seconds}s") == timedelta(hours=hours, minutes=minutes, seconds=seconds)


@given(st.integers())
def test_whole_numbers_are_read_in_their_range(value: int) -> None:
    if 0 <= value <= 1000:
        assert parse.whole(str(value), 0, 1000) == value
    else:
        with pytest.raises(ValueError, match="from 0 to 1000"):
            parse.whole(str(value), 0, 1000)


@pytest.mark.parametrize("text", ["", "1.5", "many", "0x10"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole number from 1 to 9"):
        parse.whole(text, 1, 9)


@pytest.mark.parametrize("text", ["3,32,32", "3x32x32", "3, 32, 32"])
def test_sample_shapes(text: str) -> None:
    assert parse.sample_shape(text) == (3, 32, 32)


@pytest.mark.parametrize("text", ["", "3,0,32", "3,-1", "a,b", "3.5,2", "3,,3", "3,99999999999999999999"])
def test_what_is_no_sample_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no sample shape.*3,32,32"):
        parse.sample_shape(text)


def test_numbers() -> None:
    assert parse.numbers("0.485, 0.456,0.406") == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("text", ["", "1,,2", "nan", "inf,1", "a"])
def test_what_is_no_list_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no list of numbers"):
        parse.numbers(text)


@pytest.mark.parametrize(("text", "value"), [("0.91", 0.91), ("91%", 0.91), ("91.5 %", 0.915), ("1", 1.0)])
def test_accuracies(text: str, value: float) -> None:
    assert parse.fraction(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["0", "91", "-1%", "101%", "nan", "good"])
def test_what_is_no_accuracy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no accuracy"):
        parse.fraction(text)


@pytest.mark.parametrize(("text", "value"), [("50", 50.0), ("p99", 99.0), ("P99.9", 99.9)])
def test_percentiles(text: str, value: float) -> None:
    assert parse.percentile(text) == value


@pytest.mark.parametrize("text", ["0", "100", "p", "median", "nan"])
def test_what_is_no_percentile_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        parse.percentile(text)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("refit=true", "refit", True),
        ("kernels=[1, 3]", "kernels", [1, 3]),
        ("mode=fast", "mode", "fast"),
        ('mode="fast"', "mode", "fast"),
        ("a=b=c", "a", "b=c"),
        ("ridge=1e-3", "ridge", 1e-3),
        ("name=", "name", ""),
    ],
)
def test_options_hold_json_or_else_text(text: str, key: str, value: object) -> None:
    assert parse.option(text) == (key, value)


@pytest.mark.parametrize("text", ["refit", "=3", " =3"])
def test_what_is_no_option_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="KEY=VALUE"):
        parse.option(text)


@pytest.mark.parametrize("text", ["x=NaN", "x=[Infinity]"])
def test_options_refuse_numbers_that_json_does_not_know(text: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        parse.option(text)


def test_architectures_are_told_from_files() -> None:
    assert parse.architecture("timm:resnet18.a1_in1k") == "timm:resnet18.a1_in1k"
    assert parse.architecture("models/net.pt2") is None
    assert parse.architecture("C:/net.pt2") is None


@pytest.mark.parametrize("text", ["timm:", "torchvision:res net", "timm:a/b"])
def test_a_broken_architecture_name_is_no_file(text: str) -> None:
    with pytest.raises(ValueError, match="no architecture name"):
        parse.architecture(text)
